"""Files of text in the formats that a corpus can have, read in blocks of about 4 MB.

Plain text, JSON lines, csv, tsv and parquet, each also packed with gzip. Only line feeds end a line: U+2028 and
U+0085 are characters of the text.
"""

from __future__ import annotations

import csv
import gzip
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from polydistill.errors import PolydistillError

SUFFIXES = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet")
BLOCK_BYTES = 1 << 22
_LONGEST_LINE = 1 << 24  # a longer one is cut at a space, so that a file without line ends stays readable
_MARK = b"\xef\xbb\xbf"
_PACKED = (".zip", ".bz2", ".xz", ".zst", ".7z", ".tar", ".tgz", ".rar")


def format_of(path: Path) -> str:
    """The format that a file's name tells, such as `.jsonl` for `a.jsonl.gz`; empty if it tells none."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def is_packed(path: Path) -> bool:
    """Whether a file's name tells that it is packed in a way that is not read."""
    return path.name.lower().endswith(_PACKED)


def read_file(path: Path, column: str | None) -> Iterator[list[str]]:
    """Yield a file's texts in lists of about 4 MB; a name that tells no format is read as plain text.

    Args:
        path: The file.
        column: Column of a table, None to find it (see `choose_column`).

    Raises:
        PolydistillError: The file cannot be read, is damaged, not UTF-8, or lacks the column.
    """
    with _FileErrors(path):
        yield from _FORMATS.get(format_of(path), _read_plain)(path, column)


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield a UTF-8 file's lines with their numbers from 1, blank ones too, without line ends.

    Raises:
        PolydistillError: The file cannot be read, is damaged, or not UTF-8.
    """
    with _FileErrors(path):
        yield from enumerate((line for block in _line_blocks(path) for line in block), 1)


class _FileErrors:
    """Turns what goes wrong with a file into a `PolydistillError` that names it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (gzip.BadGzipFile, zlib.error, EOFError)):
            raise PolydistillError(
                f"{self.path} is not a whole gzip file ({error}).",
                "Check it with gzip -t, or fetch it again.",
            ) from error
        if isinstance(error, OSError) and error.errno is not None:
            raise PolydistillError(
                f"{self.path} cannot be read: {error.strerror}.", "Check the file and who may read it."
            ) from error


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _line_blocks(path: Path, *, cut_long: bool = False) -> Iterator[list[str]]:
    """Yield a UTF-8 file's lines in blocks, blank ones too, split on line feeds alone."""
    line, offset, rest = 1, 0, b""
    with _open(path) as file:
        while chunk := file.read(BLOCK_BYTES):
            if offset == 0 and not rest:
                _check_start(path, chunk)
                if chunk.startswith(_MARK):
                    chunk, offset = chunk[len(_MARK) :], len(_MARK)
            data = rest + chunk
            cut = data.rfind(b"\n") + 1
            if not cut and cut_long and len(data) > _LONGEST_LINE:
                cut = data.rfind(b" ") + 1
            if not cut:
                rest = data
                continue
            block, rest = data[:cut], data[cut:]
            yield _decode(path, block, offset, line)[: -1 if block.endswith(b"\n") else None]
            line += block.count(b"\n")
            offset += len(block)
        if rest:
            yield _decode(path, rest, offset, line)


def _check_start(path: Path, start: bytes) -> None:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise PolydistillError(f"{path} is UTF-16, not UTF-8.", "Convert it: iconv -f UTF-16 -t UTF-8 IN > OUT.")
    if start.startswith(b"\x1f\x8b"):
        raise PolydistillError(f"{path} is gzip-compressed.", "Give it a name that ends in .gz.")


def _decode(path: Path, block: bytes, offset: int, line: int) -> list[str]:
    nul = block.find(b"\0")
    if nul >= 0:
        raise PolydistillError(
            f"{path} is not text: it has a zero byte at offset {offset + nul}.",
            "Give a text file; if it is UTF-16, convert it: iconv -f UTF-16 -t UTF-8 IN > OUT.",
        )
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError as error:
        at = line + block.count(b"\n", 0, error.start)
        raise PolydistillError(
            f"{path} is not UTF-8: byte 0x{block[error.start]:02X} at offset {offset + error.start}, line {at}.",
            "Convert it: iconv -f ISO-8859-1 -t UTF-8 IN > OUT (with the encoding that it has).",
        ) from error
    return text.replace("\r\n", "\n").split("\n")


def _read_plain(path: Path, column: str | None) -> Iterator[list[str]]:
    if column is not None:
        raise PolydistillError(f"{path} is plain text and has no column {column}.", f"Leave #{column} out.")
    return _line_blocks(path, cut_long=True)


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
    for block in _line_blocks(path):
        for line in block:
            number += 1
            if not line or line.isspace():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise PolydistillError(
                    f"{path} line {number} is not JSON ({error}).", "Write one JSON object a line."
                ) from error
            if isinstance(row, str) and column is None:
                yield row
                continue
            if not isinstance(row, dict):
                raise PolydistillError(f"{path} line {number} is not a JSON object.", "Write one JSON object a line.")
            if column is None or column not in row:
                strings = [key for key, value in row.items() if isinstance(value, str)]
                column = choose_column(path, list(row), strings, column)
            yield text_of(row[column], f"{path} line {number}", column)


def text_of(value: Any, where: str, column: str) -> str | None:
    """A column's value, if it is text or missing.

    Raises:
        PolydistillError: It is something else, such as a list.
    """
    if value is None or isinstance(value, str):
        return value
    raise PolydistillError(
        f"{where}: the column {column} holds {type(value).__name__}, not text.",
        "Name a column of text: PATH#column.",
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
        f"It is not clear which column of {where} is the text: it has {listed}.",
        "Name it: PATH#column.",
    )


def _read_table(path: Path, column: str | None) -> Iterator[list[str]]:
    return gather(_table_rows(path, column))


def _table_rows(path: Path, column: str | None) -> Iterator[str | None]:
    """Rows of a csv (quoted, commas) or tsv (tabs, quotes are text); `#2` takes the second of a nameless table."""
    csv.field_size_limit(2**31 - 1)
    lines = (line + "\n" for block in _line_blocks(path) for line in block)
    if format_of(path) == ".tsv":
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        rows = csv.reader(lines)
    header = next(rows, None)
    if header is None:
        return
    if column is not None and column not in header and column.isdecimal() and 1 <= int(column) <= len(header):
        index = int(column) - 1
        yield header[index]
    else:
        index = header.index(choose_column(path, header, header, column))
    for row in rows:
        if len(row) > index:
            yield row[index]
        elif row:
            raise PolydistillError(
                f"{path} line {rows.line_num} has {len(row)} columns instead of {len(header)}.",
                "Mend that line, or quote the text in it.",
            )


def _read_parquet(path: Path, column: str | None) -> Iterator[list[str]]:
    return gather(_parquet_rows(path, column))


def _parquet_rows(path: Path, column: str | None) -> Iterator[str | None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _open(path) as file, tempfile.TemporaryFile() as unpacked:
        if isinstance(file, gzip.GzipFile):  # parquet is read from its end
            shutil.copyfileobj(file, unpacked, BLOCK_BYTES)
            file = unpacked
        try:
            table = pq.ParquetFile(file)
            schema = table.schema_arrow
            strings = [field.name for field in schema if _is_text(field.type)]
            chosen = choose_column(path, schema.names, strings, column)
            for batch in table.iter_batches(batch_size=4096, columns=[chosen]):
                for value in batch.column(0).to_pylist():
                    yield text_of(value, str(path), chosen)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
            first = str(error).splitlines()[0]
            raise PolydistillError(f"{path} is not a whole parquet file: {first}", "Fetch it again.") from error


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
