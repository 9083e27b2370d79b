from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from strategies import CASES

from polydistill.errors import PolydistillError
from polydistill.metrics.loyalty import label_loyalty, probability_loyalty, regression_loyalty, retention

RNG = np.random.default_rng(0)


def test_label_loyalty_is_agreement_right_or_wrong() -> None:
    found = label_loyalty(["a", "b", "c", "a"], ["a", "b", "a", "a"])
    assert (found.value, found.metric) == (0.75, "label_loyalty")
    assert label_loyalty([0, 1], [0, 1]).value == 1


def test_probability_loyalty_of_the_published_case() -> None:
    found = probability_loyalty([[0.9, 0.1]], [[0.6, 0.4]])
    assert (found.value, found.metric) == (pytest.approx(0.697833, abs=1e-6), "probability_loyalty")


def test_probability_loyalty_is_1_for_equals_0_for_opposites_and_a_mean() -> None:
    first, second = [[1.0, 0.0], [0.2, 0.8]], [[0.0, 1.0], [0.2, 0.8]]
    assert probability_loyalty(first, second).items[:, 0].tolist() == pytest.approx([0, 1])
    assert probability_loyalty(first, second).value == pytest.approx(0.5)


@CASES
@given(arrays(np.float64, (2, 5, 3), elements=st.floats(0, 1, allow_subnormal=False)))
def test_probability_loyalty_is_scipys_distance_and_symmetric(numbers: np.ndarray) -> None:
    numbers = numbers + np.eye(5, 3) + 1e-9
    teacher, student = numbers / numbers.sum(-1, keepdims=True)
    found = probability_loyalty(teacher, student)
    distance = np.nan_to_num(jensenshannon(teacher, student, base=2, axis=1))
    assert found.items[:, 0] == pytest.approx(1 - distance, abs=1e-6)
    assert probability_loyalty(student, teacher).items[:, 0] == pytest.approx(found.items[:, 0], abs=1e-12)
    assert ((found.items[:, 0] >= 0) & (found.items[:, 0] <= 1)).all()


def test_probabilities_that_are_nearly_equal_give_no_nan() -> None:
    rows = RNG.dirichlet([1, 1, 1], size=2000)
    nearly = rows * (1 + 1e-9 * RNG.normal(size=rows.shape))  # some divergences come out below 0
    assert probability_loyalty(rows, nearly).value == pytest.approx(1, abs=1e-6)


def test_logits_and_other_classes_are_refused() -> None:
    good = [[0.5, 0.5]]
    with pytest.raises(PolydistillError, match="student's rows are not probabilities"):
        probability_loyalty(good, [[2.0, -1.0]])
    with pytest.raises(PolydistillError, match="teacher's rows are not probabilities"):
        probability_loyalty([[0.5, 0.4]], good)
    with pytest.raises(PolydistillError, match="2 classes and the student 3"):
        probability_loyalty(good, [[0.5, 0.3, 0.2]])
    with pytest.raises(PolydistillError, match="1 and 2"):
        probability_loyalty(good, good * 2)
    with pytest.raises(PolydistillError, match="labels"):
        label_loyalty([], [])


def test_regression_loyalty_is_pearsons_correlation() -> None:
    teacher, noise = RNG.normal(size=(2, 200))
    for shift in (0, 1e6):
        student = teacher + noise
        found = regression_loyalty(teacher + shift, student - shift)
        assert found.value == pytest.approx(np.corrcoef(teacher, student)[0, 1], abs=1e-8)
    assert found.metric == "regression_loyalty"
    assert regression_loyalty([1, 2, 4], [30, 20, 0]).value == pytest.approx(-1)
    assert regression_loyalty([1, 2, 4], [0.1, 0.1, 0.1]).value == 0


def test_resampled_regression_loyalty_is_that_of_the_drawn_items() -> None:
    teacher, noise = RNG.normal(size=(2, 40))
    found = regression_loyalty(teacher, teacher + noise)
    for _ in range(20):
        drawn = RNG.integers(0, 40, size=40)
        direct = np.corrcoef(teacher[drawn], (teacher + noise)[drawn])[0, 1]
        assert float(found.value_of(found.items[drawn].sum(0))) == pytest.approx(direct, abs=1e-10)
    for one in range(40):  # again and again it has no spread
        assert float(found.value_of(found.items[[one] * 40].sum(0))) == 0


def test_a_teacher_with_one_score_has_no_regression_loyalty() -> None:
    with pytest.raises(PolydistillError, match="teacher's scores are equal"):
        regression_loyalty([0.3, 0.3], [1, 2])
    with pytest.raises(PolydistillError, match="student are not finite"):
        regression_loyalty([0.3, 0.4], [1, float("inf")])


def test_retention_is_the_students_share_of_the_teachers_score() -> None:
    assert retention(0.6, 0.8) == pytest.approx(0.75)
    assert retention(0.6, 0.5) == pytest.approx(1.2)
    assert retention(0.6, 0.0) is None
