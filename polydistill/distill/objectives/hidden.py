"""Hidden states: mean squared error over the positions that are no padding."""

from __future__ import annotations

from torch import Tensor

from polydistill.distill.objectives.base import LayerPairs, Mean, Needs, Objective
from polydistill.distill.signals import HIDDEN, Batch, Signal, Signals


class HiddenStates(Objective):
    """Mean squared error between hidden states (BiStil, Ansell et al. 2023, arXiv 2306.01709, section 3.1).

    1/(M+1) sum_{j=0..M} MSE(H_S^j, H_T^{t(j)}), with j = 0 the embeddings' output, over positions and width; padding
    is left out.

    Args:
        pairs: (student's layer, teacher's layer), counted from 0; the embeddings' outputs are always paired.
        relative: Whether each layer's error is divided by the teacher's mean square, so that layers compare.
    """

    def __init__(self, pairs: LayerPairs, *, relative: bool = False) -> None:
        super().__init__()
        outputs = ((0, 0), *((s + 1, t + 1) for s, t in pairs))
        self._pairs = tuple((Signal(HIDDEN, s), Signal(HIDDEN, t)) for s, t in outputs)
        self._relative = relative
        self.needs = Needs(frozenset(s for s, _ in self._pairs), frozenset(t for _, t in self._pairs))

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term, `hidden`."""
        mask = batch["attention_mask"].unsqueeze(-1)
        total = sum(self._error(student[s], teacher[t], mask) for s, t in self._pairs)
        assert isinstance(total, Tensor)
        return {"hidden": Mean(total / len(self._pairs), mask.sum())}

    def _error(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """The sum over positions of the mean over the width of the squared error."""
        weights = mask.to(student.dtype)
        error = ((student - teacher).square() * weights).sum() / student.shape[-1]
        if not self._relative:
            return error
        return error / ((teacher.square() * weights).sum() / (weights.sum() * teacher.shape[-1])).clamp(min=1e-12)
