"""Texts and pairs of texts: one label each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polydistill.evaluation.heads import TaskModel
from polydistill.labelled.examples import ClassifiedExample
from polydistill.metrics.accuracy import accuracy
from polydistill.metrics.items import Measured
from polydistill.metrics.loyalty import label_loyalty, probability_loyalty
from polydistill.training.batching import Feature, run

MAX_LENGTH = 512


def features(model: TaskModel, examples: Sequence[ClassifiedExample]) -> list[Feature]:
    """One input a text or pair; a text that is too long is cut, of a pair the longer one."""
    if not examples:
        return []
    texts = zip(*(example.texts for example in examples), strict=True)
    encoded = model.tokenizer(*map(list, texts), truncation="longest_first", max_length=model.max_length, verbose=False)
    return [{key: encoded[key][i] for key in encoded} for i in range(len(examples))]


def training_features(model: TaskModel, examples: Sequence[ClassifiedExample]) -> list[Feature]:
    """The same with `labels`, the number of the gold label, and `example`, the number of the example."""
    ids = {label: i for i, label in enumerate(model.labels)}
    parts = zip(features(model, examples), examples, strict=True)
    return [{**f, "labels": ids[e.label], "example": i} for i, (f, e) in enumerate(parts)]


def predict(
    model: TaskModel,
    examples: Sequence[ClassifiedExample],
    *,
    batch_size: int,
    bf16: bool = False,
    done: Callable[[int], object] = lambda n: None,
) -> list[dict[str, Any]]:
    """The likeliest label of each example and the probability of every label of the task."""
    found = []
    for row in logits(model, examples, batch_size=batch_size, bf16=bf16, done=done):
        shares = softmax(row)
        probabilities = {label: float(p) for label, p in zip(model.labels, shares, strict=True)}
        found.append({"label": model.labels[int(np.argmax(row))], "probabilities": probabilities})
    return found


def logits(
    model: TaskModel,
    examples: Sequence[ClassifiedExample],
    *,
    batch_size: int,
    bf16: bool = False,
    done: Callable[[int], object] = lambda n: None,
) -> np.ndarray:
    """(n, L) the outputs of each example."""
    rows = run(
        model.network,
        model.tokenizer,
        features(model, examples),
        batch_size,
        lambda o: [o.logits],
        positions=False,
        bf16=bf16,
        done=done,
    )
    return np.stack([row for (row,) in rows]) if rows else np.zeros((0, len(model.labels)), np.float32)


def measure(
    examples: Sequence[ClassifiedExample], predictions: Sequence[dict[str, Any]], language: str
) -> list[Measured]:
    """Accuracy."""
    return [accuracy([e.label for e in examples], [p["label"] for p in predictions])]


def loyalty(teacher: Sequence[dict[str, Any]], student: Sequence[dict[str, Any]], language: str) -> list[Measured]:
    """Of labels and of probabilities."""
    names = list({**teacher[0]["probabilities"], **student[0]["probabilities"]})  # models of own labels may lack some
    shares = [
        np.array([[p["probabilities"].get(name, 0.0) for name in names] for p in found]) for found in (teacher, student)
    ]
    return [label_loyalty([p["label"] for p in teacher], [p["label"] for p in student]), probability_loyalty(*shares)]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)
