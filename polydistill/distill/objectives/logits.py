"""Logits with a temperature: the teacher's distribution over classes, tags or places of an answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polydistill.distill.objectives.base import Mean, Needs, Objective
from polydistill.distill.objectives.common import logit_rows, row_count
from polydistill.distill.signals import LOGITS, Batch, Signal, Signals
from polydistill.options.settings import Options, setting

if TYPE_CHECKING:
    from torch import Tensor

CROSS_ENTROPY, KL, REVERSE, JSD = "cross-entropy", "kl", "reverse-kl", "jsd"
VARIATION, SKEW, SKEW_REVERSE = "total-variation", "skew-kl", "skew-reverse-kl"
FORMS = (CROSS_ENTROPY, KL, REVERSE, JSD, VARIATION, SKEW, SKEW_REVERSE)
_LOGITS = Signal(LOGITS)


@dataclass(frozen=True)
class LogitsOptions(Options):
    """The options of `logits`."""

    temperature: float = setting(2.0, "Softmax temperature of both distributions.", "", least=1e-6)
    squared: bool = setting(True, "Multiply by the squared temperature, so that gradients do not shrink with it.", "")
    form: str = setting(
        CROSS_ENTROPY,
        "cross-entropy or kl, with the same gradients (kl is 0 where the two agree); reverse-kl; jsd, a generalised "
        "Jensen-Shannon divergence; total-variation; or skew-kl and skew-reverse-kl, against a mixture of both.",
        "",
        choices=FORMS,
    )
    beta: float = setting(
        0.5,
        "Of jsd: 0 is kl, 1 is reverse-kl. As beta goes to 0 the value goes to beta times kl, so weights do not "
        "compare across values of beta.",
        "",
        least=0,
        most=1,
    )
    skew: float = setting(
        0.1, "Of skew-kl and skew-reverse-kl: the share of the first distribution in the mixture.", "", least=0, most=1
    )


class Logits(Objective):
    """A divergence of two distributions at a temperature (Hinton et al. 2015, arXiv 1503.02531; BiStil, 2306.01709).

    With p = softmax(z_T/T) and q = softmax(z_S/T): cross-entropy -sum_c p_c log q_c; KL(p || q) and its reverse; the
    generalised Jensen-Shannon divergence beta KL(p || m) + (1 - beta) KL(q || m) with m = beta p + (1 - beta) q (GKD,
    Agarwal et al. 2024, arXiv 2306.13649), whose ends are KL and its reverse; total variation, half the sum of
    |p_c - q_c|; and with a skew a KL(p || a p + (1 - a) q) or KL(q || a q + (1 - a) p) (DistiLLM, Ko et al. 2024,
    arXiv 2402.03898). Times T^2 if `squared`; BiStil's code does not. The mean over the rows of `logit_rows`; for an
    answer that over texts of the sum for start and end.

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
        total = self._divergence(rows.student.log_softmax(-1), rows.teacher.log_softmax(-1))
        return {"logits": Mean(self._factor * total, rows.number)}

    def _divergence(self, own: Tensor, theirs: Tensor) -> Tensor:
        """Scalar: the sum over rows; both are (R, C) log-probabilities."""
        form, options = self._options.form, self._options
        if form == CROSS_ENTROPY:
            return -(theirs.exp() * own).sum()
        if form == VARIATION:
            return (theirs.exp() - own.exp()).abs().sum() / 2
        if form == JSD and 0 < options.beta < 1:
            middle = _mixture(theirs, own, options.beta)
            return options.beta * _kl(theirs, middle) + (1 - options.beta) * _kl(own, middle)
        if form in (SKEW, SKEW_REVERSE):
            first, second = (theirs, own) if form == SKEW else (own, theirs)
            return _kl(first, _mixture(first, second, options.skew))
        if form == REVERSE or (form == JSD and options.beta == 1):
            return _kl(own, theirs)
        return _kl(theirs, own)

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: the number of rows or positions."""
        return row_count(batch)


def _kl(first: Tensor, second: Tensor) -> Tensor:
    """Scalar: the sum over rows of KL(first || second), of log-probabilities."""
    return (first.exp() * (first - second)).sum()


def _mixture(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The logarithm of a mixture of two distributions, with that share of the first."""
    if share in (0, 1):
        return first if share else second
    return (first + math.log(share)).logaddexp(second + math.log(1 - share))
