"""What student and teacher make of the training examples before training, for samplers that ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polydistill.distill.objectives.common import is_answer
from polydistill.distill.samplers.examples import Told
from polydistill.distill.signals import LOGITS, NEVER, Batch, Signal
from polydistill.distill.teachers.base import Teacher
from polydistill.errors import UsageError
from polydistill.progress import Progress
from polydistill.training.batching import MODEL_KEYS, NOT_TRAINED, Feature, by_length

BATCH = 32
ENDS = ("start_positions", "end_positions")


@torch.no_grad()
def told_of(
    network: Any,
    teacher: Teacher | None,
    features: Sequence[Feature],
    collate: Callable[[list[Feature]], dict[str, Any]],
    progress: Progress,
) -> Told:
    """Runs both over labelled inputs, without dropout.

    Args:
        network: The student.
        teacher: Gives logits.
        features: Inputs with labels, numbered by `example_id`.
        collate: Makes batches of them.
        progress: Where to report.

    Raises:
        UsageError: The teacher gives no logits.
    """
    if teacher is None or Signal(LOGITS) not in teacher.needs:
        raise UsageError(
            "The sampler compares student and teacher, and no objective looks at the teacher's logits.",
            "Add one, such as `objective=2:logits=1`.",
        )
    found = np.zeros((3, len(features)))
    was_training = network.training
    network.eval()
    with progress.bar("comparing", len(features), "input") as done:
        for places in by_length(features, BATCH):
            batch = collate([features[i] for i in places])
            own = network(**{key: batch[key] for key in MODEL_KEYS if key in batch})
            said = own.logits if hasattr(own, "logits") else torch.stack([own.start_logits, own.end_logits], 1)
            taught = teacher.signals(batch)[Signal(LOGITS)]
            found[:, places] = np.stack([_losses(said, batch), _losses(taught, batch), _margins(said, batch)])
            done(len(places))
    network.train(was_training)
    return Told(*found)


def _rows(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """((B, R, C) logits, (B, R) gold labels or -100)."""
    mask = batch["attention_mask"].bool()
    if is_answer(logits, mask):
        return logits.float().masked_fill(~mask.unsqueeze(1), NEVER), torch.stack([batch[end] for end in ENDS], 1)
    if logits.ndim == 2:
        return logits.float().unsqueeze(1), batch["labels"].unsqueeze(1)
    return logits.float(), batch["labels"]


def _losses(logits: Tensor, batch: Batch) -> np.ndarray:
    """(B,) mean negative log-likelihood of the gold labels."""
    rows, gold = _rows(logits, batch)
    likely = rows.log_softmax(-1).gather(-1, gold.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return _mean(-likely, gold)


def _margins(logits: Tensor, batch: Batch) -> np.ndarray:
    """(B,) mean distance of the two likeliest labels' probabilities."""
    rows, gold = _rows(logits, batch)
    first, second = rows.softmax(-1).topk(2, dim=-1).values.unbind(-1)
    return _mean(first - second, gold)


def _mean(values: Tensor, gold: Tensor) -> np.ndarray:
    known = gold != NOT_TRAINED
    found: np.ndarray = ((values * known).sum(-1) / known.sum(-1).clamp(min=1)).double().numpy()
    return found
