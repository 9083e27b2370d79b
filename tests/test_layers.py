"""Which room calls which: never upwards, and without circles, as CONTRIBUTING says."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import polydistill

ROOT = Path(polydistill.__file__).parent
# From the top; a room calls those below its line, and within a line those to its right.
LAYERS = """
__main__
cli
api
hub
reports
recipes
methods
runs
distill exporting
evaluation
stacks sparse
training trimming
card
records labelled
texts
models
vocab
metrics
fetching
catalog
files
options
registry processes progress redaction interrupts devices wording
errors
arch
"""
RANK = {name: i for i, line in enumerate(LAYERS.split()) for name in [line]}


@cache
def modules() -> dict[str, ast.Module]:
    """Name -> module, without the package's own `__init__`."""
    found = {}
    for file in sorted(ROOT.rglob("*.py")):
        parts = file.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(file.read_text(encoding="utf-8"))
    del found["polydistill"]
    return found


def imports(module: str) -> Iterator[str]:
    """What a module of ours imports of ours, also inside functions; not what it imports for types alone."""
    tree = modules()[module]
    typing = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    left_out = {id(inner) for node in typing for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or id(node) in left_out or not node.module:
            continue
        if node.module.split(".")[0] != "polydistill":
            continue
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            yield name if name in modules() else node.module


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def test_every_room_has_a_place() -> None:
    assert {room(module) for module in modules()} == set(RANK)


@pytest.mark.parametrize("name", sorted(RANK))
def test_no_room_calls_upwards(name: str) -> None:
    wrong = [
        f"{module} -> {other}"
        for module in modules()
        if room(module) == name
        for other in imports(module)
        if "." in other and RANK[room(other)] < RANK[name]
    ]
    assert not wrong


def test_no_module_is_part_of_a_circle() -> None:
    graph = {module: set(imports(module)) & modules().keys() - {module} for module in modules()}
    while leaves := [module for module, needed in graph.items() if not needed]:
        for leaf in leaves:
            del graph[leaf]
        for needed in graph.values():
            needed.difference_update(leaves)
    # What is left depends on a circle; take away what nothing in it depends on as well.
    while tops := [module for module in graph if not any(module in needed for needed in graph.values())]:
        for top in tops:
            del graph[top]
    assert not graph


def test_every_package_is_in_the_wheel() -> None:
    """An editable install finds folders that a wheel lacks."""
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))
    listed = project["tool"]["setuptools"]["packages"]
    found = {".".join(file.parent.relative_to(ROOT.parent).parts) for file in ROOT.rglob("__init__.py")}
    assert found <= set(listed)
