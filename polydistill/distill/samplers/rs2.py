"""RS2: every epoch a new random part of the examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from polydistill.distill.samplers.examples import ExampleSampler, share_of
from polydistill.options.settings import Options, setting

if TYPE_CHECKING:
    from polydistill.distill.samplers.examples import Places


@dataclass(frozen=True)
class Rs2Options(Options):
    """The options of `rs2`."""

    share: float = setting(0.3, "Share of the examples that an epoch uses.", "", above=0, most=1)


class Rs2(ExampleSampler):
    """Repeated sampling of random subsets (Okanovic et al. 2024, arXiv 2305.18424): no scores at all.

    Args:
        options: The share.
        size: Number of examples.
        seed: Of what is drawn.
    """

    options_class = Rs2Options

    def __init__(self, options: Rs2Options = Rs2Options(), *, size: int, seed: int) -> None:
        super().__init__(size=size, seed=seed)
        self.count = share_of(size, options.share)

    def places(self, epoch: int) -> Places:
        """A random part, without repeats."""
        import numpy as np

        return np.random.default_rng([self.seed, epoch]).permutation(self.size)[: self.count]
