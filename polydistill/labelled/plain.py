"""Sentences in words without tags, for teaching a model in a language that has no labels."""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from polydistill.catalog import Language, Task
from polydistill.catalog.task import CLASSIFICATION, SPAN_EXTRACTION
from polydistill.errors import PolydistillError, UsageError
from polydistill.labelled.codes import without_codes
from polydistill.labelled.examples import Example, LabelledSplit, PairExample, TaggedExample, TextExample
from polydistill.labelled.sources import find_rows
from polydistill.progress import SILENT, Progress
from polydistill.texts.sources import read_texts, text_sources

TEXT = "text"  # what a split of running text is called
# ISO 15924 codes of scripts without spaces between words.
WITHOUT_SPACES = frozenset(("Thai", "Laoo", "Khmr", "Mymr", "Tibt", "Hani", "Hans", "Hant", "Jpan", "Hira", "Kana"))


@dataclass(frozen=True)
class PlainSentences:
    """Sentences of one language.

    Args:
        language: Its code.
        sentences: Each a tuple of words.
        where: The files or the Hub data set; goes into records.
        sha256: Hash of the words alone, so that nothing kept by it can depend on a tag.
    """

    language: str
    sentences: tuple[tuple[str, ...], ...]
    where: str
    sha256: str


def load_plain(
    task: Task,
    language: Language,
    split: str,
    *,
    data_dir: Path | None = None,
    limit: int | None = None,
    progress: Progress = SILENT,
) -> PlainSentences:
    """Reads the words of a labelled split; its tags are dropped before anything looks at them.

    Args:
        task: A tagging task.
        language: The language.
        split: `train`, or the name of another file of the data folder.
        data_dir: As `load_split` has it.
        limit: Take only the first `limit` sentences.
        progress: Where notes go.

    Raises:
        UsageError: The task lacks the language or split, or a file is not there.
        PolydistillError: It has no sentences.
    """
    rows, where = find_rows(task, language, split, data_dir=data_dir, progress=progress)
    sentences, taken = without_codes(list(rows))
    for what, count in taken.items():
        progress.note(f"{where}: {count} {what}")
    words = (tuple(map(str, row.values["tokens"])) for row in sentences)
    return _plain(language, words, where, limit)


def read_plain(language: Language, paths: Sequence[str], *, limit: int | None = None) -> PlainSentences:
    """Reads running text, one sentence per line, and splits it into words; see `words_of`.

    Args:
        language: The language.
        paths: Files of text, as `polydistill trim` takes them.
        limit: Take only the first `limit` sentences.

    Raises:
        PolydistillError: The language puts no spaces between words, a file is missing, or there is no text.
    """
    if language.scripts[0] in WITHOUT_SPACES:
        raise PolydistillError(
            f"{language.name} is written without spaces, so words cannot be told apart in raw text.",
            "Leave `text` out and give a `data_dir` whose training file has a word and a tag (any tag) a line.",
        )
    sources = text_sources(language, paths)
    lines = itertools.chain.from_iterable(map(read_texts, sources))
    words = (tuple(words_of(line, language)) for line in lines)
    return _plain(language, words, ", ".join(paths), limit)


def joined(parts: Sequence[PlainSentences]) -> PlainSentences:
    """The sentences of several sources, one after the other.

    Args:
        parts: At least one, of one language.
    """
    if len(parts) == 1:
        return parts[0]
    sentences = tuple(sentence for part in parts for sentence in part.sentences)
    digest = hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()
    return PlainSentences(parts[0].language, sentences, ", ".join(part.where for part in parts), digest)


def check_plain(task: Task, languages: Iterable[Language]) -> None:
    """Refuses tasks whose inputs cannot be made of running text.

    Raises:
        UsageError: It is one of these.
    """
    if task.kind == SPAN_EXTRACTION:
        raise UsageError(
            "Running text has no questions, so no answers can be learnt from it.", "Leave `task_text` out."
        )
    unspaced = [lang.name for lang in languages if lang.scripts[0] in WITHOUT_SPACES]
    if unspaced and task.kind != CLASSIFICATION:
        raise UsageError(
            f"{unspaced[0]} is written without spaces, so words cannot be told apart in raw text.",
            "Leave `task_text` out.",
        )


def plain_split(task: Task, language: Language, lines: Sequence[str], where: str) -> LabelledSplit:
    """Running text as inputs of a task. The label that each of them has says nothing, and is to be left out.

    For tags and classes of words each line is an example, split into words (`words_of`); for classes of texts each line
    is one, and for classes of pairs each line with the next.

    Args:
        task: For which `check_plain` has passed.
        language: The language.
        lines: Sentences or paragraphs, in the order of the text.
        where: Where they come from.

    Raises:
        PolydistillError: There are none.
    """
    label, found = task.scored_labels[0], list[Example]()
    if task.kind != CLASSIFICATION:
        sentences = [words for line in lines if (words := tuple(words_of(line, language)))]
        found += [TaggedExample(str(i), words, (label,) * len(words)) for i, words in enumerate(sentences)]
    elif task.pairs:
        found += [PairExample(str(i), *pair, label) for i, pair in enumerate(itertools.pairwise(lines))]
    else:
        found += [TextExample(str(i), line, label) for i, line in enumerate(lines)]
    if not found:
        raise PolydistillError(f"{where} has not enough lines.", f"Give more text in {language.name}.")
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return LabelledSplit(task.name, language.code, TEXT, tuple(found), where, digest)


def words_of(line: str, language: Language) -> Iterator[str]:
    """The words of a text: split at spaces, with punctuation at their ends split off as words.

    A run of the same mark is one word; marks inside a word (`ng'ombe`, `3.5`) stay, and so do letters of the language
    that look like marks.
    """
    letters = set(language.letters) | set(language.auxiliary)
    for chunk in line.split():
        first, last = 0, len(chunk)
        while first < last and _is_mark(chunk[first], letters):
            first += 1
        while last > first and _is_mark(chunk[last - 1], letters):
            last -= 1
        yield from _runs(chunk[:first])
        if first < last:
            yield chunk[first:last]
        yield from _runs(chunk[last:])


def _is_mark(character: str, letters: set[str]) -> bool:
    return unicodedata.category(character)[0] in "PS" and character not in letters


def _runs(marks: str) -> Iterator[str]:
    return ("".join(same) for _, same in itertools.groupby(marks))


def _plain(language: Language, sentences: Iterable[tuple[str, ...]], where: str, limit: int | None) -> PlainSentences:
    found = tuple(itertools.islice((words for words in sentences if words), limit))
    if not found:
        raise PolydistillError(f"{where} has no sentence.", f"Give text in {language.name}.")
    digest = hashlib.sha256()
    for words in found:
        digest.update("\x1f".join(words).encode() + b"\n")
    return PlainSentences(language.code, found, where, digest.hexdigest())
