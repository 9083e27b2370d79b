"""How closely a student follows its teacher, right or wrong (Xu et al. 2021), and how much of its score it keeps.

Regression loyalty has no settled definition: here it is Pearson's correlation of the teacher's and the student's
scores, which a student that only rescales or shifts its teacher's scores keeps at 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from polydistill.errors import PolydistillError
from polydistill.metrics.items import Measured, check_aligned, finite, mean_of

_ROUNDING = 1e-12  # a variance below this share of the mean square is rounding, not variance


def label_loyalty(teacher: Sequence[str] | Sequence[int], student: Sequence[str] | Sequence[int]) -> Measured:
    """The share of items that the student labels like the teacher.

    Args:
        teacher: The teacher's label of each item.
        student: The student's.

    Returns:
        `label_loyalty`; the rows are (same, 1).

    Raises:
        PolydistillError: There are no items, or not as many of the student's.
    """
    check_aligned(teacher, student, "labels of the teacher and the student")
    return mean_of("label_loyalty", None, [own == theirs for theirs, own in zip(teacher, student, strict=True)])


def probability_loyalty(teacher: npt.ArrayLike, student: npt.ArrayLike) -> Measured:
    """Mean of 1 - sqrt(JSD(P, Q)), the Jensen-Shannon divergence in bits, so it lies between 0 and 1.

    Args:
        teacher: (n, k) probabilities of the classes.
        student: (n, k) the student's, of the same classes in the same order.

    Returns:
        `probability_loyalty`; the rows are (1 - distance, 1).

    Raises:
        PolydistillError: There are no items, the shapes differ, or a row is not a distribution.
    """
    first, second = _distributions(teacher, "teacher"), _distributions(student, "student")
    check_aligned(first, second, "distributions of the teacher and the student")
    if first.shape != second.shape:
        raise PolydistillError(
            f"The teacher has {first.shape[1]} classes and the student {second.shape[1]}.",
            "Compare models of the same labels.",
        )
    from scipy.special import rel_entr

    middle = (first + second) / 2
    nats = (rel_entr(first, middle) + rel_entr(second, middle)).sum(axis=1) / 2
    distance = np.sqrt(np.clip(nats / np.log(2), 0, 1))  # rounding leaves the range if the two are almost equal
    return mean_of("probability_loyalty", None, 1 - distance)


def _distributions(rows: npt.ArrayLike, whose: str) -> np.ndarray:
    found = finite(rows, f"probabilities of the {whose}", dimensions=2).astype(np.float64)
    sums = found.sum(axis=1, keepdims=True)
    if (found < 0).any() or (np.abs(sums - 1) > 1e-2).any():  # bf16 keeps about two digits
        raise PolydistillError(f"The {whose}'s rows are not probabilities.", "Take the softmax of logits first.")
    return found / sums


def regression_loyalty(teacher: npt.ArrayLike, student: npt.ArrayLike) -> Measured:
    """Pearson's correlation of the teacher's and the student's scores.

    Args:
        teacher: (n,) scores.
        student: (n,) scores.

    Returns:
        `regression_loyalty`, from -1 to 1, 0 if all the student's scores are equal; the rows are the standardised
        (x, y, x^2, y^2, xy, 1), x the teacher's.

    Raises:
        PolydistillError: There are fewer than two items, not as many of the student's, the teacher's are all equal, or
            a score is not finite.
    """
    first = finite(teacher, "scores of the teacher", dimensions=1).astype(np.float64)
    second = finite(student, "scores of the student", dimensions=1).astype(np.float64)
    check_aligned(first, second, "scores of the teacher and the student")
    if (first == first[0]).all():
        raise PolydistillError(
            "All of the teacher's scores are equal, so no correlation with them is defined.", "Give more items."
        )
    x, y = _standardised(first), _standardised(second)
    rows = np.stack([x, y, x * x, y * y, x * y, np.ones_like(x)], axis=1)
    return Measured("regression_loyalty", None, rows, correlation_of_sums)


def _standardised(scores: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1, so that sums of squares lose no digits; correlation does not change."""
    spread = scores.std() if (scores != scores[0]).any() else 0.0
    return (scores - scores.mean()) / spread if spread > 0 else np.zeros_like(scores)


def correlation_of_sums(sums: np.ndarray) -> np.ndarray:
    """(..., 6) sums of x, y, x^2, y^2, xy and 1 -> (...) Pearson's correlation, 0 if one of the two is constant."""
    x, y, xx, yy, xy, n = np.moveaxis(sums, -1, 0)
    x_spread, y_spread = xx - x * x / n, yy - y * y / n
    spread = np.sqrt(np.maximum(x_spread, 0) * np.maximum(y_spread, 0))
    varies = (x_spread > _ROUNDING * xx) & (y_spread > _ROUNDING * yy)
    return np.clip(np.divide(xy - x * y / n, spread, out=np.zeros_like(spread), where=varies), -1, 1)


def retention(student: float, teacher: float) -> float | None:
    """The student's score as a share of the teacher's, above 1 if it is better; None if the teacher's is 0."""
    return student / teacher if teacher else None
