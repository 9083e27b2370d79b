"""Files of text in the formats that a corpus can have, read in blocks of about 4 MB.

Plain text, JSON lines, csv, tsv and parquet, each also packed with gzip. What a file may hold is bounded: a line of
plain text that is too long is cut, that of a table refused, so a file packed to next to nothing cannot fill the memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from polydistill.errors import PolydistillError, library_said
from polydistill.texts.delimited import table_rows
from polydistill.texts.lines import BLOCK_BYTES, FileErrors, line_blocks, open_file

SUFFIXES = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet")
_ROWS = 256  # of a parquet file at once; each can be long though the file is small
_MOST_PACKED = 100  # how much larger a packed parquet file may become, as its content is compressed already
_PACKED = (".zip", ".bz2", ".xz", ".zst", ".7z", ".tar", ".tgz", ".rar")


def format_of(path: Path) -> str:
    """The format by a file's name, such as `.jsonl` for `a.jsonl.gz`; empty if unknown."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def is_packed(path: Path) -> bool:
    """Whether a file has, by its name, a compression that is not supported."""
    return path.name.lower().endswith(_PACKED)


def read_file(path: Path, column: str | None) -> Iterator[list[str]]:
    """Yield a file's texts in lists of about 4 MB; an unknown suffix means plain text.

    Args:
        path: The file.
        column: Column of a table, None to find it (see `choose_column`).

    Raises:
        PolydistillError: The file cannot be read, is damaged, not UTF-8, or lacks the column.
    """
    with FileErrors(path):
        yield from _FORMATS.get(format_of(path), _read_plain)(path, column)


def _read_plain(path: Path, column: str | None) -> Iterator[list[str]]:
    if column is not None:
        raise PolydistillError(f"{path} is plain text and has no column {column}.", f"Leave #{column} out.")
    return line_blocks(path, cut_long=True)


def gather(texts: Iterable[str | None]) -> Iterator[list[str]]:
    """Collect texts into lists of about 4 MB."""
    block: list[str] = []
    size = 0
    for text in texts:
        if not text:
            continue
        block.append(text)
        size += len(text)
        if size >= BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _read_jsonl(path: Path, column: str | None) -> Iterator[list[str]]:
    return gather(_json_rows(path, column))


def _json_rows(path: Path, column: str | None) -> Iterator[str | None]:
    import orjson

    number = 0
    for block in line_blocks(path):
        for line in block:
            number += 1
            if not line or line.isspace():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise PolydistillError(
                    f"{path} line {number} is not JSON ({library_said(error)}).", "Write one JSON object per line."
                ) from error
            if isinstance(row, str) and column is None:
                yield row
                continue
            if not isinstance(row, dict):
                raise PolydistillError(f"{path} line {number} is not a JSON object.", "Write one JSON object per line.")
            if column is None or column not in row:
                strings = [key for key, value in row.items() if isinstance(value, str)]
                column = choose_column(path if column is None else f"{path} line {number}", list(row), strings, column)
            yield text_of(row[column], f"{path} line {number}", column)


def text_of(value: Any, where: str, column: str) -> str | None:
    """A column's value, if it is text or missing.

    Raises:
        PolydistillError: It is neither, such as a list.
    """
    if value is None or isinstance(value, str):
        return value
    raise PolydistillError(
        f"{where}: the column {column} holds {type(value).__name__}, not text.", "Name a column of text: PATH#column."
    )


def choose_column(where: object, columns: Sequence[str], strings: Sequence[str], wanted: str | None) -> str:
    """Choose a table's column of text: the wanted one, else `text`, else the only one that holds strings.

    Raises:
        PolydistillError: The wanted column is not there, or it is not clear which one to read.
    """
    listed = ", ".join(columns) or "none"
    if wanted is not None:
        if wanted in columns:
            return wanted
        raise PolydistillError(f"{where} has no column {wanted}.", f"Its columns are {listed}.")
    if "text" in strings:
        return "text"
    if len(strings) == 1:
        return strings[0]
    raise PolydistillError(
        f"It is not clear which column of {where} is the text: it has {listed}.", "Name it: PATH#column."
    )


def _read_table(path: Path, column: str | None) -> Iterator[list[str]]:
    return gather(_table_rows(path, column))


def _table_rows(path: Path, column: str | None) -> Iterator[str | None]:
    """A column of a csv or tsv file (see `delimited`); `#2` takes the second of a table without names."""
    rows = table_rows(path)
    _, header = next(rows, (0, None))
    if header is None:
        return
    if column is not None and column not in header and _is_number(column, len(header)):
        index = int(column) - 1
        yield header[index]
    else:
        index = header.index(choose_column(path, header, header, column))
    for _, row in rows:
        yield row[index]


def _is_number(column: str, most: int) -> bool:
    return column.isdecimal() and len(column) < 10 and 1 <= int(column) <= most


def _read_parquet(path: Path, column: str | None) -> Iterator[list[str]]:
    return gather(_parquet_rows(path, column))


def _parquet_rows(path: Path, column: str | None) -> Iterator[str | None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_file(path) as file, tempfile.TemporaryFile() as unpacked:
        if path.name.lower().endswith(".gz"):  # parquet is read from its end
            _unpack(path, file, unpacked)
            file = unpacked
        try:
            table = pq.ParquetFile(file)
            schema = table.schema_arrow
            strings = [field.name for field in schema if _is_text(field.type)]
            chosen = choose_column(path, schema.names, strings, column)
            for batch in table.iter_batches(batch_size=_ROWS, columns=[chosen]):
                for value in _values(batch.column(0)):
                    yield text_of(value, str(path), chosen)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
            said = library_said(error)
            raise PolydistillError(f"{path} is not a whole parquet file: {said}", "Fetch it again.") from error


def _values(column: Any) -> Iterator[Any]:
    """A column's values; those of a dictionary are made once, as every row may have the same long one."""
    import pyarrow.types as types

    if not types.is_dictionary(column.type):
        return iter(column.to_pylist())
    values = column.dictionary.to_pylist()
    return (None if index is None else values[index] for index in column.indices.to_pylist())


def _unpack(path: Path, packed: IO[bytes], unpacked: IO[bytes]) -> None:
    left = max(BLOCK_BYTES, _MOST_PACKED * path.stat().st_size)
    while part := packed.read(BLOCK_BYTES):
        left -= len(part)
        if left < 0:
            raise PolydistillError(
                f"{path} unpacks to more than {_MOST_PACKED} times its size.",
                "Unpack it yourself, and check what is in it.",
            )
        unpacked.write(part)


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


_FORMATS: dict[str, Callable[[Path, str | None], Iterator[list[str]]]] = {
    ".txt": _read_plain,
    ".jsonl": _read_jsonl,
    ".json": _read_jsonl,
    ".csv": _read_table,
    ".tsv": _read_table,
    ".parquet": _read_parquet,
}
