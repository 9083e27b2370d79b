"""How cards speak of an export."""

from __future__ import annotations

from typing import Any

from polydistill.card.facts import Facts, exported
from polydistill.card.step import Step
from polydistill.card.text import at, code, joined, mapping, number, objects, plain, printable, texts
from polydistill.card.told import BY, Told
from polydistill.card.usage import network


def _title(step: Step) -> str:
    return f"{step.base} as ONNX"


def _introduction(step: Step) -> str:
    said = f"{code(step.came_from)} as ONNX by {BY}: {exported(step.result)}"
    pooling = joined([plain(name, 60) for name in texts(step.result.get("pooling"))])
    return said + (f" Not in the graph: {pooling}." if pooling else "")


def _sizes(step: Step) -> list[tuple[str, float, float]]:
    """The files beside the weights that they were made from."""
    sizes: dict[str, Any] = dict(mapping(step.result.get("bytes")))
    before = number(sizes.pop("safetensors", None))
    found = [(plain(name, 60), number(size)) for name, size in sizes.items()]
    return [(name, before, size) for name, size in found if before and size is not None]


def _use(facts: Facts, model: str) -> str:
    """The first file, in onnxruntime."""
    files = [at(part, "path") for part in objects(facts.newest.result.get("files"))]
    file = printable(next((name for name in files if isinstance(name, str)), "onnx/model.onnx"))
    return network(facts, model, file=file, behind=texts(facts.newest.result.get("pooling")))


TOLD = Told(
    title=_title,
    introduction=_introduction,
    tag="onnx",
    sizes=_sizes,
    library="transformers.js",
    use=_use,
    files=True,
    reference="torch",
)
