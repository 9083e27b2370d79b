"""How cards speak of an encoder in front of an LLM."""

from __future__ import annotations

import json

from polydistill.card.facts import Facts
from polydistill.card.step import Step
from polydistill.card.text import at, code, number, printable, shared
from polydistill.card.told import BY, Told
from polydistill.card.usage import example_texts

STACKING = """\
@inproceedings{schmidt-etal-2024-self,
  title = {Self-Distillation for Model Stacking Unlocks Cross-Lingual {NLU} in 200+ Languages},
  author = {Schmidt, Fabian David and Borchert, Philipp and Vuli{\\'c}, Ivan and Glava{\\v{s}}, Goran},
  booktitle = {Findings of the Association for Computational Linguistics: EMNLP 2024},
  year = {2024},
  note = {arXiv:2406.12739}
}"""
_USE = """\
from pathlib import Path

import polydistill
from huggingface_hub import snapshot_download

name = {model}
folder = name if Path(name).is_dir() else snapshot_download(name)
stack = polydistill.load_stack(folder)
print(stack.{asked})"""


def _title(step: Step) -> str:
    return f"{step.base} in front of an LLM" + (f", for {step.task}" if step.task else "")


def _introduction(step: Step) -> str:
    said = (
        f"{code(step.came_from)} in front of {code(shared(str(step.result.get('llm'))))}, stacked by {BY} after "
        "Schmidt et al. 2024 (arXiv 2406.12739). What connects them was trained on English alone"
    )
    left = number(at(step.result, "unexplained_variance", "last"))
    return said + ("." if left is None else f"; {100 * left:.1f} % of the LLM's variance stays unexplained.")


def _use(facts: Facts, model: str) -> str:
    """Loads the stack, and asks it for what it was made for."""
    first, second = (json.dumps(text, ensure_ascii=False) for text in example_texts(facts))
    code = facts.newest.result.get("language_code")
    more = f", language={json.dumps(printable(code))}" if code else ""
    asked = f"encode([{first}]{more}).shape"
    if facts.newest.task:
        asked = f"classify([{f'({first}, {second})' if facts.pairs else first}]{more})"
    return _USE.format(model=json.dumps(model, ensure_ascii=False), asked=asked)


TOLD = Told(
    title=_title,
    introduction=_introduction,
    tag="model-stacking",
    citations=lambda step: [STACKING],
    labels_of=lambda step: ["en"] if step.task else [],
    library="polydistill",
    use=_use,
)
