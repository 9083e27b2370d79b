"""Hidden states: mean squared error over the positions that are not padding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polydistill.distill.objectives.base import LayerPairs, Mean, Needs, Objective
from polydistill.distill.objectives.common import comparable, squared_error
from polydistill.distill.signals import HIDDEN, Batch, Signal, Signals

if TYPE_CHECKING:
    from torch import Tensor


class HiddenStates(Objective):
    """Mean squared error between hidden states (BiStil, Ansell et al. 2023, arXiv 2306.01709, section 3.1).

    1/(M+1) sum_{j=0..M} MSE(H_S^j, H_T^{t(j)}), with j = 0 the embeddings' output, over positions and width; padding
    is left out.

    Args:
        pairs: (student's layer, teacher's layer), counted from 0; the embeddings' outputs are always paired.
        relative: Whether each layer's error is divided by the teacher's mean square in the same text, so that layers
            compare.
    """

    def __init__(self, pairs: LayerPairs, *, relative: bool = False) -> None:
        outputs = ((0, 0), *((s + 1, t + 1) for s, t in pairs))
        self._pairs = tuple((Signal(HIDDEN, s), Signal(HIDDEN, t)) for s, t in outputs)
        self._relative = relative
        self.needs = Needs(frozenset(s for s, _ in self._pairs), frozenset(t for _, t in self._pairs))

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term, `hidden`; its weight is the number of positions.

        Raises:
            PolydistillError: Student and teacher differ in width.
        """
        valid = batch["attention_mask"].bool().unsqueeze(-1)
        errors = [self._error(student[s], teacher[t], valid) for s, t in self._pairs]
        total = sum(errors[1:], errors[0])
        return {"hidden": Mean(total / len(self._pairs), self.weight(batch))}

    def _error(self, student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
        own, theirs = comparable("hidden", "columns of hidden states", student, teacher)
        return squared_error(own, theirs, valid, -1, self._relative)
