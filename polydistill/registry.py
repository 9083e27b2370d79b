"""The methods that there are: a line each, and their modules are imported when one is asked for."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from polydistill.errors import UsageError

if TYPE_CHECKING:
    from polydistill.card.told import Told
    from polydistill.options.settings import Options
    from polydistill.runs.method import Maker, Method

GROUP = "polydistill.methods"  # of entry points: a package that names its methods there needs no `register`


@dataclass(frozen=True)
class Entry:
    """A method that has not been imported yet.

    Attributes:
        module: Where its `METHOD` is.
        summary: One sentence, as an order, for the list of commands.
        attribute: The method's name in that module.
    """

    module: str
    summary: str
    attribute: str = "METHOD"


_KNOWN = {
    "trim": Entry("polydistill.methods.trim", "Cut a model's vocabulary down to the languages that you need."),
    "finetune": Entry("polydistill.methods.finetune", "Tune a model for a task on a source language."),
    "bistil": Entry("polydistill.methods.bistil", "Make a small bilingual model out of a multilingual one."),
    "prokd": Entry("polydistill.methods.prokd", "Make a tagger for a language without a single label."),
    "project": Entry("polydistill.methods.project", "Make a tagger from labels that translations carry over."),
    "stack": Entry("polydistill.methods.stack", "Give an English LLM the languages of a multilingual encoder."),
    "sparse train": Entry("polydistill.methods.sparse_train", "Tune a few weights of a model to a language."),
    "sparse apply": Entry("polydistill.methods.sparse", "Add differences to a model.", "APPLY"),
    "sparse remove": Entry("polydistill.methods.sparse", "Take differences off a model.", "REMOVE"),
    "export": Entry("polydistill.methods.export", "Write a model as ONNX files, checked against torch."),
}


def register(name: str, module: str, summary: str) -> None:
    """Makes a method known for as long as this process runs.

    Args:
        name: Its command.
        module: The module with its `METHOD`.
        summary: One sentence, as an order.

    Raises:
        UsageError: There is one of that name.
    """
    if name in entries():
        raise UsageError(f"There is a method {name} already.", "Choose another name.")
    _KNOWN[name] = Entry(module, summary)


def entries() -> dict[str, Entry]:
    """Name -> method, also those of other packages; none is imported."""
    return {**_installed(), **_KNOWN}


def find(name: str) -> Maker[Any] | None:
    """A method or another maker of models by its command's name; None if there is none."""
    entry = _KNOWN.get(name) or _installed().get(name)
    return None if entry is None else getattr(import_module(entry.module), entry.attribute)


def _known(name: str) -> Maker[Any] | None:
    """As `find` for a command that a record names: None also where its package does not load."""
    try:
        return find(name)
    except ImportError:
        return None


def told(name: str) -> Told | None:
    """How cards speak of what a command has made; None if it is not known here."""
    found = _known(name)
    return None if found is None else found.told


def options(name: str) -> type[Options] | None:
    """The class of a command's options; None if it is not known here."""
    found = _known(name)
    return None if found is None else found.options


def method(name: str) -> Method[Any]:
    """A method that the runner runs.

    Raises:
        UsageError: There is none of that name.
    """
    found = find(name)
    if found is None or not hasattr(found, "prepare"):
        raise UsageError(f"There is no method {name}.", f"There are: {', '.join(entries())}.")
    return cast("Method[Any]", found)


@cache
def _installed() -> dict[str, Entry]:
    """Methods of installed packages: their entry points are `NAME = module`; a package's summary is the method's."""
    if not _is_named_on_the_path():
        return {}
    from importlib.metadata import entry_points

    return {
        point.name: Entry(point.module, (point.dist.metadata["Summary"] if point.dist else None) or "")
        for point in entry_points(group=GROUP)
    }


def _is_named_on_the_path() -> bool:
    """Whether an installed package has such entry points. Importing `importlib.metadata` takes 40 ms; this takes 2."""
    for folder in map(Path, sys.path):
        with suppress(OSError):
            if any(f"[{GROUP}]".encode() in file.read_bytes() for file in folder.glob("*-info/entry_points.txt")):
                return True
    return False
