"""All groups alike."""

from __future__ import annotations

from polydistill.distill.samplers.base import Sampler


class Even(Sampler):
    """All groups alike, as in BiStil (Ansell et al. 2023, arXiv 2306.01709, section 3.1)."""

    def weights(self) -> dict[str, float]:
        """Group -> 1 / n."""
        return dict.fromkeys(self.groups, 1 / len(self.groups))
