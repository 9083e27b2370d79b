"""How much chance can change a score, and the difference of two scores on the same items.

The percentile bootstrap (Efron 1979): draw n of the n items with replacement, score them, again and again; the middle
95% of those scores is the interval. Two models are compared on the same draws (Koehn 2004), which removes the effect of
the items' difficulty. What belongs together is drawn together (Davison and Hinkley 1997, section 3.8): questions about
one paragraph, and an item with its translations if a score is a mean over languages. Scores that follow from sums
are computed from drawn sums, never item by item.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from polydistill.errors import PolydistillError
from polydistill.metrics.items import Measured, check_aligned

RESAMPLES = 10_000
CONFIDENCE = 0.95
FEW_UNITS = 100
FEW = (
    f"Fewer than {FEW_UNITS} items, or paragraphs of questions: 95% intervals can be too narrow there; those of "
    "differences held the truth in 64 to 98 of 100 trials, not in 95"
)
SHARED = 0.25  # of the larger set's units, in sets that are drawn together
SHARED_NUMBERS = 0.9  # the same for units named by numbers, which sets may share by accident
_NUMBERS = 1 << 20  # drawn at a time: about what stays in the processor's cache
_NARROW = 4  # columns; each is summed by itself, which is faster
_ACCURACIES = ("accuracy", "accuracy_at_1", "accuracy_at_1_back")


@dataclass(frozen=True)
class Difference:
    """How two models differ on the same items.

    Args:
        value: The first score minus the second.
        interval: Its 95% interval.
        p: McNemar's exact two-sided p, for accuracies of single items only.
        retained: 95% interval of the first score over the second; None if the second may be 0.
    """

    value: float
    interval: tuple[float, float]
    p: float | None = None
    retained: tuple[float, float] | None = None


def interval(measured: Measured, *, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The 95% interval of a score.

    Args:
        measured: The metric on some items.
        seed: The same seed gives the same interval, whatever order the items are in.
        resamples: How many times the items are drawn again.

    Raises:
        PolydistillError: There are no items.
    """
    return middle(resampled([measured], seed=seed, resamples=resamples)[0])


def paired_difference(a: Measured, b: Measured, *, seed: int = 0, resamples: int = RESAMPLES) -> Difference:
    """How the score of `a` differs from that of `b`, on the same draws of the items.

    Args:
        a: One model's.
        b: The other's, of the same items in the same order.
        seed: As in `interval`.
        resamples: As in `interval`.

    Raises:
        PolydistillError: The two are different metrics or have different numbers of items.
    """
    if (a.metric, a.normalisation) != (b.metric, b.normalisation):
        raise PolydistillError(f"{_name(a)} and {_name(b)} cannot be compared.", "Compare scores of one metric.")
    check_aligned(a.items, b.items, "items of the two models")
    scores = resampled([a, b], seed=seed, resamples=resamples)
    single = a.metric in _ACCURACIES and bool((a.items[:, 1] == 1).all())  # and not words, several in a sentence
    p = mcnemar(a.items[:, 0] > 0, b.items[:, 0] > 0) if single else None
    return Difference(a.value - b.value, middle(scores[0] - scores[1]), p, retained(*scores))


def _name(measured: Measured) -> str:
    return f"{measured.metric} ({measured.normalisation})" if measured.normalisation else measured.metric


def middle(scores: np.ndarray) -> tuple[float, float]:
    """The middle 95% of (resamples,) scores; a draw that has none is left out."""
    with np.errstate(invalid="ignore"):  # between two that are infinite
        low, high = np.nanquantile(scores, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def retained(own: np.ndarray, other: np.ndarray) -> tuple[float, float] | None:
    """95% interval of a score over another, from (resamples,) of each; None if the other is 0 in 1 of 40 draws."""
    low, high = middle(np.divide(own, other, out=np.full_like(own, np.inf), where=other > 0))
    return (low, high) if np.isfinite(high) else None


def resampled(several: Sequence[Measured], *, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Scores of items drawn with replacement, the same draws for all.

    Args:
        several: Metrics on the same n items.
        seed: Of the draws.
        resamples: How many draws of n items, or of all units.

    Returns:
        (len(several), resamples) scores.

    Raises:
        PolydistillError: There are no items, or their numbers differ.
    """
    for other in several:
        check_aligned(several[0].items, other.items, "items")
    return _scores_of(several, [several[0].units] * len(several), seed, resamples)


def resampled_means(models: Sequence[Sequence[Measured]], *, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Mean scores over several sets, such as the languages of a test set, the same draws for all models.

    Sets whose units have the same names, such as translations of each other, are drawn together: a unit that is drawn
    twice counts twice in every one of them. Others are drawn by themselves. Sharing names by accident does no harm, as
    such sets then have nothing in common.

    Args:
        models: For each model its metric on each set, the sets in the same order.
        seed: Of the draws.
        resamples: How many draws.

    Returns:
        (len(models), resamples) means, each set counting the same.

    Raises:
        PolydistillError: There are no items, or the models have different numbers of them in a set.
    """
    sets = [list(of_models) for of_models in zip(*models, strict=True)]
    for first, *others in sets:
        for other in others:
            check_aligned(first.items, other.items, "items of the models")
    means = np.zeros((len(models), resamples))
    for number, group in enumerate(drawn_together([of_models[0] for of_models in sets])):
        joined = [measured for i in group for measured in sets[i]]
        units = [sets[i][0].units for i in group for _ in models]
        scores = _scores_of(joined, units, (seed, number), resamples)
        means += scores.reshape(len(group), len(models), resamples).sum(axis=0)
    return means / len(sets)


def drawn_together(sets: Sequence[Measured]) -> list[list[int]]:
    """Which sets are drawn together, by number: those that share at least a quarter of the larger one's units.

    For units named by line numbers it has to be nine tenths, so the sets are about equally long. A metric that is not a
    function of sums needs the same units in all of them.
    """
    groups: list[list[int]] = []
    names = [frozenset(measured.units or ()) for measured in sets]

    def belong(i: int, j: int) -> bool:
        if not (sets[i].sums and sets[j].sums):
            return bool(names[i]) and names[i] == names[j]
        shared = names[i] & names[j]
        least = SHARED_NUMBERS if all(name.isdecimal() for name in shared) else SHARED
        return bool(shared) and len(shared) >= least * max(len(names[i]), len(names[j]))

    for i in range(len(sets)):
        near = [group for group in groups if any(belong(i, j) for j in group)]
        groups = [group for group in groups if group not in near] + [sorted([*itertools.chain(*near), i])]
    return sorted(groups)


def _scores_of(
    several: Sequence[Measured], units: Sequence[tuple[str, ...] | None], seed: int | tuple[int, int], resamples: int
) -> np.ndarray:
    """(len(several), resamples) scores; without units the items, which are then the same ones, are drawn."""
    tables = [m.items for m in several] if units[0] is None else _tables(several, units)
    borders = np.cumsum([table.shape[1] for table in tables])[:-1]
    rng = np.random.default_rng(seed)
    draw = _drawn_sums if all(measured.sums for measured in several) else _drawn_items
    blocks = []
    with np.errstate(invalid="ignore"):  # a draw without any unit of a small set has no score
        for drawn in draw(np.concatenate(tables, axis=1), resamples, rng):
            parts = np.split(drawn, borders, axis=-1)
            blocks.append([measured.value_of(part) for measured, part in zip(several, parts, strict=True)])
    return np.concatenate(blocks, axis=1)


def _tables(several: Sequence[Measured], units: Sequence[tuple[str, ...] | None]) -> list[np.ndarray]:
    """(units, k) sums of each metric's items, a row for each unit that any of them has."""
    numbers = {name: i for i, name in enumerate(sorted(set().union(*(own or () for own in units))))}
    tables = []
    for measured, own in zip(several, units, strict=True):
        rows = np.array([numbers[name] for name in own or ()], dtype=np.intp)
        tables.append(table := np.zeros((len(numbers), measured.items.shape[1])))
        np.add.at(table, rows, measured.items)
    return tables


def _drawn_sums(items: np.ndarray, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Blocks of (draws, k) sums of n drawn items."""
    n, width = items.shape
    rows, counts = np.unique(items, axis=0, return_counts=True)
    if 10 * len(rows) <= n:
        # Equal items are drawn together: how often each kind comes is multinomial, and far quicker to draw.
        for size in _sizes(len(rows), resamples):
            yield rng.multinomial(n, counts / n, size=size) @ rows
        return
    ordered = np.repeat(rows, counts, axis=0)
    columns = ordered.T.copy()
    for picked in _picks(n, resamples, rng):
        if width > _NARROW:
            places = picked + n * np.arange(len(picked), dtype=np.int32)[:, None]
            times = np.bincount(places.ravel(), minlength=picked.size).reshape(picked.shape)
            yield times.astype(np.float64) @ ordered
        else:
            yield np.stack([column.take(picked).sum(axis=1) for column in columns], axis=1)


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
        1 if they are right and wrong on the same items.

    Raises:
        PolydistillError: There are no items, or their numbers differ.
    """
    first, second = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    check_aligned(first, second, "items of the two models")
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(only_first, only_first + only_second).pvalue)


def holm(several: Sequence[float]) -> list[float]:
    """P of several tests, adjusted so that at most one table in twenty has any below .05 by chance (Holm 1979).

    Args:
        several: p of each.

    Returns:
        In the same order the largest of (m - k) p_k up to each one, p_0 to p_{m-1} being the sorted ones; at most 1.
    """
    found, largest = [0.0] * len(several), 0.0
    for rank, i in enumerate(sorted(range(len(several)), key=several.__getitem__)):
        largest = max(largest, (len(several) - rank) * several[i])
        found[i] = min(1.0, largest)
    return found
