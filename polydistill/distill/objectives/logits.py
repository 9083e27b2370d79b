"""Logits with a temperature: the teacher's distribution over classes, tags or places of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from polydistill.distill.objectives.base import Mean, Needs, Objective
from polydistill.distill.objectives.common import logit_rows, row_count
from polydistill.distill.signals import LOGITS, Batch, Signal, Signals
from polydistill.options.settings import Options, setting

if TYPE_CHECKING:
    from torch import Tensor

CROSS_ENTROPY, KL = "cross-entropy", "kl"
_LOGITS = Signal(LOGITS)


@dataclass(frozen=True)
class LogitsOptions(Options):
    """The options of `logits`."""

    temperature: float = setting(2.0, "Softmax temperature of both distributions.", "", least=1e-6)
    squared: bool = setting(True, "Multiply by the squared temperature, so that gradients do not shrink with it.", "")
    form: str = setting(
        CROSS_ENTROPY,
        "cross-entropy or kl: the gradients are the same, and kl is 0 where the two agree.",
        "",
        choices=(CROSS_ENTROPY, KL),
    )


class Logits(Objective):
    """Soft cross-entropy or KL at a temperature (Hinton et al. 2015, arXiv 1503.02531; BiStil, arXiv 2306.01709).

    Cross-entropy: -sum_c softmax(z_T/T)_c log softmax(z_S/T)_c; KL: KL(softmax(z_T/T) || softmax(z_S/T)). Both times
    T^2 if `squared`; BiStil's code does not. The mean over the rows of `logit_rows`; for an answer that over texts of
    the sum for start and end.

    Args:
        options: Temperature and form.
    """

    options_class = LogitsOptions

    def __init__(self, options: LogitsOptions = LogitsOptions()) -> None:
        self._options = options
        self._factor = options.temperature**2 if options.squared else 1.0
        self.needs = Needs(frozenset({_LOGITS}), frozenset({_LOGITS}))

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term, `logits`; `labels` and `word_ids` in the batch only say which positions count.

        Raises:
            PolydistillError: Student and teacher have not as many outputs.
        """
        rows = logit_rows("logits", student, teacher, batch, self._options.temperature)
        own, theirs = rows.student.log_softmax(-1), rows.teacher.log_softmax(-1)
        total = (theirs.exp() * (theirs - own if self._options.form == KL else -own)).sum()
        return {"logits": Mean(self._factor * total, rows.number)}

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: the number of rows or positions."""
        return row_count(batch)
