"""The inputs of phase 2: labelled examples of the source language, and text without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polydistill.catalog import Task
from polydistill.distill.batches import MixedBatches
from polydistill.distill.samplers.even import Even
from polydistill.distill.samplers.examples import ExampleSampler
from polydistill.evaluation.heads import TaskModel
from polydistill.evaluation.kinds import training_inputs
from polydistill.labelled.examples import LabelledSplit
from polydistill.progress import Progress
from polydistill.training.batching import NOT_TRAINED, Feature
from polydistill.training.loop import Schedule


@dataclass(frozen=True)
class Inputs:
    """The inputs of phase 2, numbered by `example_id`; `example` counts on from split to split.

    Args:
        labelled: Splits with labels, of the source language.
        plain: Text without labels; the labels of its inputs are none.
        share: Of the batches, those of text.
        features: The inputs of all of them, in that order.
        sizes: How many inputs each split gives.
    """

    labelled: Sequence[LabelledSplit]
    plain: Sequence[LabelledSplit]
    share: float
    features: list[Feature]
    sizes: tuple[int, ...]

    @classmethod
    def of(
        cls,
        student: TaskModel,
        task: Task,
        labelled: Sequence[LabelledSplit],
        plain: Sequence[LabelledSplit],
        share: float,
        progress: Progress,
    ) -> Inputs:
        """Reads them with the student's tokenizer."""
        examples, sizes, found = 0, list[int](), list[Feature]()
        for i, split in enumerate([*labelled, *plain]):
            parts = training_inputs(task, student, split, progress)[0]
            for feature in parts if i < len(labelled) else map(_without_labels, parts):
                numbers = {"example_id": len(found), "example": examples + feature["example"]}
                found.append({**feature, **numbers, "language": split.language})
            sizes.append(len(parts))
            examples += len(split.examples)
        return cls(labelled, plain, share, found, tuple(sizes))

    @property
    def examples(self) -> list[Any]:
        """Those of all splits, by `example`."""
        return [e for split in (*self.labelled, *self.plain) for e in split.examples]

    @property
    def labelled_count(self) -> int:
        """How many inputs have labels; they are the first."""
        return sum(self.sizes[: len(self.labelled)])

    @property
    def untrained(self) -> int:
        """Labelled examples that give no input."""
        seen = {f["example"] for f in self.features[: self.labelled_count]}
        return sum(len(split.examples) for split in self.labelled) - len(seen)

    def batches(self, schedule: Schedule, chosen: ExampleSampler | None = None) -> MixedBatches:
        """Those of text between the labelled ones.

        Args:
            schedule: Of the training.
            chosen: Which of the labelled inputs an epoch uses; all of them without it.
        """
        lengths, start, texts = [len(f["input_ids"]) for f in self.features], self.labelled_count, {}
        for split, size in zip(self.plain, self.sizes[len(self.labelled) :], strict=True):
            texts[split.language] = lengths[start : start + size]
            start += size
        sampler = Even({language: len(own) for language, own in texts.items()})
        return MixedBatches(
            lengths[: self.labelled_count],
            texts,
            self.share,
            sampler,
            schedule.batch_size,
            chosen=chosen,
            seed=schedule.seed,
            parts=schedule.accumulate,
        )


def _without_labels(feature: Feature) -> Feature:
    labels = feature["labels"]
    return {**feature, "labels": NOT_TRAINED if isinstance(labels, int) else [NOT_TRAINED] * len(labels)}
