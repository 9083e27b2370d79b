"""Runs a recipe: its stages one after the other, each in a folder of its own below one output."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from polydistill import registry
from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation.evaluate import EvaluateOptions, evaluate
from polydistill.files.durable import make_folders, write_file
from polydistill.files.outputs import RECORD
from polydistill.methods.trim.method import trim
from polydistill.methods.trim.options import TrimOptions
from polydistill.options.commandline import command_line
from polydistill.options.settings import Options
from polydistill.progress import SILENT, Progress
from polydistill.recipes.changes import changes
from polydistill.recipes.recipe import EVALUATE, Recipe, RecipeStage, options_class, parse_recipe
from polydistill.records.record import versions
from polydistill.runs.method import Method
from polydistill.runs.runner import run as run_method

FILE, TOLD = "recipe.toml", "recipe.json"


@dataclass(frozen=True)
class StageDone:
    """A stage of a recipe.

    Attributes:
        name: Its name.
        method: The command that it runs.
        output: What it makes: a folder, or a file of scores.
        command: The command line that does the same; a stage that is not done names what others will make.
        done: Whether it is made.
        seconds: How long this took; None if it was made before, or is not.
        scores: What it scored.
    """

    name: str
    method: str
    output: str
    command: str
    done: bool = False
    seconds: float | None = None
    scores: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class RecipeResult:
    """What became of a recipe.

    Attributes:
        recipe: Its file.
        output: The folder of all stages.
        result: What the last stage that is done made; None for nothing.
        stages: In order.
        flagged: Stage -> the things that it changes at once, where there are several.
    """

    recipe: str
    output: str
    result: str | None
    stages: tuple[StageDone, ...]
    flagged: Mapping[str, Sequence[str]]

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {"command": "run", **asdict(self)}


def run_recipe(
    recipe: Recipe,
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    until: str | None = None,
    dry_run: bool = False,
    one_change: bool = False,
    progress: Progress = SILENT,
) -> RecipeResult:
    """Runs the stages of a recipe that are not done yet.

    Args:
        recipe: The recipe.
        output: The folder of all stages.
        resume: Whether to go on in a folder that is there.
        overwrite: Whether to begin anew in one that an earlier recipe made.
        until: The last stage to run; all of them without it.
        dry_run: Whether to check everything and run nothing.
        one_change: Whether to refuse a stage that changes several things at once, see `changes`.
        progress: Where to report.

    Raises:
        PolydistillError: A stage cannot be run; those before it stay, and `resume` goes on.
    """
    stages, output = recipe.until(until), output.expanduser()
    places = {stage.name: place_of(output, stage) for stage in recipe.stages}
    chosen = [(stage, options_of(stage, places)) for stage in stages]
    flagged = {name: things for name, things in changes(recipe.stages).items() if len(things) > 1}
    if one_change and flagged:
        name, things = next(iter(flagged.items()))
        raise UsageError(
            f"The stage {name} changes {' and '.join(things)} at once.", "Make a stage of each, or leave the check out."
        )
    done = _begin(recipe, output, places, resume=resume, overwrite=overwrite, dry_run=dry_run)
    for stage, options in chosen:
        if stage.name not in done:
            _prepare(stage, options, places, progress)
    made = [_told(stage, options, places, stage.name in done) for stage, options in chosen]
    if not dry_run:
        for i, (stage, options) in enumerate(chosen):
            if stage.name not in done:
                progress.note(f"{stage.name} ({stage.method}), stage {i + 1} of {len(chosen)} of the recipe.")
                made[i] = _run(stage, options, places, made[i], progress)
                _record(recipe, output, made)
    results = [stage.output for stage in made if stage.done and stage.method != EVALUATE]
    return RecipeResult(recipe.where, str(output), results[-1] if results else None, tuple(made), flagged)


def place_of(output: Path, stage: RecipeStage) -> Path:
    """What a stage makes: a folder, or a file of scores."""
    return output / (f"{stage.name}.json" if stage.method == EVALUATE else stage.name)


def options_of(stage: RecipeStage, places: Mapping[str, Path]) -> Options:
    """A stage's options; an unfinished run of it goes on."""
    place = places[stage.name]
    unfinished = place.with_name(f".{place.name}.training").is_dir()
    return stage.options(places, output=str(place), resume=unfinished)


# --- the folder


def _begin(
    recipe: Recipe, output: Path, places: Mapping[str, Path], *, resume: bool, overwrite: bool, dry_run: bool
) -> set[str]:
    """Makes the folder, or looks what is done in it.

    Raises:
        UsageError: It is there and nothing says what to do with it, or was begun with other stages.
    """
    if output.exists() and not (output / FILE).is_file():
        raise UsageError(f"{output} exists, and no recipe made it.", "Choose another `output`.")
    if output.exists() and overwrite and not resume:
        if not dry_run:
            shutil.rmtree(output)
    elif output.exists():
        if not resume and not dry_run:
            raise UsageError(f"{output} exists.", "Continue it with `resume`, or begin anew with `overwrite`.")
        return _done(recipe, output, places)
    if not dry_run:
        make_folders(output)
        write_file(output / FILE, recipe.text.encode())
    return set()


def _done(recipe: Recipe, output: Path, places: Mapping[str, Path]) -> set[str]:
    """Names of the stages that are done.

    Raises:
        UsageError: One that has begun was another one then.
    """
    import tomllib

    text = (output / FILE).read_text(encoding="utf-8")
    before = {stage.name: stage.written for stage in parse_recipe(tomllib.loads(text), text, str(output / FILE)).stages}
    done = set()
    for stage in recipe.stages:
        place = places[stage.name]
        if place.exists() or place.with_name(f".{place.name}.training").is_dir():
            if before.get(stage.name) != stage.written:
                raise UsageError(
                    f"The stage {stage.name} has changed since {output} was begun.",
                    "Give the recipe as it was, choose another `output`, or begin anew with `overwrite`.",
                )
            if place.is_file() or (place / RECORD).is_file():
                done.add(stage.name)
    if text != recipe.text:
        write_file(output / FILE, recipe.text.encode())
    return done


def _record(recipe: Recipe, output: Path, made: Sequence[StageDone]) -> None:
    """Writes what is done until now; how long stages took that were done before is kept."""
    before = orjson.loads((output / TOLD).read_bytes())["stages"] if (output / TOLD).is_file() else []
    seconds = {stage["name"]: stage["seconds"] for stage in before}
    stages = [{**asdict(stage), "seconds": stage.seconds or seconds.get(stage.name)} for stage in made]
    told = {"recipe": recipe.text, "versions": versions(), "stages": stages}
    write_file(output / TOLD, orjson.dumps(told, option=orjson.OPT_INDENT_2))


# --- stages


def _prepare(stage: RecipeStage, options: Options, places: Mapping[str, Path], progress: Progress) -> None:
    """Checks a stage as its command does before it begins, where all that it reads is there.

    Raises:
        PolydistillError: Something is missing or does not fit.
    """
    if not all(places[name].exists() for name in stage.inputs):
        return
    method = registry.find(stage.method) if stage.method != EVALUATE else None
    if isinstance(method, Method):
        try:
            method.prepare(options, progress)
        except PolydistillError as error:
            raise type(error)(f"Stage {stage.name}: {error.message}", error.hint) from error


def _told(stage: RecipeStage, options: Options, places: Mapping[str, Path], done: bool) -> StageDone:
    line = command_line(stage.method, options.to_json(), options_class(stage.method), output=str(places[stage.name]))
    return StageDone(stage.name, stage.method, str(places[stage.name]), " ".join(line), done)


def _run(
    stage: RecipeStage, options: Options, places: Mapping[str, Path], told: StageDone, progress: Progress
) -> StageDone:
    started = time.perf_counter()
    try:
        scores = _made(stage, options, progress)
    except PolydistillError as error:
        raise type(error)(f"Stage {stage.name}: {error.message}", error.hint) from error
    seconds = round(time.perf_counter() - started, 1)
    return StageDone(told.name, told.method, told.output, told.command, True, seconds, tuple(scores))


def _made(stage: RecipeStage, options: Options, progress: Progress) -> Sequence[dict[str, Any]]:
    """Runs a stage; returns its scores."""
    if isinstance(options, EvaluateOptions):
        return [score.to_json() for score in evaluate(options, progress).scores]
    if isinstance(options, TrimOptions):
        trim(options, progress)
        return ()
    method: Method[Any] = registry.method(stage.method)
    return run_method(method, options, progress).scores
