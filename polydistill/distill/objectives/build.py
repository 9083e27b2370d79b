"""Objectives by their names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from polydistill.distill.listing import SCALES, find
from polydistill.distill.objectives.base import LayerPairs, Objective, Weighted
from polydistill.errors import UsageError


@dataclass(frozen=True)
class Options:
    """How objectives are measured.

    Attributes:
        temperature: T of `logits`.
        squared_temperature: Whether `logits` is multiplied with T^2.
        logit_form: `cross-entropy` or `kl`.
        relation_heads: Heads of `relations`; None chooses them by the models' widths.
        relation_layers: (student's, teacher's) layer of `relations`, counted from 0; None is the last pair.
        scale: What makes terms compare: `none`; `first` divides each by its value at the first step; `teacher` divides
            each layer's squared error by the teacher's mean square in the same text.
    """

    temperature: float = 2.0
    squared_temperature: bool = True
    logit_form: str = "cross-entropy"
    relation_heads: int | None = None
    relation_layers: tuple[int, int] | None = None
    scale: str = "none"


def build(weights: Mapping[str, float], *, pairs: LayerPairs, options: Options) -> Weighted:
    """The objectives of a phase; of all that is known here, each class gets what its constructor names.

    Args:
        weights: Name in `listing.LISTED` -> weight; with 0 it is left out.
        pairs: (student's layer, teacher's layer), counted from 0.
        options: How they are measured.

    Raises:
        UsageError: A name or an option is unknown or makes no sense, or nothing is asked for.
    """
    if options.scale not in SCALES:
        raise UsageError(f"Unknown scale '{options.scale}'.", f"Known are {', '.join(SCALES)}.")
    known: dict[str, Any] = {
        "pairs": pairs,
        "relative": options.scale == "teacher",
        "pair": options.relation_layers or max(pairs),
        "heads": options.relation_heads,
        "temperature": options.temperature,
        "squared": options.squared_temperature,
        "form": options.logit_form,
    }
    parts = {name: (_made(name, known), weight) for name, weight in weights.items() if weight}
    if not parts:
        raise UsageError(
            "No objective has a weight above 0, so the student has nothing to learn.",
            "Add one, for instance `objective=hidden=1`.",
        )
    return Weighted(parts, by_first=options.scale == "first")


def _made(name: str, known: Mapping[str, Any]) -> Objective:
    module, _, called = find(name).where.partition(":")
    cls = getattr(import_module(module), called)
    objective: Objective = cls(**{k: v for k, v in known.items() if k in inspect.signature(cls).parameters})
    return objective
