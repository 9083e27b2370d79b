"""What every objective has: what it needs to see, its loss as named terms, and what it carries from step to step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from polydistill.distill.signals import Batch, Signal, Signals
from polydistill.errors import UsageError
from polydistill.options.settings import Options

if TYPE_CHECKING:
    from torch import Tensor, nn

    from polydistill.training.facts import TrainingFacts

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


class AddsUp(Enum):
    """How the loss of a step is made of those of its parts, on several processes or with `accumulate`."""

    ITEMS = "totals and weights are added up, so that the loss is that of the whole batch"
    BATCHES = "every part has a loss of its own, and their mean is taken: it depends on how a batch is split"
    ALONE = "the objective needs all examples in one process; several processes are refused"


class Objective:
    """One thing that is asked of a student.

    Modules of objectives load without torch: `ls objectives` and the checks before a run read their options. So a
    constructor makes no tensors where it is called before a run, but `begin` does.

    Attributes:
        options_class: That of its options.
        needs: What it looks at.
        adds_up: How its losses of the parts of a batch become one.
        looks: Whether `look` is to see all training data before training begins.
        module: Its tensors. Parameters are trained with the student, buffers are state; checkpoints have both, and
            neither is saved with the student.
        noted: What a step's record says beside the terms, after a call; a `Mean` is agreed on by all processes.
        learns: Whether a call may change its state; not while held-out data are looked at.
    """

    options_class: ClassVar[type[Options]] = Options
    needs: Needs
    adds_up: ClassVar[AddsUp] = AddsUp.ITEMS
    looks: bool = False
    module: nn.Module | None = None
    noted: Mapping[str, float | Mean] = MappingProxyType({})
    learns = True

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """The loss, as one or more named terms that add up to it.

        Args:
            student: What `needs.student` asked for.
            teacher: What `needs.teacher` asked for, without gradients.
            batch: `input_ids`, `attention_mask` (B, N), usually `labels`, and what else the objective names.
        """
        raise NotImplementedError

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: the weight of each of its means. It follows from the batch alone, so that what a batch is divided by
        is known before its parts are seen one after the other; here the number of positions.
        """
        return batch["attention_mask"].sum()

    def begin(self, facts: TrainingFacts) -> None:
        """Called before training begins or resumes: the time to make `module`, whose values a checkpoint may replace.

        Raises:
            PolydistillError: The objective cannot be trained so.
        """

    def look(self, teacher: Signals, batch: Batch) -> None:
        """Called once for each batch of the training data before training begins, where `looks`.

        Args:
            teacher: What `needs.teacher` asked for.
            batch: Of the training data.
        """

    def end_look(self) -> None:
        """Called after the last `look`."""

    def begin_epoch(self, epoch: int) -> None:
        """Called before the first step of each epoch, counted from 0."""

    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        """Called after each step with the values of all terms and notes, for objectives that change on the way."""


class Weighted:
    """Several objectives with weights.

    Args:
        objectives: Name -> (objective, weight).
        by_first: Whether a term is divided by its value at the first step, so that weights compare.

    Attributes:
        parts: Name -> objective.
        first: Term -> its value at the first step; goes into checkpoints.
    """

    def __init__(self, objectives: Mapping[str, tuple[Objective, float]], *, by_first: bool = False) -> None:
        self.parts = {name: part for name, (part, _) in objectives.items()}
        self.weights = {name: weight for name, (_, weight) in objectives.items()}
        self.by_first = by_first
        self.first: dict[str, float] = {}

    @property
    def needs(self) -> Needs:
        """What all of them look at."""
        found = [part.needs for part in self.parts.values()]
        return Needs(
            frozenset().union(*(needs.student for needs in found)),
            frozenset().union(*(needs.teacher for needs in found)),
        )

    @property
    def module(self) -> nn.ModuleDict:
        """The tensors of all objectives that have some."""
        from torch import nn

        return nn.ModuleDict({name: part.module for name, part in self.parts.items() if part.module is not None})

    def begin(self, facts: TrainingFacts) -> None:
        """Prepares each objective for a training.

        Raises:
            PolydistillError: One of them cannot be trained so.
        """
        for name, part in self.parts.items():
            if facts.processes > 1 and part.adds_up is AddsUp.ALONE:
                raise UsageError(
                    f"The objective `{name}` needs all examples in one process, and there are {facts.processes}.",
                    "Start one process, or leave it out.",
                )
            part.begin(facts)

    def counts(self, parts: Sequence[Batch], agree: Callable[[Tensor], Tensor] = lambda t: t) -> dict[str, Tensor]:
        """Objective -> what the losses of a batch's parts are divided by, so that their mean is the whole batch's loss.

        Args:
            parts: The batch in parts.
            agree: Takes the mean of a scalar over all processes.
        """
        import torch

        return {
            name: agree(torch.stack([part.weight(b) for b in parts]).float().mean())
            for name, part in self.parts.items()
            if part.adds_up is not AddsUp.BATCHES
        }

    def __call__(
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
        for name, part in self.parts.items():
            for term, mean in part(student, teacher, batch).items():
                count = self._count(name, mean, agree, counts)
                values[term] = float(agree(mean.total.detach() / count))
                first = self.first.setdefault(term, values[term]) if part.learns else self.first.get(term, values[term])
                scale = self.weights[name] / (first or 1.0 if self.by_first else 1.0)
                loss = scale * mean.total / count
                total = loss if total is None else total + loss
            for term, note in part.noted.items():
                if isinstance(note, Mean):
                    note = float(agree(note.total.detach() / self._count(name, note, agree, counts)))
                values[term] = note
        assert total is not None
        return total, values

    def _count(
        self, name: str, mean: Mean, agree: Callable[[Tensor], Tensor], counts: Mapping[str, Tensor] | None
    ) -> Tensor:
        """Scalar: what a total is divided by, so that the mean over parts and processes is the loss of the step."""
        if self.parts[name].adds_up is AddsUp.BATCHES:
            count = mean.weight.detach().float()
        else:
            count = agree(mean.weight.detach().float()) if counts is None else counts[name]
        return count.clamp(min=1e-12)

    def begin_epoch(self, epoch: int) -> None:
        """Tells each objective that an epoch begins."""
        for part in self.parts.values():
            part.begin_epoch(epoch)

    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        """Passes the values of all terms on to each objective."""
        for part in self.parts.values():
            part.on_step(step, losses)
