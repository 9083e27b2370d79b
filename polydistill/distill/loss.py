"""The loss of a distillation step: the teacher's signals, the student's, and what the objectives make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from polydistill.catalog import Arch
from polydistill.distill.augmentation.hard import CANDIDATES
from polydistill.distill.objectives.base import Weighted
from polydistill.distill.objectives.common import logit_rows
from polydistill.distill.objectives.labels import HardLabels
from polydistill.distill.observer import Observer
from polydistill.distill.teachers.base import Teacher
from polydistill.training.facts import TrainingFacts

FIRST = "first/"  # before the name of a term in a checkpoint


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
        self._student, self._objectives, self._teacher = student, objectives, teacher
        self._observer = Observer(student, objectives.needs.student, arch)
        self._counts: Mapping[str, Tensor] | None = None
        self._learns = True

    # --- before training

    def begin(self, facts: TrainingFacts) -> None:
        """Prepares the objectives; their parameters follow from the seed, and other random numbers stay as they are.

        Raises:
            PolydistillError: An objective cannot be trained so.
        """
        with torch.random.fork_rng(_devices(self._student)):
            torch.manual_seed(facts.seed)
            self._objectives.begin(facts)
        self._objectives.module.to(next(self._student.parameters()).device)

    @property
    def looks(self) -> bool:
        """Whether an objective is to see all training data before training begins."""
        return any(part.looks for part in self._objectives.parts.values())

    def look(self, batches: Iterable[dict[str, Any]]) -> None:
        """Shows the teacher's signals of all training data to the objectives that ask for them."""
        curious = [part for part in self._objectives.parts.values() if part.looks]
        device = next(self._student.parameters()).device
        for batch in batches:
            here = _on(device, batch)
            signals = self._teacher.signals(here) if self._teacher is not None else {}
            for part in curious:
                part.look(signals, here)
        for part in curious:
            part.end_look()

    def parameters(self) -> list[nn.Parameter]:
        """What is trained beside the student, and not saved with it."""
        return list(self._objectives.module.parameters())

    # --- training

    def begin_epoch(self, epoch: int) -> None:
        """Tells objectives and teacher that an epoch begins, counted from 0."""
        self._objectives.begin_epoch(epoch)
        if self._teacher is not None:
            self._teacher.begin_epoch(epoch)

    def begin_step(self, network: Any, parts: Sequence[dict[str, Any]], agree: Callable[[Tensor], Tensor]) -> None:
        """Finds out what the parts of a step's batch are divided by, and at the first step what scales the terms."""
        self._counts = self._objectives.counts(parts, agree) if len(parts) > 1 else None
        if self._counts is not None and self._objectives.by_first and not self._objectives.first:
            with torch.no_grad(), torch.random.fork_rng(_devices(network)), self._learning_nothing():
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
        if CANDIDATES in batch and self._teacher is not None:
            batch = self._hardest(network, batch)
        wanted = self._teacher.signals(batch) if self._teacher is not None else {}
        seen = self._observer(batch, through=network)
        if self._teacher is not None and self._learns:
            self._teacher.compare(seen, batch)
        return self._objectives(seen, wanted, batch, agree, counts)

    @torch.no_grad()
    def _hardest(self, network: Any, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch, of it and the others that it holds, on whose logits student and teacher differ most."""
        assert self._teacher is not None
        every = [{key: value for key, value in batch.items() if key != CANDIDATES}, *batch[CANDIDATES]]
        network.eval()
        distances = []
        for one in every:
            rows = logit_rows("hard", self._observer(one, through=network), self._teacher.signals(one), one)
            own, theirs = rows.student.log_softmax(-1), rows.teacher.log_softmax(-1)
            distances.append(float((theirs.exp() * (theirs - own)).sum() / rows.number.clamp(min=1)))
        network.train()
        return every[max(range(len(every)), key=distances.__getitem__)]

    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        """Tells objectives and teacher that a step was taken."""
        self._objectives.on_step(step, losses)
        if self._teacher is not None:
            self._teacher.on_step()

    # --- held-out data

    def mean(self, network: Any, batches: Iterable[dict[str, Any]]) -> float:
        """The loss of held-out batches as if they were one; every process takes them all, and nothing learns of them.

        Args:
            network: The student.
            batches: At least one.
        """
        device, parts, losses = next(network.parameters()).device, list(batches), list[float]()
        counts = {name: count.to(device) for name, count in self._objectives.counts(parts).items()}
        network.eval()
        with torch.no_grad(), self._learning_nothing():
            for batch in parts:
                losses.append(float(self._loss(network, _on(device, batch), lambda value: value, counts)[0]))
        network.train()
        return sum(losses) / len(losses)

    @contextmanager
    def _learning_nothing(self) -> Iterator[None]:
        """For the length of the block no objective takes anything up."""
        self._learn(False)
        try:
            yield
        finally:
            self._learn(True)

    def _learn(self, mode: bool) -> None:
        self._learns = mode
        for part in self._objectives.parts.values():
            part.learns = mode
            if part.module is not None:
                part.module.train(mode)

    # --- checkpoints

    def state(self) -> dict[str, Tensor]:
        """First values of the terms, and the tensors of the objectives and of a teacher that changes."""
        first = {
            FIRST + term: torch.tensor(value, dtype=torch.float64) for term, value in self._objectives.first.items()
        }
        return {**first, **self._tensors()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restores them."""
        self._objectives.first = {
            name.removeprefix(FIRST): float(value) for name, value in state.items() if name.startswith(FIRST)
        }
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.copy_(state[name])

    def _tensors(self) -> dict[str, Tensor]:
        """Name -> tensor, shared ones once."""
        modules: dict[str, nn.Module | None] = {"objectives": self._objectives.module}
        modules["teacher"] = self._teacher.module if self._teacher is not None else None
        return {
            f"{role}/{name}": tensor.detach()
            for role, module in modules.items()
            if module is not None
            for name, tensor in chain(module.named_parameters(), module.named_buffers())
        }

    def close(self) -> None:
        """Takes the hooks off the student."""
        self._observer.close()


def _devices(network: Any) -> list[torch.device]:
    """The devices whose random numbers a training draws, beside the CPU's."""
    device = next(network.parameters()).device
    return [device] if device.type == "cuda" else []


def _on(device: torch.device, batch: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
