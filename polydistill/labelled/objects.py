"""Labelled data that a Python user has as objects: rows, columns, or a data set of the package `datasets`.

They are written into the cache as a file in a format that everything else reads, named by its content: the same
objects are the same data, also for a run that goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from polydistill.catalog import task
from polydistill.catalog.task import CLASSIFICATION, PAIR, SPAN_EXTRACTION, TAGGING, WORD_TAGGING
from polydistill.errors import UsageError
from polydistill.files.outputs import write_beside
from polydistill.models.offline import cache_root
from polydistill.options.settings import Options, declared

WORDS, TAGS = ("tokens", "words"), ("tags", "ner_tags", "upos", "pos_tags", "labels")
QUESTION = ("context", "question", "answers")
_SHAPES = {
    CLASSIFICATION: "(text, label), (premise, hypothesis, label), or a dict with these names",
    TAGGING: "(words, tags), or a dict with `tokens` and `tags`",
    WORD_TAGGING: "(words, tags), or a dict with `tokens` and `tags`",
    SPAN_EXTRACTION: "a dict with `context`, `question` and `answers`",
}


def with_files(options: type[Options], given: dict[str, Any]) -> dict[str, Any]:
    """What was given for options by name, with files in place of objects.

    Args:
        options: The class of the options.
        given: Name -> value; `task` says of which kind the data are.

    Raises:
        UsageError: Some data are no data, or there is no task.
    """
    names = [name for name, one in declared(options).items() if one.asked("objects") and is_object(given.get(name))]
    if not names:
        return given
    if not given.get("task"):
        raise UsageError("No task was given.", "Name one, for instance `task=ner`.")
    folders = given.get("include_path") or ()
    folders = [folders] if isinstance(folders, (str, Path)) else folders
    kind = task(given["task"], tuple(map(Path, folders))).kind
    return {**given, **{name: as_file(given[name], kind, name) for name in names}}


def is_object(value: object) -> bool:
    """Whether data are given as an object, and not as the name of a file."""
    return value is not None and not isinstance(value, (str, Path))


def as_file(value: Any, kind: str, setting: str) -> Path:
    """The file of some data, in the cache.

    Args:
        value: A sequence of rows, a mapping from names to columns, or a `datasets.Dataset`. A row is a tuple or a
            mapping; labels may be the numbers of a data set that names them.
        kind: The task's.
        setting: What the data were given for, for messages.

    Raises:
        UsageError: They are no such thing, or a row is not like the others.
    """
    if kind not in _SHAPES:
        raise UsageError(f"`{setting}` takes only a file for a task of this kind.", "Write the data to a file.")
    rows = [_fields(row, kind, f"Row {number} of `{setting}`") for number, row in enumerate(_rows(value, setting), 1)]
    if not rows:
        raise UsageError(f"`{setting}` has no rows.", "Give some, or the name of a file.")
    if kind == SPAN_EXTRACTION:
        content, suffix = orjson.dumps({"version": "1.1", "data": [{"paragraphs": _paragraphs(rows)}]}), ".json"
    else:
        content, suffix = b"".join(orjson.dumps(row) + b"\n" for row in rows), ".jsonl"
    place = cache_root() / "objects" / f"{hashlib.sha256(content).hexdigest()[:32]}{suffix}"
    if not place.is_file() or place.read_bytes() != content:
        write_beside(place, content, option="POLYDISTILL_CACHE")
    return place


# --- rows


def _rows(value: Any, setting: str) -> Iterator[Any]:
    """The rows of an object, labels by their names."""
    if isinstance(value, Mapping):
        yield from _of_columns(value, setting)
        return
    features = getattr(value, "features", None) or {}
    names = {column: _names(feature) for column, feature in features.items()}
    if not isinstance(value, Iterable) or hasattr(value, "iloc"):
        raise UsageError(
            f"`{setting}` is {type(value).__name__}, not data.",
            "Give a list of rows, a dict of columns, a `datasets.Dataset`, or the name of a file.",
        )
    for row in value:
        yield {key: _named(each, names.get(key)) for key, each in row.items()} if isinstance(row, Mapping) else row


def _of_columns(columns: Mapping[str, Any], setting: str) -> Iterator[dict[str, Any]]:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
        raise UsageError(f"The columns of `{setting}` have different lengths: {said}.", "Give each row all columns.")
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _names(feature: Any) -> Sequence[str] | None:
    """The names of a column's label numbers."""
    found: Sequence[str] | None = getattr(getattr(feature, "feature", feature), "names", None)
    return found


def _named(value: Any, names: Sequence[str] | None) -> Any:
    if names is None:
        return value
    if isinstance(value, (list, tuple)):
        return [_named(each, names) for each in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


# --- the fields of a row


def _fields(row: Any, kind: str, where: str) -> dict[str, Any]:
    """A row with the names that files have."""
    if kind in (TAGGING, WORD_TAGGING):
        return _tagged(row, kind, where)
    if isinstance(row, (tuple, list)) and kind == CLASSIFICATION:
        names = {2: ("text", "label"), 3: (*PAIR, "label")}.get(len(row))
        row = dict(zip(names, row, strict=True)) if names else None
    if not isinstance(row, Mapping) or (kind == SPAN_EXTRACTION and not set(QUESTION) <= row.keys()):
        raise _refused(where, kind)
    found = {str(name): _plain(value) for name, value in row.items()}
    if kind == CLASSIFICATION and not all(
        value is None or isinstance(value, (str, int, float)) for value in found.values()
    ):
        raise _refused(where, kind)
    return found


def _tagged(row: Any, kind: str, where: str) -> dict[str, Any]:
    if isinstance(row, Mapping):
        columns = [next((row[name] for name in names if name in row), None) for names in (WORDS, TAGS)]
    else:
        columns = list(row) if isinstance(row, (tuple, list)) and len(row) == 2 else [None, None]
    words, tags = ([*column] if isinstance(column, (list, tuple)) else None for column in columns)
    if words is None or tags is None or not all(isinstance(each, str) for each in (*words, *tags)):
        raise _refused(where, kind)
    if len(words) != len(tags):
        raise UsageError(f"{where} has {len(words)} words and {len(tags)} tags.", "Give each word one tag.")
    return {"tokens": words, "tags": tags}


def _refused(where: str, kind: str) -> UsageError:
    return UsageError(f"{where} is not a row of labelled data.", f"Write {_SHAPES[kind]}; labels are names.")


def _plain(value: Any) -> Any:
    """A value as JSON has it; numbers of NumPy are Python's."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value.item() if hasattr(value, "item") else value


def _paragraphs(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Questions as SQuAD has them; rows without an id are numbered."""
    return [
        {
            "context": row["context"],
            "qas": [{"id": row.get("id", str(i)), "question": row["question"], "answers": _answers(row["answers"])}],
        }
        for i, row in enumerate(rows)
    ]


def _answers(answers: Any) -> Any:
    """A list of answers, also of columns `text` and `answer_start`."""
    if not isinstance(answers, Mapping):
        return answers
    pairs = zip(answers.get("text", ()), answers.get("answer_start", ()), strict=False)
    return [{"text": text, "answer_start": start} for text, start in pairs]
