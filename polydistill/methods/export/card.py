"""How cards speak of an export."""

from __future__ import annotations

from polydistill.card.facts import Step
from polydistill.card.told import Told


def _title(step: Step) -> str:
    return f"{step.base} as ONNX"


TOLD = Told(title=_title, introduction=_title, tag="onnx", library="transformers.js")
