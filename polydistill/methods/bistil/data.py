"""The labelled data of a bilingual distillation: what is trained on, what chooses the checkpoint, what is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polydistill.catalog import Language, Task, language
from polydistill.catalog.task import RETRIEVAL
from polydistill.errors import PolydistillError, UsageError
from polydistill.labelled.custom import Wanted, training_data, with_own_labels
from polydistill.labelled.examples import LabelledSplit
from polydistill.labelled.sources import load_split
from polydistill.methods.bistil.options import BistilOptions
from polydistill.methods.bistil.presets import General, Tuning
from polydistill.progress import Progress
from polydistill.texts.sources import TextSource, assign_corpora, text_sources

NO_SCORE = "none"


@dataclass(frozen=True)
class Test:
    """Data to score.

    Attributes:
        language: Its language.
        split: Its split.
        data: Its file, None for that of a data folder or the Hub.
    """

    language: Language
    split: str
    data: Path | None = None


@dataclass(frozen=True)
class Labelled:
    """The labelled data of phase 2.

    Attributes:
        training: Splits of the source language to train on.
        dev: The one that chooses the checkpoint.
        tests: What to score, of either language.
    """

    training: tuple[LabelledSplit, ...]
    dev: tuple[LabelledSplit, ...]
    tests: tuple[Test, ...]


def labelled_data(
    options: BistilOptions,
    wanted: Task,
    languages: Sequence[Language],
    *,
    examples: int | None,
    dev_limit: int | None,
    progress: Progress,
) -> tuple[Task, Labelled]:
    """Splits of the source to learn from and to choose by, and those to score; the latter only looked for.

    Args:
        options: Of the command.
        wanted: The task.
        languages: Source and target.
        examples: Most examples of a split, where the configuration says nothing.
        dev_limit: Most examples to choose by.
        progress: Where to report.

    Returns:
        The task, with the labels of the data where they are the user's own, and the data.

    Raises:
        PolydistillError: Data are missing or damaged.
    """
    tests = _tests(options, languages)
    if wanted.kind == RETRIEVAL:
        if options.labelled.data or options.labelled.dev_data or options.labelled.test_data:
            raise UsageError(
                "Vectors of sentences are learnt from text alone.", "Give it as text, and no labelled data."
            )
        return wanted, Labelled((), (), tests)
    asked = Wanted(
        data=options.labelled.data,
        dev_data=options.labelled.dev_data,
        data_dir=options.labelled.data_dir,
        train_splits=options.labelled.train_split or ("train",),
        dev_split=options.labelled.dev_split,
        limit=options.labelled.limit or examples,
        dev_limit=dev_limit,
    )
    found = training_data(wanted, languages[:1], asked, progress)
    for test in tests:  # what is missing is said before anything is trained
        one = with_own_labels(wanted, test.data)
        load_split(one, test.language, test.split, data=test.data, data_dir=options.labelled.data_dir, limit=1)
    return found.task, Labelled(found.training, found.dev, tests)


def _tests(options: BistilOptions, languages: Sequence[Language]) -> tuple[Test, ...]:
    """What to score: the files that were given, and else a split of each language; with a training file none."""
    files = per_language(options.labelled.test_data, languages, "test_data", options)
    named = per_language(options.labelled.test_split, languages, "test_split", options)
    if both := sorted(files.keys() & named.keys()):
        raise UsageError(f"`test_data` and `test_split` both say what to score in {both[0]}.", "Leave one of them out.")
    found = []
    for lang in languages:
        split = str(named.get(lang.code, NO_SCORE if options.labelled.data else "test"))
        if lang.code in files:
            found.append(Test(lang, "test", files[lang.code]))
        elif split != NO_SCORE:
            found.append(Test(lang, split))
    return tuple(found)


def per_language(
    given: Sequence[str], languages: Sequence[Language], option: str, options: BistilOptions
) -> dict[str, Path]:
    """Code -> what LANG=... names.

    Raises:
        UsageError: No language is named, or another one.
    """
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise UsageError(f"`{option}={text}` names no language.", f"Write `{option}={languages[0].code}=...`")
        code = language(name, options.include_path).code
        if code not in {lang.code for lang in languages}:
            raise UsageError(f"`{option}={text}` is for neither of the two languages.", "Leave it out.")
        found[code] = Path(value)
    return found


def texts_of(
    options: BistilOptions,
    languages: Sequence[Language],
    general: General | None,
    tuning: Tuning | None,
    wanted: Task | None,
    given: bool,
    progress: Progress,
) -> dict[str, list[TextSource]]:
    """The text of both languages, where a phase or the vocabulary needs it.

    Raises:
        PolydistillError: There is no running text for one of them.
    """
    reads = tuning is not None and wanted is not None and (wanted.kind == RETRIEVAL or tuning.text > 0)
    if given and general is None and not reads:
        return {}
    assigned = assign_corpora(languages, options.text)
    texts = {lang.code: text_sources(lang, assigned[lang.code]) for lang in languages}
    for lang in languages:
        if any(text.kind == "wordlist" for text in texts[lang.code]):
            raise PolydistillError(
                f"There is no running text for {lang.name}, and a word list is not running text.",
                f"Give some with `text={lang.code}=PATH`.",
            )
    return texts
