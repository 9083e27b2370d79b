"""Several teachers as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from polydistill.distill.signals import LOGITS, Batch, Signal, Signals
from polydistill.distill.teachers.base import Teacher
from polydistill.errors import PolydistillError


class Ensemble(Teacher):
    """Several teachers whose logits are averaged (Avram et al. 2022, arXiv 2112.12650); other signals are one's own.

    Args:
        teachers: Each with its weight; the weights are scaled to add up to 1.
        average: `logits`, as in the paper, or `probabilities`, whose logarithms are returned.

    Raises:
        PolydistillError: A signal other than logits would come from several, or a weight is not positive.
    """

    def __init__(
        self, teachers: Sequence[tuple[Teacher, float]], *, average: Literal["logits", "probabilities"] = "logits"
    ) -> None:
        if any(not weight > 0 for _, weight in teachers):
            raise PolydistillError("A teacher's weight must be above 0.", "Leave out the teachers that do not count.")
        self._teachers, self._average = tuple(teachers), average
        every = [s for teacher, _ in teachers for s in teacher.needs]
        self.needs = frozenset(every)
        twice = sorted({s.kind for s in every if s.kind != LOGITS and every.count(s) > 1})
        if twice:
            raise PolydistillError(
                f"Several teachers cannot share {', '.join(twice)}: only logits are averaged.",
                "Use the objective `logits` alone, or one teacher.",
            )

        if changing := {str(i): t.module for i, (t, _) in enumerate(teachers) if t.module is not None}:
            self.module = nn.ModuleDict(changing)

    def begin_epoch(self, epoch: int) -> None:
        """Tells each teacher."""
        for teacher, _ in self._teachers:
            teacher.begin_epoch(epoch)

    def compare(self, student: Signals, batch: Batch) -> None:
        """Tells each teacher."""
        for teacher, _ in self._teachers:
            teacher.compare(student, batch)

    def on_step(self) -> None:
        """Tells each teacher."""
        for teacher, _ in self._teachers:
            teacher.on_step()

    def signals(self, batch: Batch) -> Signals:
        """The signals of a batch."""
        found: dict[Signal, Tensor] = {}
        voters = [w for teacher, w in self._teachers if Signal(LOGITS) in teacher.needs]
        for teacher, weight in self._teachers:
            for signal, tensor in teacher.signals(batch).items():
                if signal.kind == LOGITS:
                    share = weight / sum(voters)
                    tensor = share * (tensor.softmax(-1) if self._average == "probabilities" else tensor)
                    tensor = tensor if signal not in found else found[signal] + tensor
                found[signal] = tensor
        if self._average == "probabilities" and voters:
            shares = found[Signal(LOGITS)]  # 0 at the padding of an answer
            found[Signal(LOGITS)] = shares.clamp(min=torch.finfo(shares.dtype).tiny).log()
        return found
