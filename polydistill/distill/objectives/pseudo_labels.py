"""Pseudo-labels: the teacher's tags of text without any, rectified by prototypes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polydistill.distill.objectives.base import Mean, Needs, Objective
from polydistill.distill.objectives.common import OTHER_LABELS, comparable, first_tokens
from polydistill.distill.signals import HIDDEN, LOGITS, Batch, Signal, Signals
from polydistill.options.settings import Options, setting

if TYPE_CHECKING:
    from torch import Tensor

    from polydistill.training.facts import TrainingFacts

TEACHER, STUDENT = "teacher", "student"
_LOGITS = Signal(LOGITS)


@dataclass(frozen=True)
class PseudoLabelsOptions(Options):
    """The options of `pseudo-labels`."""

    form: str = setting(
        "soft", "soft: rectified probabilities; hard: their likeliest tag.", "", choices=("soft", "hard")
    )
    ramp: float = setting(0.5, "Share of the steps in which the weight grows from 0.", "", least=0, most=1)
    rectify: bool = setting(True, "Rectify the labels by prototypes.", "")
    temperature: float = setting(1.0, "Temperature of the rectification.", "", least=1e-6)
    distance: str = setting(
        "unit",
        "Distance to a prototype: euclidean, or unit for vectors scaled to length 1.",
        "",
        choices=("euclidean", "unit"),
    )
    features: str = setting(TEACHER, "Whose features are compared.", "", choices=(TEACHER, STUDENT))
    momentum: float = setting(
        0.9, "Momentum of the prototypes that move with the student's features.", "", least=0, most=0.9999999
    )


class PseudoLabels(Objective):
    """Cross-entropy with the teacher's own labels (reconstruction of ProKD, Ge et al. 2023, arXiv 2301.08855).

    -sum_c q_c log softmax(z_S)_c at the first token of each word, q in proportion to p_teacher times
    softmax_k(-||h - c_k|| / tau) of the tag's class, or p_teacher alone where labels are not rectified. The weight
    grows from 0 in a ramp. The features h are the teacher's; where they are the student's, the prototypes move with
    them, and the given ones are the first.

    Args:
        options: Form, ramp and rectification.
        outside: Number of the tag O.
        prototypes: (K, H), NaN rows for classes without one; needed to rectify.
        class_of: (L,) class of each tag.
        layer: Whose hidden states h are, counted from 1.
    """

    options_class = PseudoLabelsOptions

    def __init__(
        self,
        options: PseudoLabelsOptions = PseudoLabelsOptions(),
        *,
        outside: int,
        prototypes: Tensor | None = None,
        class_of: tuple[int, ...] = (),
        layer: int = 0,
    ) -> None:
        import torch
        from torch import nn

        from polydistill.distill.prototypes import MovingPrototypes

        self._options, self._outside, self._ramp = options, outside, 0
        self._features, self._class_of = Signal(HIDDEN, layer), torch.tensor(class_of, dtype=torch.long)
        self.module: nn.Module = nn.Module()
        self.module.register_buffer("steps", torch.tensor(0))
        self.prototypes: MovingPrototypes | None = None
        seen = set[Signal]()
        if options.rectify and prototypes is not None:
            self.prototypes = MovingPrototypes(len(prototypes), prototypes.shape[1], options.momentum)
            self.prototypes.values.copy_(prototypes)
            self.prototypes.seen.copy_(~prototypes.isnan().any(1))
            self.module.add_module("prototypes", self.prototypes)
            seen = {self._features}
        own, theirs = (seen, set()) if self._of_student else (set(), seen)
        self.needs = Needs(frozenset({_LOGITS, *own}), frozenset({_LOGITS, *theirs}))

    @property
    def _of_student(self) -> bool:
        return self._options.features == STUDENT

    def begin(self, facts: TrainingFacts) -> None:
        """Counts the steps of the ramp."""
        self._ramp = round(self._options.ramp * facts.steps)

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term, `pseudo_labels`, ramp included.

        Args:
            student: Logits of tags (B, N, L), and its hidden states if they are the features.
            teacher: The same of the teacher.
            batch: `word_ids` (B, N), below 0 where no word begins.

        Raises:
            PolydistillError: Student and teacher have not as many outputs.
        """
        from torch.nn.functional import one_hot

        rows = first_tokens(batch)
        own, theirs = comparable(
            "pseudo-labels", "outputs", student[_LOGITS][rows], teacher[_LOGITS][rows], hint=OTHER_LABELS
        )
        guessed = theirs.softmax(-1)
        wanted = self._rectified(guessed, (student if self._of_student else teacher), rows)
        best = wanted.argmax(-1)
        if self._options.form == "hard":
            wanted = one_hot(best, own.shape[-1]).to(own.dtype)
        steps = float(self.module.get_buffer("steps"))
        share = min(1.0, (steps + 1) / self._ramp) if self._ramp else 1.0
        words = max(1, len(best))
        self.noted = {
            "changed": float((best != guessed.argmax(-1)).sum()) / words,
            "entities": float((best != self._outside).sum()) / words,
        }
        return {"pseudo_labels": Mean(-share * (wanted * own.log_softmax(-1)).sum(), self.weight(batch))}

    def _rectified(self, guessed: Tensor, signals: Signals, rows: Tensor) -> Tensor:
        """(n, L) the labels of n words; `guessed` are the teacher's probabilities."""
        from polydistill.distill.prototypes import nearness, rectified

        if self.prototypes is None:
            return guessed
        class_of, options = self._class_of.to(guessed.device), self._options
        features = signals[self._features][rows].detach().float()
        where = self.prototypes.values
        if self._of_student:
            where = self.prototypes(features, class_of[guessed.argmax(-1)])
        return rectified(guessed, nearness(features, where, options.temperature, options.distance), class_of)

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: the number of words that begin."""
        return first_tokens(batch).sum()

    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        """Counts for the ramp."""
        self.module.get_buffer("steps").fill_(step)
