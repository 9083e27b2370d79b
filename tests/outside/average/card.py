"""How cards speak of an average."""

from __future__ import annotations

from polydistill.card.step import Step
from polydistill.card.text import code, number
from polydistill.card.told import BY, Told


def _introduction(step: Step) -> str:
    share = number(step.config.get("share"))
    return f"{code(step.came_from)}, averaged by {BY} with another model" + (
        "." if share is None else f" that counts {100 * share:.0f} %."
    )


TOLD = Told(
    title=lambda step: f"{step.base} averaged",
    introduction=_introduction,
    tag="averaged",
    citations=lambda step: ["@misc{average,\n  note = {arXiv:2203.05482}\n}"],
    limitations=lambda step: ["Nobody has tried it."],
    method=lambda step: ["Every weight was averaged."],
)
