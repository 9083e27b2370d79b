"""Finds a task's labelled data (a file, the user's data folder or the Hub) and reads it."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from polydistill.catalog import Language
from polydistill.catalog.task import CLASSIFICATION, MULTIPLE_CHOICE, SPAN_EXTRACTION, TAGGING, Task
from polydistill.errors import PolydistillError, UsageError
from polydistill.labelled import hub
from polydistill.labelled.checks import MISPLACED, WRONG_ANSWERS, Builder
from polydistill.labelled.columns import classified_rows
from polydistill.labelled.examples import LabelledSplit, units_of
from polydistill.labelled.formats import bounded, read_rows
from polydistill.labelled.rows import Row
from polydistill.progress import SILENT, Progress

DATA_VARIABLE = "POLYDISTILL_DATA"
PART = re.compile(r"(.+):(\d{1,4})/(\d{1,4})")
MOST_PARTS = 1000


def load_split(
    task: Task,
    language: Language,
    split: str,
    *,
    data: Path | None = None,
    data_dir: Path | None = None,
    limit: int | None = None,
    question_language: Language | None = None,
    progress: Progress = SILENT,
) -> LabelledSplit:
    """Read a split of a task in one language.

    Args:
        task: The task.
        language: The language; of the contexts, where `question_language` differs.
        split: `train`, `dev`, `test`, or the name of another file of the data folder; `test:2/3` is a part, see
            `part_of`.
        data: A file of the user's own in the format of the task's kind; takes precedence over all else.
        data_dir: Folder that the task's local template starts from; by default the environment's POLYDISTILL_DATA.
            What the task does not expect there comes from the Hub.
        limit: Take only the first `limit` examples.
        question_language: Ask another language's questions, joined by their ids (span extraction only).
        progress: Where warnings go.

    Raises:
        UsageError: The task lacks the language or split, or a file is not there.
        PolydistillError: The data are damaged, wrongly labelled, or have no gold.
    """
    _check_request(task, data, question_language)
    data_dir = _data_dir(data_dir)
    whole, split = split, part_of(split)[0]
    found = _find(task, language, split, data, data_dir, progress)
    builder = Builder(task, language.code, mend=found.mend)
    examples, where = _checked(task, split, found, builder, progress), found.where
    if question_language is not None and question_language.code != language.code:
        other = _find(task, question_language, split, None, data_dir, progress)
        asked = _checked(task, split, other, Builder(task, question_language.code, mend=other.mend), progress)
        examples = _with_questions(examples, asked, f"{where} and {other.where}", builder.skipped)
        where = f"{where} with the questions of {other.where}"
    examples = _part(examples, whole)[:limit]
    if not examples:
        raise UsageError(f"{where} has no example in the part {whole}.", "Choose fewer parts.")
    ignored: Mapping[str, int] = {}
    if task.kind == TAGGING:
        examples, ignored = builder.without_unscored(examples)
    counts = {name: dict(sorted(getattr(builder, name).items())) for name in ("skipped", "mended")}
    digest = examples_hash(examples)
    return LabelledSplit(task.name, language.code, whole, tuple(examples), where, digest, ignored, **counts)


def part_of(split: str) -> tuple[str, int, int]:
    """(a split, which part of it is meant, parts): `test:2/3` is the second of three parts; without a part 1 of 1.

    Raises:
        UsageError: There is no such part.
    """
    found = PART.fullmatch(split)
    if found is None:
        return split, 1, 1
    name, number, parts = found[1], int(found[2]), int(found[3])
    if not 1 <= number <= parts <= MOST_PARTS:
        raise UsageError(
            f"There is no part {number} of {parts} of {name}.", f"Write {name}:1/3 for the first of three parts."
        )
    return name, number, parts


def _part(examples: Sequence[Any], split: str) -> Sequence[Any]:
    """The examples of a part. What belongs together, such as the questions about a paragraph, is in one part, and so is
    an example with its translations: parts go by the ids that they share.
    """
    _, number, parts = part_of(split)
    if parts == 1:
        return examples
    units = units_of(examples)
    chosen = {unit for unit in units if int(hashlib.sha256(unit.encode()).hexdigest(), 16) % parts == number - 1}
    return [example for example, unit in zip(examples, units, strict=True) if unit in chosen]


def find_rows(
    task: Task, language: Language, split: str, *, data_dir: Path | None = None, progress: Progress = SILENT
) -> tuple[Iterator[Row], str]:
    """The unchecked rows of a split, and the file or data set that they come from; see `load_split`."""
    if part_of(split)[2] > 1:
        raise UsageError(f"Text is read whole, and {split} is a part of a split.", "Name the split alone.")
    found = _find(task, language, split, None, _data_dir(data_dir), progress)
    return bounded(found.rows), found.where


def _data_dir(given: Path | None) -> Path | None:
    folder = os.environ.get(DATA_VARIABLE)
    return Path(folder) if given is None and folder else given


def _check_request(task: Task, data: Path | None, question_language: Language | None) -> None:
    if task.kind == MULTIPLE_CHOICE:
        raise PolydistillError(
            f"The task {task.name} is multiple choice, which cannot be evaluated yet.",
            "`polydistill ls tasks` lists the others with their kinds.",
        )
    if question_language is not None and (task.kind != SPAN_EXTRACTION or data is not None):
        raise UsageError(
            "Only questions of a data folder or the Hub can be asked in another language than the context's.",
            "Leave out `data` or the question language.",
        )


# --- where it is


@dataclass(frozen=True)
class _Found:
    """A split's rows, the name of their source in records, and whether known faults are repaired."""

    rows: Iterator[Row]
    where: str
    mend: bool = False


def _find(
    task: Task, language: Language, split: str, data: Path | None, data_dir: Path | None, progress: Progress
) -> _Found:
    """Find the file or data set of a split."""
    if data is not None:
        if not data.is_file():
            raise UsageError(f"There is no file {data}.", "Give a file in the format of the task's kind.")
        return _Found(_read(data, task), str(data))
    asked, language = language.code, _as_known(task, language, split, data_dir)
    if language.code != asked:
        progress.note(f"{task.name}: the data of {language.code} stands in for {asked}")
    path = _local_file(task, language, split, data_dir) if data_dir is not None else None
    if path is not None:
        return _Found(_read(path, task), str(path))
    if not task.languages:
        raise UsageError(
            f"The task {task.name} can only be read from files.", "Give a file with `data` or a folder with `data_dir`."
        )
    if language.code not in task.languages:
        raise UsageError(
            f"The task {task.name} has no {language.name} ({language.code}).",
            f"It has {' '.join(task.languages)}; `data=FILE` takes a file of your own.",
        )
    source = hub.source_of(task, language, split)
    if data_dir is not None:
        progress.note(f"{task.name} {language.code} {split} comes from the Hub: {data_dir} is not expected to have it")
    rows, where = hub.find_rows(task, source, language, split)
    return _Found(rows, where, source.mend)


def _read(path: Path, task: Task) -> Iterator[Row]:
    return classified_rows(path, task) if task.kind == CLASSIFICATION else read_rows(path, task.kind)


def _as_known(task: Task, language: Language, split: str, data_dir: Path | None) -> Language:
    """A language in one script under the code of the whole language, unless the task has data in that script."""
    if language.script_of is None or language.code in {*task.languages, *task.local_languages}:
        return language
    if data_dir is not None and task.local and task.any_language:
        file = data_dir / task.local.format(lang=language.code, split=task.local_splits.get(split, split))
        if file.is_file() or file.with_name(file.name + ".gz").is_file():
            return language
    return replace(language, code=language.script_of)


def _local_file(task: Task, language: Language, split: str, data_dir: Path) -> Path | None:
    """The file below the data folder; None where the task expects none for this language and split.

    Raises:
        UsageError: The task expects one and it is not there.
    """
    if task.local is None or not (language.code in task.local_languages or task.any_language):
        return None
    if task.local_splits and split not in task.local_splits:
        return None
    folder = task.local_languages.get(language.code, language.code)
    paths = [
        data_dir / task.local.format(lang=name, split=task.local_splits.get(split, split))
        for name in dict.fromkeys([folder, *language.flores])
    ]
    for path in paths:
        for found in (path, path.with_name(path.name + ".gz")):
            if found.is_file():
                return found
    raise UsageError(f"There is no file {paths[0]}.", _what_is_there(task, data_dir, folder))


def _what_is_there(task: Task, data_dir: Path, folder: str) -> str:
    """The hint for a missing file: the splits of its language, or the languages that exist."""
    assert task.local is not None
    if not data_dir.is_dir():
        return f"There is no folder {data_dir} either."
    fixed = task.local.replace("{split}", "*")
    here = sorted(path.name for path in data_dir.glob(fixed.replace("{lang}", folder)))
    if here:
        return f"Of {folder} there are {', '.join(here)}."
    there = sorted(path.relative_to(data_dir).as_posix() for path in data_dir.glob(fixed.replace("{lang}", "*")))
    folders = list(dict.fromkeys(name.rpartition("/")[0] if "{split}" in task.local else name for name in there))
    return f"There are {', '.join(folders)}." if folders else f"{data_dir} holds nothing like {task.local}."


# --- whether it can be used


def _checked(task: Task, split: str, found: _Found, builder: Builder, progress: Progress) -> Sequence[Any]:
    """Make the examples; refuse a split on which nothing can be measured."""
    examples, where = builder.build(bounded(found.rows)), found.where
    for what, count in builder.mended.items():
        progress.note(f"{where}: {count} {what}")
    for why, count in builder.skipped.items() if task.own else ():
        progress.warn(f"{where}: {count} of {count + len(examples)} rows are left out: {why}")
    if builder.others:
        counts = ", ".join(f"{name} {count:,}" for name, count in builder.others.items())
        progress.note(f"{where}: rows in other languages than {builder.language} are left out: {counts}")
        builder.skipped["in another language"] += builder.others.total()
    wrong, all_rows = builder.skipped[MISPLACED], len(examples) + builder.skipped[MISPLACED]
    if wrong > WRONG_ANSWERS * all_rows:
        raise PolydistillError(
            f"{where}: {wrong} of {all_rows} questions have an answer that is not at its offset.",
            "Count answer_start in Unicode code points of the context, from 0.",
        )
    if wrong:
        progress.warn(f"{where}: {wrong} of {all_rows} questions are left out: an answer is not at its offset")
    if not examples:
        raise _no_gold(where, "no example with gold" if builder.skipped else "no example")
    if task.kind == TAGGING and not any(builder.is_scored(tag) for example in examples for tag in example.tags):
        raise _no_gold(where, f"no entity that is scored in its {len(examples)} sentences")
    if task.kind == CLASSIFICATION and split.startswith("test") and len({example.label for example in examples}) == 1:
        if task.own:
            progress.warn(f"{where}: every row has the label '{examples[0].label}'; a score says nothing about others")
            return examples
        raise PolydistillError(
            f"{where}: all {len(examples)} test examples have the label '{examples[0].label}', which stands in for "
            "labels that are kept secret.",
            "Give a test set with its own labels.",
        )
    return examples


def _no_gold(where: str, what: str) -> PolydistillError:
    return PolydistillError(f"{where} has {what}.", "Give data with gold labels.")


def _with_questions(contexts: Sequence[Any], asked: Sequence[Any], where: str, skipped: Counter[str]) -> Sequence[Any]:
    """Join one language's questions with another's contexts; ids that only one has are left out and counted."""
    questions = {example.id: example for example in asked}
    joined = [
        replace(example, question=other.question, question_language=other.language)
        for example in contexts
        if (other := questions.get(example.id)) is not None
    ]
    if not joined:
        raise PolydistillError(
            f"{where} have no question in common.", "Questions are joined by id: give sets that are translations."
        )
    if len(questions) != len(asked):
        raise PolydistillError(f"Some questions of {where} have the same id.", "Give every question an id of its own.")
    if len(joined) < len(contexts):
        skipped["question not in the other language"] += len(contexts) - len(joined)
    return joined


def examples_hash(examples: Sequence[Any]) -> str:
    """Hash of what the examples say, without ids that follow from their order."""
    import orjson

    digest = hashlib.sha256()
    for example in examples:
        content = {name: value for name, value in vars(example).items() if name != "id"}
        digest.update(orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE))
    return digest.hexdigest()
