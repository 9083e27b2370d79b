"""Masked tokens: what the student guesses without a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polydistill.distill.objectives.base import Mean, Needs, Objective
from polydistill.distill.objectives.common import NOT_TRAINED
from polydistill.distill.objectives.labels import labelled
from polydistill.distill.signals import LOGITS, Batch, Signal, Signals

if TYPE_CHECKING:
    from torch import Tensor

_LOGITS = Signal(LOGITS)


class MaskedTokens(Objective):
    """Cross-entropy of masked tokens (BERT, Devlin et al. 2019, arXiv 1810.04805, section 3.1); without a teacher.

    The mean of -log softmax(z)_w over the positions that were chosen for masking; needs a model with such a head.
    """

    def __init__(self) -> None:
        self.needs = Needs(frozenset({_LOGITS}), frozenset())

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term, `mlm`.

        Args:
            student: The logits (B, N, V).
            teacher: Not looked at.
            batch: `labels` (B, N), the tokens that were there, -100 where nothing was masked.
        """
        return {"mlm": labelled(student[_LOGITS], batch["labels"])}

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: the number of masked tokens."""
        return (batch["labels"] != NOT_TRAINED).sum()
