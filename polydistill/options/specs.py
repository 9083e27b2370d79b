"""Specs, `NAME=WEIGHT:key=value`: something by its name, how much it counts, and options of its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from polydistill.errors import UsageError
from polydistill.options.settings import MOST, Options, Setting, declared, value_type

SWITCH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Spec:
    """What a user asked for.

    Attributes:
        name: As it is listed.
        weight: How much it counts.
        options: Those of its class.
        weighted: Whether things of its kind have a weight.
    """

    name: str
    weight: float
    options: Options
    weighted: bool = True

    def __str__(self) -> str:
        """The spec with every option, defaults too."""
        first = f"{self.name}={written(self.weight)}" if self.weighted else self.name
        return ":".join([first, *(f"{k}={written(v)}" for k, v in self.known.items())])

    @property
    def known(self) -> dict[str, Any]:
        """Option -> value, without those that have none."""
        return {name: value for name, value in self.options.to_json().items() if value not in (None, [])}


@dataclass(frozen=True)
class Listed:
    """What can be named.

    Attributes:
        name: Its name.
        where: `module:Class`. The module loads without torch; the class names that of its options as `options_class`.
            Empty for what has neither.
        summary: What it does, in a few words.
        source: Where it comes from.
        uses: Where it can be used.
    """

    name: str
    where: str
    summary: str
    source: str
    uses: tuple[str, ...] = ()

    def load(self) -> Any:
        """Its class."""
        module, _, name = self.where.partition(":")
        return getattr(import_module(module), name)

    @property
    def options(self) -> dict[str, Setting]:
        """Name -> option."""
        return declared(self.load().options_class) if self.where else {}


class Listing:
    """All that can be named of one kind.

    Args:
        kind: What they are, in the singular.
        listed: The entries.
        weighted: Whether a spec has a weight.
    """

    def __init__(self, kind: str, listed: Iterable[Listed], *, weighted: bool = True) -> None:
        self.kind, self._weighted = kind, weighted
        self._listed = {one.name: one for one in listed}

    def __iter__(self) -> Iterator[Listed]:
        return iter(self._listed.values())

    def __contains__(self, name: str) -> bool:
        return _dashed(name) in self._listed

    def add(self, listed: Listed) -> None:
        """Lists another one, for as long as this process runs.

        Raises:
            UsageError: There is one of that name.
        """
        if listed.name in self:
            raise UsageError(f"The {self.kind} `{listed.name}` is listed already.", "Choose another name.")
        self._listed[listed.name] = listed

    def find(self, name: str) -> Listed:
        """The one of that name.

        Raises:
            UsageError: There is none; says what is close.
        """
        if name not in self:
            close = get_close_matches(_dashed(name), self._listed)
            hint = f"Did you mean {' or '.join(close)}?" if close else f"Known are {', '.join(self._listed)}."
            raise UsageError(f"Unknown {self.kind} '{name}'.", hint)
        return self._listed[_dashed(name)]

    def parse(self, text: str) -> Spec:
        """What a user wrote; without a weight it is 1.

        Raises:
            UsageError: The name or an option is unknown, or a number is none or out of its range.
        """
        head, *rest = (part.strip() for part in text.split(":"))
        name, equals, number = (part.strip() for part in head.partition("="))
        listed = self.find(name)
        if equals and not self._weighted:
            raise UsageError(f"A {self.kind} has no weight, and '{text}' gives one.", f"Write {listed.name}.")
        weight = self._weight(listed.name, number) if equals else 1.0
        return Spec(listed.name, weight, self._options(listed, rest), self._weighted)

    def make(self, spec: Spec, known: Mapping[str, Any]) -> Any:
        """An instance; of its `options` and all that is known, its class gets what its constructor names.

        Args:
            spec: What is asked for.
            known: Argument of constructors -> value.
        """
        import inspect

        cls = self.find(spec.name).load()
        wanted, known = inspect.signature(cls).parameters, {"options": spec.options, **known}
        return cls(**{name: value for name, value in known.items() if name in wanted})

    def _weight(self, name: str, number: str) -> float:
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not 0 <= weight <= MOST:
            raise UsageError(
                f"'{number}' is not a weight of the {self.kind} `{name}`.", f"Give a number from 0 to {MOST:,}."
            )
        return weight

    def _options(self, listed: Listed, given: Iterable[str]) -> Options:
        known, values = listed.options, dict[str, Any]()
        for text in given:
            key, equals, value = (part.strip() for part in text.partition("="))
            key = key.replace("-", "_")
            if not equals or key not in known:
                raise UsageError(
                    f"The {self.kind} `{listed.name}` has no option '{text}'.",
                    f"It has {', '.join(known)}." if known else "It has none.",
                )
            if key in values:
                raise UsageError(f"'{key}' of the {self.kind} `{listed.name}` is given twice.", "Give it once.")
            values[key] = self._value(listed.name, known[key], value)
        found: Options = listed.load().options_class(**values)
        try:
            found.check()
        except UsageError as error:
            said = str(error.message).replace("`", "'")  # its options are no settings of the command
            raise UsageError(f"The {self.kind} `{listed.name}`: {said}", error.hint) from error
        return found

    def _value(self, name: str, of: Setting, text: str) -> Any:
        kind, several = value_type(of.hint)
        try:
            values = [SWITCH[v.lower()] if kind is bool else kind(v) for v in (text.split(",") if several else [text])]
        except (ValueError, KeyError):
            wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
            wanted = f"{wanted.removeprefix('a ')}s with commas between them" if several else wanted
            raise UsageError(
                f"'{of.name}' of the {self.kind} `{name}` must be {wanted}, not '{text}'.",
                "Leave it out for the default.",
            ) from None
        return tuple(values) if several else values[0]


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def written(value: Any) -> str:
    """A value as a spec has it; reading it gives the same value."""
    if isinstance(value, list):
        return ",".join(map(written, value))
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
