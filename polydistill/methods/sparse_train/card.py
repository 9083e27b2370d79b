"""How cards speak of a sparse language fine-tuning."""

from __future__ import annotations

from polydistill.card.step import Step
from polydistill.card.told import Told


def _title(step: Step) -> str:
    return f"{step.base} with sparse differences"


def _introduction(step: Step) -> str:
    return step.base


TOLD = Told(title=_title, introduction=_introduction, tag="sparse-fine-tuning")
