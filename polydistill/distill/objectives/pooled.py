"""Vectors of whole texts: their directions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polydistill.distill.objectives.base import Mean, Needs, Objective
from polydistill.distill.objectives.common import comparable
from polydistill.distill.signals import POOLED, Batch, Signal, Signals

if TYPE_CHECKING:
    from torch import Tensor

_POOLED = Signal(POOLED)


class PooledVectors(Objective):
    """1 - cos(v_S, v_T), where v is the mean of the last hidden states over a text.

    After Reimers and Gurevych 2020 (arXiv 2004.09813), who take the mean squared error; only directions count when
    vectors are compared by their cosine.
    """

    def __init__(self) -> None:
        self.needs = Needs(frozenset({_POOLED}), frozenset({_POOLED}))

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term, `pooled`; its weight is the number of texts.

        Raises:
            PolydistillError: Student and teacher differ in width.
        """
        from torch.nn.functional import cosine_similarity

        own, theirs = comparable("pooled", "columns of vectors", student[_POOLED], teacher[_POOLED])
        similarity = cosine_similarity(own, theirs, dim=-1)
        return {"pooled": Mean((1 - similarity).sum(), self.weight(batch))}

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: the number of texts."""
        return batch["attention_mask"].new_tensor(len(batch["attention_mask"]))
