"""Vectors of texts as a stack makes them: the share of the teacher's variance that is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polydistill.distill.objectives.base import Mean, Needs, Objective
from polydistill.distill.objectives.common import comparable
from polydistill.distill.signals import VECTOR, Batch, Signal, Signals

if TYPE_CHECKING:
    from torch import Tensor, nn

    from polydistill.training.facts import TrainingFacts

SAME = 1e-10  # share of the mean square that is rounding
_VECTOR = Signal(VECTOR)


class Vectors(Objective):
    """Squared error of vectors, ||v_S - v_T||^2 / var(v_T) (MT-LLM, Schmidt et al. 2024, arXiv 2406.12739).

    The variance is that of the teacher's vectors over the training data, so that the loss is the share that is left
    unexplained: 0 is perfect, 1 is as good as the teacher's mean.
    """

    looks = True
    module: nn.Module

    def __init__(self) -> None:
        self.needs = Needs(frozenset({_VECTOR}), frozenset({_VECTOR}))

    def begin(self, facts: TrainingFacts) -> None:
        """Knows no variance yet."""
        import torch
        from torch import nn

        self.module = nn.Module()
        self.module.register_buffer("variance", torch.tensor(1.0, dtype=torch.float64))
        self._sum, self._squares, self._count = torch.zeros((), dtype=torch.float64), 0.0, 0

    def look(self, teacher: Signals, batch: Batch) -> None:
        """Adds up a batch of the teacher's vectors."""
        vectors = teacher[_VECTOR].double().cpu()
        self._sum = self._sum + vectors.sum(0)
        self._squares += float(vectors.square().sum())
        self._count += len(vectors)

    def end_look(self) -> None:
        """E||v||^2 - ||E v||^2; 1 where all vectors are the same, but for rounding."""
        mean, square = self._sum / self._count, self._squares / self._count
        variance = square - float(mean.square().sum())
        self.module.get_buffer("variance").fill_(variance if variance > SAME * square else 1.0)

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term, `vectors`; its weight is the number of texts.

        Raises:
            PolydistillError: Student and teacher differ in width.
        """
        own, theirs = comparable("vectors", "columns of vectors", student[_VECTOR], teacher[_VECTOR])
        total = (own - theirs).square().sum() / float(self.module.get_buffer("variance"))
        return {"vectors": Mean(total, self.weight(batch))}

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: the number of texts."""
        return batch["attention_mask"].new_tensor(len(batch["attention_mask"]))
