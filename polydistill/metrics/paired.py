"""What chance can do to a score, and to the difference of two scores of the same items.

The percentile bootstrap (Efron 1979): draw n of the n items with replacement, score them, again and again; the middle
95% of those scores is the interval. Two models are compared on the same draws (Koehn 2004), which takes out what the
items' own difficulty does. Scores that follow from sums are computed from drawn sums, never item by item.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from polydistill.errors import PolydistillError
from polydistill.metrics.items import Measured, check_aligned

RESAMPLES = 10_000
CONFIDENCE = 0.95
_NUMBERS = 1 << 20  # drawn at a time: about what stays in the processor's cache
_ACCURACIES = ("accuracy", "accuracy_at_1", "accuracy_at_1_back")


@dataclass(frozen=True)
class Difference:
    """How two models differ on the same items.

    Args:
        value: The first's score less the second's.
        interval: Its 95% interval.
        p: McNemar's exact two-sided p, of accuracies of single items only.
    """

    value: float
    interval: tuple[float, float]
    p: float | None = None


def interval(measured: Measured, *, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The 95% interval of a score.

    Args:
        measured: The metric on some items.
        seed: The same seed gives the same interval, whatever order the items are in.
        resamples: How many times the items are drawn again.

    Raises:
        PolydistillError: There are no items.
    """
    return _middle(resampled([measured], seed=seed, resamples=resamples)[0])


def paired_difference(a: Measured, b: Measured, *, seed: int = 0, resamples: int = RESAMPLES) -> Difference:
    """How the score of `a` differs from that of `b`, on the same draws of the items.

    Args:
        a: One model's.
        b: The other's, of the same items in the same order.
        seed: As in `interval`.
        resamples: As in `interval`.

    Raises:
        PolydistillError: The two are different metrics or have not as many items.
    """
    if (a.metric, a.normalisation) != (b.metric, b.normalisation):
        raise PolydistillError(f"{_name(a)} and {_name(b)} cannot be compared.", "Compare scores of one metric.")
    check_aligned(a.items, b.items, "items of the two models")
    scores = resampled([a, b], seed=seed, resamples=resamples)
    single = a.metric in _ACCURACIES and bool((a.items[:, 1] == 1).all())  # and not words, several in a sentence
    p = mcnemar(a.items[:, 0] > 0, b.items[:, 0] > 0) if single else None
    return Difference(a.value - b.value, _middle(scores[0] - scores[1]), p)


def _name(measured: Measured) -> str:
    return f"{measured.metric} ({measured.normalisation})" if measured.normalisation else measured.metric


def _middle(scores: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(scores, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def resampled(several: Sequence[Measured], *, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Scores of items drawn with replacement, the same draws for all.

    Args:
        several: Metrics on the same n items.
        seed: Of the draws.
        resamples: How many draws of n items.

    Returns:
        (len(several), resamples) scores.

    Raises:
        PolydistillError: There are no items, or not as many of each.
    """
    for other in several:
        check_aligned(several[0].items, other.items, "items")
    joined = np.concatenate([measured.items for measured in several], axis=1)
    borders = np.cumsum([measured.items.shape[1] for measured in several])[:-1]
    rng = np.random.default_rng(seed)
    draw = _drawn_sums if all(measured.sums for measured in several) else _drawn_items
    blocks = []
    for drawn in draw(joined, resamples, rng):
        parts = np.split(drawn, borders, axis=-1)
        blocks.append([measured.value_of(part) for measured, part in zip(several, parts, strict=True)])
    return np.concatenate(blocks, axis=1)


def _drawn_sums(items: np.ndarray, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Blocks of (draws, k) sums of n drawn items."""
    n = len(items)
    rows, counts = np.unique(items, axis=0, return_counts=True)
    if 10 * len(rows) > n:
        columns = np.repeat(rows, counts, axis=0).T.copy()
        for picked in _picks(n, resamples, rng):
            yield np.stack([column.take(picked).sum(axis=1) for column in columns], axis=1)
        return
    # Equal items are drawn together: how often each kind comes is multinomial, and far quicker to draw.
    for size in _sizes(len(rows), resamples):
        yield rng.multinomial(n, counts / n, size=size) @ rows


def _drawn_items(items: np.ndarray, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Blocks of (draws, n, k) drawn items."""
    ordered = items[np.lexsort(items.T)]
    for picked in _picks(len(items), resamples, rng):
        yield ordered[picked]


def _picks(n: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    for size in _sizes(n, resamples):
        yield rng.integers(0, n, size=(size, n), dtype=np.int32)


def _sizes(width: int, resamples: int) -> Iterator[int]:
    """How many draws of `width` numbers to make at a time."""
    step = max(1, _NUMBERS // width)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)


def mcnemar(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> float:
    """McNemar's exact two-sided p: would two equally good models disagree so unevenly?

    Args:
        correct_a: (n,) whether the one model is right on each item.
        correct_b: (n,) whether the other is.

    Returns:
        The binomial probability, at 1/2, of a split of the items that only one of them gets right as uneven as this;
        1 where they are right and wrong on the same items.

    Raises:
        PolydistillError: There are no items, or not as many of each.
    """
    first, second = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    check_aligned(first, second, "items of the two models")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_first, only_first + only_second).pvalue)
