"""Fields of a configuration dataclass that become options of the command line; configurations and results as JSON."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

from polydistill.devices import AUTO, DEVICES
from polydistill.errors import UsageError

FLAGS = {"languages": "lang", "language": "lang"}  # names whose flags are other words
MOST_SEED = 2**32 - 1  # what NumPy's generators take
# Metavars of what a command reads.
PLACES = ("M", "PATH", "FILE", "DIR", "PATH_OR_HUB_ID", "LANG=PATH", "LANG=DIR", "LANG=FILE")
MOST_BATCH = 65_536  # of inputs at once: more only fill the memory, and a sampler would go on drawing
MOST = 10**9  # of every other number: what is multiplied by it still fits the numbers of NumPy and torch


@dataclass(frozen=True)
class Setting:
    """An option as it was declared: a field made by `setting` or `seed_setting`, or an argument.

    Attributes:
        name: Its name in Python, TOML and records; a group's prefix and the field's name, such as `task_lr`.
        path: Names of the attributes that lead to its value.
        hint: Its type.
        field: Its field, whose metadata says the rest.
    """

    name: str
    path: tuple[str, ...]
    hint: Any
    field: Field[Any]

    @property
    def is_argument(self) -> bool:
        """Whether the command line takes it by its place."""
        return "help" not in self.field.metadata

    @property
    def flags(self) -> tuple[str, ...]:
        """Its names on the command line; of a switch that is on, `--on/--off`."""
        if declared := tuple(self.field.metadata.get("flags", ())):
            return declared
        flag = FLAGS.get(self.name, self.name.replace("_", "-"))
        if self.default is True:
            return (f"--{flag}/--no-{flag}",)
        return ("-o", f"--{flag}") if flag == "output" else (f"--{flag}",)

    @property
    def flag(self) -> str:
        """Its long name there."""
        return next((flag for flag in self.flags if flag.startswith("--")), self.flags[0]).partition("/")[0]

    @property
    def default(self) -> Any:
        """Its default value; `()` for one that can be given several times."""
        return self.field.default

    def asked(self, key: str) -> Any:
        """What its declaration says of `section`, `metavar`, `choices`, `range`, `reads`, `decides` and the like."""
        return self.field.metadata.get(key)


def declared(options: type) -> dict[str, Setting]:
    """Name -> option of a class of options, those of its groups included, in the order of `--help`.

    Args:
        options: A dataclass whose fields were made by `setting` and `group`.
    """
    found: dict[str, Setting] = {}
    hints = get_type_hints(options)
    for f in fields(options):
        if "group" not in f.metadata:
            found[f.name] = Setting(f.name, (f.name,), hints[f.name], f)
            continue
        prefix = f.metadata["group"]
        for inner in declared(hints[f.name]).values():
            name = f"{prefix}_{inner.name}" if prefix else inner.name
            found[name] = replace(inner, name=name, path=(f.name, *inner.path))
    return found


def by_place(known: Mapping[str, Setting]) -> list[Setting]:
    """Those of some options that Python also takes by their place: the arguments, then the model."""
    arguments = [one for one in known.values() if one.is_argument]
    return arguments + ([known["model"]] if "model" in known and not known["model"].is_argument else [])


def group(kind: type[Any], *, prefix: str = "") -> Any:
    """A field that holds a group of options, which stand in the command line beside those around it.

    Args:
        kind: The group's class.
        prefix: Goes before their names: `task` makes `--task-lr` of `lr`.
    """
    return field(default_factory=kind, metadata={"group": prefix})


@dataclass(frozen=True)
class Options:
    """What configurations have in common; their fields are made by `setting` and `group`."""

    @classmethod
    def of(cls, *arguments: Any, **given: Any) -> Self:
        """Options from flat names, as the command line, TOML and Python give them.

        Args:
            *arguments: The positional ones.
            **given: Name -> value; one value will do where there can be several, and text for a path.

        Raises:
            UsageError: There is no option of that name, or one is missing or given twice.
        """
        known = declared(cls)
        places = by_place(known)
        if len(arguments) > len(places):
            counted = f"{len(places)} argument{'' if len(places) == 1 else 's'}"
            raise UsageError(f"{len(arguments)} values were given for {counted}.", "Name the options.")
        for place, value in zip(places, arguments, strict=False):
            if place.name in given:
                raise UsageError(f"`{place.name}` is given twice.", "Give it once.")
            given[place.name] = value
        missing = [one.name for one in places if one.is_argument and one.default is MISSING and one.name not in given]
        if missing:
            raise UsageError(f"`{missing[0]}` is missing.", "Give it.")
        for name in given:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"Did you mean `{near[0]}`?" if near else f"There are: {', '.join(known)}."
                raise UsageError(f"There is no option `{name}`.", hint)
        return cls._nested({known[name].path: _fitting(known[name].hint, value) for name, value in given.items()})

    @classmethod
    def _nested(cls, values: Mapping[tuple[str, ...], Any]) -> Self:
        """Options from the paths of values."""
        own = {path[0]: value for path, value in values.items() if len(path) == 1}
        hints = get_type_hints(cls)
        for name in dict.fromkeys(path[0] for path in values if len(path) > 1):
            own[name] = hints[name]._nested({path[1:]: v for path, v in values.items() if path[0] == name})
        return cls(**own)

    def values(self) -> dict[str, Any]:
        """Name -> value of all options, those of groups included."""
        found = {}
        for name, one in declared(type(self)).items():
            value: Any = self
            for part in one.path:
                value = getattr(value, part)
            found[name] = value
        return found

    def check(self) -> None:
        """Refuses numbers out of their range, and choices that do not exist.

        Raises:
            UsageError: There is one.
        """
        for one, given in zip(declared(type(self)).values(), self.values().values(), strict=True):
            (kind, several), bounds = value_type(one.hint), one.asked("range")
            for value in given if several else (given,):
                if value is None and one.default is None:
                    continue
                if (choices := one.asked("choices") or ()) and value not in choices:
                    raise UsageError(f"`{one.name}={value}` is unknown.", f"Choose {', '.join(choices)}.")
                if bounds and not bounds.holds(value):
                    raise _refused(one, str(bounds), value)
                if (problem := _no_number(value, kind, bounds)) is not None:
                    raise _refused(one, problem, value)

    def in_vain(self, why_not: Mapping[str, str]) -> list[str]:
        """One sentence for each reason why options that were given change nothing.

        Args:
            why_not: Name of an option -> the reason.
        """
        known, values = declared(type(self)), self.values()
        given = {name: f"`{name}`" for name in known if name in why_not and values[name] != known[name].default}
        found = []
        for why in dict.fromkeys(why_not.values()):
            names = [given[name] for name, reason in why_not.items() if reason == why and name in given]
            if names:
                found.append(f"{' and '.join(names)} {'changes' if len(names) == 1 else 'change'} nothing: {why}.")
        return found

    def reads(self) -> list[str]:
        """The files, folders and patterns that the command reads, as they were given: LANG=PATH#column too."""
        found: list[str] = []
        for one, value in zip(declared(type(self)).values(), self.values().values(), strict=True):
            if one.asked("reads") and value is not None:
                found += [str(v) for v in (value if isinstance(value, tuple) else (value,))]
        return found

    def deciding(self) -> dict[str, Any]:
        """The options that decide what comes out, as JSON: not where it goes, nor how long it may take."""
        known = declared(type(self))
        return {name: value for name, value in self.to_json().items() if known[name].asked("decides") is not False}

    def to_json(self) -> dict[str, Any]:
        """The options by their flat names as JSON."""
        return {name: plain(value) for name, value in self.values().items()}


def _fitting(hint: Any, value: Any) -> Any:
    """A value as a field wants it: a tuple where there can be several, a path for text and text for a path."""
    kind, several = value_type(hint)
    values = [value] if isinstance(value, (str, Path)) or not several else (value or ())
    values = [Path(v) if kind is Path and isinstance(v, str) else v for v in values]
    values = [str(v) if kind is str and isinstance(v, Path) else v for v in values]
    return tuple(values) if several else values[0]


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


def _refused(of: Setting, said: str, value: object) -> UsageError:
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
    decides: bool = True,
    objects: bool = False,
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
        decides: Whether what comes out depends on it, so that a run that goes on has to have the same.
        objects: Whether Python also takes the data themselves in place of a file.
        **bounds: Those of its `Range`: `least`, `above`, `most`.
    """
    metadata: dict[str, Any] = {"help": help, "section": section, "metavar": metavar, "flags": flags}
    metadata |= {"choices": choices, "reads": metavar in PLACES if reads is None else reads, "decides": decides}
    metadata["objects"] = objects
    return field(default=default, metadata={**metadata, "range": Range(**bounds) if bounds else None})


def include_setting(section: str, *, decides: bool = True) -> Any:
    """Where more languages, tasks and architectures are; `decides` is that of `setting`."""
    said = "Folder with your own languages/, tasks/ and arch/ TOML files."
    return setting((), said, section, metavar="DIR", decides=decides)


def data_dir_setting(section: str) -> Any:
    """Where labelled data is."""
    said = "Folder of local data, laid out as the task says. [default: $POLYDISTILL_DATA, else the Hub]"
    return setting(None, said, section, metavar="DIR", decides=False)


def dev_data_setting(section: str) -> Any:
    """A file of the user's own that chooses the checkpoint."""
    said = "File that chooses the best checkpoint. [default: a tenth of the data, held out]"
    return setting(None, said, section, metavar="FILE", decides=False, objects=True)


def output_setting(default: str, section: str) -> Any:
    """The folder to write; `default` says which it is otherwise."""
    said = f"Folder to write. [default: {default}]"
    return setting(None, said, section, metavar="DIR", reads=False, decides=False)


def device_setting(section: str) -> Any:
    """Where torch computes; see `devices.using`."""
    said = "Where to compute: cpu, cuda, mps, or auto for a GPU if there is one (CUDA_VISIBLE_DEVICES says which)."
    return setting(AUTO, said, section, metavar="DEVICE", choices=DEVICES, decides=False)


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
