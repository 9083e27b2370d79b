"""Objectives out of specs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polydistill.distill.listing import OBJECTIVES
from polydistill.distill.objectives.base import Weighted
from polydistill.distill.scales import FIRST, NONE, SCALES, TEACHER
from polydistill.errors import UsageError
from polydistill.options.specs import Spec


def build(specs: Mapping[str, Spec], *, scale: str = NONE, **known: Any) -> Weighted:
    """The objectives of a training; of all that is known, each gets what its constructor names.

    Args:
        specs: Name -> spec; with the weight 0 it is left out.
        scale: `first` divides each term by its value at the first step; `teacher` divides each layer's squared error by
            the teacher's mean square in the same text; `none` divides nothing.
        **known: For constructors: `pairs` of layers, `depths`, `outputs`, and what a method's own objectives need.

    Raises:
        UsageError: An option makes no sense here, or nothing is asked for.
    """
    if scale not in SCALES:
        raise UsageError(f"Unknown scale '{scale}'.", f"Known are {', '.join(SCALES)}.")
    known["relative"] = scale == TEACHER
    parts = {name: (OBJECTIVES.make(spec, known), spec.weight) for name, spec in specs.items() if spec.weight}
    if not parts:
        raise UsageError(
            "No objective has a weight above 0, so the student has nothing to learn.",
            "Add one, for instance `objective=hidden=1`.",
        )
    return Weighted(parts, by_first=scale == FIRST)
