from __future__ import annotations

import random

import numpy as np
import pytest

from polydistill.vocab import smoothing
from polydistill.vocab.smoothing import expected_counts, surfaces_of

SYLLABLES = [c + v for c in "ktnsmlr" for v in "aeiou"]
FOREIGN = [v + c for c in "ktnsmlr" for v in "aeiou"]


def toy_language(seed: int) -> tuple[list[str], list[list[int]]]:
    """Two-syllable pieces of this language and, of the same letters, of another; and words of this language."""
    rng = random.Random(seed)
    vocabulary = [a + b for a in SYLLABLES for b in SYLLABLES] + [a + b for a in FOREIGN for b in FOREIGN]
    rng.shuffle(vocabulary)
    own = [i for i, piece in enumerate(vocabulary) if piece[0] not in "aeiou"]
    weights = [1 / (1 + rng.randrange(400)) for _ in own]
    words = [rng.choices(own, weights, k=rng.randint(1, 2)) for _ in range(3000)]
    return vocabulary, words


def counted(vocabulary: list[str], words: list[list[int]]) -> tuple[list[str], list[str], np.ndarray]:
    """Surfaces (inside and at the start of a word, as two tokens), distinct words, counts."""
    surfaces = [" " + piece for piece in vocabulary] + list(vocabulary)
    counts = np.zeros(len(surfaces))
    for word in words:
        counts[word[0]] += 1
        for piece in word[1:]:
            counts[len(vocabulary) + piece] += 1
    return surfaces, sorted({"".join(vocabulary[i] for i in word) for word in words}), counts


@pytest.fixture(scope="module")
def toy() -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    vocabulary, words = toy_language(1)
    surfaces, distinct, counts = counted(vocabulary, words[:1000])
    return surfaces, distinct, counts, counted(vocabulary, words[1000:])[2]


def test_total_sign_and_order_of_what_was_seen(toy) -> None:
    surfaces, words, counts, _ = toy
    expected = expected_counts(surfaces, words, counts)
    assert expected.shape == counts.shape and expected.dtype == np.float64
    assert expected.sum() == pytest.approx(counts.sum())
    assert (expected > 0).all()
    seen = np.flatnonzero(counts)
    by_count = seen[np.argsort(counts[seen], kind="stable")]
    assert (np.diff(expected[by_count]) >= 0).all()
    for count in set(counts[seen].tolist()):
        assert len(set(expected[counts == count].tolist())) == 1
    assert expected[counts == 0].max() < expected[seen].min()


def test_same_input_same_bytes_and_input_untouched(toy) -> None:
    surfaces, words, counts, _ = toy
    before = counts.copy()
    first = expected_counts(surfaces, words, counts, seed=3)
    assert first.tobytes() == expected_counts(surfaces, words, counts, seed=3).tobytes()
    assert (counts == before).all()


def test_sampling_keeps_the_total_mass_of_the_unseen(toy, monkeypatch: pytest.MonkeyPatch) -> None:
    surfaces, words, counts, _ = toy
    whole = expected_counts(surfaces, words, counts)[counts == 0].sum()
    monkeypatch.setattr(smoothing, "MAX_SAMPLE", 700)
    assert expected_counts(surfaces, words, counts)[counts == 0].sum() == pytest.approx(whole, rel=0.2)


def test_unseen_mass_is_good_turings(toy) -> None:
    surfaces, words, counts, _ = toy
    expected = expected_counts(surfaces, words, counts)
    assert expected[counts == 0].sum() / counts.sum() == pytest.approx((counts == 1).sum() / counts.sum(), rel=0.25)


def test_new_text_keeps_more_of_its_tokens_at_the_same_size(toy) -> None:
    surfaces, words, counts, held_out = toy
    expected = expected_counts(surfaces, words, counts)
    size = int((counts > 0).sum()) + 400

    def lost(score: np.ndarray) -> float:
        order = np.lexsort((np.arange(len(score)), -score))
        return held_out[order[size:]].sum() / held_out.sum()

    assert lost(expected) < 0.8 * lost(counts)
    unseen = np.flatnonzero(counts == 0)
    best = unseen[np.argsort(-expected[unseen])[:400]]
    own = [surfaces[i].strip()[0] not in "aeiou" for i in best]
    assert np.mean(own) > 0.95


def test_evidence_moves_unseen_tokens_up(toy) -> None:
    surfaces, words, counts, held_out = toy
    expected = expected_counts(surfaces, words, counts, evidence=held_out / 2)
    assert expected.sum() == pytest.approx(counts.sum())
    unseen = counts == 0
    without = expected_counts(surfaces, words, counts)
    size = int(unseen.sum() // 4)

    def caught(score: np.ndarray) -> float:
        return held_out[np.argsort(-np.where(unseen, score, -1.0), kind="stable")[:size]].sum()

    assert caught(expected) > caught(without)


def test_rarest_sequences_by_hand() -> None:
    strings = smoothing._Strings([" ab", "bc", "a", "cb"])
    text = smoothing._text(["ab", "abc"])
    assert "".join(map(chr, text)) == " ab abc"
    rarest = np.stack(smoothing._rarest_sequences(strings, text), axis=1)
    assert rarest.tolist() == [[2, 2, 2, 2, 2], [1, 1, 1, 1, 1], [2, 2, 2, 2, 2], [1, 0, 0, 0, 0]]


def test_features_leave_out_the_own_occurrence() -> None:
    counts = np.array([1.0, 0.0, 2.0])
    features = smoothing._Features([" ab", "bc", "b"], ["ab", "abc", "bc"], counts, None)
    assert features.ids.tolist() == [0, 1, 2]
    grams = np.exp(features.matrix(leave_out=1)[:, : smoothing.ORDERS]) - 0.5
    assert grams[:, 1].round(9).tolist() == [1, 2, 3]
    grams = np.exp(features.matrix(leave_out=2)[:, : smoothing.ORDERS]) - 0.5
    assert grams[:, 1].round(9).tolist() == [2, 2, 2]


def test_relatives_are_other_cases_marks_and_positions() -> None:
    counts = np.array([5.0, 7.0, 11.0, 13.0])
    features = smoothing._Features([" tara", "Țară", "tar", " ara"], ["tara", "tara", "Țară", "Țară"], counts, None)
    relatives = np.exp(features.columns[-1]) - 0.5
    assert relatives.round(6).tolist() == [7, 5, 0, 0]


def test_logistic_without_information_is_the_ratio() -> None:
    log_odds = smoothing._logistic(np.ones((30, 2)), np.ones((20, 2)), np.ones((3, 2)))
    assert log_odds == pytest.approx(np.full(3, np.log(20 / 30)), abs=1e-3)


def test_logistic_of_two_groups_is_each_groups_ratio() -> None:
    negatives = np.repeat([[0.0], [1.0]], [3000, 1000], axis=0)
    positives = np.repeat([[0.0], [1.0]], [300, 500], axis=0)
    log_odds = smoothing._logistic(negatives, positives, np.array([[0.0], [1.0]]))
    assert np.exp(log_odds) == pytest.approx([0.1, 0.5], rel=0.02)


def test_a_letter_the_text_lacks_comes_last(toy) -> None:
    surfaces, words, counts, _ = toy
    surfaces = [*surfaces, "дом", " ", ""]
    expected = expected_counts(surfaces, words, np.append(counts, [0, 0, 0]))
    assert expected[-3:].min() > 0 and expected[-3:].max() < expected[:-3].min()


@pytest.mark.parametrize("counts", [[0, 0, 0], [3, 1, 0], [0.5, 0, 2.25]])
def test_too_little_text_leaves_counts_as_they_are(counts: list[float]) -> None:
    expected = expected_counts([" ab", "b", "c"], ["ab", "ab"], np.array(counts))
    assert expected.sum() == pytest.approx(sum(counts))
    assert np.argsort(-expected, kind="stable").tolist() == np.argsort(-np.array(counts), kind="stable").tolist()


def test_a_long_word_list_is_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoothing, "MAX_LETTERS", 10)
    assert "".join(map(chr, smoothing._text(["aaaa", "bbbb", "cccc", "dddd", "eeee"]))) == " aaaa dddd"


def test_surfaces_of_three_families() -> None:
    assert surfaces_of(["<unk>", "▁de", "ă", "▁"]) == ["<unk>", " de", "ă", " "]
    assert surfaces_of(["[UNK]", "de", "##ul", "##a", "Ġ"]) == [" [UNK]", " de", "ul", "a", " Ġ"]
    assert surfaces_of(["Ġde", "##", "Äĥ", "Ä", "ĠÈĻi", "Ċ"]) == [" de", "##", "ă", "\ufffd", " și", "\n"]
