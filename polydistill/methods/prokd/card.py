"""How cards speak of a distillation without target labels."""

from __future__ import annotations

from polydistill.card.facts import Step
from polydistill.card.told import Told


def _title(step: Step) -> str:
    return f"{step.base} for {step.task}"


TOLD = Told(title=_title, introduction=_title, tag="zero-resource-tagging", cuts=True)
