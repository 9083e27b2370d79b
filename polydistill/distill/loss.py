"""The loss of a distillation step: the teacher's signals, the student's, and what the objectives make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polydistill.catalog import Arch
from polydistill.distill.objectives.base import Weighted
from polydistill.distill.objectives.labels import HardLabels
from polydistill.distill.signals import Observer
from polydistill.distill.teachers import Teacher


def label_loss(network: Any, *, answers: bool = False) -> DistilLoss:
    """Cross-entropy with gold labels, the loss of plain fine-tuning; for answers the mean of their start and end."""
    return DistilLoss(network, Weighted({"labels": (HardLabels(), 0.5 if answers else 1.0)}), None, None)


class DistilLoss:
    """What `training.train` calls for the loss of a batch. The teacher is never part of what is saved.

    Args:
        student: The network that is trained; it gets hooks where objectives look at projections.
        objectives: What is asked of it.
        teacher: Gives the signals that the objectives need; None where they need none.
        arch: The student's architecture.
    """

    def __init__(self, student: Any, objectives: Weighted, teacher: Teacher | None, arch: Arch | None) -> None:
        self._objectives, self._teacher = objectives, teacher
        self._observer = Observer(student, objectives.needs.student, arch)
        self._counts: Mapping[str, Tensor] | None = None

    def begin_step(self, network: Any, parts: Sequence[dict[str, Any]], agree: Callable[[Tensor], Tensor]) -> None:
        """Finds out what the parts of a step's batch are divided by, and at the first step what scales the terms."""
        self._counts = self._objectives.counts(parts, agree) if len(parts) > 1 else None
        if self._counts is not None and self._objectives.by_first and not self._objectives.first:
            device = parts[0]["input_ids"].device
            with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
                terms = [self._loss(network, part, agree, self._counts)[1] for part in parts]
            self._objectives.first = {term: sum(t[term] for t in terms) / len(terms) for term in terms[0]}

    def __call__(
        self, network: Any, batch: dict[str, Any], agree: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        """(loss, term -> value over all processes, before weights)."""
        return self._loss(network, batch, agree, self._counts)

    def _loss(
        self,
        network: Any,
        batch: dict[str, Any],
        agree: Callable[[Tensor], Tensor],
        counts: Mapping[str, Tensor] | None,
    ) -> tuple[Tensor, dict[str, float]]:
        self._objectives.to(batch["input_ids"].device)
        wanted = self._teacher.signals(batch) if self._teacher is not None else {}
        return self._objectives(self._observer(batch, through=network), wanted, batch, agree, counts)

    def mean(self, network: Any, batches: Iterable[dict[str, Any]]) -> float:
        """The loss of held-out batches as if they were one; every process takes them all."""
        device, parts, losses = next(network.parameters()).device, list(batches), list[float]()
        counts = {name: count.to(device) for name, count in self._objectives.counts(parts).items()}
        network.eval()
        with torch.no_grad():
            for batch in parts:
                here = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
                losses.append(float(self._loss(network, here, lambda value: value, counts)[0]))
        network.train()
        return sum(losses) / len(losses)

    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        """Tells the objectives."""
        self._objectives.on_step(step, losses)

    def state(self) -> dict[str, Any]:
        """First values of the terms and the buffers of the objectives."""
        buffers = {name: tensor.tolist() for name, tensor in self._objectives.state_dict().items()}
        return {"first": self._objectives.first, "buffers": buffers}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes them up."""
        self._objectives.first = dict(state["first"])
        for name, tensor in self._objectives.state_dict().items():
            kept = np.array(state["buffers"][name], np.float64)  # null, which stands for no number, becomes one again
            tensor.copy_(torch.from_numpy(kept))

    def close(self) -> None:
        """Takes the hooks off the student."""
        self._observer.close()
