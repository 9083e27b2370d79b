"""TOML files, which users write too, read key by key: missing, misspelt and mistyped keys are named."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib.resources.abc import Traversable
from typing import Any

from polydistill.errors import PolydistillError, library_said

REQUIRED: Any = object()


class Table:
    """One TOML table that is read key by key, so that a wrong or unknown key is named with its file."""

    def __init__(self, values: dict[str, Any], file: str, prefix: str = "") -> None:
        self._values = values
        self._file = file
        self._prefix = prefix
        self._asked: list[str] = []

    @classmethod
    def load(cls, path: Traversable) -> Table:
        """Reads a file."""
        try:
            return cls(tomllib.loads(path.read_bytes().decode("utf-8")), str(path))
        except UnicodeDecodeError as error:
            raise PolydistillError(f"{path} is not UTF-8 text ({error.reason}).", "Save it as UTF-8.") from None
        except (ValueError, RecursionError) as error:  # also for numbers with thousands of digits, and deep lists
            raise PolydistillError(f"{path} is not valid TOML: {library_said(error)}.", "Correct that line.") from None
        except OSError as error:
            raise PolydistillError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from None

    def refuse(self, key: str, problem: str, hint: str) -> PolydistillError:
        """The error that names the file and the key."""
        return PolydistillError(f"{self._file}: key '{self._prefix}{key}' {problem}.", hint)

    def _get(self, key: str, kind: type, what: str, default: Any) -> Any:
        self._asked.append(key)
        if key not in self._values:
            if default is REQUIRED:
                raise self.refuse(key, "is missing", f"Add it: {what}.")
            return default
        value = self._values[key]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.refuse(key, f"must be {what}", f"It is {value!r}.")
        return value

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self._values

    def text(self, key: str, default: str = REQUIRED) -> str:
        """A string."""
        return self._get(key, str, "a string", default)

    def file_name(self, key: str) -> str:
        """A string that can be part of a file name, as outputs are named after it."""
        value = self.text(key)
        if not re.fullmatch(r"\w[\w.-]{0,99}", value):
            raise self.refuse(key, f"cannot be {value[:80]!a}", "Use letters, digits, '-', '_' and '.', at most 100.")
        return value

    def optional_text(self, key: str) -> str | None:
        """A string, or None."""
        return self._get(key, str, "a string", None)

    def integer(self, key: str, default: int) -> int:
        """A whole number."""
        return self._get(key, int, "a whole number", default)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        return self._get(key, bool, "true or false", default)

    def texts(self, key: str, default: tuple[str, ...] = REQUIRED) -> tuple[str, ...]:
        """A list of strings."""
        values = self._get(key, list, "a list of strings", None if default is REQUIRED else list(default))
        if values is None:
            raise self.refuse(key, "is missing", "Add it: a list of strings.")
        if not all(isinstance(value, str) for value in values):
            raise self.refuse(key, "must be a list of strings", f"It is {values!r}.")
        return tuple(values)

    def symbols(self, key: str, default: Any = REQUIRED) -> tuple[str, ...]:
        """Characters as one string with spaces between them (compact), or as a list of strings."""
        if isinstance(self._values.get(key), list):
            return self.texts(key)
        return tuple(self._get(key, str, "a string of characters with spaces between them", default).split())

    def mapping(self, key: str) -> dict[str, str]:
        """A table of strings."""
        values = self._get(key, dict, "a table of strings", {})
        for name, value in values.items():
            if not isinstance(value, str):
                raise self.refuse(f"{key}.{name}", "must be a string", f"It is {value!r}.")
        return dict(values)

    def names(self, key: str) -> dict[str, str]:
        """A table of strings, or a list of strings that each stand for themselves."""
        if isinstance(self._values.get(key), list):
            return {name: name for name in self.texts(key)}
        return self.mapping(key)

    def table(self, key: str) -> Table | None:
        """A table within this one."""
        values = self._get(key, dict, "a table", None)
        return None if values is None else Table(values, self._file, f"{self._prefix}{key}.")

    def tables(self, key: str) -> list[Table]:
        """A list of tables."""
        values = self._get(key, list, "a list of tables", [])
        for value in values:
            if not isinstance(value, dict):
                raise self.refuse(key, "must be a list of tables", f"Write it as [[{key}]] sections.")
        return [Table(value, self._file, f"{self._prefix}{key}[{i}].") for i, value in enumerate(values)]

    def all_tables(self) -> dict[str, Table]:
        """Every key's table, for a table of tables whose keys the user chooses."""
        found = {key: self.table(key) for key in self._values}
        return {key: table for key, table in found.items() if table is not None}

    def finish(self) -> None:
        """Refuse keys that nothing asked for: they are misspelt or unknown."""
        for key in self._values:
            if key not in self._asked:
                close = closest(key, self._asked)
                hint = f"Did you mean '{close[0]}'?" if close else f"Known are {', '.join(self._asked)}."
                raise self.refuse(key, "is unknown", hint)


def closest(word: str, known: Iterable[str]) -> list[str]:
    """What the user may have meant."""
    import difflib

    return difflib.get_close_matches(word, list(known), n=3, cutoff=0.7)
