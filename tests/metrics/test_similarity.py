from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from strategies import CASES

from polydistill.errors import PolydistillError
from polydistill.metrics import similarity
from polydistill.metrics.similarity import nearest, rank_correlation, retrieval, spearman, translations_found

RNG = np.random.default_rng(0)


def test_accuracy_at_1_by_hand_in_both_directions() -> None:
    source = [[1.0, 0.0], [0.0, 2.0], [5.0, 4.0]]
    target = [[0.5, 0.0], [4.0, 5.0], [3.0, 3.0]]
    texts = [("a", "A"), ("b", "B"), ("c", "C")]
    # Angles: a 0, b 90, c 38.7 degrees; A 0, B 51.3, C 45.
    forth, back = retrieval(source, target, texts)
    assert forth.items[:, 0].tolist() == [1, 1, 1]
    assert back.items[:, 0].tolist() == [1, 0, 1]
    assert (forth.metric, forth.value, back.value) == ("accuracy_at_1", 1, pytest.approx(2 / 3))


def test_the_length_of_vectors_does_not_matter() -> None:
    vectors, lengths = RNG.normal(size=(50, 8)), RNG.uniform(0.01, 100, size=(50, 1))
    texts = [(f"s{i}", f"t{i}") for i in range(50)]
    noisy = vectors + RNG.normal(size=(50, 8))
    first = retrieval(vectors, noisy, texts)
    second = retrieval(vectors * lengths, noisy * lengths[::-1], texts)
    assert 0.1 < first[0].value < 1
    assert [m.items.tolist() for m in first] == [m.items.tolist() for m in second]


def test_blocks_find_what_the_whole_matrix_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = RNG.normal(size=(2, 23, 4))
    cosines = source @ target.T / np.linalg.norm(source, axis=1)[:, None] / np.linalg.norm(target, axis=1)
    for rows in (1, 5, 23, 100):
        monkeypatch.setattr(similarity, "BLOCK_ROWS", rows)
        forth, back = nearest(source, target)
        assert (forth.tolist(), back.tolist()) == (cosines.argmax(1).tolist(), cosines.argmax(0).tolist())


def test_the_lower_row_wins_a_tie_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    same = np.ones((7, 2))
    for rows in (1, 3, 7):
        monkeypatch.setattr(similarity, "BLOCK_ROWS", rows)
        assert [found.tolist() for found in nearest(same, same)] == [[0] * 7, [0] * 7]


def test_half_precision_is_compared_in_single() -> None:
    vectors = np.array([[300.0, 0], [300, 300]], dtype=np.float16)  # their squares overflow
    assert [found.tolist() for found in nearest(vectors, vectors)] == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    ("texts", "forth", "back", "hits_forth", "hits_back"),
    [
        ([("a", "X"), ("b", "X"), ("c", "Z")], [1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]),
        ([("a", "X"), ("a", "Y"), ("c", "Z")], [1, 0, 1], [1, 0, 2], [1, 1, 0], [1, 1, 1]),
        ([("a", "X"), ("a", "Y"), ("b", "Y")], [2, 2, 0], [2, 0, 0], [1, 1, 0], [0, 1, 1]),
        ([("a", "X"), ("b", "Y"), ("c", "Z")], [1, 2, 0], [0, 1, 1], [0, 0, 0], [1, 1, 0]),
    ],
    ids=["two sources of one target", "two targets of one source", "by text, not by row", "no duplicates"],
)
def test_duplicates_of_a_sentence_count_as_hits(
    texts: list[tuple[str, str]], forth: list[int], back: list[int], hits_forth: list[int], hits_back: list[int]
) -> None:
    found = translations_found(forth, back, texts)
    assert [m.items[:, 0].tolist() for m in found] == [hits_forth, hits_back]
    assert [m.metric for m in found] == ["accuracy_at_1", "accuracy_at_1_back"]


def test_sentences_that_come_twice_do_not_make_a_perfect_model_miss() -> None:
    vectors = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    for texts in ([("a", "X"), ("a", "X"), ("c", "Z")], [("a", "X"), ("b", "X"), ("c", "Z")]):
        assert [m.value for m in retrieval(vectors, vectors, texts)] == [1, 1]


def test_vectors_that_do_not_fit_are_refused() -> None:
    texts = [("a", "A"), ("b", "B")]
    good = np.eye(2)
    with pytest.raises(PolydistillError, match="not finite"):
        retrieval(good * np.nan, good, texts)
    with pytest.raises(PolydistillError, match="2 and 3 dimensions"):
        retrieval(good, np.ones((2, 3)), texts)
    with pytest.raises(PolydistillError, match="1 and 2"):
        retrieval(good, good, texts[:1])
    with pytest.raises(PolydistillError, match="2 and 3"):
        retrieval(good, np.ones((3, 2)), texts)
    with pytest.raises(PolydistillError, match="dimensions"):
        retrieval([1.0, 2.0], good, texts)


def test_spearman_by_hand() -> None:
    assert spearman([0.1, 0.2, 0.9], [1, 2, 5]).value == pytest.approx(1)
    assert spearman([0.9, 0.2, 0.1], [1, 2, 5]).value == pytest.approx(-1)
    # Ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15).
    assert spearman([1, 2, 3, 4], [2, 1, 4, 3]).value == pytest.approx(0.6)
    assert spearman([0.5, 0.5, 0.5], [1, 2, 3]).value == 0


@CASES
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 5)), min_size=2, max_size=30))
def test_spearman_is_scipys_ties_included(pairs: list[tuple[int, int]]) -> None:
    own, gold = zip(*pairs, strict=True)
    if len(set(gold)) == 1:
        with pytest.raises(PolydistillError, match="equal"):
            spearman(own, gold)
    elif len(set(own)) > 1:
        assert spearman(own, gold).value == pytest.approx(spearmanr(own, gold).statistic, abs=1e-12)


def test_many_correlations_at_once_are_those_one_by_one() -> None:
    items = RNG.integers(0, 4, size=(6, 9, 2)).astype(float)
    assert rank_correlation(items) == pytest.approx([float(rank_correlation(one)) for one in items])


def test_ratings_that_are_not_finite_or_too_few_are_refused() -> None:
    with pytest.raises(PolydistillError, match="not finite"):
        spearman([0.1, float("nan")], [1, 2])
    with pytest.raises(PolydistillError, match="similarities"):
        spearman([0.1], [1, 2])
    with pytest.raises(PolydistillError, match="similarities"):
        spearman([], [])
