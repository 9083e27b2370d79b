"""Difference sampling: the examples on which the student has most to learn from the teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from polydistill.distill.samplers.examples import ExampleSampler, Told, share_of
from polydistill.options.settings import Options, setting

if TYPE_CHECKING:
    from polydistill.distill.samplers.examples import Places


@dataclass(frozen=True)
class DifferenceOptions(Options):
    """The options of `difference`."""

    share: float = setting(0.5, "Share of the examples that is kept.", "", above=0, most=1)


class Difference(ExampleSampler):
    """The share with the largest r, a reference's loss less the teacher's (MiniPLM, Gu et al. 2025, arXiv 2410.17215).

    The reference is the student as it begins, and the loss that of the gold labels. Both run once, before training;
    every epoch uses the same examples. What neither can do has r near 0, so that it filters wrong labels too.

    Args:
        options: The share.
        size: Number of examples.
        seed: Not used: nothing is drawn.
    """

    options_class = DifferenceOptions
    asks: ClassVar[bool] = True

    def __init__(self, options: DifferenceOptions = DifferenceOptions(), *, size: int, seed: int) -> None:
        super().__init__(size=size, seed=seed)
        self.count = share_of(size, options.share)
        self._kept: Places | None = None

    def told(self, told: Told) -> None:
        """Keeps the examples with the largest difference, in their order; of equals the first."""
        import numpy as np

        order = np.argsort(-(told.student - told.teacher), kind="stable")
        self._kept = np.sort(order[: self.count])

    def places(self, epoch: int) -> Places:
        """Those that are kept."""
        assert self._kept is not None
        return self._kept
