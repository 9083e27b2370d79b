"""Files with one word and its tag per line: CoNLL-2003 and what followed it, and CoNLL-U.

Sentences have blank lines between them. Columns are separated by tabs if all lines have tabs, so a word can hold
spaces; otherwise by tabs or spaces. Lines that begin with `#` before a sentence are remarks, unless they are a word `#`
and its tag. Where the first column counts the words, the word is in the second one; in CoNLL-U the line of a
contraction (`1-2`) is left out in favour of its parts, as are empty nodes (`1.1`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from polydistill.errors import PolydistillError
from polydistill.labelled.rows import Row
from polydistill.texts.lines import numbered_lines
from polydistill.wording import counted

_BLANKS = re.compile(r"[ \t]+")  # no other white space: U+00A0 and U+3000 may be part of a token
_DOCUMENT_START = "-DOCSTART-"
_MOST_WORDS = 100_000  # of a sentence
_NUMBER = re.compile(r"\d+")
_PART = re.compile(r"\d+[-.]\d+")  # the line of a contraction or of an empty node
_ENTITY_TAG = re.compile(r"O|[BIESLUMW]-\S+")
_REMARK = re.compile(r"#\s*[\w.:-]+\s*=|#\s")
_ASSIGNMENT = re.compile(r"#\s*[\w.:-]+\s*=")
_NEARLY_ALL = 0.9
_CONLL_U, _UPOS = 10, 3  # its number of columns, and which has the part of speech


@dataclass(frozen=True)
class _Line:
    number: int
    cells: list[str]


def entity_rows(path: Path) -> Iterator[Row]:
    """The sentences of a file with tags of entities.

    The tags are in the last column that has such tags in most lines; of two columns it may be the first.

    Raises:
        PolydistillError: A word has no tag, or a sentence has too many words.
    """
    sentences, numbered = _sentences(path)
    return _rows(path, sentences, numbered, _entity_column(sentences, numbered))


def word_rows(path: Path) -> Iterator[Row]:
    """The sentences of a file with a class for each word: column UPOS of CoNLL-U, else the last column.

    Raises:
        PolydistillError: A word has no tag, or a sentence has too many words.
    """
    sentences, numbered = _sentences(path)
    universal = numbered and all(len(line.cells) == _CONLL_U for sentence in sentences for line in sentence)
    return _rows(path, sentences, numbered, _UPOS - _CONLL_U if universal else -1)


# --- lines


def _sentences(path: Path) -> tuple[list[list[_Line]], bool]:
    """The lines of each sentence without remarks, and whether their first column counts the words."""
    lines = [(number, text.strip(" \t\r")) for number, text in numbered_lines(path)]
    plain = [text for _, text in lines if text and text[0] != "#" and not text.startswith(_DOCUMENT_START)]
    split: Callable[[str], list[str]] = _BLANKS.split
    if plain and all("\t" in text for text in plain):
        split = _cells_between_tabs
    usual = Counter(len(split(text)) for text in plain).most_common(1)[0][0] if plain else 0
    tags = {split(text)[-1] for text in plain}
    found: list[list[_Line]] = [[]]
    for number, text in lines:
        cells = split(text)
        if not text or _BLANKS.split(text)[0] == _DOCUMENT_START:
            found.append([])
        elif found[-1] or not _is_remark(text, cells, usual, tags):
            _check_size(path, number, len(found[-1]))
            found[-1].append(_Line(number, cells))
    sentences = [sentence for sentence in found if sentence]
    return sentences, _are_numbered(sentences)


def _cells_between_tabs(text: str) -> list[str]:
    return [cell.strip(" ") for cell in text.split("\t") if cell.strip(" ")]


def _is_remark(text: str, cells: Sequence[str], usual: int, tags: set[str]) -> bool:
    """Whether a line before a sentence is a comment; a word `#` has as many columns as others, and a tag."""
    if not _REMARK.match(text):
        return False
    a_word = len(cells) == usual and (cells[-1] in tags or _ENTITY_TAG.fullmatch(cells[-1]))
    return bool(_ASSIGNMENT.match(text)) or (usual > 0 and not a_word)


def _check_size(path: Path, number: int, words: int) -> None:
    if words == _MOST_WORDS:
        raise PolydistillError(
            f"{path} line {number}: the sentence has more than {_MOST_WORDS:,} words.",
            "Put blank lines between sentences.",
        )


def _are_numbered(sentences: Sequence[Sequence[_Line]]) -> bool:
    """Whether the first of three or more columns counts the words, in nearly all lines of all sentences."""
    lines, right, last = 0, 0, -1
    for sentence in sentences:
        words = [line for line in sentence if not _PART.fullmatch(line.cells[0])]
        lines += len(words)
        for place, line in enumerate(words):
            cell = line.cells[0]
            if len(line.cells) > 2 and _NUMBER.fullmatch(cell):
                right += int(cell) == last + 1 or (place == 0 and cell in ("0", "1"))
                last = int(cell)
    return right > 0 and right >= _NEARLY_ALL * lines


# --- columns


def _entity_column(sentences: Sequence[Sequence[_Line]], numbered: bool) -> int:
    """Which column has the tags, counted from the end; 0 if they are before the words."""
    width = _usual_width(sentences)
    usual = [line.cells for sentence in sentences for line in sentence if len(line.cells) == width]

    def holds_tags(column: int) -> bool:
        return 2 * sum(_ENTITY_TAG.fullmatch(cells[column]) is not None for cells in usual) >= len(usual)

    word = 1 if numbered else 0
    for column in range(width - 1, word, -1):
        if holds_tags(column):
            return column - width
    return 0 if width == 2 and holds_tags(0) else -1


def _usual_width(sentences: Sequence[Sequence[_Line]]) -> int:
    widths = Counter(len(line.cells) for sentence in sentences for line in sentence)
    return widths.most_common(1)[0][0] if widths else 0


def _rows(path: Path, sentences: Sequence[Sequence[_Line]], numbered: bool, column: int) -> Iterator[Row]:
    first, width = 1 if numbered else 0, _usual_width(sentences)
    for sentence in sentences:
        kept = [line for line in sentence if not (numbered and _PART.fullmatch(line.cells[0]))]
        for line in kept:
            _check_columns(path, line, numbered, column, width)
        if kept:
            values = {
                "tokens": [line.cells[-1 if column == 0 else first] for line in kept],
                "tags": [line.cells[column] for line in kept],
            }
            yield Row(str(path), f"line {kept[0].number}", values, [line.number for line in kept])


def _check_columns(path: Path, line: _Line, numbered: bool, column: int, width: int) -> None:
    """Refuses a line without a tag, or with something else in its place."""
    place, count = f"{path} line {line.number}", len(line.cells)
    if numbered and not _NUMBER.fullmatch(line.cells[0]):
        raise PolydistillError(
            f"{place} begins with {line.cells[0]!r}, where the other lines have the number of the word.",
            "Begin all lines with a number, or none.",
        )
    if count < (3 if numbered else 2):
        raise PolydistillError(
            f"{place} has a word without a tag: {line.cells[-1]!r}.",
            "Write a word, a space and its tag on each line, and a blank line between sentences.",
        )
    if column != -1 and count != width:
        raise PolydistillError(
            f"{place} has {counted(count, 'column')}, and the other lines have {width}.",
            "Give all lines the same columns.",
        )
