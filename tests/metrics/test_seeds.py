"""Means over seeds, with intervals of items and seeds together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

from polydistill.errors import PolydistillError
from polydistill.metrics.items import Measured, mean_of
from polydistill.metrics.paired import interval
from polydistill.metrics.seeds import mean_difference, mean_retained, mean_score


def accuracy(right: np.ndarray) -> Measured:
    return mean_of("accuracy", None, right.astype(float))


def models(*shares: float, n: int = 400, seed: int = 0) -> list[Measured]:
    rng = np.random.default_rng(seed)
    return [accuracy(rng.random(n) < share) for share in shares]


def test_a_mean_of_equal_seeds_has_the_interval_of_the_items() -> None:
    """Three copies of one model: no variance over seeds, and as many degrees of freedom as there are items."""
    (one,) = models(0.7)
    found, alone = mean_score([one, one, one]), interval(one)
    assert found.value == one.value
    assert found.interval == pytest.approx(alone, abs=0.003)
    assert mean_difference([one] * 3, [one] * 3).interval == (0, 0)


def test_where_only_seeds_vary_the_interval_is_student_s() -> None:
    """All items of a model are alike in every draw: scores .5, .6 and .7 of items that are right by that share each."""
    levels = [0.5, 0.6, 0.7]
    found = mean_score([Measured("accuracy", None, np.tile([level, 1.0], (50, 1)), _ratio) for level in levels])
    half = t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert found.value == pytest.approx(0.6)
    assert found.interval == pytest.approx((0.6 - half, 0.6 + half), abs=1e-9)


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def test_differences_are_taken_seed_by_seed() -> None:
    """One method is .1 above the other with every seed, however far seeds lie apart."""
    low = [Measured("accuracy", None, np.tile([level, 1.0], (50, 1)), _ratio) for level in (0.3, 0.5, 0.7)]
    high = [replace(m, items=m.items + np.array([0.1, 0.0])) for m in low]
    assert mean_difference(high, low).value == pytest.approx(0.1)
    assert mean_difference(high, low).interval == pytest.approx((0.1, 0.1))
    kept = mean_retained(high, low)
    assert kept is not None and kept.value == pytest.approx((4 / 3 + 6 / 5 + 8 / 7) / 3)


def test_an_interval_holds_both_kinds_of_chance() -> None:
    """It is wider than that of items alone, and narrower than that of three seeds that say all."""
    first, second = models(0.72, 0.70, 0.74), models(0.70, 0.71, 0.69, seed=1)
    found = mean_difference(first, second)
    assert found.interval[0] < found.value < found.interval[1]
    assert mean_difference(first, second) == found  # the same seed, the same draws


def test_what_cannot_be_compared() -> None:
    (one,), two = models(0.5), models(0.5, 0.6)
    with pytest.raises(PolydistillError, match="only one seed"):
        mean_score([one])
    with pytest.raises(PolydistillError, match="2 seeds of one method and 1 of the other"):
        mean_difference(two, [one])
    with pytest.raises(PolydistillError):
        mean_difference(two, models(0.5, 0.5, n=10))
    nothing = [accuracy(np.zeros(400))] * 2
    assert mean_retained(two, nothing) is None
