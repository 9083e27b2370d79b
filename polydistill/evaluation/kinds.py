"""The predict loop of each kind of task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from polydistill.catalog import Task
from polydistill.catalog.task import CLASSIFICATION, RETRIEVAL, SIMILARITY, SPAN_EXTRACTION, TAGGING, WORD_TAGGING
from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation import classification, retrieval, similarity, spans, tagging, word_tagging
from polydistill.evaluation.heads import TaskModel
from polydistill.labelled.examples import LabelledSplit
from polydistill.metrics.items import Measured
from polydistill.progress import SILENT, Progress
from polydistill.training.batching import Feature

DEV_BATCH = 32
UNTRAINED = "answer in no window"


class Kind(Protocol):
    """What a module of a kind of task has."""

    MAX_LENGTH: int

    def predict(
        self,
        model: TaskModel,
        examples: Sequence[Any],
        *,
        batch_size: int,
        bf16: bool = False,
        done: Callable[[int], object] = lambda n: None,
    ) -> list[dict[str, Any]]:
        """One prediction an example, as JSON."""

    def measure(self, examples: Sequence[Any], predictions: Sequence[dict[str, Any]], language: str) -> list[Measured]:
        """The metrics of the kind."""

    def loyalty(
        self, teacher: Sequence[dict[str, Any]], student: Sequence[dict[str, Any]], language: str
    ) -> list[Measured]:
        """How far a student's predictions are its teacher's."""


KINDS: dict[str, Kind] = {
    CLASSIFICATION: classification,
    TAGGING: tagging,
    WORD_TAGGING: word_tagging,
    SPAN_EXTRACTION: spans,
    RETRIEVAL: retrieval,
    SIMILARITY: similarity,
}


def kind_of(task: Task) -> Kind:
    """The predict loop of a task.

    Raises:
        UsageError: There is none for its kind.
    """
    if task.kind not in KINDS:
        raise UsageError(
            f"Tasks of the kind {task.kind}, such as {task.name}, cannot be evaluated yet.",
            f"Choose a task of the kinds {', '.join(KINDS)}.",
        )
    return KINDS[task.kind]


class Trainable(Kind, Protocol):
    """What a module of a kind of task has that a head can be tuned for."""

    def training_features(self, model: TaskModel, examples: Sequence[Any]) -> list[Feature]:
        """Inputs with labels."""


TRAINABLE: dict[str, Trainable] = {
    CLASSIFICATION: classification,
    TAGGING: tagging,
    WORD_TAGGING: word_tagging,
    SPAN_EXTRACTION: spans,
}


def trainable_kind_of(task: Task) -> Trainable:
    """The training inputs and predict loop of a task.

    Raises:
        UsageError: Its kind has no head that could be tuned.
    """
    if task.kind not in TRAINABLE:
        raise UsageError(
            f"A model cannot be tuned for tasks of the kind {task.kind}, such as {task.name}.",
            f"Choose a task of the kinds {', '.join(TRAINABLE)}.",
        )
    return TRAINABLE[task.kind]


def training_inputs(
    task: Task, model: TaskModel, split: LabelledSplit, progress: Progress = SILENT
) -> tuple[list[Feature], LabelledSplit]:
    """The inputs that a split is trained on.

    Args:
        task: The task.
        model: What reads them.
        split: Labelled examples.
        progress: Told of examples that give no input.

    Returns:
        The inputs, with the number of their `example`, and the split, whose `skipped` counts those that give none.

    Raises:
        PolydistillError: No example gives any.
    """
    found = trainable_kind_of(task).training_features(model, split.examples)
    lost = len(split.examples) - len({feature["example"] for feature in found})
    if not lost:
        return found, split
    said = f"no window of {model.max_length} tokens has their whole answer"
    if not found:
        raise PolydistillError(
            f"{split.where}: none of the {lost} examples can be trained on: {said}.", "Let inputs be longer."
        )
    progress.warn(f"{split.where}: {lost} of {len(split.examples)} examples are not trained on: {said}")
    return found, replace(split, skipped={**split.skipped, UNTRAINED: lost})


def dev_score(task: Task, model: TaskModel, splits: Sequence[LabelledSplit]) -> float:
    """The task's first metric on labelled splits, averaged over them."""
    return metric_of(task, dev_predictions(task, model, splits), splits)


def metric_of(task: Task, found: Sequence[list[dict[str, Any]]], splits: Sequence[LabelledSplit]) -> float:
    """The same of what was predicted for each split."""
    kind, scores = trainable_kind_of(task), []
    for split, predictions in zip(splits, found, strict=True):
        measured = kind.measure(split.examples, predictions, split.language)
        scores.append(next(m for m in measured if m.metric == task.metric).value)
    return sum(scores) / len(scores)


def dev_predictions(task: Task, model: TaskModel, splits: Sequence[LabelledSplit]) -> list[list[dict[str, Any]]]:
    """What a model predicts for the examples of each split."""
    kind = trainable_kind_of(task)
    return [kind.predict(model, split.examples, batch_size=DEV_BATCH) for split in splits]


def finest_loyalty(
    task: Task,
    teacher: Sequence[list[dict[str, Any]]],
    student: Sequence[list[dict[str, Any]]],
    splits: Sequence[LabelledSplit],
) -> tuple[str, float]:
    """The finest loyalty of the kind, averaged over splits: of probabilities where it has them, of labels elsewhere.

    Args:
        task: The task.
        teacher: Its predictions for each split, as `dev_predictions` gives them.
        student: The student's.
        splits: The splits.

    Returns:
        The metric's name, and its value.
    """
    kind, sums = trainable_kind_of(task), 0.0
    for split, wanted, found in zip(splits, teacher, student, strict=True):
        measured = kind.loyalty(wanted, found, split.language)[-1]
        sums += measured.value
    return measured.metric, sums / len(splits)
