"""What every metric returns: one row of numbers per item, and how the score follows from their sums."""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from polydistill.errors import PolydistillError


@dataclass(frozen=True)
class Measured:
    """A metric on one set of items.

    Args:
        metric: `accuracy`, `f1`, `exact_match`, `accuracy_at_1`, `spearman`, ...: those of `stored.restore`.
        normalisation: `conlleval`, `strict-iob2`, `squad`, `mlqa` or None.
        items: (n, k) numbers of each item, such as true positives, predicted and gold entities.
        value_of: (..., n, k) items -> (...) scores from 0 to 1; a metric of sums ignores the order of items.
        sums: Whether the score is a function of the items' sum; `value_of` then takes (..., k) sums.
        units: (n,) name of the bootstrap unit of each item: items with the same name are drawn together, in all sets
            that have it, such as questions about a paragraph and its translations. None if every item is drawn by
            itself.
    """

    metric: str
    normalisation: str | None
    items: np.ndarray = field(repr=False)
    value_of: Callable[[np.ndarray], np.ndarray] = field(repr=False)
    sums: bool = True
    units: tuple[str, ...] | None = field(default=None, repr=False)

    @property
    def value(self) -> float:
        """The score of all items."""
        return float(self.value_of(self.items.sum(0) if self.sums else self.items))

    @property
    def drawn(self) -> int:
        """How many units there are to draw."""
        return len(set(self.units)) if self.units else len(self.items)


def share(sums: np.ndarray) -> np.ndarray:
    """(..., 2) sums of scores and of ones -> (...) means."""
    return sums[..., 0] / sums[..., 1]


def f_measure(sums: np.ndarray) -> np.ndarray:
    """(..., 3) true positives, predicted and gold -> (...) F1; 0 if nothing is predicted and nothing is gold."""
    both = np.asarray(sums[..., 1] + sums[..., 2], dtype=np.float64)
    return np.divide(2.0 * sums[..., 0], both, out=np.zeros_like(both), where=both > 0)


def mean_of(metric: str, normalisation: str | None, scores: npt.ArrayLike) -> Measured:
    """A metric that is the mean of one score per item; the rows are (score, 1)."""
    column = np.asarray(scores, dtype=np.float64)
    return Measured(metric, normalisation, np.stack([column, np.ones_like(column)], axis=1), share)


def check_aligned(first: Sized, second: Sized, what: str = "gold and predicted items") -> None:
    """Refuse items that do not pair up.

    Raises:
        PolydistillError: There are none, or their numbers differ.
    """
    if len(first) != len(second):
        raise PolydistillError(
            f"There are {len(first)} and {len(second)} {what}.", "Give one prediction for each item, in its order."
        )
    if not len(first):
        raise PolydistillError(f"There are no {what} to score.", "Give at least one.")


def finite(numbers: npt.ArrayLike, what: str, *, dimensions: int) -> np.ndarray:
    """The numbers as an array.

    Raises:
        PolydistillError: They have the wrong number of dimensions, or some are not finite.
    """
    found = np.asarray(numbers)
    if found.ndim != dimensions:
        raise PolydistillError(
            f"The {what} have {found.ndim} dimensions instead of {dimensions}.", "Give one row for each item."
        )
    if not np.isfinite(found).all():
        raise PolydistillError(
            f"Some of the {what} are not finite numbers.",
            "The model is broken, or overflows in the precision it ran in.",
        )
    return found
