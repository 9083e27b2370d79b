"""The moving average of the student's weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from polydistill.catalog import Arch
from polydistill.distill.signals import Signal
from polydistill.distill.teachers.copies import StudentCopy
from polydistill.options.settings import Options, setting


@dataclass(frozen=True)
class AverageOptions(Options):
    """The options of `average`."""

    decay: float = setting(0.999, "Share of the average that stays at each step.", "", least=0, most=1)


class AverageStudent(StudentCopy):
    """theta' <- d theta' + (1 - d) theta after each step (Tarvainen and Valpola 2017, arXiv 1703.01780).

    Args:
        options: d.
        student: See `StudentCopy`.
        needs: See there.
        arch: See there.
        autocast: See there.
    """

    options_class = AverageOptions

    def __init__(
        self,
        options: AverageOptions = AverageOptions(),
        *,
        student: Any,
        needs: frozenset[Signal],
        arch: Arch,
        autocast: bool = False,
    ) -> None:
        super().__init__(student=student, needs=needs, arch=arch, autocast=autocast)
        self._decay = options.decay

    def on_step(self) -> None:
        """Moves on."""
        self.follow(1 - self._decay)
