from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import CASES

from polydistill.errors import PolydistillError, UsageError
from polydistill.metrics.entities import entities, entity_f1
from polydistill.metrics.stored import ENTITY_SCHEMES

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from seqeval.metrics import f1_score
    from seqeval.scheme import IOB2

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-A-B", "I-A-B"]  # any order of them: most sequences are ill-formed
Sentences = list[list[str]]


@st.composite
def pairs(draw: Callable[[Any], Any]) -> tuple[Sentences, Sentences]:
    """Gold and predicted tags of some sentences."""
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=5))
    gold, predicted = ([[draw(st.sampled_from(TAGS)) for _ in range(n)] for n in lengths] for _ in range(2))
    return gold, predicted


@pytest.mark.parametrize(
    ("gold", "predicted", "conlleval", "strict"),
    [
        ("B-PER I-PER O B-LOC", "I-PER I-PER O B-LOC", 1, 2 / 3),
        ("B-PER I-PER O B-LOC", "B-PER I-LOC O B-LOC", 0.4, 0.5),
        ("B-PER I-PER O B-LOC O", "B-PER I-PER O O I-LOC", 0.5, 2 / 3),
        ("O O O", "O O O", 0, 0),
    ],
)
def test_the_two_scorings_on_the_cases_in_which_they_differ(
    gold: str, predicted: str, conlleval: float, strict: float
) -> None:
    values = [entity_f1([gold.split()], [predicted.split()], scheme).value for scheme in ENTITY_SCHEMES]
    assert values == pytest.approx([conlleval, strict], abs=1e-12)


@CASES
@given(pairs())
def test_both_scorings_are_seqevals(case: tuple[Sentences, Sentences]) -> None:
    gold, predicted = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval warns of sequences without entities
        if any(gold):
            assert entity_f1(gold, predicted, "conlleval").value == pytest.approx(f1_score(gold, predicted), abs=1e-12)
        strict = f1_score(gold, predicted, mode="strict", scheme=IOB2)
    assert entity_f1(gold, predicted, "strict-iob2").value == pytest.approx(strict, abs=1e-12)


@CASES
@given(pairs(), st.sampled_from(ENTITY_SCHEMES), st.randoms(use_true_random=False))
def test_f1_does_not_change_when_sides_are_swapped_or_sentences_reordered(
    case: tuple[Sentences, Sentences], scheme: str, random: Any
) -> None:
    gold, predicted = case
    found, swapped = entity_f1(gold, predicted, scheme), entity_f1(predicted, gold, scheme)
    assert found.value == swapped.value
    assert found.items.tolist() == swapped.items[:, [0, 2, 1]].tolist()
    order = random.sample(range(len(gold)), len(gold))
    assert entity_f1([gold[i] for i in order], [predicted[i] for i in order], scheme).value == found.value


@CASES
@given(pairs())
def test_strict_entities_are_some_of_the_repaired_ones(case: tuple[Sentences, Sentences]) -> None:
    for tags in case[0]:
        assert entities(tags, "strict-iob2") <= entities(tags, "conlleval")


def test_a_perfect_prediction_is_1_and_rows_count_entities() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["O"], ["B-LOC", "B-LOC"]]
    for scheme in ENTITY_SCHEMES:
        found = entity_f1(gold, gold, scheme)
        assert (found.value, found.normalisation) == (1, scheme)
        assert found.items.tolist() == [[2, 2, 2], [0, 0, 0], [2, 2, 2]]


@pytest.mark.parametrize("tag", ["X", "B", "B-", "S-PER", "LABEL_0", "b-PER", ""])
def test_a_tag_that_is_not_iob2_is_refused(tag: str) -> None:
    with pytest.raises(PolydistillError, match="not an IOB2 tag"):
        entity_f1([["O"]], [[tag]], "conlleval")


def test_missing_tags_missing_sentences_and_unknown_scorings_are_refused() -> None:
    with pytest.raises(PolydistillError, match="Sentence 2 has 2 gold tags and 1 predicted"):
        entity_f1([["O"], ["O", "O"]], [["O"], ["O"]], "conlleval")
    with pytest.raises(PolydistillError, match="sentences"):
        entity_f1([], [], "conlleval")
    with pytest.raises(UsageError, match="'strict'"):
        entity_f1([["O"]], [["O"]], "strict")
