"""The loss of a distillation step: the teacher's signals, the student's, and what the objectives make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polydistill.catalog import Arch
from polydistill.distill.objectives.base import Weighted
from polydistill.distill.signals import Observer
from polydistill.distill.teachers import Teacher


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

    def __call__(
        self, network: Any, batch: dict[str, Any], agree: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        """(loss, term -> value over all processes, before weights)."""
        self._objectives.to(batch["input_ids"].device)
        wanted = self._teacher.signals(batch) if self._teacher is not None else {}
        return self._objectives(self._observer(batch, through=network), wanted, batch, agree)

    def mean(self, network: Any, batches: Iterable[dict[str, Any]]) -> float:
        """The mean loss over examples of held-out batches; every process takes them all."""
        device, total, count = next(network.parameters()).device, 0.0, 0
        network.eval()
        with torch.no_grad():
            for batch in batches:
                here = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
                rows = len(here["input_ids"])
                total += rows * float(self(network, here, lambda value: value)[0])
                count += rows
        network.train()
        return total / count

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
