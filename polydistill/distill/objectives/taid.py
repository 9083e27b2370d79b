"""TAID: the target moves from the student's own distribution to the teacher's, as fast as the student follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING

from polydistill.distill.objectives.base import Mean, Needs, Objective
from polydistill.distill.objectives.common import logit_rows, row_count
from polydistill.distill.signals import LOGITS, Batch, Signal, Signals
from polydistill.options.settings import Options, setting

if TYPE_CHECKING:
    from torch import Tensor, nn

    from polydistill.training.facts import TrainingFacts

TERM, KL = "taid", "taid_kl"
_LOGITS = Signal(LOGITS)


@dataclass(frozen=True)
class TaidOptions(Options):
    """The options of `taid`."""

    start: float = setting(0.4, "The teacher's share of the target at first.", "", least=0, most=1)
    end: float = setting(1.0, "Its share in the end.", "", least=0, most=1)
    alpha: float = setting(5e-4, "How much faster than linearly the share may grow per step.", "", least=0, most=1)
    beta: float = setting(0.99, "Momentum of the progress that decides how much faster it grows.", "", least=0, most=1)
    follow: str = setting(
        "loss",
        "What has to fall for that: loss, the cross-entropy as in the paper's code, which also changes with the "
        "target's entropy; or kl, which does not.",
        "",
        choices=("loss", "kl"),
    )


class Taid(Objective):
    """Temporally adaptive interpolated distillation (Shing et al. 2025, arXiv 2501.16937).

    The target is p_t = softmax((1 - t) z_S + t z_T), z_S without a gradient, and the loss the cross-entropy
    -sum_c p_t,c log softmax(z_S)_c over the rows of `logit_rows`. After each step with the loss L,
    delta = (L' - L) / (L' + 1e-15) for the last step's loss L', m <- beta m + (1 - beta) delta, and
    t <- min(end, max(start + (end - start) s, t + alpha sigmoid(m) (1 - t))), s the share of the steps that is done.
    The first step only stores L. t = 1 is the objective `logits` at temperature 1; at t = 0 there is no gradient.

    Args:
        options: Of the way from student to teacher.
    """

    options_class = TaidOptions
    module: nn.Module

    def __init__(self, options: TaidOptions = TaidOptions()) -> None:
        self._options, self._steps = options, 1
        self.needs = Needs(frozenset({_LOGITS}), frozenset({_LOGITS}))

    def begin(self, facts: TrainingFacts) -> None:
        """Begins with the share `start`."""
        import torch
        from torch import nn

        self._steps, self.module = facts.steps, nn.Module()
        for name, value in (("share", self._options.start), ("progress", 0.0), ("before", torch.nan)):
            self.module.register_buffer(name, torch.tensor(value, dtype=torch.float64))

    @property
    def share(self) -> float:
        """t, the teacher's share of the target."""
        return float(self.module.get_buffer("share"))

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term, `taid`; `labels` and `word_ids` in the batch only say which positions count.

        Raises:
            PolydistillError: Student and teacher have not as many outputs.
        """
        rows, share = logit_rows("taid", student, teacher, batch), self.share
        target = ((1 - share) * rows.student.detach() + share * rows.teacher).log_softmax(-1)
        found = rows.student.log_softmax(-1)
        loss = -(target.exp() * found).sum()
        divergence = (target.exp() * (target - found.detach())).sum()
        self.noted = {KL: Mean(divergence, rows.number), "taid_share": share}
        return {TERM: Mean(loss, rows.number)}

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: the number of rows or positions."""
        return row_count(batch)

    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        """Moves the share on."""
        options, now = self._options, losses[TERM if self._options.follow == "loss" else KL]
        before, progress = (self.module.get_buffer(name) for name in ("before", "progress"))
        if not before.isnan():
            delta = (float(before) - now) / (float(before) + 1e-15)
            progress.fill_(options.beta * float(progress) + (1 - options.beta) * delta)
            faster = self.share + options.alpha * (1 - self.share) / (1 + exp(-float(progress)))
            linear = options.start + (options.end - options.start) * step / self._steps
            self.module.get_buffer("share").fill_(min(options.end, max(linear, faster)))
        before.fill_(now)
