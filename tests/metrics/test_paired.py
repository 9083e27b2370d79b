from __future__ import annotations

import itertools
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from strategies import CASES, FEWER

from polydistill.errors import PolydistillError
from polydistill.metrics.accuracy import accuracy
from polydistill.metrics.entities import entity_f1
from polydistill.metrics.items import Measured, f_measure, mean_of
from polydistill.metrics.loyalty import regression_loyalty
from polydistill.metrics.paired import (
    drawn_together,
    holm,
    interval,
    mcnemar,
    middle,
    paired_difference,
    resampled,
    resampled_means,
    retained,
)
from polydistill.metrics.similarity import spearman

RNG = np.random.default_rng(0)


def entity_rows(rows: list[list[int]]) -> Measured:
    return Measured("f1", "conlleval", np.array(rows, dtype=float), f_measure)


def every_draw(measured: Measured) -> list[float]:
    """The scores of all n**n draws of n items."""
    n = len(measured.items)
    draws = (measured.items[list(draw)] for draw in itertools.product(range(n), repeat=n))
    return [round(float(measured.value_of(d.sum(0) if measured.sums else d)), 9) for d in draws]


def test_two_items_by_hand() -> None:
    """One right, one wrong: a quarter of the draws scores 0, half 1/2, a quarter 1."""
    measured = mean_of("accuracy", None, [0, 1])
    assert interval(measured) == (0, 1)
    scores = resampled([measured])[0]
    assert [float((scores == value).mean()) for value in (0, 0.5, 1)] == pytest.approx([0.25, 0.5, 0.25], abs=0.02)


def test_twenty_items_by_hand() -> None:
    """Ten right: P(at most 5 of 20) = 0.0207 and P(at most 6) = 0.0577, so the interval is 6/20 to 14/20."""
    assert interval(mean_of("accuracy", None, [0, 1] * 10)) == (0.3, 0.7)


@pytest.mark.parametrize(
    "measured",
    [
        mean_of("f1", "squad", [0.2, 0.5, 0.9]),
        entity_rows([[2, 3, 2], [0, 1, 2], [1, 1, 1]]),
        entity_rows([[0, 0, 0], [0, 0, 0], [1, 1, 2]]),
        spearman([0.1, 0.5, 0.3], [1, 2, 3]),
        regression_loyalty([0.1, 0.5, 0.3], [1, 2, 3]),
    ],
    ids=["means", "entities", "empty sentences", "spearman", "pearson"],
)
def test_draws_have_the_distribution_of_all_that_there_are(measured: Measured) -> None:
    drawn = Counter(np.round(resampled([measured], resamples=20_000)[0], 9).tolist())
    exact = Counter(every_draw(measured))
    assert {round(score, 6) for score in drawn} == {round(score, 6) for score in exact}
    for score, times in exact.items():
        assert sum(n for s, n in drawn.items() if abs(s - score) < 1e-6) / 20_000 == pytest.approx(
            sum(n for s, n in exact.items() if abs(s - score) < 1e-6) / 27, abs=0.02
        ), times


def test_items_of_few_kinds_are_drawn_as_items_of_many() -> None:
    """Equal items are counted instead of drawn one by one; a hair's difference between them turns that off."""
    scores = RNG.integers(0, 3, size=300) / 2
    few, many = mean_of("f1", "squad", scores), mean_of("f1", "squad", scores + np.arange(300) * 1e-12)
    assert interval(few) == pytest.approx(interval(many), abs=0.004)
    assert np.std(resampled([few])) == pytest.approx(np.std(resampled([many])), rel=0.03)
    assert np.std(resampled([few])) == pytest.approx(scores.std() / 300**0.5, rel=0.03)


def test_95_percent_intervals_hold_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(400):
        low, high = interval(mean_of("accuracy", None, rng.random(300) < 0.7), seed=seed, resamples=1000)
        held += low <= 0.7 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_intervals_of_differences_hold_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for seed in range(300):
        luck = rng.random(300)
        a, b = mean_of("accuracy", None, luck < 0.75), mean_of("accuracy", None, (luck + 0.1 * rng.random(300)) < 0.75)
        low, high = paired_difference(a, b, seed=seed, resamples=1000).interval
        held += low <= 0.05 <= high
    assert 0.92 <= held / 300 <= 0.98


@FEWER
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_an_interval_needs_its_seed_only_not_the_order_of_items(rows: list[tuple[int, int, int]]) -> None:
    measured = entity_rows([[min(r), r[0], r[1]] for r in rows])
    backwards = entity_rows([[min(r), r[0], r[1]] for r in reversed(rows)])
    low, high = interval(measured, resamples=200)
    assert 0 <= low <= high <= 1
    assert interval(measured, resamples=200) == interval(backwards, resamples=200) == (low, high)


def test_another_seed_is_another_draw() -> None:
    for measured in (mean_of("f1", "squad", RNG.random(60)), mean_of("accuracy", None, RNG.random(60) < 0.5)):
        first, second = (resampled([measured], seed=seed, resamples=50) for seed in (1, 2))
        assert not np.array_equal(first, second)


def test_spearman_intervals_follow_the_order_of_pairs_only() -> None:
    own, gold = RNG.random((2, 50))
    measured = spearman(own, own + gold)
    low, high = interval(measured, resamples=500)
    assert low < measured.value < high
    order = RNG.permutation(50)
    assert interval(spearman(own[order], (own + gold)[order]), resamples=500) == pytest.approx((low, high), abs=1e-12)


def test_a_single_item_has_no_spread() -> None:
    assert interval(mean_of("f1", "squad", [0.4])) == pytest.approx((0.4, 0.4))


@pytest.mark.parametrize(
    "measured",
    [
        mean_of("accuracy", None, RNG.random(90) < 0.6),
        mean_of("exact_match", "mlqa", RNG.random(90)),
        entity_f1([["B-A", "O"]] * 9, [["B-A", "B-B"], ["O", "O"], ["B-A", "O"]] * 3, "strict-iob2"),
        spearman(RNG.random(30), RNG.random(30)),
    ],
    ids=lambda m: m.metric,
)
def test_a_model_does_not_differ_from_itself(measured: Measured) -> None:
    found = paired_difference(measured, measured)
    assert (found.value, found.interval) == (0, (0, 0))
    assert found.p == (1 if measured.metric == "accuracy" else None)


def test_the_difference_is_the_first_less_the_second_and_mirrors() -> None:
    gold = ["x"] * 40
    a = accuracy(gold, ["x"] * 30 + ["y"] * 10)
    b = accuracy(gold, ["y"] * 4 + ["x"] * 16 + ["y"] * 20)
    forth, back = paired_difference(a, b), paired_difference(b, a)
    assert forth.value == pytest.approx(0.35)
    assert forth.interval[0] < 0.35 < forth.interval[1]
    # The draws of the mirrored pair are others, as the items are counted in another order.
    assert back.value == -forth.value
    assert back.interval == pytest.approx((-forth.interval[1], -forth.interval[0]), abs=0.03)
    assert forth.p == back.p == mcnemar(a.items[:, 0], b.items[:, 0])


def test_items_in_common_make_the_interval_of_a_difference_narrow() -> None:
    right = RNG.random(1000) < 0.6
    other = right.copy()
    other[:20] = ~other[:20]
    a, b = mean_of("accuracy", None, right), mean_of("accuracy", None, other)
    (low, high), alone = paired_difference(a, b).interval, interval(a)
    assert high - low < (alone[1] - alone[0]) / 2


def test_what_cannot_be_paired_is_refused() -> None:
    short, long = mean_of("accuracy", None, [1, 0]), mean_of("accuracy", None, [1, 0, 1])
    with pytest.raises(PolydistillError, match="2 and 3 items"):
        paired_difference(short, long)
    with pytest.raises(PolydistillError, match=r"f1 \(squad\) and f1 \(mlqa\)"):
        paired_difference(mean_of("f1", "squad", [1]), mean_of("f1", "mlqa", [1]))
    with pytest.raises(PolydistillError, match="no items"):
        interval(mean_of("accuracy", None, []))
    with pytest.raises(PolydistillError, match="1 and 2"):
        mcnemar([True], [True, False])


@pytest.mark.parametrize(
    ("only_a", "only_b", "both", "p"),
    [
        (0, 0, 5, 1.0),
        (1, 0, 3, 1.0),  # 2 * 1/2
        (5, 0, 0, 0.0625),  # 2 * 1/32
        (0, 6, 9, 0.03125),  # 2 * 1/64
        (1, 5, 2, 0.21875),  # 2 * (1 + 6)/64
        (3, 3, 0, 1.0),
        (2, 8, 1, 0.109375),  # 2 * (1 + 10 + 45)/1024
    ],
)
def test_mcnemars_exact_p_by_hand(only_a: int, only_b: int, both: int, p: float) -> None:
    a = [True] * only_a + [False] * only_b + [True] * both + [False]
    b = [False] * only_a + [True] * only_b + [True] * both + [False]
    assert mcnemar(a, b) == pytest.approx(p)
    assert mcnemar(b, a) == pytest.approx(p)


@CASES
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_sees_only_the_items_that_one_of_the_two_gets_right(pairs: list[tuple[bool, bool]]) -> None:
    first, second = zip(*pairs, strict=True)
    split = [a for a, b in pairs if a != b]
    expected = binomtest(sum(split), len(split)).pvalue if split else 1.0
    assert mcnemar(first, second) == pytest.approx(min(expected, 1))
    assert mcnemar((*first, True, False), (*second, True, False)) == pytest.approx(min(expected, 1))


def test_10_000_draws_of_5_010_items_are_quick() -> None:
    rows = np.stack([RNG.random(5010), np.ones(5010)], axis=1)
    start = time.process_time()
    interval(Measured("probability_loyalty", None, rows, mean_of("", None, [1]).value_of))
    assert time.process_time() - start < 8  # under a second on a free core


# --- what is drawn together


def languages(found: np.ndarray, units: list[str]) -> list[Measured]:
    """(n, L) answers, right or not, as an accuracy for each language."""
    return [replace(mean_of("accuracy", None, column), units=tuple(units)) for column in found.T]


def test_a_mean_over_translations_by_hand() -> None:
    """Two items that are right in both languages or in none: the draws are those of one language."""
    sets = [replace(mean_of("accuracy", None, [0, 1]), units=("a", "b"))] * 2
    means = resampled_means([sets])[0]
    assert [float((means == value).mean()) for value in (0, 0.5, 1)] == pytest.approx([0.25, 0.5, 0.25], abs=0.02)
    turned = replace(mean_of("accuracy", None, [1, 0]), units=("b", "a"))  # by name, whatever their order
    assert np.array_equal(resampled_means([[sets[0], turned]])[0], means)
    against = replace(turned, units=("a", "b"))  # right where the other is wrong: the mean is 1/2 in every draw
    assert (resampled_means([[sets[0], against]]) == 0.5).all()


def test_means_over_languages_hold_the_truth_where_items_are_drawn_once_for_all() -> None:
    """Accuracy .7 in 8 languages, an item being hard in all of them; taking languages as independent fails."""
    rng, units = np.random.default_rng(3), [str(i) for i in range(150)]
    together = apart = 0
    for seed in range(200):
        luck = np.sqrt(0.6) * rng.standard_normal((150, 1)) + np.sqrt(0.4) * rng.standard_normal((150, 8))
        sets = languages(luck < 0.5244, units)
        for kept in (True, False):
            some = sets if kept else [replace(measured, units=None) for measured in sets]
            low, high = middle(resampled_means([some], seed=seed, resamples=300)[0])
            together += kept and low <= 0.7 <= high
            apart += not kept and low <= 0.7 <= high
    assert together / 200 >= 0.9 and apart / 200 < 0.75


def test_differences_of_means_and_what_is_kept_hold_the_truth() -> None:
    rng, units = np.random.default_rng(4), [str(i) for i in range(200)]
    differences = ratios = 0
    for seed in range(200):
        luck = np.sqrt(0.6) * rng.standard_normal((200, 1)) + np.sqrt(0.4) * rng.standard_normal((200, 6))
        teacher = luck < 0.5244
        student = teacher & (rng.random((200, 1)) > 0.1)
        first, second = resampled_means(
            [languages(student, units), languages(teacher, units)], seed=seed, resamples=300
        )
        low, high = middle(first - second)
        differences += low <= -0.07 <= high
        between = retained(first, second)
        assert between is not None
        ratios += between[0] <= 0.9 <= between[1]
    assert differences / 200 >= 0.9 and ratios / 200 >= 0.9


def test_what_is_kept_of_nothing_has_no_interval() -> None:
    own = np.linspace(0.4, 0.6, 1000)
    assert retained(own, np.full(1000, 0.5)) == pytest.approx((0.81, 1.19), abs=1e-3)
    seldom = np.where(np.arange(1000) < 5, 0.0, 0.5)  # a draw in 200 without a right answer
    between = retained(own, seldom)
    assert between is not None and between[1] < 1.3
    assert retained(own, np.where(np.arange(1000) < 50, 0.0, 0.5)) is None


def test_sets_that_share_their_line_numbers_by_accident_lose_nothing() -> None:
    rng, units = np.random.default_rng(5), [str(i) for i in range(400)]
    sets = languages(rng.random((400, 6)) < 0.7, units)
    alone = [replace(measured, units=None) for measured in sets]
    spreads = [float(np.std(resampled_means([some])[0])) for some in (sets, alone)]
    assert spreads[0] == pytest.approx(spreads[1], rel=0.12)


@pytest.mark.parametrize(
    ("units", "groups"),
    [
        (["abcd", "abcd", "abcd"], [[0, 1, 2]]),
        (["abcd", "efgh", "abcd"], [[0, 2], [1]]),
        (["abcd", "cdef", "efgh"], [[0, 1, 2]]),  # half of the first in the second, half of that in the third
        (["abcde", "a", "bcdea"], [[0, 2], [1]]),  # too few of the larger one
        (["abcd", "", ""], [[0], [1], [2]]),  # nothing is said of the last two
        (["0123456789", "123456789", "01234"], [[0, 1], [2]]),  # lines' numbers: one may be missing, not half of them
    ],
)
def test_which_sets_are_drawn_together(units: list[str], groups: list[list[int]]) -> None:
    sets = [replace(mean_of("f1", "squad", [0.5] * (len(names) or 3)), units=tuple(names) or None) for names in units]
    assert drawn_together(sets) == groups


def test_correlations_are_drawn_together_where_the_pairs_are_the_same() -> None:
    first, gold = RNG.random((2, 40))
    one = replace(spearman(first, first + gold), units=tuple(map(str, range(40))))
    means = resampled_means([[one, one]], resamples=200)
    assert np.allclose(np.sort(means[0]), np.sort(resampled_means([[one]], resamples=200)[0]))
    other = replace(one, units=tuple(map(str, range(1, 41))))
    assert drawn_together([one, one, other]) == [[0, 1], [2]]


def test_questions_about_a_paragraph_are_drawn_together() -> None:
    """Two paragraphs, all of one answered and none of the other: the draws are those of two items."""
    units = ("p", "p", "p", "q", "q", "q")
    measured = replace(mean_of("f1", "squad", [1, 1, 1, 0, 0, 0]), units=units)
    scores = resampled([measured])[0]
    assert [float((scores == value).mean()) for value in (0, 0.5, 1)] == pytest.approx([0.25, 0.5, 0.25], abs=0.02)
    assert measured.drawn == 2 and interval(measured) == (0, 1)


def test_one_language_holds_the_truth_where_paragraphs_are_drawn() -> None:
    rng, units = np.random.default_rng(7), tuple(str(i // 5) for i in range(500))
    by_paragraph = by_question = 0
    for seed in range(200):
        luck = np.sqrt(0.5) * rng.standard_normal((100, 1)) + np.sqrt(0.5) * rng.standard_normal((100, 5))
        measured = mean_of("f1", "squad", (luck < 0.5244).ravel())
        low, high = interval(measured, seed=seed, resamples=300)
        by_question += low <= 0.7 <= high
        low, high = interval(replace(measured, units=units), seed=seed, resamples=300)
        by_paragraph += low <= 0.7 <= high
    assert by_paragraph / 200 >= 0.9 > 0.87 > by_question / 200


def test_a_mean_of_many_languages_is_quick_and_needs_its_seed_only() -> None:
    units = [str(i) for i in range(5010)]
    models = [languages(RNG.random((5010, 15)) < 0.7, units) for _ in range(2)]
    start = time.process_time()
    means = resampled_means(models, resamples=2000)
    assert time.process_time() - start < 8  # a tenth of a second on a free core
    assert np.array_equal(means, resampled_means(models, resamples=2000))
    assert not np.array_equal(means, resampled_means(models, seed=1, resamples=2000))


@pytest.mark.parametrize(
    ("several", "adjusted"),
    [
        ([0.01], [0.01]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 x .01, 2 x .03, and .04 is not below the one before
        ([0.5, 0.9], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holms_p_by_hand(several: list[float], adjusted: list[float]) -> None:
    assert holm(several) == pytest.approx(adjusted)
