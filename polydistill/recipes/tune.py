"""Tries variants of a recipe's stage and keeps the best, by successive halving on dev data of the source language.

All variants are trained for a few minutes; the better half goes on with twice as many, until one is left (Jamieson and
Talwalkar 2016, arXiv 1502.07943). What decides is what chooses the stage's checkpoint, such as loyalty to the teacher.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from polydistill import registry
from polydistill.errors import PolydistillError, UsageError
from polydistill.files.durable import make_folders, write_file
from polydistill.files.outputs import RECORD
from polydistill.progress import SILENT, Progress
from polydistill.recipes.recipe import NAME, Recipe, RecipeStage, parse_recipe
from polydistill.recipes.run import run_recipe
from polydistill.records.record import RunRecord, versions
from polydistill.runs.method import Method
from polydistill.runs.runner import run as run_method

TRIED, BEST, PREPARED = "tuned.json", "recipe.toml", "prepared"
LEAST_MINUTES = 0.05


@dataclass(frozen=True)
class Trial:
    """A variant, trained once.

    Attributes:
        name: Of the variant.
        rung: 0 for the first round.
        minutes: It was given.
        score: What chose its checkpoint, the higher the better.
        metric: What that is.
        seconds: It took.
    """

    name: str
    rung: int
    minutes: float
    score: float
    metric: str
    seconds: float


@dataclass(frozen=True)
class Tuned:
    """What came out.

    Attributes:
        recipe: The new recipe's file.
        best: Name of the best variant.
        languages: Of the data that chose it.
        split: Of them.
        trials: All that was tried, in order.
    """

    recipe: str
    best: str
    languages: tuple[str, ...]
    split: str
    trials: tuple[Trial, ...]

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {"command": "tune", **asdict(self)}


def halve(
    names: Sequence[str], minutes: float, attempt: Callable[[str, int, float], Trial]
) -> tuple[str, tuple[Trial, ...]]:
    """(the best of some variants, all that was tried).

    Each round has the same share of the minutes, shared by the variants that are left; the better half goes on. Of
    equal scores the one that took less time is better, then the one that was named first.

    Args:
        names: Of the variants.
        minutes: For everything.
        attempt: Trains a variant: its name, the number of the round, its minutes.
    """
    left, trials = list(names), list[Trial]()
    rounds = max(1, math.ceil(math.log2(len(left))))
    for rung in range(rounds):
        each = minutes / rounds / len(left)
        found = [attempt(name, rung, each) for name in left]
        trials += found
        order = sorted(range(len(found)), key=lambda i: (-found[i].score, found[i].seconds, i))
        left = [left[i] for i in sorted(order[: math.ceil(len(left) / 2)])]
        best = found[order[0]].name
    return best, tuple(trials)


def tune_recipe(
    recipe: Recipe, output: Path, *, minutes: float, resume: bool = False, progress: Progress = SILENT
) -> Tuned:
    """Tries the variants of a recipe's [tune] and writes the recipe with the best of them.

    Args:
        recipe: With [tune]: the `stage` that is varied, and a [[tune.variant]] with a `name` and options for each.
        output: A folder for the trials, and for the new recipe.
        minutes: Of training for all trials; the stages before them are not counted.
        resume: Whether to go on in a folder that is there; trials that are done are not made again.
        progress: Where to report.

    Raises:
        PolydistillError: [tune] makes no sense, or a stage cannot be run.
    """
    stage, variants = variants_of(recipe)
    output = output.expanduser()
    if output.exists() and not resume:
        raise UsageError(f"{output} exists.", "Continue it with `resume`, or choose another `output`.")
    if minutes / max(1, math.ceil(math.log2(len(variants)))) / len(variants) < LEAST_MINUTES:
        raise UsageError(f"{minutes:g} minutes are too few for {len(variants)} variants.", "Give more `minutes`.")
    make_folders(output)
    place = output / PREPARED
    before = [one.name for one in recipe.stages].index(stage.name)
    if before:
        until = recipe.stages[before - 1].name
        run_recipe(recipe, place, resume=place.exists(), until=until, progress=progress)
    places = {one.name: place / one.name for one in recipe.stages}

    def attempt(name: str, rung: int, each: float) -> Trial:
        progress.note(f"{name}, round {rung + 1}: {each:.1f} minutes.")
        return _trial(variants[name], name, rung, each, places, output / f"{name}-{rung + 1}", progress)

    best, trials = halve(list(variants), minutes, attempt)
    chosen = _record_of(output / f"{best}-{trials[-1].rung + 1}").result["selection"]
    write_file(output / BEST, written(recipe, stage.name, variants[best]).encode())
    told = Tuned(str(output / BEST), best, tuple(chosen["languages"]), chosen["split"], trials)
    content = {**told.to_json(), "minutes": minutes, "stage": stage.name, "versions": versions()}
    write_file(output / TRIED, orjson.dumps(content, option=orjson.OPT_INDENT_2))
    return told


def variants_of(recipe: Recipe) -> tuple[RecipeStage, dict[str, RecipeStage]]:
    """(the stage that is varied, name -> the stage as each variant has it; the first is the stage as it is).

    Raises:
        UsageError: There is nothing to try, or a variant has no name of its own.
    """
    tune = recipe.tune or {}
    found, given = tune.get("stage"), tune.get("variant")
    stages = {stage.name: stage for stage in recipe.stages}
    if found not in stages or not isinstance(given, list) or not given:
        raise UsageError(
            f"{recipe.where} says of no stage what to try.",
            'Write [tune] with stage = "..." and a [[tune.variant]] with a name and options for each.',
        )
    stage = stages[found]
    variants = {"as-is": stage}
    for table in given:
        name = table.get("name") if isinstance(table, dict) else None
        if not isinstance(name, str) or not NAME.fullmatch(name) or name in variants:
            raise UsageError(f"{recipe.where}: a variant has no name of its own.", "Give each another name.")
        values = {key: value for key, value in table.items() if key != "name"}
        variants[name] = replace(stage, values={**stage.values, **values})
    places = {one.name: Path(one.name) for one in recipe.stages}
    for one in variants.values():
        one.options(places)  # what is wrong is said before anything is trained
    return stage, variants


def _trial(
    stage: RecipeStage,
    name: str,
    rung: int,
    minutes: float,
    places: Mapping[str, Path],
    output: Path,
    progress: Progress,
) -> Trial:
    """Trains a variant, unless that was done."""
    if not (output / RECORD).is_file():
        unfinished = output.with_name(f".{output.name}.training").is_dir()
        options = stage.options(places, output=str(output), resume=unfinished, max_minutes=minutes)
        method: Method[Any] = registry.method(stage.method)
        try:
            run_method(method, options, progress)
        except PolydistillError as error:
            raise type(error)(f"Variant {name}: {error.message}", error.hint) from error
    result = _record_of(output).result
    chosen = result.get("selection")
    if not chosen:
        raise UsageError(
            f"The stage {stage.name} chooses no checkpoint, so variants cannot be compared.", "Vary another."
        )
    return Trial(name, rung, round(minutes, 2), chosen["value"], chosen["metric"], result["seconds"])


def _record_of(folder: Path) -> RunRecord:
    record = RunRecord.load(folder)
    assert record is not None
    return record


def written(recipe: Recipe, name: str, best: RecipeStage) -> str:
    """A recipe as TOML, with one stage replaced and without [tune]."""
    parts = []
    for stage in recipe.stages:
        values = best.values if stage.name == name else stage.values
        lines = [f"name = {_toml(stage.name)}", f"method = {_toml(stage.method)}"]
        parts.append("\n".join(["[[stage]]", *lines, *(f"{key} = {_toml(value)}" for key, value in values.items())]))
    text = "\n\n".join(parts) + "\n"
    parse_recipe(tomllib.loads(text), text, recipe.where)  # it can be read
    return text


def _toml(value: Any) -> str:
    """A value as TOML: its strings, numbers and lists are those of JSON."""
    return orjson.dumps(value).decode()
