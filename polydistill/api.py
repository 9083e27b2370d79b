"""The Python API: the commands as functions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from polydistill.card import folder_card
from polydistill.catalog import resolve_languages
from polydistill.errors import UsageError
from polydistill.evaluation.evaluate import EvaluateOptions, Evaluation
from polydistill.evaluation.evaluate import evaluate as _evaluate
from polydistill.hub.publish import Published, PublishOptions
from polydistill.hub.publish import publish as _publish
from polydistill.labelled.objects import with_files
from polydistill.methods.embed import EmbedOptions
from polydistill.methods.embed import embed as _embed
from polydistill.methods.trim.method import TrimResult, trim_objects
from polydistill.methods.trim.method import trim as _trim
from polydistill.methods.trim.options import TrimOptions
from polydistill.models.default import DEFAULT_MODEL
from polydistill.options.functions import Extra, function
from polydistill.progress import SILENT, Progress
from polydistill.recipes.recipe import read_recipe
from polydistill.recipes.run import RecipeResult, run_recipe
from polydistill.reports.compare import compare as _compare
from polydistill.reports.inspection import DiffReport, InfoReport
from polydistill.reports.inspection import diff as _diff
from polydistill.reports.inspection import info as _info
from polydistill.reports.rows import Comparison
from polydistill.vocab.counts import TokenCounts

if TYPE_CHECKING:
    from polydistill.stacks.folder import LoadedStack

__all__ = [
    "compare",
    "count",
    "diff",
    "embed",
    "evaluate",
    "info",
    "load_stack",
    "model_card",
    "publish",
    "run",
    "trim",
    "trim_objects",
]


def _embedded(options: EmbedOptions, texts: Sequence[str], progress: Progress) -> np.ndarray:
    if isinstance(texts, str):
        raise UsageError("One text was given, not a list of texts.", "Put it in a list.")
    return _embed(options, texts, progress)


trim = function(
    "trim",
    TrimOptions,
    _trim,
    summary="Trim a model's vocabulary to some languages.",
    about="Without `output` the new folder is in polydistill-out/, with a name made of the model and the languages.",
    returns=TrimResult,
    what="Sizes, checks and notes; `result.output` is the new folder.",
)

embed = function(
    "embed",
    EmbedOptions,
    _embedded,
    summary="Make vectors of texts with a stack.",
    returns=np.ndarray,
    what="(n, H) float32.",
    extra=Extra("texts", Sequence[str], "Texts in one language."),
)

evaluate = function(
    "evaluate",
    EvaluateOptions,
    _evaluate,
    summary="Score models on a task in some languages.",
    about="What was predicted before is read from the cache. The scores also go into the records of the models.",
    returns=Evaluation,
    what="Scores from 0 to 1 with 95% intervals.",
    prepared=partial(with_files, EvaluateOptions),
)

publish = function(
    "publish",
    PublishOptions,
    _publish,
    summary="Publish a folder on the Hub in one commit, without asking.",
    returns=Published,
    what="What was published, or would be.",
)


def load_stack(folder: str | Path, *, encoder: str | Path | None = None, llm: str | Path | None = None) -> LoadedStack:
    """Loads what `stack` wrote: `.encode(texts)` and `.as_sentence_transformer()`.

    Args:
        folder: Its folder.
        encoder: Folder of the encoder, if it is no longer at its place.
        llm: Folder of the LLM, likewise.

    Raises:
        PolydistillError: It is no stack, or a model that it stands on is missing or has changed.
    """
    from polydistill.stacks.folder import load_stack as load

    return load(folder, encoder=Path(encoder) if encoder else None, llm=Path(llm) if llm else None)


def compare(runs: Sequence[str | Path], *, progress: Progress = SILENT) -> Comparison:
    """Compares models with the first one; see `polydistill.reports.compare.compare`.

    Args:
        runs: Files that `evaluate` wrote, or model folders with scores.
        progress: Where to report; silent by default.

    Raises:
        PolydistillError: A run cannot be read, or nothing can be compared.
    """
    return _compare([Path(run) for run in runs], progress)


def run(
    recipe: str | Path,
    output: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    until: str | None = None,
    dry_run: bool = False,
    one_change: bool = False,
    progress: Progress = SILENT,
) -> RecipeResult:
    """Runs the stages of a recipe, one after the other, each in a folder of its own.

    Args:
        recipe: A TOML file; `polydistill run preset=bistil` prints one.
        output: The folder of all stages.
        resume: Go on in a folder that is there; stages that are done are not made again.
        overwrite: Begin anew in a folder that an earlier recipe made.
        until: The last stage to run; all of them without it.
        dry_run: Check everything that can be checked before anything is trained, and run nothing.
        one_change: Refuse a stage that changes more than one of teacher, data and losses.
        progress: Where to report; silent by default.

    Raises:
        PolydistillError: A stage cannot be run; those before it stay.
    """
    return run_recipe(
        read_recipe(Path(recipe)),
        Path(output),
        resume=resume,
        overwrite=overwrite,
        until=until,
        dry_run=dry_run,
        one_change=one_change,
        progress=progress,
    )


def model_card(folder: str | Path) -> str:
    """The model card of a folder, made from its record.

    Args:
        folder: What a command of polydistill wrote.

    Raises:
        PolydistillError: It is no such folder.
    """
    return folder_card(Path(folder))


def count(
    model: str | Path = DEFAULT_MODEL,
    *,
    languages: str | Sequence[str],
    text: str | Path | Sequence[str | Path] = (),
    limit: int | None = None,
    seed: int = 0,
    include_path: str | Path | Sequence[str | Path] = (),
    progress: Progress = SILENT,
) -> TokenCounts:
    """Counts the tokens of text; counts of shards add up with `+`.

    Args:
        model: The model whose tokenizer counts.
        languages: Codes or names.
        text: Files, folders or data sets of the Hub, as `polydistill trim` takes it.
        limit: Read at most this many lines of each text.
        seed: Of the lines held out.
        include_path: Folders with the user's own languages.
        progress: Where to report.
    """
    from polydistill.models.refs import ModelRef, model_folder, resolve
    from polydistill.trimming.counting import count as count_text
    from polydistill.vocab import open_vocabulary

    asked = TrimOptions.of(model, languages=languages, text=text, limit=limit, seed=seed, include_path=include_path)
    asked.check()
    found = resolve_languages(asked.languages, asked.include_path)
    resolved = resolve(ModelRef.parse(asked.model), progress=progress.note)
    vocabulary = open_vocabulary(model_folder(resolved.folder))
    return count_text(vocabulary, found, asked.text, limit=limit, seed=seed, progress=progress)


def info(model: str, texts: Sequence[str] = (), *, include_path: Sequence[Path] = ()) -> InfoReport:
    """Sizes, share of embeddings and lineage of a model; see `polydistill.reports.inspection.info`."""
    return _info(str(model), texts, tuple(include_path))


def diff(model: str, trimmed: str, texts: Sequence[str], *, include_path: Sequence[Path] = ()) -> DiffReport:
    """What a trimmed model does differently on text; see `polydistill.reports.inspection.diff`."""
    return _diff(str(model), str(trimmed), texts, tuple(include_path))
