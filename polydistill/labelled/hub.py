"""Labelled data sets of the Hub, as rows; only data files are read, scripts never."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from polydistill.catalog import Language
from polydistill.catalog.task import PARQUET_BRANCH, SPAN_EXTRACTION, TAGGING, HubSource, Task
from polydistill.errors import PolydistillError, UsageError
from polydistill.fetching.client import interruptible
from polydistill.labelled.rows import Row
from polydistill.labelled.schemes import parts
from polydistill.redaction import redacted

_LABELS = ("label", "tags")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_OWN_FILES = "Give the folder of your data with `data_dir`, or a file with `data`."
_BATCH = 1000


def source_of(task: Task, language: Language, split: str) -> HubSource:
    """The data set that has a split in a language.

    Raises:
        UsageError: There is none.
    """
    source = task.source(split)
    if source is None:
        raise UsageError(f"The task {task.name} has no data set on the Hub.", _OWN_FILES)
    if split not in source.splits:
        splits = ", ".join(sorted({*source.splits, *task.split_sources}))
        raise UsageError(f"The task {task.name} has no split {split} on the Hub, only {splits}.", _OWN_FILES)
    if language.code not in source.languages:
        has = " ".join(sorted(source.languages))
        raise UsageError(
            f"The task {task.name} has no {split} data in {language.name} ({language.code}) on the Hub, only in {has}.",
            _OWN_FILES,
        )
    return source


def find_rows(task: Task, source: HubSource, language: Language, split: str) -> tuple[Iterator[Row], str]:
    """The rows of a split of a data set, and what records call it: `org/name:configuration@commit split`.

    Raises:
        PolydistillError: The data set cannot be fetched, or lacks a column.
    """
    from polydistill.fetching.reach import OutOfReach, hub_errors, hub_info

    config = source.config or source.languages[language.code]
    name, wanted = source.dataset, source.splits[split]
    # On the branch of converted files a configuration is a folder.
    chosen = {"data_dir" if source.revision == PARQUET_BRANCH else "name": config}
    try:
        commit = hub_info(name, source.revision, "data set").sha
        with hub_errors(name, source.revision, "data set"), interruptible():
            table = _open(name, wanted, commit, chosen)
    except OutOfReach as error:
        commit = source.revision if _COMMIT.fullmatch(source.revision or "") else None
        table = _cached(name, wanted, chosen)
        if table is None or commit not in (None, _read_commit(table)):
            raise PolydistillError(
                f"The Hub is out of reach ({error}), and the cache does not have the data set {name}"
                f"{f' at {commit}' if commit else ''}.",
                _OWN_FILES,
            ) from error
    read = _read_commit(table) or commit
    if commit not in (None, read):
        raise PolydistillError(f"The data set {name} could not be fetched at {commit}.", "Try again.")
    where = f"{name}:{config}{f'@{read}' if read else ''} {wanted}"
    return _rows(task, source, language, table, where), where


def _open(dataset: str, split: str, commit: str | None, chosen: Mapping[str, str]) -> Any:
    import datasets

    try:
        return datasets.load_dataset(dataset, split=split, revision=commit, **chosen)
    except (ValueError, datasets.exceptions.DatasetsError, RuntimeError, StopIteration) as error:
        # Wrong configuration or split, no data files, empty ones, or a data set that wants to run code.
        said = redacted(str(error), limit=300)
        raise PolydistillError(f"The data set {dataset} cannot be read: {said}", _OWN_FILES) from error


def _cached(dataset: str, split: str, chosen: Mapping[str, str]) -> Any:
    """What the cache of the package `datasets` has of a data set, whatever its revision; None if it has nothing."""
    import datasets

    before, datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE, True  # or it would try for a minute
    try:
        return datasets.load_dataset(dataset, split=split, **chosen)
    except (ValueError, OSError, datasets.exceptions.DatasetsError):
        return None
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _read_commit(table: Any) -> str | None:
    """The commit that a table was read from: `datasets` names its cached files' folder after it."""
    parts = (part for file in table.cache_files for part in Path(file["filename"]).parts)
    return next((part for part in parts if _COMMIT.fullmatch(part)), None)


def _rows(task: Task, source: HubSource, language: Language, table: Any, place: str) -> Iterator[Row]:
    """Yield a table's rows with the names of our fields, and with names instead of the numbers of labels.

    Raises:
        PolydistillError: The table lacks a column.
    """
    columns = {name: source.columns.get(name, name) for name in task.fields}
    if task.kind == SPAN_EXTRACTION and "id" not in table.column_names:
        del columns["id"]
    wanted = [*columns.values(), *([source.language_column] if source.language_column else [])]
    missing = sorted(set(wanted) - set(table.column_names))
    if missing:
        raise PolydistillError(
            f"{place} has no column {', '.join(missing)}, only {', '.join(table.column_names)}.",
            f"Fix the columns in the file of the task {task.name}.",
        )
    names = {name: _names(task, table.features[column]) for name, column in columns.items() if name in _LABELS}
    number = 0
    for batch in table.select_columns(list(dict.fromkeys(wanted))).iter(_BATCH):
        for values in zip(*batch.values(), strict=True):
            cells = dict(zip(batch, values, strict=True))
            number += 1
            if source.language_column and not _is_in(cells[source.language_column], source.languages[language.code]):
                continue
            row = {name: _named(cells[column], names.get(name)) for name, column in columns.items()}
            yield Row(place, f"row {number}", _as_ours(task, source, row))


def _is_in(value: str, language: str) -> bool:
    return value == language or value.startswith(f"{language}-")


def _names(task: Task, feature: Any) -> Sequence[str] | None:
    """The names of a column's label numbers: the data set's own, else the task's; None if the column holds names."""
    feature = getattr(feature, "feature", feature)
    if getattr(feature, "dtype", None) in ("string", "large_string"):
        return None
    return getattr(feature, "names", None) or task.labels


def _named(value: Any, names: Sequence[str] | None) -> Any:
    """A label's name, or each word's tag; a number without a name, such as -1, stays as it is."""
    if names is None:
        return value
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _renamed(tag: Any, types: Mapping[str, str]) -> Any:
    """A tag with our name of its type; O for a type that we do not have."""
    if not isinstance(tag, str):
        return tag
    prefix, kind = parts(tag)
    ours = types.get(kind)
    return "O" if ours is None else f"{prefix}-{ours}" if prefix else ours


def _as_ours(task: Task, source: HubSource, row: dict[str, Any]) -> dict[str, Any]:
    """The row with SQuAD's list of answers instead of lists of texts and starts, and with our entity types."""
    if task.kind == SPAN_EXTRACTION:
        pairs = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
        row["answers"] = [{"text": text, "answer_start": start} for text, start in pairs]
    if task.kind == TAGGING and source.types:
        row["tags"] = [_renamed(tag, source.types) for tag in row["tags"]]
    return row
