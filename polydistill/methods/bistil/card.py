"""How cards speak of a bilingual distillation."""

from __future__ import annotations

from polydistill.card.facts import Step
from polydistill.card.told import Told


def _title(step: Step) -> str:
    return f"{step.base} for {' and '.join(step.languages)}"


TOLD = Told(title=_title, introduction=_title, tag="bilingual-distillation", cuts=True)
