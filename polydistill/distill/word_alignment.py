"""Which words of a sentence and its translation mean the same, and what tags that gives the translation.

Words are aligned without any training by the hidden states of a multilingual encoder (SimAlign, Jalili Sabet et al.
2020, arXiv 2004.08728, its Argmax method): two subwords are aligned if each is the other's nearest by cosine, and two
words if any of their subwords are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import Tensor
from torch.nn.functional import normalize

OUTSIDE = "O"
UNALIGNED, SCATTERED = "a word of an entity has no counterpart", "an entity is scattered"


def mutual_nearest(source: Tensor, target: Tensor) -> list[tuple[int, int]]:
    """Pairs of vectors of which each is the other's nearest by cosine.

    Args:
        source: (n, H).
        target: (m, H).

    Returns:
        (place in the source, place in the target), by the first.
    """
    if not len(source) or not len(target):
        return []
    cosines = normalize(source.float(), dim=-1) @ normalize(target.float(), dim=-1).T
    there, back = cosines.argmax(1).tolist(), cosines.argmax(0).tolist()
    return [(i, j) for i, j in enumerate(there) if back[j] == i]


def word_pairs(
    pairs: Sequence[tuple[int, int]], source_words: Sequence[int], target_words: Sequence[int]
) -> set[tuple[int, int]]:
    """Pairs of words that have subwords in a pair.

    Args:
        pairs: Of subwords.
        source_words: The word of each subword of the source.
        target_words: The same of the target.
    """
    return {(source_words[i], target_words[j]) for i, j in pairs}


def projected(tags: Sequence[str], pairs: Collection[tuple[int, int]], count: int) -> tuple[list[str] | None, str]:
    """The tags of a translation.

    An entity is projected if each of its words has a counterpart, and its counterparts, with the words between them
    that have none, stand together.

    Args:
        tags: IOB2 tags of the source's words.
        pairs: (source word, target word) that are aligned.
        count: Words of the target.

    Returns:
        (IOB2 tags of the target's words, ""), or (None, why an entity could not be projected).
    """
    found, sources = [OUTSIDE] * count, {j: {i for i, other in pairs if other == j} for _, j in pairs}
    for start, stop, kind in spans(tags):
        own = range(start, stop)
        images = [{j for i, j in pairs if i == word} for word in own]
        if not all(images):
            return None, UNALIGNED
        image = set().union(*images)
        first, last = min(image), max(image)
        between = range(first, last + 1)
        if any(sources.get(j, set()) - set(own) for j in between):
            return None, SCATTERED
        for j in between:
            found[j] = f"{'B' if j == first else 'I'}-{kind}"
    return found, ""


def spans(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """(first word, word after the last, type) of the entities of IOB2 tags."""
    found: list[tuple[int, int, str]] = []
    for place, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if prefix == "I" and found and found[-1][1] == place and found[-1][2] == kind:
            found[-1] = (found[-1][0], place + 1, kind)
        elif prefix in ("B", "I"):
            found.append((place, place + 1, kind))
    return found
