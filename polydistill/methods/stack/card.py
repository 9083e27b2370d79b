"""How cards speak of a stacking."""

from __future__ import annotations

from polydistill.card.facts import Step
from polydistill.card.told import Told


def _title(step: Step) -> str:
    return f"{step.base} in front of an LLM"


TOLD = Told(title=_title, introduction=_title, tag="model-stacking", library="polydistill")
