"""Fields of a configuration dataclass that become options of the command line; configurations and results as JSON."""

from __future__ import annotations

import types
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Union, get_args, get_origin


@dataclass(frozen=True)
class Options:
    """What configurations have in common; their fields are made by `setting`."""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self)}


@dataclass(frozen=True)
class Outcome:
    """What the results of commands have in common; each has a field `command`."""

    def to_json(self) -> dict[str, Any]:
        """One JSON object, the command's name first."""
        values = {f.name: plain(getattr(self, f.name)) for f in fields(self)}
        return {"command": values.pop("command"), **values}


def setting(default: Any, help: str, section: str, *, metavar: str | None = None, flags: tuple[str, ...] = ()) -> Any:
    """A dataclass field with what the command line says of it.

    Args:
        default: The default value; `()` makes an option that can be given several times.
        help: One or two sentences.
        section: The heading under which `--help` lists it.
        metavar: What stands for the value in `--help`.
        flags: The option's names, where `--field-name` is not right.
    """
    return field(default=default, metadata={"help": help, "section": section, "metavar": metavar, "flags": flags})


def plain(value: Any) -> Any:
    """A field's value as JSON has it: tuples as lists, paths as text."""
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def value_type(hint: Any) -> tuple[Any, bool]:
    """(type of one value, whether there can be several)."""
    if get_origin(hint) is tuple:
        return get_args(hint)[0], True
    if get_origin(hint) in (Union, types.UnionType):
        return next(a for a in get_args(hint) if a is not type(None)), False
    return hint, False
