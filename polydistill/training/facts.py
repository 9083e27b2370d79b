"""What is known of a training when it begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainingFacts:
    """What is known of a training when it begins.

    Attributes:
        steps: Optimizer steps, if nothing stops it before.
        steps_an_epoch: Of them, in a pass over the data.
        features: The inputs, a sequence of `Feature`; `example_id` is an input's place where there is one.
        seed: Of all that is random.
        processes: How many share each batch.
    """

    steps: int
    steps_an_epoch: int
    features: Any = ()
    seed: int = 0
    processes: int = 1

    @property
    def epochs(self) -> int:
        """Passes over the data, counting one that is not finished."""
        return -(-self.steps // self.steps_an_epoch)
