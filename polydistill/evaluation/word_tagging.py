"""A class for each word, such as its part of speech: predicted as tags of entities are, and scored word by word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from polydistill.evaluation.tagging import MAX_LENGTH, loyalty, predict, training_features
from polydistill.labelled.examples import TaggedExample
from polydistill.metrics.items import Measured, share

__all__ = ["MAX_LENGTH", "loyalty", "measure", "predict", "training_features"]


def measure(examples: Sequence[TaggedExample], predictions: Sequence[dict[str, Any]], language: str) -> list[Measured]:
    """Accuracy over words; the rows are (right, words) of a sentence, since its words are not independent."""
    rows = [
        (sum(own == gold for own, gold in zip(p["tags"], e.tags, strict=True)), len(e.tags))
        for e, p in zip(examples, predictions, strict=True)
    ]
    return [Measured("accuracy", None, np.array(rows, np.float64), share)]
