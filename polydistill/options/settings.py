"""Fields of a configuration dataclass that become options of the command line; configurations and results as JSON."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from polydistill.errors import UsageError

MOST_SEED = 2**32 - 1  # what NumPy's generators take
# Metavars of what a command reads.
PLACES = ("M", "PATH", "FILE", "DIR", "PATH_OR_HUB_ID", "LANG=PATH", "LANG=DIR", "LANG=FILE")
MOST_BATCH = 65_536  # of inputs at once: more only fill the memory, and a sampler would go on drawing
MOST = 10**9  # of every other number: what is multiplied by it still fits the numbers of NumPy and torch


@dataclass(frozen=True)
class Options:
    """What configurations have in common; their fields are made by `setting`."""

    def check(self) -> None:
        """Refuses numbers out of their range, and choices that do not exist.

        Raises:
            UsageError: There is one.
        """
        hints = get_type_hints(type(self))
        for f in fields(self):
            value, choices = getattr(self, f.name), f.metadata.get("choices", ())
            if value is None and f.default is None:
                continue
            if choices and value not in choices:
                raise UsageError(f"`{f.name}={value}` is unknown.", f"Choose {', '.join(choices)}.")
            if (said := f.metadata.get("range")) and not said.holds(value):
                raise _refused(f, str(said), value)
            if (problem := _no_number(value, value_type(hints[f.name])[0], f.metadata.get("range"))) is not None:
                raise _refused(f, problem, value)

    def in_vain(self, why_not: Mapping[str, str]) -> list[str]:
        """One sentence for each reason why options that were given change nothing.

        Args:
            why_not: Name of a field -> the reason.
        """
        looked_at = [f for f in fields(self) if f.name in why_not]
        given = {f.name: f"`{f.name}`" for f in looked_at if getattr(self, f.name) != f.default}
        found = []
        for why in dict.fromkeys(why_not.values()):
            names = [given[name] for name, reason in why_not.items() if reason == why and name in given]
            if names:
                found.append(f"{' and '.join(names)} {'changes' if len(names) == 1 else 'change'} nothing: {why}.")
        return found

    def reads(self) -> list[str]:
        """The files, folders and patterns that the command reads, as they were given: LANG=PATH#column too."""
        found: list[str] = []
        for f in fields(self):
            value = getattr(self, f.name)
            if f.metadata.get("reads") and value is not None:
                found += [str(v) for v in (value if isinstance(value, tuple) else (value,))]
        return found

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


@dataclass(frozen=True)
class Range:
    """The numbers that an option takes, all of them finite."""

    least: float | None = None
    above: float | None = None
    most: float | None = None

    def holds(self, value: object) -> bool:
        """Whether something is a number in it."""
        return (
            isinstance(value, (int, float))
            and (isinstance(value, int) or math.isfinite(value))
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
        )

    def __str__(self) -> str:
        ends = {"at least": self.least, "above": self.above, "at most": self.most}
        said = [f"{end} {_digits(value)}" for end, value in ends.items() if value is not None]
        return " and ".join(said)


def _refused(of: Field[Any], said: str, value: object) -> UsageError:
    return UsageError(f"`{of.name}` must be {said}, not {_digits(value)}.", "Leave it out for the default.")


def _no_number(value: object, kind: Any, bounds: Range | None) -> str | None:
    """What an option's value should be and is not; None if it is all right, or no number is wanted."""
    if kind not in (int, float):
        return None
    if not isinstance(value, kind if kind is int else (int, float)) or isinstance(value, bool):
        return "a whole number" if kind is int else "a number"
    if isinstance(value, float) and not math.isfinite(value):
        return "a number"
    return f"at most {_digits(MOST)}" if (bounds is None or bounds.most is None) and value > MOST else None


def _digits(value: object) -> str:
    if not isinstance(value, int):
        return repr(value)
    return f"{value:,}" if abs(value) < 10**30 else "a number of more than 30 digits"


def setting(
    default: Any,
    help: str,
    section: str,
    *,
    metavar: str | None = None,
    flags: tuple[str, ...] = (),
    choices: tuple[str, ...] = (),
    reads: bool | None = None,
    **bounds: float,
) -> Any:
    """A dataclass field with what the command line says of it.

    Args:
        default: The default value; `()` makes an option that can be given several times.
        help: One or two sentences.
        section: The heading under which `--help` lists it.
        metavar: What stands for the value in `--help`.
        flags: The option's names, where those made from the field's name are not right.
        choices: What it can be, where not every text will do.
        reads: Whether it names a file or folder that the command reads; by default, whether `metavar` is in `PLACES`.
        **bounds: Those of its `Range`: `least`, `above`, `most`.
    """
    metadata: dict[str, Any] = {"help": help, "section": section, "metavar": metavar, "flags": flags}
    metadata["choices"], metadata["reads"] = choices, metavar in PLACES if reads is None else reads
    return field(default=default, metadata={**metadata, "range": Range(**bounds) if bounds else None})


def include_setting(section: str) -> Any:
    """Where more languages, tasks and architectures are."""
    return setting((), "Folder with your own languages/, tasks/ and arch/ TOML files.", section, metavar="DIR")


def data_dir_setting(section: str) -> Any:
    """Where labelled data is."""
    said = "Folder of local data, laid out as the task says. [default: $POLYDISTILL_DATA, else the Hub]"
    return setting(None, said, section, metavar="DIR")


def dev_data_setting(section: str) -> Any:
    """A file of the user's own that chooses the checkpoint."""
    said = "File that chooses the best checkpoint. [default: a tenth of the data, held out]"
    return setting(None, said, section, metavar="FILE")


def output_setting(default: str, section: str) -> Any:
    """The folder to write; `default` says which it is otherwise."""
    said = f"Folder to write. [default: {default}]"
    return setting(None, said, section, metavar="DIR", reads=False)


def seed_setting(what: str, section: str) -> Any:
    """The seed of what is random."""
    return setting(0, what, section, metavar="N", least=0, most=MOST_SEED)


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
