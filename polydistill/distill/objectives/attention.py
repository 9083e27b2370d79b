"""Attention probabilities: mean squared error over pairs of positions that are not padding."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from polydistill.distill.objectives.base import LayerPairs, Mean, Needs, Objective
from polydistill.distill.objectives.common import comparable, squared_error
from polydistill.distill.signals import ATTENTION, Batch, Signal, Signals

if TYPE_CHECKING:
    from torch import Tensor


class AttentionProbabilities(Objective):
    """Mean squared error between attention probabilities (BiStil, Ansell et al. 2023, arXiv 2306.01709, section 3.1).

    1/M sum_{j=1..M} MSE(A_S^j, A_T^{t(j)}) over heads and over (query, key) positions of which neither is padding.
    The model has to run with eager attention, for SDPA does not give probabilities.

    Args:
        pairs: (student's layer, teacher's layer), counted from 0.
        relative: Whether each layer's error is divided by the teacher's mean square in the same text, so that layers
            compare.
    """

    kind: ClassVar[str] = ATTENTION  # also the name of the term

    def __init__(self, pairs: LayerPairs, *, relative: bool = False) -> None:
        self._pairs = tuple((Signal(self.kind, s), Signal(self.kind, t)) for s, t in pairs)
        self._relative = relative
        self.needs = Needs(frozenset(s for s, _ in self._pairs), frozenset(t for _, t in self._pairs))

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term; its weight is the number of (query, key) positions.

        Raises:
            PolydistillError: Student and teacher have not as many heads.
        """
        mask = batch["attention_mask"].bool()
        valid = (mask.unsqueeze(2) & mask.unsqueeze(1)).unsqueeze(1)  # (B, 1, N, N)
        errors = [self._error(student[s], teacher[t], valid) for s, t in self._pairs]
        total = sum(errors[1:], errors[0])
        return {self.kind: Mean(total / len(self._pairs), self.weight(batch))}

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: the number of (query, key) positions."""
        return batch["attention_mask"].sum(1).square().sum()

    def _error(self, student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
        own, theirs = comparable(self.kind, "heads", student, teacher, axis=1)
        return squared_error(own, theirs, valid, 1, self._relative)
