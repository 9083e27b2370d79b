"""Robust active distillation: examples that the student is unsure of, but not those alone that fool the teacher too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from polydistill.distill.samplers.examples import ExampleSampler, Told, share_of
from polydistill.options.settings import Options, setting

if TYPE_CHECKING:
    import numpy as np

    from polydistill.distill.samplers.examples import Places

LEAST_GAIN = 1e-6


@dataclass(frozen=True)
class ActiveOptions(Options):
    """The options of `active`."""

    share: float = setting(0.3, "Share of the examples that an epoch uses.", "", above=0, most=1)
    errors: float = setting(0.1, "Share of the examples that the teacher may get wrong.", "", least=0, most=0.99)


class Active(ExampleSampler):
    """Robust active distillation (Baykal et al. 2023, arXiv 2210.01213).

    An example's gain is 1 - the student's margin. An adversary spoils the teacher's answers to m examples; the
    probabilities that do best against it are those of `probabilities`. Each epoch draws its examples by them without
    repeats.

    Args:
        options: Share and errors.
        size: Number of examples.
        seed: Of what is drawn.
    """

    options_class = ActiveOptions
    asks: ClassVar[bool] = True

    def __init__(self, options: ActiveOptions = ActiveOptions(), *, size: int, seed: int) -> None:
        super().__init__(size=size, seed=seed)
        self._options, self.count = options, share_of(size, options.share)
        self._chances: np.ndarray | None = None

    def told(self, told: Told) -> None:
        """Computes the probabilities; examples with none are drawn only when the others are used up."""
        self._chances = probabilities(1 - told.margin, self._options.errors * self.size)

    def places(self, epoch: int) -> Places:
        """A draw without repeats (Efraimidis and Spirakis 2006: the largest of u^(1/p))."""
        import numpy as np

        assert self._chances is not None
        keys = np.log(np.random.default_rng([self.seed, epoch]).random(self.size)) / np.maximum(self._chances, 1e-12)
        return np.argsort(-keys, kind="stable")[: self.count]


def probabilities(gains: np.ndarray, errors: float) -> np.ndarray:
    """(n,) the p that is best in max_p min_{|A| = m} sum_{i not in A} p_i g_i.

    With gains in descending order and H_k = sum_{i <= k} 1 / g_i, k* = argmax_{k > m} (k - m) / H_k, and p_i = 1 / (g_i
    H_k*) for i <= k*, else 0.

    Args:
        gains: (n,) g.
        errors: m, below n.
    """
    import numpy as np

    clipped = np.maximum(gains, LEAST_GAIN)
    order = np.argsort(-clipped, kind="stable")
    sums = np.cumsum(1 / clipped[order])
    counts = np.arange(1, len(gains) + 1)
    values = np.where(counts > errors, (counts - errors) / sums, -np.inf)
    best = int(values.argmax())
    found = np.zeros(len(gains))
    found[order[: best + 1]] = 1 / (clipped[order[: best + 1]] * sums[best])
    return found
