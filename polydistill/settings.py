"""Fields of a configuration dataclass that become options of the command line."""

from __future__ import annotations

import types
from dataclasses import field
from pathlib import Path
from typing import Any, Union, get_args, get_origin


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
