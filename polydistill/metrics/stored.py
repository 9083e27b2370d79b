"""Metrics restored from a cache."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from polydistill.errors import PolydistillError
from polydistill.metrics.items import Measured, f_measure, share
from polydistill.metrics.loyalty import correlation_of_sums
from polydistill.metrics.similarity import rank_correlation

ENTITY_SCHEMES = ("conlleval", "strict-iob2")


def restore(metric: str, normalisation: str | None, items: npt.ArrayLike) -> Measured:
    """A `Measured` from the names and numbers in a cache.

    Args:
        metric: The metric's name.
        normalisation: The normalisation's name, or None.
        items: (n, k) numbers of each item.

    Raises:
        PolydistillError: The metric is unknown, or the items are not a table of numbers that fits it.
    """
    columns, value_of = {
        "accuracy": (2, share),
        "exact_match": (2, share),
        "accuracy_at_1": (2, share),
        "accuracy_at_1_back": (2, share),
        "f1": (3, f_measure) if normalisation in ENTITY_SCHEMES else (2, share),
        "spearman": (2, rank_correlation),
        "label_loyalty": (2, share),
        "probability_loyalty": (2, share),
        "regression_loyalty": (6, correlation_of_sums),
    }.get(metric, (0, share))
    if not columns:
        raise PolydistillError(f"The metric '{metric}' is unknown.", "Evaluate again with this version.")
    damaged = PolydistillError(f"The stored numbers of {metric} are damaged.", "Evaluate again to replace them.")
    try:
        rows = np.asarray(items, dtype=np.float64)
    except (TypeError, ValueError):
        raise damaged from None
    if rows.ndim != 2 or rows.shape[1] != columns or not len(rows) or not np.isfinite(rows).all():
        raise damaged
    return Measured(metric, normalisation, rows, value_of, sums=metric != "spearman")
