"""Pairs of sentences: the cosine of their vectors should rank them as people do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from polydistill.evaluation.heads import TaskModel
from polydistill.evaluation.retrieval import vectors
from polydistill.labelled.examples import RatedExample
from polydistill.metrics.items import Measured
from polydistill.metrics.loyalty import regression_loyalty
from polydistill.metrics.similarity import spearman

MAX_LENGTH = 512


def predict(
    model: TaskModel,
    examples: Sequence[RatedExample],
    *,
    batch_size: int,
    bf16: bool = False,
    done: Callable[[int], object] = lambda n: None,
) -> list[dict[str, Any]]:
    """The cosine of each pair."""
    first = vectors(model, [e.first for e in examples], batch_size, bf16)
    second = vectors(model, [e.second for e in examples], batch_size, bf16)
    done(len(examples))
    return [{"score": float(cosine)} for cosine in (first * second).sum(1)]


def measure(examples: Sequence[RatedExample], predictions: Sequence[dict[str, Any]], language: str) -> list[Measured]:
    """Spearman's correlation of cosine and gold."""
    return [spearman([p["score"] for p in predictions], [e.score for e in examples])]


def loyalty(teacher: Sequence[dict[str, Any]], student: Sequence[dict[str, Any]], language: str) -> list[Measured]:
    """Pearson's correlation of the two models' cosines."""
    return [regression_loyalty([p["score"] for p in teacher], [p["score"] for p in student])]
