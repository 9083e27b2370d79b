"""What every teacher has."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from polydistill.distill.signals import Batch, Signal, Signals
from polydistill.options.settings import Options

if TYPE_CHECKING:
    from torch import nn


class Teacher:
    """Whatever gives signals. It is not a module, so no part of it is ever trained or saved with a student.

    Attributes:
        options_class: That of its options, for one that a spec can name.
        needs: What `signals` returns.
        module: What of it changes while a student learns; checkpoints have its tensors. None for most teachers.
    """

    options_class: ClassVar[type[Options]] = Options
    needs: frozenset[Signal]
    module: nn.Module | None = None

    def signals(self, batch: Batch) -> Signals:
        """The signals of a batch: float32, without gradients, where the batch lies."""
        raise NotImplementedError

    def begin_epoch(self, epoch: int) -> None:
        """Called before the first step of each epoch, counted from 0."""

    def compare(self, student: Signals, batch: Batch) -> None:
        """Called after `signals` with what the student says of the batch, while it learns."""

    def on_step(self) -> None:
        """Called after each optimizer step."""
