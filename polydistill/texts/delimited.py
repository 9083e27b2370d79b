"""Rows of csv and tsv files, each with as many cells as the first, so no text is cut at a comma of its own.

The separator of a csv file is found in its first line: commas, semicolons, tabs or bars. Cells may be in double quotes,
as in RFC 4180. In a tsv file tabs separate, and quotes are text.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from polydistill.errors import PolydistillError
from polydistill.texts.lines import LONGEST_LINE, FileErrors, line_blocks, too_long
from polydistill.wording import counted

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_QUOTED = re.compile('"[^"]*("|$)')


def table_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a csv or tsv file (also .gz) with the numbers of their last lines; the first is the header.

    Blank lines are left out. All rows have the same number of cells.

    Raises:
        PolydistillError: The file cannot be read or is not UTF-8; a row has too few or too many cells, a quote is not
            closed or followed by text, or the separator is not clear.
    """
    width = 0
    with FileErrors(path):
        fed = _Fed(path)
        separator = "\t" if _is_tsv(path) else _separator(path, fed.first)
        for number, row in _rows(path, fed, separator):
            width = width or len(row)
            if len(row) != width:
                raise _wrong_width(path, number, row, width, separator)
            yield number, row


def _is_tsv(path: Path) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(".tsv")


def _separator(path: Path, header: str) -> str:
    """The separator of a csv file, from the unquoted part of its first line."""
    bare = _QUOTED.sub("", header)
    found = [separator for separator in SEPARATORS if separator in bare]
    if len(found) > 1:
        raise PolydistillError(
            f"It is not clear what separates the columns of {path}: its first line has a {SEPARATORS[found[0]]} and a "
            f"{SEPARATORS[found[1]]} outside quotes.",
            "Put the cells of the first line in quotes.",
        )
    return found[0] if found else ","


def _wrong_width(path: Path, number: int, row: list[str], width: int, separator: str) -> PolydistillError:
    columns = counted(width, "column")
    said = f"{path} line {number} has {counted(len(row), 'column')} instead of {width}"
    if len(row) < width:
        return PolydistillError(f"{said}.", "Correct that line, or put its text in quotes.")
    name = SEPARATORS[separator]
    if _is_tsv(path):
        return PolydistillError(f"{said}: each tab begins another.", f"Leave {columns}, with no tab inside a text.")
    return PolydistillError(
        f"{said}: each {name} outside quotes begins another.",
        f"Put texts that have a {name} in quotes; a file that has a text a line can be named .txt instead.",
    )


class _Fed:
    """The lines that a csv reader takes; counts them, and the characters since its last row.

    Blank lines before the header are counted and left out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: Iterator[str] = (line for block in line_blocks(path) for line in block)
        self.first, self.read, self.since, self.ended = "", 0, 0, False
        for line in self._lines:
            if line.strip():
                self.first = line
                self._lines = itertools.chain([line], self._lines)
                return
            self.read += 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = next(self._lines)
        except StopIteration:
            self.ended = True
            raise
        self.read += 1
        self.since += len(line)
        if self.since > LONGEST_LINE:
            raise too_long(self._path, self.read)
        return line + "\n"


def _rows(path: Path, fed: _Fed, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank with the numbers of their last lines."""
    csv.field_size_limit(LONGEST_LINE)
    if _is_tsv(path):
        rows = csv.reader(fed, delimiter=separator, quoting=csv.QUOTE_NONE, strict=True)
    else:
        rows = csv.reader(fed, delimiter=separator, strict=True)
    while True:
        start, fed.since = fed.read + 1, 0
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise _malformed(path, start, fed, str(error)) from error
        if row is None:
            return
        if len(row) > 1 or "".join(row).strip():
            yield fed.read, row


def _malformed(path: Path, start: int, fed: _Fed, reason: str) -> PolydistillError:
    """The error for a row that the reader cannot take."""
    if fed.ended:
        return PolydistillError(f"{path} line {start} opens a quote that is never closed.", "Close it, or double it.")
    if "new-line" in reason:
        return PolydistillError(
            f"{path} line {fed.read} has a carriage return in the middle of a cell.",
            "Put the cell in quotes, or fix the line endings.",
        )
    opened = "" if start == fed.read else f" (the cell begins on line {start} or later)"
    return PolydistillError(
        f"{path} line {fed.read} has text right after a closing quote{opened}.",
        "Put the whole cell in quotes, and double the quotes inside it.",
    )
