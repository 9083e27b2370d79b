"""Files of texts and their classes: tables and JSON lines, with columns found by name."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from polydistill.catalog.task import CLASSIFICATION, PAIR, Task
from polydistill.errors import PolydistillError, library_said
from polydistill.labelled.formats import read_rows
from polydistill.labelled.rows import Row
from polydistill.texts.delimited import table_rows
from polydistill.texts.files import format_of
from polydistill.texts.lines import FileErrors, open_file

TABLES = (".csv", ".tsv")
# Column names in published data, besides our own.
PAIRS = (PAIR, ("sentence1", "sentence2"), ("text1", "text2"))
TEXTS = ("text", "sentence")
LABELS = ("label", "labels", "gold_label", "category", "class")
_BATCH = 256  # rows of a parquet file at once
_SHOWN = 20  # columns in a message


def classified_rows(path: Path, task: Task) -> Iterator[Row]:
    """Yield the rows of a file with the fields of a task of classification.

    Args:
        path: csv, tsv or parquet with names above the columns, or JSON lines; any other suffix means JSON lines.
        task: The task; one that takes its labels from the data also takes one text or two, as the file has them.

    Raises:
        PolydistillError: The file cannot be read, or it is not clear which columns are meant.
    """
    kind = format_of(path)
    if kind in TABLES:
        rows = _table(path)
    elif kind == ".parquet":
        rows = _parquet(path)
    else:
        rows = read_rows(path, CLASSIFICATION)
        if task.pairs and not task.own:
            return rows
    return _named(path, rows, task)


def _named(path: Path, rows: Iterable[Row], task: Task) -> Iterator[Row]:
    """Rows with our field names instead of the column names, which are found in the first row."""
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return
    columns = columns_of(path, list(first.values), task)
    if "language" in first.values:  # rows in other languages are left out
        columns["language"] = "language"
    for row in itertools.chain([first], rows):
        yield Row(row.place, row.at, {field: row.values.get(column) for field, column in columns.items()})


def columns_of(path: object, names: Sequence[str], task: Task) -> dict[str, str]:
    """Field of an example -> the column that holds it.

    The case of names does not matter. In a table of two columns, one known name is enough.

    Raises:
        PolydistillError: A column is missing.
    """
    known = {name.strip().casefold(): name for name in names}
    label = next((known[name] for name in LABELS if name in known), None)
    pair = next((pair for pair in PAIRS if all(name in known for name in pair)), None)
    text = next((known[name] for name in TEXTS if name in known), None)
    if len(names) == 2 and pair is None:
        one, other = names
        if label is not None and text is None:
            text = other if label == one else one
        elif text is not None and label is None:
            label = other if text == one else one
    pairs = pair is not None if task.own else task.pairs
    if label is not None and pairs and pair is not None:
        return {**dict(zip(PAIR, (known[name] for name in pair), strict=True)), "label": label}
    if label is not None and not pairs and text is not None:
        return {"text": text, "label": label}
    wanted = "premise, hypothesis and label" if pairs else "text and label"
    shown = ", ".join(name if len(name) <= 40 else f"{name[:40]}…" for name in names[:_SHOWN])
    also = ", or premise, hypothesis and label for pairs of texts" if task.own else ""
    raise PolydistillError(
        f"It is not clear which columns of {path} are {wanted}: it has {shown or 'none'}.",
        f"Call them {wanted}{also}, in the first line of a table.",
    )


def _table(path: Path) -> Iterator[Row]:
    rows = table_rows(path)
    _, header = next(rows, (0, list[str]()))
    _check_names(path, header)
    for number, cells in rows:
        yield Row(str(path), f"line {number}", dict(zip(header, cells, strict=True)))


def _check_names(path: Path, names: Sequence[str]) -> None:
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise PolydistillError(f"{path} has two columns called {twice!r}.", "Give each column a name of its own.")


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with FileErrors(path), open_file(path) as file:
        try:
            table = pq.ParquetFile(file)
            _check_names(path, table.schema_arrow.names)
            number = 0
            for batch in table.iter_batches(batch_size=_BATCH):
                rows: list[Mapping[str, Any]] = batch.to_pylist()
                for values in rows:
                    number += 1
                    yield Row(str(path), f"row {number}", values)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            said = library_said(error)
            raise PolydistillError(f"{path} is not a whole parquet file: {said}", "Fetch it again.") from error
