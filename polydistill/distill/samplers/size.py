"""Groups by their size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from polydistill.distill.samplers.base import Sampler
from polydistill.options.settings import Options, setting


@dataclass(frozen=True)
class SizeOptions(Options):
    """The options of `size`."""

    exponent: float = setting(0.3, "1 follows the sizes, 0 makes all shares equal; XLM-R has 0.3.", "", least=0, most=1)


class Size(Sampler):
    """Groups by their size, smoothed: p_i is in proportion to n_i^alpha (Conneau et al. 2020, arXiv 1911.02116).

    Args:
        sizes: Group -> number of its examples.
        options: alpha.
    """

    options_class = SizeOptions

    def __init__(self, sizes: Mapping[str, int], options: SizeOptions = SizeOptions()) -> None:
        super().__init__(sizes)
        raised = {group: float(size) ** options.exponent for group, size in sizes.items()}
        self._weights = {group: value / sum(raised.values()) for group, value in raised.items()}

    def weights(self) -> dict[str, float]:
        """Group -> share."""
        return dict(self._weights)
