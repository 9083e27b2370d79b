"""Words aligned by mutual nearest neighbours, and tags that go along."""

from __future__ import annotations

import pytest
import torch

from polydistill.distill.word_alignment import SCATTERED, UNALIGNED, mutual_nearest, projected, spans, word_pairs


def test_neighbours_are_mutual() -> None:
    """Source 0 and 1 are both nearest to target 0, which is nearest to source 0; source 2 and target 1 agree."""
    source = torch.tensor([[1.0, 0.0], [1.0, 0.5], [0.0, 3.0]])
    target = torch.tensor([[2.0, 0.1], [0.1, 1.0]])
    assert mutual_nearest(source, target) == [(0, 0), (2, 1)]
    assert mutual_nearest(target, source) == [(0, 0), (1, 2)]
    assert mutual_nearest(source, 7 * target) == mutual_nearest(source, target)  # lengths say nothing
    assert mutual_nearest(source[:0], target) == []


def test_a_text_is_aligned_with_itself() -> None:
    states = torch.randn(9, 8, generator=torch.Generator().manual_seed(0))
    assert mutual_nearest(states, states) == [(i, i) for i in range(9)]


def test_words_are_aligned_by_any_of_their_subwords() -> None:
    assert word_pairs([(0, 1), (1, 0), (2, 2)], [0, 0, 1], [0, 0, 2]) == {(0, 0), (1, 2)}


@pytest.mark.parametrize(
    ("tags", "pairs", "count", "expected"),
    [
        (["B-PER", "O"], {(0, 1), (1, 0)}, 2, ["O", "B-PER"]),  # another order
        (["B-PER", "I-PER"], {(0, 1), (1, 0)}, 2, ["B-PER", "I-PER"]),
        (["B-LOC"], {(0, 0), (0, 1)}, 2, ["B-LOC", "I-LOC"]),  # one word for two
        (["B-LOC", "I-LOC"], {(0, 0), (1, 0)}, 2, ["B-LOC", "O"]),  # two for one
        (["B-ORG", "I-ORG"], {(0, 0), (1, 2)}, 3, ["B-ORG", "I-ORG", "I-ORG"]),  # with a word that nothing aligns to
        (["B-PER", "B-PER"], {(0, 1), (1, 0)}, 2, ["B-PER", "B-PER"]),  # neighbours stay apart
        (["O", "O"], set(), 3, ["O", "O", "O"]),
        (["B-ORG", "I-ORG", "O"], {(0, 0), (1, 2), (2, 1)}, 3, SCATTERED),
        (["B-PER", "O"], {(1, 0)}, 2, UNALIGNED),
        (["B-PER", "B-LOC"], {(0, 0), (1, 0)}, 1, SCATTERED),  # one word of both: it is another entity's too
    ],
)
def test_entities_go_along(tags: list[str], pairs: set[tuple[int, int]], count: int, expected: list[str] | str) -> None:
    found, why = projected(tags, pairs, count)
    assert (found, why) == ((None, expected) if isinstance(expected, str) else (expected, ""))


def test_spans() -> None:
    assert spans(["B-A", "I-A", "O", "I-B", "B-B", "I-A"]) == [(0, 2, "A"), (3, 4, "B"), (4, 5, "B"), (5, 6, "A")]


def test_identical_sentences_keep_their_tags() -> None:
    tags = ["O", "B-PER", "I-PER", "O", "B-LOC"]
    assert projected(tags, {(i, i) for i in range(5)}, 5) == (tags, "")
