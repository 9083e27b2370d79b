"""How cards speak of a fine-tuning."""

from __future__ import annotations

from polydistill.card.step import Step
from polydistill.card.text import at, code, joined, number
from polydistill.card.told import BY, Told


def _title(step: Step) -> str:
    return f"{step.base} tuned for {step.task}"


def _introduction(step: Step) -> str:
    total, trained = (number(at(step.result, "parameters", key)) for key in ("total", "trained"))
    said = f"{code(step.came_from)} tuned for {step.task} on {joined(step.languages)} by {BY}."
    if total is not None and trained is not None:
        said += f" {trained:,.0f} of its {total:,.0f} parameters were trained."
    return said


def _limitations(step: Step) -> list[str]:
    return [f"Only data in {joined(step.languages)} were used to train it and to choose the checkpoint."]


TOLD = Told(
    title=_title,
    introduction=_introduction,
    tag="fine-tuned",
    limitations=_limitations,
    labels_of=lambda step: step.languages,
)
