"""Teachers that are copies of the student."""

from __future__ import annotations

from copy import deepcopy
from itertools import chain
from typing import TYPE_CHECKING, Any

from polydistill.catalog import Arch
from polydistill.distill.signals import Batch, Signal, Signals
from polydistill.distill.teachers.base import Teacher

if TYPE_CHECKING:
    from torch import nn


class StudentCopy(Teacher):
    """A copy of the student, without dropout, which subclasses renew or update.

    Args:
        student: The network that is trained, before anything observes it.
        needs: What to return.
        arch: The student's architecture.
        autocast: Whether matrices are multiplied in bfloat16.
    """

    module: nn.Module

    def __init__(self, *, student: Any, needs: frozenset[Signal], arch: Arch, autocast: bool = False) -> None:
        from polydistill.distill.teachers.frozen import FrozenTeacher

        self._student, self.module = student, deepcopy(student)
        self._frozen = FrozenTeacher(self.module, needs, arch, autocast=autocast)
        self.needs = needs

    def signals(self, batch: Batch) -> Signals:
        """The signals of a batch."""
        return self._frozen.signals(batch)

    def follow(self, share: float) -> None:
        """Moves the copy to the student.

        Args:
            share: How far: 1 makes them equal.
        """
        import torch

        with torch.no_grad():
            pairs = zip(_tensors(self.module), _tensors(self._student), strict=True)
            for own, now in pairs:
                there = now.detach().to(own.device)
                if share < 1 and own.is_floating_point():
                    own.lerp_(there.to(own.dtype), share)
                else:
                    own.copy_(there)


def _tensors(network: Any) -> Any:
    return chain(network.parameters(), network.buffers())
