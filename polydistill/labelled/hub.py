"""Labelled data sets of the Hub, as rows; only data files are read, never a script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from polydistill.catalog import Language
from polydistill.errors import PolydistillError, UsageError
from polydistill.labelled.formats import Row
from polydistill.task import FIELDS, SPAN_EXTRACTION, HubSource, Task

_LABELS = ("label", "tags")


def find_rows(task: Task, language: Language, split: str, data_dir: Path | None) -> tuple[Iterator[Row], str]:
    """The rows of a split of the task's data set, and what records call it.

    Raises:
        UsageError: The task has no such split in this language on the Hub.
        PolydistillError: The data set cannot be had.
    """
    source = task.source(split)
    if source is None or language.code not in source.languages or split not in source.splits:
        raise UsageError(_lacking(task, source, language, split), _way_out(task, language, data_dir))
    config = source.config or source.languages[language.code]
    table, commit = _load(source, config, split)
    where = f"{source.dataset}:{config}@{commit}" if commit else f"{source.dataset}:{config}"
    return _rows(task, source, language, table, f"{where} {source.splits[split]}"), f"{where} {source.splits[split]}"


def _lacking(task: Task, source: HubSource | None, language: Language, split: str) -> str:
    if source is None:
        return f"The task {task.name} has no data set on the Hub."
    if split not in source.splits:
        return f"The task {task.name} has no split {split} on the Hub, only {', '.join(source.splits)}."
    return f"The task {task.name} has no {split} data in {language.name} ({language.code}) on the Hub."


def _way_out(task: Task, language: Language, data_dir: Path | None) -> str:
    if task.local is None:
        return "Give a file of your own with --data."
    if data_dir is None:
        return "Give the folder of your data with --data-dir, or a file with --data."
    return f"Nor is it among what {data_dir} may hold of this task: {task.local}; --data FILE takes any file."


def _load(source: HubSource, config: str, split: str) -> tuple[Any, str | None]:
    """A split of a data set, and the commit that it was read from."""
    from polydistill.refs import OutOfReach, hub_errors

    try:
        with hub_errors(source.dataset, source.revision, "data set"):
            return _open(source, config, source.splits[split]), source.revision
    except OutOfReach as error:
        raise PolydistillError(
            f"The Hub is out of reach ({error}), so the data set {source.dataset} cannot be fetched.",
            "Give the folder of your data with --data-dir, or a file with --data.",
        ) from error


def _open(source: HubSource, config: str, split: str) -> Any:
    import datasets

    try:
        return datasets.load_dataset(source.dataset, config, split=split, revision=source.revision)
    except (ValueError, datasets.exceptions.DatasetsError, RuntimeError) as error:
        # Wrong configuration or split, no data files, or a data set that wants to run code.
        said = " ".join(str(error).split())[:300]
        raise PolydistillError(
            f"The data set {source.dataset} cannot be read: {said}", "Give your own files with --data-dir or --data."
        ) from error


def _rows(task: Task, source: HubSource, language: Language, table: Any, place: str) -> Iterator[Row]:
    """Yield a table's rows with the names of our fields, and with names instead of the numbers of labels."""
    columns = {name: source.columns.get(name, name) for name in FIELDS[task.kind]}
    missing = sorted(set(columns.values()) - set(table.column_names))
    if missing:
        raise PolydistillError(
            f"{place} has no column {', '.join(missing)}, only {', '.join(table.column_names)}.",
            f"Mend the columns in the file of the task {task.name}.",
        )
    known = {column: _names(task, table.features[column], place) for name, column in columns.items() if name in _LABELS}
    for number, values in enumerate(table):
        if source.language_column and not _is_in(values[source.language_column], source.languages[language.code]):
            continue
        row = {name: _named(values[column], known.get(column)) for name, column in columns.items()}
        if task.kind == SPAN_EXTRACTION:
            row["answers"] = _answers(row["answers"])
        yield Row(place, f"row {number}", row)


def _is_in(value: str, language: str) -> bool:
    return value == language or value.startswith(f"{language}-")


def _names(task: Task, feature: Any, place: str) -> Sequence[str] | None:
    """The names of a column's label numbers; None if the column has names itself.

    Raises:
        PolydistillError: The data set gives its numbers other names than the task's file does.
    """
    feature = getattr(feature, "feature", feature[0] if isinstance(feature, list) else feature)
    if getattr(feature, "dtype", None) in ("string", "large_string"):
        return None
    names = getattr(feature, "names", None)
    if names is not None and [n.casefold() for n in names] != [n.casefold() for n in task.labels]:
        raise PolydistillError(
            f"{place} numbers its labels {', '.join(names)}, but the task {task.name} {', '.join(task.labels)}.",
            "Give them the same order in the task's file.",
        )
    return task.labels


def _named(value: Any, names: Sequence[str] | None) -> Any:
    """A label's name, or each word's tag; a number without a name, such as -1, stays as it is."""
    if names is None:
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_named(each, names) for each in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def _answers(answers: Any) -> list[dict[str, Any]]:
    """SQuAD's list of answers from a column that has lists of texts and of starts."""
    pairs = zip(answers["text"], answers["answer_start"], strict=True)
    return [{"text": text, "answer_start": start} for text, start in pairs]
