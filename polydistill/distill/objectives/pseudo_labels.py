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
    refresh: str = setting(
        "step",
        "When prototypes of the student's features change: step, as a moving average, or epoch, where they become the "
        "means of the epoch before.",
        "",
        choices=("step", "epoch"),
    )
    momentum: float = setting(0.9, "Momentum of prototypes that move with every step.", "", least=0, most=0.9999999)
    keep: float = setting(
        1.0, "Share of the words of each tag that count: those of which the teacher is surest.", "", above=0, most=1
    )


class PseudoLabels(Objective):
    """Cross-entropy with the teacher's own labels (reconstruction of ProKD, Ge et al. 2023, arXiv 2301.08855).

    -sum_c q_c log softmax(z_S)_c at the first token of each word, q in proportion to p_teacher times
    softmax_k(-||h - c_k|| / tau) of the tag's class, or p_teacher alone where labels are not rectified. The weight
    grows from 0 in a ramp. The features h are the teacher's; where they are the student's, the prototypes follow them,
    and the given ones are the first. With `keep` below 1 a word counts only if the teacher gives its likeliest tag a
    probability that is among the highest of that tag over the training data.

    Args:
        options: Form, ramp and rectification.
        outside: Number of the tag O.
        prototypes: (K, H), NaN rows for classes without one; needed to rectify.
        class_of: (L,) class of each tag.
        layer: Whose hidden states h are, counted from 1.
        outputs: L, number of tags; needed where not all words count.
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
        outputs: int = 0,
    ) -> None:
        import torch
        from torch import nn

        from polydistill.distill.prototypes import MovingPrototypes

        self._options, self._outside, self._ramp = options, outside, 0
        self._features, self._class_of = Signal(HIDDEN, layer), torch.tensor(class_of, dtype=torch.long)
        self.module: nn.Module = nn.Module()
        self.module.register_buffer("steps", torch.tensor(0))
        self.module.register_buffer("least", torch.zeros(outputs))
        self.looks = options.keep < 1
        self._sure: list[Tensor] = []
        self.prototypes: MovingPrototypes | None = None
        seen = set[Signal]()
        if options.rectify and prototypes is not None:
            self.prototypes = MovingPrototypes(len(prototypes), prototypes.shape[1], options.momentum)
            self.prototypes.values.copy_(prototypes)
            self.prototypes.seen.copy_(~prototypes.isnan().any(1))
            self.module.add_module("prototypes", self.prototypes)
            self.module.register_buffer("sums", torch.zeros(prototypes.shape))
            self.module.register_buffer("numbers", torch.zeros(len(prototypes)))
            seen = {self._features}
        own, theirs = (seen, set()) if self._of_student else (set(), seen)
        self.needs = Needs(frozenset({_LOGITS, *own}), frozenset({_LOGITS, *theirs}))

    @property
    def _by_epoch(self) -> bool:
        return self._of_student and self._options.refresh == "epoch"

    @property
    def _of_student(self) -> bool:
        return self._options.features == STUDENT

    def begin(self, facts: TrainingFacts) -> None:
        """Counts the steps of the ramp."""
        self._ramp = round(self._options.ramp * facts.steps)

    def look(self, teacher: Signals, batch: Batch) -> None:
        """Notes how sure the teacher is of each word."""
        self._sure.append(teacher[_LOGITS][first_tokens(batch)].float().softmax(-1))

    def end_look(self) -> None:
        """Finds the probability that the words of each tag need to count."""
        import torch

        self.module.get_buffer("least").copy_(least_of(torch.cat(self._sure), self._options.keep))
        self._sure.clear()

    def begin_epoch(self, epoch: int) -> None:
        """Makes prototypes of the student's features in the epoch before."""
        import torch

        if self.prototypes is None or not self._by_epoch or not epoch:
            return
        sums, numbers = self.module.get_buffer("sums"), self.module.get_buffer("numbers")
        there = (numbers > 0).unsqueeze(1)
        means = sums / numbers.clamp(min=1).unsqueeze(1)
        self.prototypes.values.copy_(torch.where(there, means, self.prototypes.values))
        self.prototypes.seen |= there.squeeze(1)
        for total in (sums, numbers):
            total.zero_()

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
        counts = self._counting(guessed).to(own.dtype)
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
        losses = -(wanted * own.log_softmax(-1)).sum(-1)
        return {"pseudo_labels": Mean(share * (counts * losses).sum(), self.weight(batch))}

    def _counting(self, guessed: Tensor) -> Tensor:
        """(n,) whether each word counts."""
        sure, tags = guessed.max(-1)
        if self._options.keep == 1:
            return sure >= 0
        found: Tensor = sure >= self.module.get_buffer("least")[tags]
        return found

    def _rectified(self, guessed: Tensor, signals: Signals, rows: Tensor) -> Tensor:
        """(n, L) the labels of n words; `guessed` are the teacher's probabilities."""
        from polydistill.distill.prototypes import nearness, rectified

        if self.prototypes is None:
            return guessed
        class_of, options = self._class_of.to(guessed.device), self._options
        features = signals[self._features][rows].detach().float()
        where, classes = self.prototypes.values, class_of[guessed.argmax(-1)]
        if self._by_epoch:
            if self.learns:
                self._add(features, classes)
            if not self.prototypes.seen.any():
                return guessed
        elif self._of_student:
            where = self.prototypes(features, classes)
        return rectified(guessed, nearness(features, where, options.temperature, options.distance), class_of)

    def _add(self, features: Tensor, classes: Tensor) -> None:
        """Adds words to what the prototypes of the next epoch are means of."""
        from polydistill.distill.prototypes import class_means

        means, numbers = class_means(features, classes, len(self.module.get_buffer("numbers")))
        self.module.get_buffer("sums").add_(means * numbers.unsqueeze(1))
        self.module.get_buffer("numbers").add_(numbers)

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: the number of words that begin, whether or not they count."""
        return first_tokens(batch).sum()

    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        """Counts for the ramp."""
        self.module.get_buffer("steps").fill_(step)


def least_of(probabilities: Tensor, keep: float) -> Tensor:
    """(L,) the probability that a tag's words need to be among the surest share of them; 0 for a tag without words.

    Args:
        probabilities: (n, L) of all words.
        keep: The share of each tag's words, rounded up.
    """
    import torch

    sure, tags = probabilities.max(-1)
    least = torch.zeros(probabilities.shape[1])
    for tag in tags.unique().tolist():
        own = sure[tags == tag].sort(descending=True).values
        least[tag] = own[max(0, -int(-keep * len(own) // 1) - 1)]
    return least
