"""Measurements of a model, written into the record of its folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from polydistill.evaluation.subjects import Subject
from polydistill.files.durable import locked
from polydistill.progress import Progress
from polydistill.records.record import NAME as RECORD
from polydistill.records.record import RunRecord, Score


def add_scores(subject: Subject, scores: Sequence[Score], progress: Progress) -> None:
    """Writes scores of whole splits into the record of a model's folder, in place of older ones of the same thing."""
    if subject.settings.whole:
        new = {_identity(score) for score in scores}
        _change_record(
            subject,
            lambda was: replace(was, scores=[*(s for s in was.scores if _identity(s) not in new), *scores]),
            progress,
        )


def add_cost(subject: Subject, cost: dict[str, Any], progress: Progress) -> None:
    """Writes time and memory into the record of a model's folder, in place of those beside the same model."""

    def identity(of: dict[str, Any]) -> tuple[Any, Any]:
        return of.get("beside"), of.get("task")

    _change_record(
        subject,
        lambda was: replace(was, costs=[*(c for c in was.costs if identity(c) != identity(cost)), cost]),
        progress,
    )


def _change_record(subject: Subject, change: Callable[[RunRecord], RunRecord], progress: Progress) -> None:
    folder = subject.resolved.folder
    if not subject.resolved.ref.path or not (folder / RECORD).is_file():
        return
    try:
        with locked(folder / f".{RECORD}.lock", wait=True):
            record = RunRecord.load(folder)  # again: another process may have added to it
            if record is not None:
                change(record).save(folder)
    except OSError as error:
        progress.warn(f"What was measured could not be added to {folder / RECORD} ({error.strerror}).")


def _identity(score: Score) -> tuple[Any, ...]:
    return (
        score.task,
        score.language,
        score.question_language,
        score.split,
        score.data_hash,
        score.metric,
        score.normalisation,
    )
