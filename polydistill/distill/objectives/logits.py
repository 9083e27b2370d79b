"""Logits with a temperature: the teacher's distribution over classes, tags or places of an answer."""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from polydistill.distill.objectives.base import Mean, Needs, Objective
from polydistill.distill.objectives.common import comparable, first_tokens
from polydistill.distill.signals import LOGITS, NEVER, Batch, Signal, Signals
from polydistill.errors import UsageError

FORMS = ("cross-entropy", "kl")
NOT_TRAINED = -100  # label of a position that has none
OTHER_LABELS = "Choose a teacher that was tuned for the same task with the same labels."
_LOGITS = Signal(LOGITS)


class Logits(Objective):
    """Soft cross-entropy or KL at a temperature (Hinton et al. 2015, arXiv 1503.02531; BiStil, arXiv 2306.01709).

    Cross-entropy: -sum_c softmax(z_T/T)_c log softmax(z_S/T)_c; KL: KL(softmax(z_T/T) || softmax(z_S/T)), which has the
    same gradient and is 0 where the two agree. Both times T^2 if `squared`, so that gradients do not shrink with T.
    For logits (B, L) the mean over rows. For (B, N, L) that over positions with a label; without labels over those
    where a word begins, and where no words are known over all but padding. For (B, 2, N), an answer's start and end,
    the mean over rows of the sum of both.

    Args:
        temperature: T.
        squared: Whether to multiply with T^2; BiStil's code does not.
        form: One of `FORMS`.

    Raises:
        UsageError: The temperature is not above 0, or the form unknown.
    """

    def __init__(self, *, temperature: float = 2.0, squared: bool = True, form: str = "cross-entropy") -> None:
        super().__init__()
        if not 0 < temperature < inf:
            raise UsageError(f"A temperature of {temperature} makes no sense.", "Give a number above 0, such as 2.")
        if form not in FORMS:
            raise UsageError(f"Unknown form of logit distillation '{form}'.", f"Known are {', '.join(FORMS)}.")
        self._temperature, self._form = temperature, form
        self._factor = temperature**2 if squared else 1.0
        self.needs = Needs(frozenset({_LOGITS}), frozenset({_LOGITS}))

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term, `logits`; `labels` and `word_ids` in the batch only say which positions count.

        Raises:
            PolydistillError: Student and teacher have not as many outputs.
        """
        own, theirs, mask = student[_LOGITS], teacher[_LOGITS], batch["attention_mask"].bool()
        valid = None
        rows = mask.new_ones(len(own))
        if is_answer(own, mask):
            valid = mask.unsqueeze(1)
        elif own.ndim == 3:
            rows = _positions(batch, mask)
            own, theirs = own[rows], theirs[rows]
        own, theirs = comparable("logits", "outputs", own, theirs, hint=OTHER_LABELS)
        return {"logits": Mean(self._factor * self._divergence(own, theirs, valid), rows.sum())}

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: the number of rows or positions."""
        mask = batch["attention_mask"].bool()
        if "start_positions" in batch or ("labels" in batch and batch["labels"].ndim == 1):
            return mask.new_tensor(len(mask), dtype=torch.long)
        return _positions(batch, mask).sum()

    def _divergence(self, student: Tensor, teacher: Tensor, valid: Tensor | None) -> Tensor:
        """Scalar: the sum over all but the last axis; `valid` is False where an output is none."""
        own, theirs = student / self._temperature, teacher / self._temperature
        if valid is not None:
            own, theirs = own.masked_fill(~valid, NEVER), theirs.masked_fill(~valid, NEVER)
        own, theirs = own.log_softmax(-1), theirs.log_softmax(-1)
        return (theirs.exp() * (theirs - own if self._form == "kl" else -own)).sum()


def _positions(batch: Batch, mask: Tensor) -> Tensor:
    if "labels" in batch:
        labels: Tensor = batch["labels"]
        return labels != NOT_TRAINED
    return first_tokens(batch) if "word_ids" in batch else mask


def is_answer(logits: Tensor, mask: Tensor) -> bool:
    """Whether logits are (B, 2, N) of start and end, not (B, N, L); a question with its text has more than 2 tokens."""
    return logits.ndim == 3 and logits.shape[1] != mask.shape[1]
