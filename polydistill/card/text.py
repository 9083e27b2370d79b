"""What stands in a card: text that means nothing to Markdown, HTML or YAML, paths without folders, tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

UNITS = ("B", "kB", "MB", "GB", "TB")
LIMIT = 300  # characters of one value; longer ones are cut
_MEANS_SOMETHING = frozenset("`<>|[]\\")


def human_bytes(n: float) -> str:
    """118_000_000 -> '118.0 MB' (decimal units)."""
    for unit in UNITS:
        if n < 1000 or unit == UNITS[-1]:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    raise AssertionError


def printable(value: Any, limit: int = LIMIT) -> str:
    """One line without control characters and without those that turn the direction of writing, cut to `limit`."""
    text = "".join(c for c in str(value)[: 4 * limit] if c.isprintable())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def plain(value: Any, limit: int = LIMIT) -> str:
    """One line without characters that mean something in Markdown, HTML or a table."""
    return printable("".join(c for c in str(value)[: 4 * limit] if c not in _MEANS_SOMETHING), limit)


def first(value: Any, limit: int = LIMIT) -> str:
    """As `plain`, for what begins a line or a list's item: not as a heading, a quote or a list would."""
    return plain(value, limit).lstrip("#>-+*=~_ ") or "-"


def code(value: Any) -> str:
    """A value in a code span."""
    return f"`{plain(value).strip() or '-'}`"


def shared(value: Any) -> Any:
    """A value without the folders of the machine on which it was given: of a path from outside, the name is left.

    `LANG=PATH` keeps its beginning; relative paths stay, but for those that climb out of their folder.
    """
    if isinstance(value, (list, tuple)):
        return [shared(v) for v in value]
    if not isinstance(value, str):
        return value
    prefix, equals, path = value.rpartition("=")
    return prefix + equals + without_folders(path)


def without_folders(path: str) -> str:
    """The name of a path that is absolute, begins at a home or climbs with `..`; any other text as it is."""
    windows = PureWindowsPath(path)
    if windows.drive or path.startswith("\\"):
        return windows.name
    posix = PurePosixPath(path)
    if posix.is_absolute() or path.startswith("~") or ".." in posix.parts:
        return next((part for part in reversed(posix.parts) if part not in ("..", "/")), "")
    return path


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A Markdown table; `right` are the columns of numbers."""
    rules = ["---:" if i in right else "---" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rules, *rows))


# --- reading a record, of which nothing is trusted


def at(value: Any, *keys: str) -> Any:
    """The value below keys, None where one is missing."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return list(value) if isinstance(value, (list, tuple)) else []


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects of a list."""
    return [item for item in items(value) if isinstance(item, Mapping)]


def texts(value: Any) -> list[str]:
    """The texts of a list, each fit to print."""
    return [plain(item) for item in items(value) if isinstance(item, str)]


def number(value: Any) -> float | None:
    """The value if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


def bounds(value: Any) -> tuple[float, float] | None:
    """An interval, None if it is none."""
    low, high = (number(v) for v in items(value)) if len(items(value)) == 2 else (None, None)
    return None if low is None or high is None else (low, high)


def joined(words: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
