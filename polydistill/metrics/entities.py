"""Micro-averaged entity F1 over IOB2 tags, in the two readings of ill-formed sequences that are in use.

`conlleval` repairs: an I- that continues nothing opens an entity (Tjong Kim Sang and De Meulder 2003; what seqeval does
by default). `strict-iob2` drops: only a B- opens one (seqeval's mode='strict' with scheme=IOB2). They differ by several
points for weak models, so every score says which one it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from polydistill.errors import PolydistillError, UsageError
from polydistill.metrics.items import Measured, check_aligned, f_measure
from polydistill.metrics.stored import ENTITY_SCHEMES
from polydistill.wording import counted

Entity = tuple[str, int, int]


def entities(tags: Sequence[str], scheme: str) -> set[Entity]:
    """The entities of a sentence.

    Args:
        tags: One tag per word: `O`, `B-TYPE` or `I-TYPE`.
        scheme: `conlleval` or `strict-iob2`.

    Returns:
        (type, first word, word after the last) of each.

    Raises:
        PolydistillError: A tag is not one of those.
        UsageError: The scheme is unknown.
    """
    if scheme not in ENTITY_SCHEMES:
        raise UsageError(f"Unknown entity scoring '{scheme}'.", f"Known are {' and '.join(ENTITY_SCHEMES)}.")
    found: set[Entity] = set()
    open_type, start = None, 0
    for place, tag in enumerate([*tags, "O"]):
        prefix, kind = _parts(tag)
        if prefix == "I" and kind == open_type:
            continue
        if open_type is not None:
            found.add((open_type, start, place))
        opens = prefix == "B" or (prefix == "I" and scheme == "conlleval")
        open_type, start = (kind, place) if opens else (None, place)
    return found


def _parts(tag: str) -> tuple[str, str]:
    if tag == "O":
        return "O", ""
    prefix, dash, kind = tag.partition("-")
    if prefix not in ("B", "I") or not dash or not kind:
        raise PolydistillError(f"'{tag}' is not an IOB2 tag.", "Tags are O, B-TYPE and I-TYPE.")
    return prefix, kind


def entity_f1(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], scheme: str) -> Measured:
    """Micro F1 over entities; an entity is right if its type and both ends are.

    Args:
        gold: The tags of each sentence, one per word.
        predicted: The predicted tags of each sentence.
        scheme: `conlleval` or `strict-iob2`.

    Returns:
        `f1`; the rows are (true positives, predicted, gold) of a sentence. It is 0 if there are no entities at all.

    Raises:
        PolydistillError: A sentence has different numbers of gold and predicted tags, a tag is not IOB2, or there are
            no sentences.
        UsageError: The scheme is unknown.
    """
    check_aligned(gold, predicted, "gold and predicted sentences")
    rows = []
    for number, (true_tags, own_tags) in enumerate(zip(gold, predicted, strict=True), 1):
        if len(true_tags) != len(own_tags):
            raise PolydistillError(
                f"Sentence {number} has {counted(len(true_tags), 'gold tag')} and {len(own_tags):,} predicted.",
                "Predict one tag for each word; long sentences are windowed, not cut.",
            )
        true, own = entities(true_tags, scheme), entities(own_tags, scheme)
        rows.append((len(true & own), len(own), len(true)))
    return Measured("f1", scheme, np.array(rows, dtype=np.float64), f_measure)
