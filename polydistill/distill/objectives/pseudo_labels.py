"""Pseudo-labels: the teacher's tags of text without any, rectified by prototypes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from polydistill.distill.objectives.base import Mean, Needs, Objective
from polydistill.distill.objectives.common import comparable, first_tokens
from polydistill.distill.objectives.logits import OTHER_LABELS
from polydistill.distill.prototypes import MovingPrototypes, nearness, rectified
from polydistill.distill.signals import HIDDEN, LOGITS, Batch, Signal, Signals
from polydistill.errors import UsageError

FORMS = ("soft", "hard")
_LOGITS = Signal(LOGITS)


class PseudoLabels(Objective):
    """Cross-entropy with the teacher's own labels (reconstruction of ProKD, Ge et al. 2023, arXiv 2301.08855).

    -sum_c q_c log softmax(z_S)_c at the first token of each word, q in proportion to p_teacher times
    softmax_k(-||h - c_k|| / tau) of the tag's class, or p_teacher alone where there are no prototypes. The weight
    grows from 0 in a ramp.

    Args:
        outside: Number of the tag O.
        form: `soft`, or `hard` for q's likeliest tag.
        ramp: Steps in which the weight grows to its full value.
        prototypes: (K, H), rows that are no numbers for classes without one; None for no rectification.
        class_of: (L,) class of each tag.
        layer: Whose hidden states h are, counted from 1: the teacher's, or the student's.
        of_student: Whether h are the student's; then the prototypes move with its own features, and the given ones are
            the first.
        momentum: Of that movement.
        temperature: tau.
        distance: See `prototypes.nearness`.

    Raises:
        UsageError: The form is unknown.
    """

    step: Tensor
    class_of: Tensor

    def __init__(
        self,
        *,
        outside: int,
        form: str = "soft",
        ramp: int = 0,
        prototypes: Tensor | None = None,
        class_of: tuple[int, ...] = (),
        layer: int = 0,
        of_student: bool = False,
        momentum: float = 0.9,
        temperature: float = 0.1,
        distance: str = "euclidean",
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise UsageError(f"Unknown form of pseudo-labels '{form}'.", f"Known are {', '.join(FORMS)}.")
        self._outside, self._form, self._ramp = outside, form, ramp
        self._temperature, self._distance = temperature, distance
        self._features, self._of_student = Signal(HIDDEN, layer), of_student
        self.prototypes: MovingPrototypes | None = None
        if prototypes is not None:
            self.prototypes = MovingPrototypes(len(prototypes), prototypes.shape[1], momentum)
            self.prototypes.values.copy_(prototypes)
            self.prototypes.seen.copy_(~prototypes.isnan().any(1))
        self.register_buffer("class_of", torch.tensor(class_of, dtype=torch.long))
        self.register_buffer("step", torch.tensor(0))
        seen = {self._features} if prototypes is not None else set()
        own, theirs = (seen, set()) if of_student else (set(), seen)
        self.needs = Needs(frozenset({_LOGITS, *own}), frozenset({_LOGITS, *theirs}))

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term, `pseudo_labels`, ramp included.

        Args:
            student: Logits of tags (B, N, L), and its hidden states if they are the features.
            teacher: The same of the teacher.
            batch: `word_ids` (B, N), below 0 where no word begins.

        Raises:
            PolydistillError: Student and teacher have not as many outputs.
        """
        rows = first_tokens(batch)
        own, theirs = comparable(
            "pseudo_labels", "outputs", student[_LOGITS][rows], teacher[_LOGITS][rows], hint=OTHER_LABELS
        )
        guessed = theirs.softmax(-1)
        wanted = guessed
        if self.prototypes is not None:
            features = (student if self._of_student else teacher)[self._features][rows].detach().float()
            where = self.prototypes(features, self.class_of[guessed.argmax(-1)]) if self._of_student else None
            where = self.prototypes.values if where is None else where
            wanted = rectified(guessed, nearness(features, where, self._temperature, self._distance), self.class_of)
        best = wanted.argmax(-1)
        if self._form == "hard":
            wanted = one_hot(best, own.shape[-1]).to(own.dtype)
        share = min(1.0, (float(self.step) + 1) / self._ramp) if self._ramp else 1.0
        words = max(1, len(best))
        self.noted = {
            "changed": float((best != guessed.argmax(-1)).sum()) / words,
            "entities": float((best != self._outside).sum()) / words,
        }
        return {"pseudo_labels": Mean(-share * (wanted * own.log_softmax(-1)).sum(), self.weight(batch))}

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: the number of words that begin."""
        return first_tokens(batch).sum()

    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        """Counts for the ramp."""
        self.step.fill_(step)
