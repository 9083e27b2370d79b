"""Text of a language, for counting: where it is, and how it is read without holding all of it.

A corpus is a file, a folder, a glob or a data set of the Hub. Without one, a language's text comes from the data
set that its own file names, and where the Hub is out of reach from the word list of the package `wordfreq`.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from polydistill.catalog import Corpus, Language, language
from polydistill.errors import PolydistillError, UsageError
from polydistill.redaction import redacted
from polydistill.texts.files import SUFFIXES, choose_column, format_of, gather, is_packed, read_file, text_of
from polydistill.texts.lines import pieces

if TYPE_CHECKING:
    from polydistill.models.offline.words import Encode, WordList

FIRST_LINES = 20_000
HUB_BYTES = 50_000_000  # of a language's own corpus; more would hardly change which tokens are frequent
_HUB_SET = re.compile(
    r"(?P<dataset>[A-Za-z0-9][\w.-]*/[\w.-]+)(:(?P<config>[\w.+-]+))?"
    r"(@(?P<revision>[\w./-]+))?(#(?P<column>.+))?"
)

Progress = Callable[[str], None]


@dataclass(frozen=True)
class TextSource:
    """Text of one language.

    Attributes:
        language: The language's code.
        kind: Files, a data set of the Hub, or a word list (see `read_words`).
        where: What was asked for, or its substitute; goes into records.
        files: The files, sorted.
        column: Column of tables to read; None to find it.
        corpus: The Hub's data set, with the commit as its revision.
        max_bytes: Reading stops after so many bytes of text.
        note: A note for the user, None if the source is what was asked for.
    """

    language: str
    kind: Literal["file", "hub", "wordlist"]
    where: str
    files: tuple[Path, ...] = ()
    column: str | None = None
    corpus: Corpus | None = None
    max_bytes: int | None = None
    note: str | None = None

    def facts(self) -> dict[str, Any]:
        """All that could change what is read, without reading it: names, sizes and times of files."""
        return {
            "where": self.where,
            "column": self.column,
            "max_bytes": self.max_bytes,
            "corpus": asdict(self.corpus) if self.corpus else {},
            "files": [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in self.files],
        }


# --- which text


def assign_corpora(languages: Sequence[Language], corpora: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Give each corpus to its language: `PATH` with one language, `LANG=PATH` with several.

    Returns:
        The corpora of each language's code, in the order given; an empty tuple for a language without any.

    Raises:
        UsageError: It is not clear which language a corpus is for.
    """
    by_alias = {alias.casefold(): lang.code for lang in languages for alias in lang.aliases}
    by_alias |= {lang.code.casefold(): lang.code for lang in languages}  # `sr` beside `sr-Latn`, which it names too
    assigned: dict[str, list[str]] = {language.code: [] for language in languages}
    for corpus in corpora:
        prefix, equals, rest = corpus.partition("=")
        code = by_alias.get(prefix.strip().casefold()) if equals else None
        if code is not None:
            if not rest:
                raise UsageError(f"The corpus {corpus} names no file.", f"Write {prefix}=PATH.")
            assigned[code].append(rest)
        elif equals and re.fullmatch(r"\w[\w -]*", prefix) and not Path(corpus).exists():
            known = ", ".join(assigned)
            raise UsageError(
                f"The corpus {corpus} is for {prefix}, which is not one of the languages ({known}).",
                f"Add `languages={prefix}`, or leave {prefix}= out.",
            )
        elif len(languages) == 1:
            assigned[languages[0].code].append(corpus)
        else:
            example = languages[0].code
            raise UsageError(
                f"There are several languages, and {corpus} does not say which one it is for.",
                f"Write `text={example}={corpus}`.",
            )
    return {code: tuple(found) for code, found in assigned.items()}


def text_sources(
    language: Language, corpora: Sequence[str], *, hub_bytes: int | None = HUB_BYTES, progress: Progress | None = None
) -> list[TextSource]:
    """Find the text of a language.

    Args:
        language: The language.
        corpora: What the user gave for it, without the `LANG=` prefix; empty for the language's own text.
        hub_bytes: How much to read of the language's own corpus on the Hub.
        progress: Receives a line of text when something stands in for the Hub.

    Returns:
        At least one source.

    Raises:
        PolydistillError: A corpus does not exist or is in no format that can be read, or there is none at all.
    """
    if corpora:
        return [parse_corpus(language, corpus) for corpus in corpora]
    from polydistill.fetching.reach import OutOfReach

    reason = "its file in the catalogue names no corpus"
    for corpus in language.corpora:
        try:
            found = _hub_source(language, corpus)
        except OutOfReach as error:
            reason = f"the Hub is out of reach ({error})"
            break
        except PolydistillError as error:
            reason = error.message
            continue
        return [replace(found, max_bytes=hub_bytes)]
    source = _wordlist_source(language, reason)
    if progress and source.note:
        progress(source.note)
    return [source]


def parse_corpus(language: Language, corpus: str) -> TextSource:
    """Read one corpus argument: a file, a folder, a glob, or `org/name[:config][@revision][#column]`.

    Raises:
        PolydistillError: There is nothing there, or nothing that can be read.
    """
    path, column = corpus, None
    if "#" in corpus and not Path(corpus).exists():
        path, _, column = corpus.rpartition("#")
    files = _find_files(path)
    if files is not None:
        return TextSource(language.code, "file", corpus, files, column)
    match = _HUB_SET.fullmatch(corpus)
    if match is None or format_of(Path(path)) or is_packed(Path(path)):
        raise PolydistillError(f"The corpus {path} does not exist.", _near(Path(path)))
    from polydistill.fetching.reach import OutOfReach

    wanted = Corpus(match["dataset"], match["config"], "train", match["column"] or "", match["revision"])
    try:
        return replace(_hub_source(language, wanted), where=corpus)
    except OutOfReach as error:
        raise PolydistillError(
            f"There is no file {path}, and the Hub, which may have a data set of this name, is out of reach ({error}).",
            "Give a file, a folder or a glob.",
        ) from error


def _find_files(text: str) -> tuple[Path, ...] | None:
    """The files that a path, folder or glob stands for; None if it stands for none and may be a data set."""
    path = Path(text).expanduser()
    if path.is_file():
        if is_packed(path):
            raise PolydistillError(
                f"{path} has a compression that is not supported.", "Unpack it, or pack it with gzip."
            )
        return (path,)
    if path.is_dir():
        found = [other for other in path.rglob("*") if format_of(other) and other.is_file()]
        found = [other for other in found if not any(p.startswith(".") for p in other.relative_to(path).parts)]
        if not found:
            raise PolydistillError(
                f"The folder {path} has no text.", f"Supported files end in {', '.join(SUFFIXES)}, each also with .gz."
            )
        return tuple(sorted(found))
    if path.exists():
        raise PolydistillError(
            f"{path} is neither a file nor a folder.", "Write the text to a file first: cat FROM > text.txt"
        )
    if glob.has_magic(text):
        # Path.glob takes no absolute patterns.
        found = sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file())  # noqa: PTH207
        if not found:
            raise PolydistillError(f"No file matches {text}.", "Check the folder and the pattern.")
        return tuple(found)
    return None


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} either."
    close = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], n=1)
    return f"Did you mean {path.parent / close[0]}?" if close else "Check the path."


# --- reading


class TextReader:
    """Reads a source once, and counts what was read.

    Args:
        source: Files or a data set of the Hub.
        limit: Read at most this many texts.

    Attributes:
        lines: Texts read so far.
        bytes: Their size in UTF-8, each with a line feed.
    """

    def __init__(self, source: TextSource, limit: int | None = None) -> None:
        self.source = source
        self.lines = 0
        self.bytes = 0
        self._limit = limit
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Hash of the texts read so far, each followed by a line feed: the same for every file format."""
        return self._hash.hexdigest()

    def blocks(self) -> Iterator[list[str]]:
        """Yield lists of texts of about 4 MB together; a text is a line, or a row's whole column.

        A text of more than 1,000,000 characters comes in pieces, see `lines.pieces`.

        Raises:
            PolydistillError: The text cannot be read, is not UTF-8, or there is none.
        """
        if self.source.kind == "wordlist":
            raise ValueError("a word list has weights: use read_words")
        for block in self._all_blocks():
            texts = [text for text in pieces(block) if text and not text.isspace()]
            if self._limit is not None:
                texts = texts[: self._limit - self.lines]
            if not texts:
                continue
            data = ("\n".join(texts) + "\n").encode()
            self._hash.update(data)
            self.lines += len(texts)
            self.bytes += len(data)
            yield texts
            if self.lines == self._limit or self.bytes >= (self.source.max_bytes or float("inf")):
                return
        if not self.lines and self._limit != 0:
            raise PolydistillError(
                f"The corpus {self.source.where} holds no text.", "Give one that has lines of text in it."
            )

    def _all_blocks(self) -> Iterator[list[str]]:
        if self.source.kind == "hub":
            yield from gather(_hub_rows(self.source))
        for path in self.source.files:
            yield from read_file(path, self.source.column)


def read_blocks(source: TextSource, limit: int | None = None) -> Iterator[list[str]]:
    """Yield a source's texts in lists of about 4 MB; see `TextReader.blocks`."""
    return TextReader(source, limit).blocks()


def read_texts(source: TextSource, *, limit: int | None = None) -> Iterator[str]:
    """Yield a source's texts one by one, without line endings; blank ones are left out."""
    for block in read_blocks(source, limit):
        yield from block


# --- the Hub


def _hub_source(language: Language, corpus: Corpus) -> TextSource:
    """Find a data set on the Hub, and pin it to the commit it has now.

    Raises:
        OutOfReach: The Hub does not answer.
        PolydistillError: There is no such data set or revision, or access was refused.
    """
    from polydistill.fetching.reach import hub_info

    info = hub_info(corpus.dataset, corpus.revision, "data set")
    config = f":{corpus.config}" if corpus.config else ""
    where = f"{corpus.dataset}{config}@{info.sha}"
    pinned = replace(corpus, revision=info.sha)
    return TextSource(language.code, "hub", where, column=corpus.column or None, corpus=pinned)


def _hub_rows(source: TextSource) -> Iterator[str | None]:
    """Stream a data set's column of text."""
    from polydistill.fetching.reach import OutOfReach, hub_errors

    assert source.corpus is not None
    dataset = source.corpus.dataset
    column: str | None = None
    try:
        with hub_errors(dataset, source.corpus.revision, "data set"):
            for row in _read_hub_set(source.corpus):
                if column is None:
                    strings = [name for name, value in row.items() if isinstance(value, str)]
                    column = choose_column(f"The data set {dataset}", list(row), strings, source.column)
                yield text_of(row.get(column), f"The data set {dataset}", column)
    except OutOfReach as error:
        raise PolydistillError(
            f"The Hub went out of reach ({error}) while {dataset} was being read.",
            "Try again, or give files with `text`.",
        ) from error


def _read_hub_set(corpus: Corpus) -> Iterator[Any]:
    import datasets

    try:
        yield from datasets.load_dataset(
            corpus.dataset, corpus.config, split=corpus.split, revision=corpus.revision, streaming=True
        )
    except (ValueError, datasets.exceptions.DatasetsError, RuntimeError, StopIteration) as error:
        # Wrong configuration or split, no data files, empty or broken ones, or a data set that wants to run code.
        raise PolydistillError(
            f"The data set {corpus.dataset} cannot be read: {redacted(str(error), limit=300)}",
            "Write org/name:configuration#column, with a configuration that has the split train.",
        ) from error


# --- without text


def _wordlist_source(language: Language, reason: str) -> TextSource:
    from polydistill.models.offline import words

    missing = f"There is no text for {language.name}: {reason}"
    if not language.wordfreq:
        raise PolydistillError(
            f"{missing}, and wordfreq has no list of its words.", f"Give text: `text={language.code}=PATH`."
        )
    if not words.installed():
        raise PolydistillError(
            f"{missing}, and the package wordfreq is not installed.",
            f"Give text (`text={language.code}=PATH`), or pip install 'polydistill[offline]'.",
        )
    note = (
        f"{missing}. The word list of wordfreq stands in for it: expect 97 to 99 % of the tokens of running text to be "
        f"kept; text given with `text` keeps more."
    )
    return TextSource(language.code, "wordlist", f"wordfreq:{language.wordfreq}", note=note)


def read_words(language: Language, encode: Encode) -> WordList:
    """The forms of a source of kind `wordlist`, with their occurrences; see `models.offline.words.word_list`.

    Raises:
        PolydistillError: The package `wordfreq` is not installed or lacks the language.
    """
    from polydistill.models.offline.words import word_list

    return word_list(language, encode)


def first_lines(text: str) -> list[str]:
    """The first 20,000 lines of a text given with `text`."""
    return list(read_texts(parse_corpus(language("en"), text), limit=FIRST_LINES))
