"""The Python API: the commands as functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from polydistill.card import folder_card
from polydistill.catalog import resolve_languages
from polydistill.errors import UsageError
from polydistill.evaluation.evaluate import EvaluateConfig, Evaluation
from polydistill.evaluation.evaluate import evaluate as _evaluate
from polydistill.hub.publish import PublishConfig, Published
from polydistill.hub.publish import publish as _publish
from polydistill.methods.embed import EmbedConfig
from polydistill.methods.embed import embed as _embed
from polydistill.methods.trim.method import TrimResult, trim_objects
from polydistill.methods.trim.method import trim as _trim
from polydistill.methods.trim.options import TrimConfig
from polydistill.models.refs import DEFAULT_MODEL
from polydistill.options.settings import value_type
from polydistill.progress import SILENT, Progress
from polydistill.reports.compare import compare as _compare
from polydistill.reports.inspection import DiffReport, InfoReport
from polydistill.reports.inspection import diff as _diff
from polydistill.reports.inspection import info as _info
from polydistill.reports.rows import Comparison
from polydistill.vocab.counts import TokenCounts

if TYPE_CHECKING:
    import numpy as np

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
    "trim",
    "trim_objects",
]


def trim(
    model: str = DEFAULT_MODEL, *, languages: Sequence[str], progress: Progress = SILENT, **options: Any
) -> TrimResult:
    """Trims a model's vocabulary to some languages.

    Args:
        model: A folder, `org/name` or `org/name@revision`.
        languages: Codes or names of the languages that stay.
        progress: Where to report; silent by default.
        **options: Other fields of `polydistill.methods.trim.options.TrimConfig`, e.g. `corpus`, `vocab_size`, `output`.

    Returns:
        The result; `result.output` is the new folder.

    Raises:
        PolydistillError: The message says what is wrong and the way out; nothing was written.
    """
    return _trim(TrimConfig(model=str(model), lang=tuple(languages), **_fields(TrimConfig, options)), progress)


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


def embed(model: str | Path, texts: Sequence[str], *, progress: Progress = SILENT, **options: Any) -> np.ndarray:
    """(n, H) float32 vectors of texts, from a stack.

    Args:
        model: Its folder.
        texts: In one language.
        progress: Where to report; silent by default.
        **options: Other fields of `polydistill.methods.embed.EmbedConfig`, e.g. `lang`, `long`.

    Raises:
        PolydistillError: The message says what is wrong and the way out.
    """
    if isinstance(texts, str):
        raise UsageError("One text was given, not a list of texts.", "Put it in a list.")
    return _embed(EmbedConfig(str(model), **_fields(EmbedConfig, options)), texts, progress)


def evaluate(
    models: Sequence[str | Path],
    *,
    task: str,
    languages: Sequence[str],
    teacher: str | Path | None = None,
    progress: Progress = SILENT,
    **options: Any,
) -> Evaluation:
    """Scores models on a task in some languages; what was predicted before is read from the cache.

    Args:
        models: Folders, `org/name` or `org/name@revision`.
        task: Name of the task.
        languages: Codes or names.
        teacher: A model that the others descend from: scored too, and their loyalty to it is measured.
        progress: Where to report; silent by default.
        **options: Other fields of `polydistill.evaluation.evaluate.EvaluateConfig`, e.g. `data_dir`, `split`.

    Returns:
        The scores, from 0 to 1, with 95% intervals.

    Raises:
        PolydistillError: The message says what is wrong and the way out.
    """
    given = _fields(EvaluateConfig, options)
    config = EvaluateConfig(
        model=tuple(map(str, models)),
        task=task,
        lang=tuple(languages),
        teacher=None if teacher is None else str(teacher),
        **given,
    )
    return _evaluate(config, progress)


def compare(runs: Sequence[str | Path], *, progress: Progress = SILENT) -> Comparison:
    """Compares models with the first one; see `polydistill.reports.compare.compare`.

    Args:
        runs: Files that `evaluate` wrote, or model folders with scores.
        progress: Where to report; silent by default.

    Raises:
        PolydistillError: A run cannot be read, or nothing can be compared.
    """
    return _compare([Path(run) for run in runs], progress)


def model_card(folder: str | Path) -> str:
    """The model card of a folder, made from its record.

    Args:
        folder: What a command of polydistill wrote.

    Raises:
        PolydistillError: It is no such folder.
    """
    return folder_card(Path(folder))


def publish(folder: str | Path, repository: str, *, progress: Progress = SILENT, **options: Any) -> Published:
    """Publishes a folder on the Hub in one commit, without asking.

    Args:
        folder: A model's folder with a record.
        repository: `org/name`.
        progress: Where to report; silent by default.
        **options: Other fields of `polydistill.hub.publish.PublishConfig`, e.g. `private`, `revision`, `dry_run`.

    Raises:
        PolydistillError: The message says what is wrong and the way out; the repository is as it was.
    """
    return _publish(PublishConfig(Path(folder), repository, **_fields(PublishConfig, options)), progress)


def _fields(config: type, options: dict[str, Any]) -> dict[str, Any]:
    """Options as the fields of a configuration want them: one value where several can be given, text for a path
    and a path for text.
    """
    hints, found = get_type_hints(config), {}
    for name, value in options.items():
        kind, several = value_type(hints.get(name, Any))
        values = [value] if isinstance(value, (str, Path)) or not several else value
        values = [Path(v) if kind is Path and isinstance(v, str) else v for v in values]
        values = [str(v) if kind is str and isinstance(v, Path) else v for v in values]
        found[name] = tuple(values) if several else values[0]
    return found


def count(
    model: str = DEFAULT_MODEL,
    *,
    languages: Sequence[str],
    corpus: Sequence[str] = (),
    limit: int | None = None,
    seed: int = 0,
    include_path: Sequence[Path] = (),
    progress: Progress = SILENT,
) -> TokenCounts:
    """Counts the tokens of text; counts of shards add up with `+`.

    Args:
        model: The model whose tokenizer counts.
        languages: Codes or names.
        corpus: Text, as `polydistill trim` takes it.
        limit: Read at most this many lines of each text.
        seed: Of the lines held out.
        include_path: Folders with the user's own languages.
        progress: Where to report.
    """
    from polydistill.models.refs import ModelRef, model_folder, resolve
    from polydistill.trimming.counting import count as count_text
    from polydistill.vocab import open_vocabulary

    TrimConfig(limit=limit, seed=seed).check()
    found = resolve_languages(languages, tuple(include_path))
    resolved = resolve(ModelRef.parse(str(model)), progress=progress.note)
    vocabulary = open_vocabulary(model_folder(resolved.folder))
    return count_text(vocabulary, found, corpus, limit=limit, seed=seed, progress=progress)


def info(model: str, texts: Sequence[str] = (), *, include_path: Sequence[Path] = ()) -> InfoReport:
    """Sizes, share of embeddings and lineage of a model; see `polydistill.reports.inspection.info`."""
    return _info(str(model), texts, tuple(include_path))


def diff(model: str, trimmed: str, texts: Sequence[str], *, include_path: Sequence[Path] = ()) -> DiffReport:
    """What a trimmed model does differently on text; see `polydistill.reports.inspection.diff`."""
    return _diff(str(model), str(trimmed), texts, tuple(include_path))
