"""How cards speak of a sparse language fine-tuning."""

from __future__ import annotations

from polydistill.card.step import Step
from polydistill.card.text import code, joined
from polydistill.card.told import BY, Told
from polydistill.methods.sparse.card import TAG, carried, citations, title


def _introduction(step: Step) -> str:
    return (
        f"{code(step.came_from)} tuned to {joined(step.languages)} with masked tokens by {BY}, by LT-SFT (Ansell et "
        "al. 2022, arXiv 2110.07560): first all weights were trained, then, from the beginning again, those that had "
        f"moved furthest.\n\n{carried(step)}"
    )


TOLD = Told(title=title, introduction=_introduction, tag=TAG, citations=citations)
