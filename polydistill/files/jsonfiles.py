"""Reads the JSON files of a model folder, with limits, and with errors that say what is wrong and where.

The limits are several times what the largest models need (a tokenizer.json of 262,144 tokens has 33 MB, 2.4 million
values and 6 levels); they keep a malicious file from taking too much memory or time.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from polydistill.errors import PolydistillError, library_said

MIB = 1 << 20
LARGEST = 32 * MIB  # bytes of a file
LARGEST_VOCABULARY = 128 * MIB  # bytes of a file with a vocabulary
MOST_VALUES = 8_000_000  # commas and brackets
DEEPEST = 64  # levels
KEY = re.compile(rb'"\s*:')  # the end of a key, or part of a text
HINT = "Fetch or save the model again."
NAMES = {dict: "an object", list: "a list", str: "a text", int: "a whole number", bool: "true or false"}


def read_json(
    path: Path, kind: type = dict, *, optional: bool = False, largest: int = LARGEST, unique: bool = False
) -> Any:
    """Reads a JSON file whose top level is a `kind`.

    Args:
        path: The file.
        kind: `dict` or `list`.
        optional: Whether the file may be missing; the result is then an empty `kind`.
        largest: Most bytes that it may have.
        unique: See `parse_json`.

    Raises:
        PolydistillError: It is missing, not JSON, holds something else, or is larger or deeper than such a file can be.
    """
    if optional and not path.exists():
        return kind()
    return parse_json(read_bytes(path, largest), path, kind, unique=unique)


def read_bytes(path: Path, largest: int = LARGEST) -> bytes:
    """Reads a file of a model folder, up to a size limit.

    Raises:
        PolydistillError: It is missing or larger.
    """
    if not path.is_file():
        raise PolydistillError(f"There is no file {path}.", HINT)
    size = path.stat().st_size
    if size > largest:
        raise PolydistillError(
            f"{path} has {size / MIB:,.0f} MiB, more than the {largest // MIB} MiB that such a file can have.", HINT
        )
    return path.read_bytes()


def read_text(path: Path, largest: int = LARGEST) -> str:
    """Reads such a file as UTF-8.

    Raises:
        PolydistillError: It is missing, larger, or not UTF-8.
    """
    try:
        return read_bytes(path, largest).decode()
    except UnicodeDecodeError as error:
        raise PolydistillError(f"{path} is not UTF-8 (byte {error.start:,}).", HINT) from error


def parse_json(raw: bytes, path: Path, kind: type = dict, *, unique: bool = False) -> Any:
    """Parses the content of `path`; see `read_json`. `NaN` and `Infinity` are not JSON.

    Args:
        raw: The content.
        path: Its file, for messages.
        kind: `dict` or `list`.
        unique: Whether a repeated key in an object is refused; otherwise the last one counts.

    Raises:
        PolydistillError: It is not JSON, holds something else, or too much.
    """
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MOST_VALUES:
        raise PolydistillError(f"{path} has more than {MOST_VALUES:,} values.", HINT)
    try:
        content = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise PolydistillError(f"{path} is not valid JSON ({library_said(error)}).", HINT) from error
    if type(content) is not kind:
        raise PolydistillError(f"{path} holds {shown(content)}, but must hold {NAMES[kind]}.", HINT)
    if _is_deeper([content], DEEPEST):
        raise PolydistillError(f"{path} is nested more than {DEEPEST} levels deep.", HINT)
    if unique and len(KEY.findall(raw)) != len(KEY.findall(orjson.dumps(content))):  # most files need no second look
        json.loads(raw, object_pairs_hook=partial(_refuse_twice, path))
    return content


def _refuse_twice(path: Path, pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise PolydistillError(f"{path} says {short(repr(twice))} twice.", HINT)


def _is_deeper(values: Sequence[Any], most: int) -> bool:
    """Whether lists and objects are nested more than `most` levels deep; level by level, so the work is done in C."""
    types = set(map(type, values))
    if types.isdisjoint((dict, list)):
        return False
    lists = values if types == {list} else [value for value in values if type(value) is list]
    dicts = [value for value in values if type(value) is dict] if dict in types else []
    return most == 0 or any(
        _is_deeper([*chain.from_iterable(inner)], most - 1) for inner in (lists, map(dict.values, dicts))
    )


def shown(value: Any) -> str:
    """A value for an error message: short, on one line."""
    if isinstance(value, dict | list):
        return f"{NAMES[type(value)]} of {len(value):,}"
    return short(orjson.dumps(value).decode())


def short(text: str) -> str:
    """A name from a file, cut for a message."""
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True)
class Part:
    """A value in a JSON file that knows its place, so errors can name it.

    Args:
        file: The file.
        value: The value; None if it is missing.
        where: Its path, such as `model.vocab[3]`; empty for the top level.
        hint: The way out.
    """

    file: Path
    value: Any
    where: str = ""
    hint: str = HINT

    def refuse(self, why: str) -> PolydistillError:
        """The error `FILE: WHERE why`."""
        return PolydistillError(f"{self.file}{f': {self.where}' if self.where else ''} {why}.", self.hint)

    def wrong(self, should: str) -> PolydistillError:
        """The error that the value is not what it should be."""
        found = "is missing" if self.value is None else f"is {shown(self.value)}"
        return self.refuse(f"{found}, but must be {should}")

    def __getitem__(self, key: str | int) -> Part:
        """A member of what must be an object (None if missing), or an item of a list."""
        if isinstance(key, int):
            return Part(self.file, self.value[key], f"{self.where}[{key}]", self.hint)
        where = f"{self.where}.{short(key)}" if self.where else short(key)
        return Part(self.file, self.of(dict).get(key), where, self.hint)

    def of(self, kind: type) -> Any:
        """The value, which must be of a kind: `dict`, `list`, `str`, `int` or `bool`.

        Raises:
            PolydistillError: It is not.
        """
        if type(self.value) is not kind:
            raise self.wrong(NAMES[kind])
        return self.value

    def members(self) -> Iterator[Part]:
        """The members of what must be an object; none if it is missing."""
        if self.value is not None:
            yield from (self[key] for key in self.of(dict))

    def items(self) -> Iterator[Part]:
        """The items of what must be a list; none if it is missing."""
        if self.value is not None:
            yield from (self[i] for i in range(len(self.of(list))))

    def optional(self, kind: type) -> Any:
        """The value, which must be missing or of a kind."""
        return None if self.value is None else self.of(kind)

    def whole_number(self, least: int, most: int) -> int:
        """The value, which must be a whole number within bounds.

        Raises:
            PolydistillError: It is not.
        """
        if type(self.value) is not int or not least <= self.value <= most:
            raise self.wrong(f"a whole number from {least:,} to {most:,}")
        return self.value
