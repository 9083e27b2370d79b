"""Sentences and their translations: the nearest vector on the other side should be the translation's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polydistill.evaluation.heads import TaskModel
from polydistill.labelled.examples import AlignedExample
from polydistill.metrics.items import Measured
from polydistill.metrics.loyalty import label_loyalty
from polydistill.metrics.similarity import nearest, translations_found
from polydistill.training.batching import no_numbers

MAX_LENGTH = 512
SOURCE = "en"  # the language of all sources


def predict(
    model: TaskModel,
    examples: Sequence[AlignedExample],
    *,
    batch_size: int,
    bf16: bool = False,
    done: Callable[[int], object] = lambda n: None,
) -> list[dict[str, Any]]:
    """The row of the other side that is nearest to each sentence by cosine: `forth` of its source, and `back`."""
    read = model.read_language
    other = model.tokenizer.language if read is not None else ""
    if read is not None:
        read(SOURCE)
    source = vectors(model, [e.source for e in examples], batch_size, bf16)
    if read is not None:
        read(other)
    target = vectors(model, [e.target for e in examples], batch_size, bf16)
    done(len(examples))
    return [{"forth": int(i), "back": int(j)} for i, j in zip(*nearest(source, target), strict=True)]


def vectors(model: TaskModel, texts: Sequence[str], batch_size: int, bf16: bool = False) -> np.ndarray:
    """(n, d) vectors of length 1.

    Raises:
        PolydistillError: Some of them are NaN or infinite.
    """
    import torch

    device = model.network.device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
        found: np.ndarray = model.network.encode(
            list(texts), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
        )
    if not np.isfinite(found).all():
        raise no_numbers()
    return found


def measure(examples: Sequence[AlignedExample], predictions: Sequence[dict[str, Any]], language: str) -> list[Measured]:
    """Accuracy at 1 in both directions."""
    forth, back = ([p[way] for p in predictions] for way in ("forth", "back"))
    return list(translations_found(forth, back, [(e.source, e.target) for e in examples]))


def loyalty(teacher: Sequence[dict[str, Any]], student: Sequence[dict[str, Any]], language: str) -> list[Measured]:
    """Share of sentences whose nearest row is the teacher's."""
    return [label_loyalty([p["forth"] for p in teacher], [p["forth"] for p in student])]
