"""Prototype alignment: tokens of one class lie together in both languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from polydistill.distill.objectives.base import AddsUp, Mean, Needs, Objective
from polydistill.distill.signals import HIDDEN, LOGITS, Batch, Signal, Signals
from polydistill.options.settings import Options, setting

if TYPE_CHECKING:
    from torch import Tensor

    from polydistill.training.facts import TrainingFacts

NO_TAG = -1  # in `feature_tags`: a token of a word whose tag is not known
_LOGITS = Signal(LOGITS)


@dataclass(frozen=True)
class AlignmentOptions(Options):
    """The options of `alignment`."""

    temperature: float = setting(0.1, "Temperature of the contrast.", "", least=1e-6)
    momentum: float = setting(
        0.9, "Momentum of the moving averages that make the prototypes.", "", least=0, most=0.9999999
    )
    symmetric: bool = setting(False, "Let prototypes of both languages be anchors, and take the mean.", "")
    confidence: float = setting(
        0.0, "A target token counts if its likeliest tag has at least this probability.", "", least=0, most=1
    )
    warmup: float = setting(0.1, "Share of the steps before target tokens count.", "", least=0, most=1)


class PrototypeAlignment(Objective):
    """Contrast of the target's prototypes with the source's (reconstruction of ProKD, arXiv 2301.08855).

    The source's come from gold tags, the target's from the network's own likeliest tags on text without any; both are
    moving averages. There is no teacher.

    Args:
        options: Of the contrast and of the moving averages.
        classes: Names of the classes (K,).
        class_of: (L,) class of each tag.
        layer: Whose hidden states are the features, counted from 1; 0 is the embeddings' output.
        width: Their size.

    Attributes:
        source_prototypes: Of the source language.
        target_prototypes: Of the target language.
    """

    options_class = AlignmentOptions
    adds_up: ClassVar[AddsUp] = AddsUp.BATCHES

    def __init__(
        self,
        options: AlignmentOptions = AlignmentOptions(),
        *,
        classes: Sequence[str],
        class_of: Sequence[int],
        layer: int,
        width: int,
    ) -> None:
        import torch
        from torch import nn

        from polydistill.distill.prototypes import MovingPrototypes

        self._names, self._class_of, self._options = tuple(classes), torch.tensor(class_of), options
        self._features, self._warmup = Signal(HIDDEN, layer), 0
        self.source_prototypes = MovingPrototypes(len(classes), width, options.momentum)
        self.target_prototypes = MovingPrototypes(len(classes), width, options.momentum)
        self.module: nn.ModuleDict = nn.ModuleDict({"source": self.source_prototypes, "target": self.target_prototypes})
        self.module.register_buffer("steps", torch.tensor(0))
        self.needs = Needs(frozenset({self._features, _LOGITS}), frozenset())

    def begin(self, facts: TrainingFacts) -> None:
        """Counts the steps of the warm-up."""
        self._warmup = round(self._options.warmup * facts.steps)

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term, `alignment`.

        Args:
            student: Hidden states and logits.
            teacher: Not looked at.
            batch: `feature_tags` (B, N): a gold tag, `NO_TAG` for a token of the target, -100 for what does not count.
        """
        import torch

        from polydistill.distill.prototypes import alignment

        hidden, logits, options = student[self._features], student[_LOGITS], self._options
        class_of = self._class_of.to(hidden.device)
        tags, before = batch["feature_tags"], self.target_prototypes.values
        known, counted = tags >= 0, tags == NO_TAG
        certain, guessed = logits[counted].detach().float().softmax(-1).max(-1)
        ours = self.source_prototypes(hidden[known], class_of[tags[known]])
        sure = (certain >= options.confidence) & (int(self.module.get_buffer("steps")) >= self._warmup)
        found = class_of[guessed[sure]]
        theirs = self.target_prototypes(hidden[counted][sure], found)
        present = self.source_prototypes.seen & self.target_prototypes.seen
        loss = alignment(theirs, ours, present, options.temperature)
        if options.symmetric:
            loss = (loss + alignment(ours, theirs, present, options.temperature)) / 2
        numbers = torch.bincount(found, minlength=len(self._names)).tolist()
        self.noted = {
            "target_drift": float((self.target_prototypes.values - before).norm(dim=1).mean()),
            **{f"target_{name}": float(n) for name, n in zip(self._names, numbers, strict=True)},
        }
        return {"alignment": Mean(loss, self.weight(batch))}

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: 1; prototypes are those of a whole batch."""
        return batch["feature_tags"].new_ones(())

    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        """Counts for the warm-up."""
        self.module.get_buffer("steps").fill_(step)
