"""Probabilities: squared error between what teacher and student hold likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from polydistill.distill.objectives.base import Mean, Needs, Objective
from polydistill.distill.objectives.common import OTHER_LABELS, comparable, first_tokens
from polydistill.distill.signals import LOGITS, Batch, Signal, Signals
from polydistill.options.settings import Options, setting

if TYPE_CHECKING:
    from torch import Tensor

_LOGITS = Signal(LOGITS)


@dataclass(frozen=True)
class ProbabilitiesOptions(Options):
    """The options of `probabilities`."""

    temperature: float = setting(1.0, "Softmax temperature of both distributions.", "", least=1e-6)
    squared: bool = setting(False, "Multiply by the squared temperature.", "")


class Probabilities(Objective):
    """Mean squared error between probabilities of tags (TSL, Wu et al. 2020, arXiv 2004.12440, section 3.1).

    T^2 ||softmax(z_T/T) - softmax(z_S/T)||^2 / L at the first token of each word; T^2 if `squared`.

    Args:
        options: Temperature, and whether to multiply by its square.
    """

    options_class = ProbabilitiesOptions

    def __init__(self, options: ProbabilitiesOptions = ProbabilitiesOptions()) -> None:
        self._temperature = options.temperature
        self._factor = options.temperature**2 if options.squared else 1.0
        self.needs = Needs(frozenset({_LOGITS}), frozenset({_LOGITS}))

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term, `probabilities`.

        Args:
            student: Logits of tags (B, N, L).
            teacher: The same.
            batch: `word_ids` (B, N), below 0 where no word begins.

        Raises:
            PolydistillError: Student and teacher have not as many outputs.
        """
        rows = first_tokens(batch)
        own, theirs = comparable(
            "probabilities", "outputs", student[_LOGITS][rows], teacher[_LOGITS][rows], hint=OTHER_LABELS
        )
        error = (own / self._temperature).softmax(-1) - (theirs / self._temperature).softmax(-1)
        return {"probabilities": Mean(self._factor * error.square().mean(-1).sum(), self.weight(batch))}

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: the number of words that begin."""
        return first_tokens(batch).sum()
