"""Prototype alignment: tokens of one class lie together in both languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from polydistill.distill.objectives.base import Mean, Needs, Objective
from polydistill.distill.prototypes import MovingPrototypes, alignment
from polydistill.distill.signals import HIDDEN, LOGITS, Batch, Signal, Signals

NO_TAG = -1  # in `feature_tags`: a token of a word whose tag is not known
_LOGITS = Signal(LOGITS)


class PrototypeAlignment(Objective):
    """Contrast of the target's prototypes with the source's (reconstruction of ProKD, arXiv 2301.08855).

    The source's come from gold tags, the target's from the network's own likeliest tags on text without any; both are
    moving averages. There is no teacher.

    Args:
        classes: Names of the classes (K,).
        class_of: (L,) class of each tag.
        layer: Whose hidden states are the features, counted from 1; 0 is the embeddings' output.
        width: Their size.
        temperature: tau of the contrast.
        momentum: m of the moving averages.
        symmetric: Whether the source's prototypes are anchors too; the two directions are averaged.
        confidence: A target token counts if its likeliest tag has at least this probability.
        warmup: Steps before target tokens count.

    Attributes:
        source_prototypes: Of the source language.
        target_prototypes: Of the target language.
    """

    step: Tensor
    class_of: Tensor

    def __init__(
        self,
        classes: Sequence[str],
        class_of: Sequence[int],
        *,
        layer: int,
        width: int,
        temperature: float = 0.1,
        momentum: float = 0.9,
        symmetric: bool = False,
        confidence: float = 0.0,
        warmup: int = 0,
    ) -> None:
        super().__init__()
        self._names, self._temperature = tuple(classes), temperature
        self._symmetric, self._confidence, self._warmup = symmetric, confidence, warmup
        self._features = Signal(HIDDEN, layer)
        self.register_buffer("class_of", torch.tensor(class_of))
        self.register_buffer("step", torch.tensor(0))
        self.source_prototypes = MovingPrototypes(len(classes), width, momentum)
        self.target_prototypes = MovingPrototypes(len(classes), width, momentum)
        self.needs = Needs(frozenset({self._features, _LOGITS}), frozenset())

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term, `alignment`.

        Args:
            student: Hidden states and logits.
            teacher: Not looked at.
            batch: `feature_tags` (B, N): a gold tag, `NO_TAG` for a token of the target, -100 for what does not count.
        """
        hidden, logits = student[self._features], student[_LOGITS]
        tags, before = batch["feature_tags"], self.target_prototypes.values
        known, counted = tags >= 0, tags == NO_TAG
        certain, guessed = logits[counted].detach().float().softmax(-1).max(-1)
        ours = self.source_prototypes(hidden[known], self.class_of[tags[known]])
        sure = (certain >= self._confidence) & (self.step >= self._warmup)
        found = self.class_of[guessed[sure]]
        theirs = self.target_prototypes(hidden[counted][sure], found)
        present = self.source_prototypes.seen & self.target_prototypes.seen
        loss = alignment(theirs, ours, present, self._temperature)
        if self._symmetric:
            loss = (loss + alignment(ours, theirs, present, self._temperature)) / 2
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
        self.step.fill_(step)
