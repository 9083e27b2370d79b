"""Accuracy: the share of items that get their gold label."""

from __future__ import annotations

from collections.abc import Sequence

from polydistill.metrics.items import Measured, check_aligned, mean_of


def accuracy(gold: Sequence[str], predicted: Sequence[str]) -> Measured:
    """Accuracy over items.

    Args:
        gold: The label of each item.
        predicted: The predicted label of each item.

    Returns:
        `accuracy`; the rows are (right, 1).

    Raises:
        PolydistillError: There are no items, or not as many predictions.
    """
    check_aligned(gold, predicted, "gold and predicted labels")
    return mean_of("accuracy", None, [mine == true for true, mine in zip(gold, predicted, strict=True)])
