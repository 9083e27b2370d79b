"""How cards speak of sparse differences that a model carries, or carried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polydistill.card.step import Step
from polydistill.card.text import code, items, joined, number, objects, plain
from polydistill.card.told import BY, Told

TAG = "sparse-fine-tuning"
LT_SFT = """\
@inproceedings{ansell-etal-2022-composable,
  title = {Composable Sparse Fine-Tuning for Cross-Lingual Transfer},
  author = {Ansell, Alan and Ponti, Edoardo Maria and Korhonen, Anna and Vuli{\\'c}, Ivan},
  booktitle = {Proceedings of the 60th Annual Meeting of the Association for Computational Linguistics},
  year = {2022},
  note = {arXiv:2110.07560}
}"""


def citations(step: Step) -> list[str]:
    """The paper of sparse fine-tuning."""
    return [LT_SFT]


def title(step: Step) -> str:
    """Whether the model still carries differences."""
    carries = objects(step.result.get("applied"))
    return f"{step.base} {'with sparse differences' if carries else 'without its sparse differences'}"


def carried(step: Step) -> str:
    """How far the model is from its base, and a list of what it carries."""
    parts = objects(step.result.get("applied"))
    base, changed = code(step.result.get("base")), number(step.result.get("entries"))
    total = number(step.result.get("parameters"))
    if parts and changed is not None and total is not None:
        said = f"{changed:,.0f} of its {total:,.0f} weights differ from the base model (hash without the head {base})."
    else:
        said = f"The hash of the base model is {base}."
    listed = "\n".join(f"- {_difference(part)}" for part in parts)
    return said + (f"\n\nIt carries:\n\n{listed}" if listed else "")


def _difference(part: Mapping[str, Any]) -> str:
    of = joined([plain(name, 60) for name in items(part.get("tasks"))]) or plain(part.get("kind"), 60)
    languages = joined([plain(name, 20) for name in items(part.get("languages"))])
    entries = number(part.get("entries")) or 0
    return (
        f"{code(part.get('file'))}: {of}{f' in {languages}' if languages else ''}, {entries:,.0f} entries, sha256 "
        f"{code(part.get('sha256'))}"
    )


def _added(step: Step) -> str:
    return f"{code(step.came_from)} with sparse differences added by {BY}.\n\n{carried(step)}"


def _taken_off(step: Step) -> str:
    how = "bit for bit" if step.result.get("exact") else "by subtraction, so up to rounding"
    return f"{code(step.came_from)} with a sparse difference taken off by {BY}, {how}.\n\n{carried(step)}"


ADDED = Told(title=title, introduction=_added, tag=TAG, citations=citations)
TAKEN_OFF = Told(title=title, introduction=_taken_off, tag=TAG, citations=citations)
