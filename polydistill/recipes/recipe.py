"""A recipe as it is written: stages of known commands, whose options may name the results of earlier stages.

[[stage]]
name = "student"
method = "bistil"
model = "@general"     # the folder that the stage `general` has made
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from polydistill import registry
from polydistill.errors import PolydistillError, UsageError, library_said
from polydistill.evaluation.evaluate import EvaluateOptions
from polydistill.options.settings import Options, declared

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
REFERENCE = re.compile(r"(?<![^=])@([A-Za-z0-9][A-Za-z0-9_-]*)")  # at the start of a value, or after LANG=
EVALUATE = "evaluate"
OURS = ("output", "resume", "overwrite")  # options that the recipe's own folder decides
MOST_BYTES, MOST_STAGES = 1 << 20, 100


@dataclass(frozen=True)
class RecipeStage:
    """A stage.

    Attributes:
        name: Its name, and its folder's.
        method: The command that it runs.
        values: Options as the file gives them, defaults among them; references unresolved.
    """

    name: str
    method: str
    values: Mapping[str, Any]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the stages whose results it reads, in the order in which they are named."""
        return tuple(dict.fromkeys(name for value in self.values.values() for name in referred(value)))

    @property
    def written(self) -> dict[str, Any]:
        """What has to be the same for a run to go on."""
        return {"name": self.name, "method": self.method, **self.values}

    def options(self, folders: Mapping[str, Path], **place: Any) -> Options:
        """Its options, checked.

        Args:
            folders: Name of a stage -> what it makes.
            **place: Options of the output.

        Raises:
            UsageError: An option is unknown, of the wrong type, or out of its range.
        """
        known = options_class(self.method)
        given = {name: resolved(value, folders) for name, value in self.values.items()}
        names = declared(known)
        try:
            made = known.of(**given, **{name: value for name, value in place.items() if name in names})
            made.check()
        except UsageError as error:
            raise UsageError(f"Stage {self.name}: {error.message}", error.hint) from error
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"Stage {self.name}: an option has a value of the wrong kind ({library_said(error)}).",
                f"Look at the options of `polydistill {self.method}`.",
            ) from error
        return made


@dataclass(frozen=True)
class Recipe:
    """A recipe.

    Attributes:
        stages: In order.
        text: What the file says.
        where: The file.
        tune: What `polydistill tune` is to try, as the file says it; None for nothing.
    """

    stages: tuple[RecipeStage, ...]
    text: str
    where: str
    tune: Mapping[str, Any] | None = None

    def until(self, name: str | None) -> tuple[RecipeStage, ...]:
        """The stages up to one, and with it.

        Raises:
            UsageError: There is none of that name.
        """
        if name is None:
            return self.stages
        names = [stage.name for stage in self.stages]
        if name not in names:
            raise UsageError(f"The recipe has no stage {name}.", f"Its stages are {', '.join(names)}.")
        return self.stages[: names.index(name) + 1]


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe.

    Raises:
        PolydistillError: The file cannot be read, or is no TOML.
        UsageError: A stage is named twice or not at all, runs no known command, or reads a stage that comes later.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PolydistillError(f"{path} cannot be read ({error.strerror}).", "Give a recipe in TOML.") from error
    if len(content) > MOST_BYTES:
        raise PolydistillError(f"{path} is larger than a recipe can be.", "Give a recipe in TOML.")
    try:
        text = content.decode("utf-8")
        found = tomllib.loads(text)
    except ValueError as error:
        raise PolydistillError(f"{path} is not TOML ({library_said(error)}).", "Correct the file.") from error
    return parse_recipe(found, text, str(path))


def parse_recipe(found: Mapping[str, Any], text: str, where: str) -> Recipe:
    """The recipe of a parsed file.

    Raises:
        UsageError: As for `read_recipe`.
    """
    if unknown := sorted(set(found) - {"stage", "defaults", "tune"}):
        raise UsageError(f"{where}: a recipe has no '{unknown[0]}'.", "It has [[stage]], [defaults] and [tune].")
    tables, defaults = found.get("stage"), found.get("defaults", {})
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{where} has no stage.", 'Write one: [[stage]], name = "..." and method = "...".')
    if not isinstance(defaults, dict) or len(tables) > MOST_STAGES:
        raise UsageError(
            f"{where}: [defaults] is no table, or there are more than {MOST_STAGES} stages.", "Correct it."
        )
    stages: list[RecipeStage] = []
    for number, table in enumerate(tables, 1):
        stages.append(_stage(table, number, defaults, [stage.name for stage in stages], where))
    unused = [name for name in defaults if not any(name in stage.values for stage in stages)]
    if unused:
        raise UsageError(f"{where}: no stage has the option '{unused[0]}' of [defaults].", "Leave it out.")
    tune = found.get("tune")
    if tune is not None and not isinstance(tune, dict):
        raise UsageError(f"{where}: [tune] is no table.", "Correct it.")
    return Recipe(tuple(stages), text, where, tune)


def _stage(
    table: Mapping[str, Any], number: int, defaults: Mapping[str, Any], before: Sequence[str], where: str
) -> RecipeStage:
    name, method = table.get("name"), table.get("method")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UsageError(
            f"{where}: stage {number} has no name, or one that no folder can have.",
            "Give it a name of letters, digits, - and _.",
        )
    if name in before:
        raise UsageError(f"{where}: there are two stages {name}.", "Give each a name of its own.")
    if not isinstance(method, str):
        raise UsageError(f"{where}: the stage {name} names no method.", f"Write one of {', '.join(methods())}.")
    known = declared(options_class(method, f"{where}: the stage {name}"))
    values = {key: value for key, value in table.items() if key not in ("name", "method")}
    if ours := [key for key in values if key in OURS]:
        raise UsageError(f"{where}: the stage {name} gives `{ours[0]}`, which the recipe decides.", "Leave it out.")
    values = {**{key: value for key, value in defaults.items() if key in known}, **values}
    stage = RecipeStage(name, method, values)
    if later := [other for other in stage.inputs if other not in before]:
        raise UsageError(
            f"{where}: the stage {name} reads @{later[0]}, which no stage before it makes.",
            f"Before it are {', '.join(before)}." if before else "It is the first.",
        )
    return stage


def methods() -> list[str]:
    """The commands that a stage can run."""
    return [name for name in registry.entries() if name not in ("sparse apply", "sparse remove")] + [EVALUATE]


def options_class(method: str, said: str = "A stage") -> type[Options]:
    """The class of a command's options.

    Raises:
        UsageError: There is no such command; says what is close.
    """
    if method == EVALUATE:
        return EvaluateOptions
    found = registry.options(method) if method in methods() else None
    if found is None:
        close = get_close_matches(method, methods(), n=1)
        hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(methods())}."
        raise UsageError(f"{said} has the method '{method}', and there is none.", hint)
    return found


def referred(value: Any) -> list[str]:
    """Names of the stages that a value names."""
    if isinstance(value, list):
        return [name for one in value for name in referred(one)]
    return REFERENCE.findall(value) if isinstance(value, str) else []


def resolved(value: Any, folders: Mapping[str, Path]) -> Any:
    """A value with folders in place of the stages that it names."""
    if isinstance(value, list):
        return tuple(resolved(one, folders) for one in value)
    return REFERENCE.sub(lambda found: str(folders[found[1]]), value) if isinstance(value, str) else value
