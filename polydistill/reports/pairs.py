"""Two models on the same items: the difference of their scores, its interval and McNemar's p."""

from __future__ import annotations

from dataclasses import dataclass

from polydistill.evaluation.cache import Items
from polydistill.metrics.paired import paired_difference
from polydistill.records.record import Score

NOT_CACHED = "their predictions are not in the cache here; run `polydistill evaluate` again on this machine"
OTHER_ITEMS = "the predictions in the cache are of other items; run `polydistill evaluate` again on this machine"


@dataclass(frozen=True)
class Pair:
    """A model against the reference on the same items.

    Args:
        difference: The model's score minus the reference's, from -1 to 1.
        interval: 95% interval of the difference, paired bootstrap over items; None if items are missing.
        p: McNemar's exact two-sided p, for accuracies only.
        retained: 95% interval of the model's score over the reference's.
        why: Why there is no interval.
    """

    difference: float
    interval: tuple[float, float] | None = None
    p: float | None = None
    retained: tuple[float, float] | None = None
    why: str | None = None


def pair(score: Score, reference: Score, items: Items) -> Pair:
    """Compares two scores of one metric on one set of data.

    Args:
        score: The model's.
        reference: That of the model that it is compared with, on the same data.
        items: The items of both in the cache.
    """
    difference = score.value - reference.value
    ours, theirs = items.of(score), items.of(reference)
    if ours is None or theirs is None:
        return Pair(difference, why=NOT_CACHED)
    if len(ours.items) != len(theirs.items) or score.n != reference.n:
        return Pair(difference, why=OTHER_ITEMS)
    found = paired_difference(ours, theirs)
    return Pair(difference, found.interval, found.p, found.retained)
