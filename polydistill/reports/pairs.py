"""Two models on the same items: the difference of their scores, its interval and McNemar's p."""

from __future__ import annotations

import re
from dataclasses import dataclass

from polydistill.errors import PolydistillError
from polydistill.evaluation import cache
from polydistill.metrics.items import Measured, restore
from polydistill.metrics.paired import paired_difference
from polydistill.record import Score

_KEY = re.compile(r"[0-9A-Za-z_-]{3,200}")
_TOLERANCE = 1e-6  # between a score and what its cached items give: what rounding may do

NOT_CACHED = "their predictions are not in the cache here; run `polydistill evaluate` again on this machine"
OTHER_ITEMS = "the predictions in the cache are of other items; run `polydistill evaluate` again on this machine"


@dataclass(frozen=True)
class Pair:
    """A model against the reference on the same items.

    Args:
        difference: The model's score less the reference's, from -1 to 1.
        interval: 95% interval of the difference, paired bootstrap over items; None where items are missing.
        p: McNemar's exact two-sided p, of accuracies only.
        why: Why there is no interval.
    """

    difference: float
    interval: tuple[float, float] | None = None
    p: float | None = None
    why: str | None = None


def pair(score: Score, reference: Score) -> Pair:
    """Compares two scores of one metric on one set of data.

    Args:
        score: The model's.
        reference: The model's that it is compared with, on the same data.
    """
    difference = score.value - reference.value
    ours, theirs = cached_items(score), cached_items(reference)
    if ours is None or theirs is None:
        return Pair(difference, why=NOT_CACHED)
    if len(ours.items) != len(theirs.items) or score.n != reference.n:
        return Pair(difference, why=OTHER_ITEMS)
    found = paired_difference(ours, theirs)
    return Pair(difference, found.interval, found.p)


def cached_items(score: Score) -> Measured | None:
    """The numbers of each item behind a score, None if the cache does not have them or has others."""
    if not score.predictions or not _KEY.fullmatch(score.predictions):
        return None
    stored = cache.load(score.predictions)
    if stored is None or (stored.get("data_hash"), stored.get("weights_hash")) != (score.data_hash, score.weights_hash):
        return None
    named = (score.metric, score.normalisation)
    try:
        items = next(entry["items"] for entry in stored["items"] if (entry["metric"], entry["normalisation"]) == named)
        measured = restore(*named, items)
    except (ValueError, KeyError, TypeError, StopIteration, PolydistillError):
        return None  # damaged: evaluate makes it again
    return measured if abs(measured.value - score.value) <= _TOLERANCE else None
