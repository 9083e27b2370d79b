"""What every sampler has: shares of the batches, and what it may learn on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from polydistill.options.settings import Options


class Losses(NamedTuple):
    """What is lost on held-out data of a group.

    Attributes:
        student: By the student.
        teacher: By the teacher; 1 where the student's loss is its distance to the teacher, as a share of the teacher's
            own size.
    """

    student: float
    teacher: float


class Sampler:
    """How often each group of data (a language, a domain) is seen.

    Args:
        sizes: Group -> number of its examples.

    Attributes:
        options_class: That of its options.
        follows: Whether `update` is called.
        every: Batches after which `weights` are asked for again; None for once an epoch.
    """

    options_class: ClassVar[type[Options]] = Options
    follows: ClassVar[bool] = False
    every: int | None = None

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.groups = tuple(sizes)

    def weights(self) -> dict[str, float]:
        """Group -> its share of the batches; they add up to 1."""
        raise NotImplementedError

    def update(self, losses: Mapping[str, Losses]) -> None:
        """Called with the held-out losses of each group before training and after every check."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep, as JSON."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned."""
