"""The Python API: the commands as functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polydistill.catalog import resolve_languages
from polydistill.inspection import DiffReport, InfoReport
from polydistill.inspection import diff as _diff
from polydistill.inspection import info as _info
from polydistill.methods.trim import TrimConfig, TrimResult, trim_objects
from polydistill.methods.trim import trim as _trim
from polydistill.progress import SILENT, Progress
from polydistill.refs import DEFAULT_MODEL
from polydistill.vocab.counts import TokenCounts

__all__ = ["count", "diff", "info", "trim", "trim_objects"]


def trim(
    model: str = DEFAULT_MODEL, *, languages: Sequence[str], progress: Progress = SILENT, **options: Any
) -> TrimResult:
    """Trims a model's vocabulary to some languages.

    Args:
        model: A folder, `org/name` or `org/name@revision`.
        languages: Codes or names of the languages that stay.
        progress: Where to report; silent by default.
        **options: Other fields of `polydistill.methods.trim.TrimConfig`, e.g. `corpus`, `vocab_size`, `output`.

    Returns:
        The result; `result.output` is the new folder.

    Raises:
        PolydistillError: The message says what is wrong and the way out; nothing was written.
    """
    for name in ("corpus", "weight", "keep_token", "drop_added", "counts", "include_path"):
        if isinstance(options.get(name), (str, Path)):
            options[name] = (options[name],)
        elif name in options:
            options[name] = tuple(options[name])
    return _trim(TrimConfig(model=str(model), lang=tuple(languages), **options), progress)


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
        corpus: As `--corpus`.
        limit: Read at most this many lines of each text.
        seed: Of the lines held out.
        include_path: Folders with the user's own languages.
        progress: Where to report.
    """
    from polydistill.counting import count as count_text
    from polydistill.refs import ModelRef, model_folder, resolve
    from polydistill.vocab import open_vocabulary

    found = resolve_languages(languages, tuple(include_path))
    resolved = resolve(ModelRef.parse(str(model)), progress=progress.note)
    vocabulary = open_vocabulary(model_folder(resolved.folder))
    return count_text(vocabulary, found, corpus, limit=limit, seed=seed, progress=progress)


def info(model: str, texts: Sequence[str] = (), *, include_path: Sequence[Path] = ()) -> InfoReport:
    """Sizes, share of embeddings and lineage of a model; see `polydistill.inspection.info`."""
    return _info(str(model), texts, tuple(include_path))


def diff(model: str, trimmed: str, texts: Sequence[str]) -> DiffReport:
    """What a trimmed model does differently on text; see `polydistill.inspection.diff`."""
    return _diff(str(model), str(trimmed), texts)
