"""The last hidden states' directions."""

from __future__ import annotations

from polydistill.distill.objectives.base import LayerPairs, Mean, Needs, Objective
from polydistill.distill.objectives.common import comparable
from polydistill.distill.signals import HIDDEN, Batch, Signal, Signals


class Cosine(Objective):
    """1 - cos(H_S, H_T) of the last hidden states (DistilBERT, Sanh et al. 2019, arXiv 1910.01108).

    The mean over positions that are not padding.

    Args:
        pairs: (student's layer, teacher's layer), counted from 0; the pair with the student's last layer is compared.
    """

    def __init__(self, pairs: LayerPairs) -> None:
        last = max(pairs)
        self._student, self._teacher = (Signal(HIDDEN, layer + 1) for layer in last)
        self.needs = Needs(frozenset({self._student}), frozenset({self._teacher}))

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term, `cosine`; its weight is the number of positions.

        Raises:
            PolydistillError: Student and teacher differ in width.
        """
        from torch.nn.functional import cosine_similarity

        mask = batch["attention_mask"].bool()
        states = student[self._student][mask], teacher[self._teacher][mask]
        own, theirs = comparable("cosine", "columns of hidden states", *states)
        return {"cosine": Mean((1 - cosine_similarity(own, theirs, dim=-1)).sum(), self.weight(batch))}
