"""Several teachers whose weights follow how far the student has come with each of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from polydistill.distill.objectives.common import Rows, logit_rows
from polydistill.distill.signals import LOGITS, Batch, Signal, Signals
from polydistill.distill.teachers.base import Teacher
from polydistill.distill.teachers.ensemble import Ensemble
from polydistill.errors import UsageError
from polydistill.processes import several

RATE, POWER = 0.025, 1.0
_LOGITS = Signal(LOGITS)


class Balanced(Ensemble):
    """Teachers who count more where the student is still far from them (Avram et al. 2022, arXiv 2112.12650, code).

    After each step, with L_i the KL between teacher i and the student and L_i(0) that of the first step, r_i =
    (L_i / L_i(0))^POWER, and w_i <- w_i - RATE (w_i - r_i / sum r). Before probabilities are averaged each teacher's
    logits are divided by a temperature of at least 1, so that all have the mean entropy of the least certain one.

    Args:
        teachers: Each with its weight at first.

    Raises:
        UsageError: There are several processes, whose losses would differ.
    """

    module: nn.Module

    def __init__(self, teachers: Sequence[tuple[Teacher, float]]) -> None:
        super().__init__(teachers)
        if several():
            raise UsageError("Teachers are balanced in one process alone.", "Start one, or leave `combine` out.")
        weights = torch.tensor([weight for _, weight in teachers], dtype=torch.float64)
        self._inner, self.module = self.module, nn.Module()
        if self._inner is not None:
            self.module.add_module("teachers", self._inner)
        self.module.register_buffer("weights", weights / weights.sum())
        self.module.register_buffer("first", torch.full_like(weights, torch.nan))
        self._said: list[Tensor] = []
        self._losses, self._rows = torch.zeros_like(weights), 0.0

    @property
    def weights(self) -> Tensor:
        """(K,) the teachers' weights; they add up to 1."""
        return self.module.get_buffer("weights")

    def signals(self, batch: Batch) -> Signals:
        """The signals of a batch."""
        found: dict[Signal, Tensor] = {}
        said: list[Tensor] = []
        for teacher, _ in self._teachers:
            for signal, tensor in teacher.signals(batch).items():
                if signal == _LOGITS:
                    said.append(tensor)
                else:
                    found[signal] = tensor
        self._said = said
        if said:
            rows = [logit_rows("balance", {_LOGITS: one}, {_LOGITS: one}, batch).teacher for one in said]
            shares = zip(self.weights.tolist(), said, equal_temperatures(rows), strict=True)
            mean = sum((weight * (one / heat).softmax(-1) for weight, one, heat in shares), torch.zeros_like(said[0]))
            found[_LOGITS] = mean.clamp(min=torch.finfo(mean.dtype).tiny).log()
        return found

    def compare(self, student: Signals, batch: Batch) -> None:
        """Notes how far the student is from each teacher."""
        if not self._said or _LOGITS not in student:
            return
        own = {_LOGITS: student[_LOGITS].detach()}
        rows = [logit_rows("balance", own, {_LOGITS: one}, batch) for one in self._said]
        self._losses += torch.stack([_divergence(one) for one in rows]).to(self._losses)
        self._rows += float(rows[0].number)

    def on_step(self) -> None:
        """Moves the weights."""
        super().on_step()
        if not self._rows:
            return
        losses = (self._losses / self._rows).to(self.weights.device)
        self._losses, self._rows = torch.zeros_like(self._losses), 0.0
        first = self.module.get_buffer("first")
        first.copy_(torch.where(first.isnan(), losses, first))
        self.weights.copy_(moved(self.weights, losses, first))


def moved(weights: Tensor, losses: Tensor, first: Tensor) -> Tensor:
    """(K,) the weights after a step.

    Args:
        weights: (K,) those before it.
        losses: (K,) L_i.
        first: (K,) L_i(0).
    """
    ratios = (losses / first.clamp(min=1e-12)) ** POWER
    return weights - RATE * (weights - ratios / ratios.sum().clamp(min=1e-12))


def equal_temperatures(logits: Sequence[Tensor]) -> list[float]:
    """Temperatures at which all teachers have the mean entropy of the one that is least certain.

    Args:
        logits: (R, L) of each teacher, for the same rows.
    """
    entropies = [_entropy(one) for one in logits]
    return [_temperature(one, max(entropies)) for one in logits]


def _temperature(logits: Tensor, wanted: float) -> float:
    low, high = 0.0, 10.0  # of the logarithm: 1 to 22,000
    if not len(logits) or _entropy(logits) >= wanted:
        return 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _entropy(logits / float(torch.tensor(middle).exp())) < wanted else (low, middle)
    return float(torch.tensor((low + high) / 2, dtype=torch.float64).exp())


def _entropy(logits: Tensor) -> float:
    found = logits.double().log_softmax(-1)
    return float(-(found.exp() * found).sum(-1).mean()) if len(logits) else 0.0


def _divergence(rows: Rows) -> Tensor:
    """Scalar: the sum over rows of KL(teacher || student)."""
    own, theirs = rows.student.log_softmax(-1), rows.teacher.log_softmax(-1)
    return (theirs.exp() * (theirs - own)).sum()
