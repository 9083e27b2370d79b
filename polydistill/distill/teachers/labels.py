"""Outputs of a teacher in the order of a student's labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from polydistill.errors import PolydistillError
from polydistill.evaluation.heads import TaskModel


def check_labels(found: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuses a teacher whose labels are not those of the data.

    Raises:
        PolydistillError: They are others.
    """
    if wanted and set(found) != set(wanted):
        raise PolydistillError(
            f"The teacher's labels ({', '.join(dict.fromkeys(found)) or 'none'}) are not those of the data "
            f"({', '.join(wanted)}).",
            "Choose a teacher that was tuned with these labels.",
        )


def in_order(logits: Tensor, found: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Logits (..., L') of the labels `found` as those of `wanted` (..., L); probabilities of one label add up."""
    if tuple(found) == tuple(wanted):
        return logits
    places = [[i for i, label in enumerate(found) if label == name] for name in wanted]
    return torch.stack([logits[..., place].logsumexp(-1) for place in places], -1)


def rows_of(model: TaskModel, wanted: Sequence[str]) -> list[int]:
    """The output of each label; of several that count as O since the task scores no such type, the one that was O."""
    own = getattr(getattr(model.network, "config", None), "id2label", model.labels)  # a stack has no other names
    names = [own[i] for i in range(len(model.labels))]
    places = [[i for i, found in enumerate(model.labels) if found == label] for label in wanted]
    return [max(found, key=lambda i: names[i] == label) for found, label in zip(places, wanted, strict=True)]
