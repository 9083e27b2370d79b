"""Scores of a model, language by language; what was predicted before is read from the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from polydistill.catalog import Language, Task
from polydistill.evaluation import cache
from polydistill.evaluation.heads import VECTOR_KINDS
from polydistill.evaluation.kinds import Kind, kind_of
from polydistill.evaluation.subjects import Subject
from polydistill.labelled.examples import LabelledSplit, units_of
from polydistill.metrics.items import Measured
from polydistill.metrics.paired import interval
from polydistill.progress import SILENT, Progress
from polydistill.records.record import RunRecord, Score


@dataclass(frozen=True)
class Cell:
    """A language to score: the data, and what it is called.

    Args:
        split: The data.
        language: Its language; of a question about a paragraph, the paragraph's.
        question_language: The question's, where it is another one.
    """

    split: LabelledSplit
    language: Language
    question_language: Language | None

    @property
    def asked(self) -> str | None:
        """Code of the question's language, where it is another one."""
        return self.question_language.code if self.question_language else None


def score(
    subject: Subject, cells: Sequence[Cell], progress: Progress = SILENT
) -> tuple[list[Score], list[list[dict[str, Any]]]]:
    """Scores a model; what was predicted before is read from the cache.

    Args:
        subject: The model.
        cells: The languages to score.
        progress: Where to report.

    Returns:
        The scores, and the predictions of each language.
    """
    scores: list[Score] = []
    predictions = []
    if subject.tag_scheme:
        progress.note(f"{subject.name} tags in {subject.tag_scheme}: what it predicts is read in IOB2")
    for cell in cells:
        key, found, measured = _predictions(subject, cell, kind_of(subject.wanted), progress)
        predictions.append(found)
        scores += _scores(subject, cell, measured, key)
    return scores, predictions


def _predictions(
    subject: Subject, cell: Cell, kind: Kind, progress: Progress
) -> tuple[str, list[dict[str, Any]], list[Measured]]:
    """(key, predictions, metrics); the predictions are from the cache if they are there."""
    split, how = cell.split, subject.settings
    settings = {"max_length": how.max_length or kind.MAX_LENGTH, "bf16": how.bf16, "prompt": how.prompt}
    if subject.wanted.kind in VECTOR_KINDS:  # decoders were read through their chat templates before
        settings["chat_template"] = None
    facts = {
        "task": split.task,
        "task_version": task_version(subject.wanted),
        "language": cell.language.code,
        "question_language": cell.asked,
        "split": split.split,
        "data_hash": split.sha256,
        "weights_hash": subject.weights_hash,
        "settings": settings,
        "files_hash": subject.files_hash,
    }
    key = cache.key_of(facts)
    stored = None if how.fresh else cache.load(key)
    if stored is not None and len(stored["predictions"]) == len(split.examples):
        known = stored["predictions"]
        measured = _measured(cell, kind, known)
        if stored.get("units") != list(measured[0].units or ()):  # ids, which are not part of the key, may have changed
            cache.save(key, {**facts, "n": len(known)}, known, measured)
        return key, known, measured
    what = f"{Path(subject.name).name} {_name(cell)}"
    if subject.loaded.read_language is not None:
        subject.loaded.read_language(cell.language)
    with progress.bar(what, len(split.examples), "input") as done:
        found = kind.predict(subject.loaded, split.examples, batch_size=how.batch_size, bf16=how.bf16, done=done)
    measured = _measured(cell, kind, found)
    cache.save(key, {**facts, "n": len(found)}, found, measured)
    return key, found, measured


def _measured(cell: Cell, kind: Kind, predictions: list[dict[str, Any]]) -> list[Measured]:
    """The metrics of a cell, which know what is drawn together."""
    found = kind.measure(cell.split.examples, predictions, cell.language.code)
    return [replace(m, units=_units(m, cell.split.examples)) for m in found]


def loyalty(
    wanted: Task, cell: Cell, teacher: Sequence[dict[str, Any]], student: Sequence[dict[str, Any]]
) -> list[Measured]:
    """How far a student's predictions of a cell are its teacher's; the metrics know what is drawn together."""
    found = kind_of(wanted).loyalty(teacher, student, cell.language.code)
    return [replace(m, units=_units(m, cell.split.examples)) for m in found]


def _units(measured: Measured, examples: Sequence[Any]) -> tuple[str, ...]:
    """What each row of a metric is drawn with: an example's unit; of a row a word, its sentence's."""
    units = units_of(examples)
    if len(units) == len(measured.items):
        return units
    return tuple(unit for unit, example in zip(units, examples, strict=True) for _ in example.tokens)


def _name(cell: Cell) -> str:
    asked = f", asked in {cell.asked}" if cell.asked else ""
    return f"{cell.language.code}{asked}"


def task_version(wanted: Task) -> str:
    """Hash of what decides a task's predictions and scores: its kind, labels and what is not scored."""
    decides = [wanted.name, wanted.kind, list(wanted.labels), sorted(wanted.not_scored)]
    return hashlib.sha256(orjson.dumps(decides)).hexdigest()[:16]


def _scores(subject: Subject, cell: Cell, measured: Sequence[Measured], key: str) -> list[Score]:
    chosen = _selection(subject.record)
    return [
        Score(
            model=subject.name,
            task=cell.split.task,
            language=cell.language.code,
            split=cell.split.split,
            metric=m.metric,
            value=m.value,
            interval=interval(m, seed=subject.settings.seed),
            n=len(m.items),
            normalisation=m.normalisation,
            data_hash=cell.split.sha256,
            weights_hash=subject.weights_hash,
            task_version=task_version(subject.wanted),
            question_language=cell.asked,
            selection=chosen,
            seed=subject.settings.seed,
            predictions=key,
        )
        for m in measured
    ]


def _selection(record: RunRecord | None) -> tuple[str, ...]:
    """Languages whose dev data chose a checkpoint, in the newest run that chose one."""
    for step in record.lineage() if record else ():
        if chosen := step["result"].get("selection"):
            return tuple(chosen["languages"])
    return ()
