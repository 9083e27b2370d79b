"""What every objective has: what it needs to see, and its loss as named terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from polydistill.distill.signals import Batch, Signal, Signals

LayerPairs = tuple[tuple[int, int], ...]  # (student's layer, teacher's layer), both counted from 0


class Mean(NamedTuple):
    """A mean as what it is made of, so that several processes can agree on it.

    Attributes:
        total: Scalar; the sum of the losses, with a gradient.
        weight: Scalar; what it is divided by.
    """

    total: Tensor
    weight: Tensor

    @property
    def value(self) -> Tensor:
        """Their quotient, 0 where nothing counts."""
        return self.total / self.weight.clamp(min=1e-12)


class Needs(NamedTuple):
    """What an objective looks at."""

    student: frozenset[Signal]
    teacher: frozenset[Signal]


class Objective(nn.Module):
    """One thing that is asked of a student. Buffers are its state, and are kept in checkpoints."""

    needs: Needs
    noted: Mapping[str, float] = MappingProxyType({})  # what a step's record says beside the terms, after `forward`

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """The loss, as one or more named terms that add up to it.

        Args:
            student: What `needs.student` asked for.
            teacher: What `needs.teacher` asked for, without gradients.
            batch: `input_ids`, `attention_mask` (B, N), mostly `labels`, and what else the objective's docstring names.
        """
        raise NotImplementedError

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: the weight of each of its means. It follows from the batch alone, so that what a batch is divided by
        is known before its parts are seen one after the other; here the number of positions.
        """
        return batch["attention_mask"].sum()

    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        """Called after each step with the values of all terms; for objectives that change on the way."""


class Weighted(nn.Module):
    """Several objectives with weights.

    Args:
        objectives: Name -> (objective, weight).
        by_first: Whether a term is divided by its value at the first step, so that weights compare.

    Attributes:
        first: Term -> its value at the first step; goes into checkpoints.
    """

    def __init__(self, objectives: Mapping[str, tuple[Objective, float]], *, by_first: bool = False) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: part for name, (part, _) in objectives.items()})
        self.weights = {name: weight for name, (_, weight) in objectives.items()}
        self.by_first = by_first
        self.first: dict[str, float] = {}

    @property
    def needs(self) -> Needs:
        """What all of them look at."""
        found: list[Needs] = [part.needs for part in self.objectives()]
        return Needs(
            frozenset().union(*(needs.student for needs in found)),
            frozenset().union(*(needs.teacher for needs in found)),
        )

    def objectives(self) -> list[Objective]:
        """The objectives, in the order given."""
        return [part for part in self.parts.values() if isinstance(part, Objective)]

    def counts(self, parts: Sequence[Batch], agree: Callable[[Tensor], Tensor] = lambda t: t) -> dict[str, Tensor]:
        """Objective -> what the losses of a batch's parts are divided by, so that their mean is the whole batch's loss.

        Args:
            parts: The batch in parts.
            agree: Takes the mean of a scalar over all processes.
        """
        named = zip(self.parts, self.objectives(), strict=True)
        return {name: agree(torch.stack([part.weight(b) for b in parts]).float().mean()) for name, part in named}

    def forward(
        self,
        student: Signals,
        teacher: Signals,
        batch: Batch,
        agree: Callable[[Tensor], Tensor] = lambda t: t,
        counts: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch.

        Args:
            student: What `needs.student` asked for.
            teacher: What `needs.teacher` asked for.
            batch: The batch.
            agree: Takes the mean of a scalar over all processes.
            counts: From `counts`, where the batch is one of several parts.

        Returns:
            (scalar with a gradient, term -> its value over all processes, before weights and scaling; beside the terms
            what an objective has noted).
        """
        total: Tensor | None = None
        values: dict[str, float] = {}
        for name, part in zip(self.parts, self.objectives(), strict=True):
            for term, mean in part(student, teacher, batch).items():
                count = agree(mean.weight.detach().float()) if counts is None else counts[name]
                count = count.clamp(min=1e-12)
                values[term] = float(agree(mean.total.detach()) / count)
                self.first.setdefault(term, values[term])
                scale = self.weights[name] / (self.first[term] or 1.0 if self.by_first else 1.0)
                loss = scale * mean.total / count
                total = loss if total is None else total + loss
            values.update(part.noted)
        assert total is not None
        return total, values

    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        """Passes the values of all terms on to each objective."""
        for part in self.objectives():
            part.on_step(step, losses)
