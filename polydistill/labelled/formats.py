"""Files of labelled examples, read into rows that know where they stand: JSON lines, CoNLL, SQuAD and tsv.

Every file may also be packed with gzip. Rows are not checked for sense here; see `checks`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polydistill.errors import PolydistillError
from polydistill.lines import LONGEST_TEXT, numbered_lines, read_document
from polydistill.task import CLASSIFICATION, FIELDS, RETRIEVAL, SIMILARITY, SPAN_EXTRACTION, TAGGING

_BLANKS = re.compile(r"[ \t]+")  # no other white space: U+00A0 and U+3000 may stand inside a token
_DOCUMENT_START = "-DOCSTART-"
_MOST_WORDS = 100_000  # of a sentence


@dataclass(frozen=True)
class Row:
    """One example as its source has it.

    Attributes:
        place: The file or data set.
        at: Where it stands in there: `line 3`, `row 3` or `question a1`.
        values: Field -> value, not checked.
        line: Number of the line of a tagged sentence's first word, None if words have no lines of their own.
    """

    place: str
    at: str
    values: Mapping[str, Any]
    line: int | None = None

    def where(self, word: int | None = None) -> str:
        """The place, for a message; of one word, if the row is a tagged sentence."""
        if word is not None and self.line is not None:
            return f"{self.place} line {self.line + word}"
        return f"{self.place} {self.at}"


def read_rows(path: Path, kind: str) -> Iterator[Row]:
    """Yield the rows of a file in the format that a kind of task has.

    Raises:
        PolydistillError: The file cannot be read, is not UTF-8, or not in that format.
    """
    return _READERS[kind](path)


def bounded(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield rows whose texts are not too long for a tokenizer.

    Raises:
        PolydistillError: A text, or all words of a sentence, have more than 1,000,000 characters.
    """
    for row in rows:
        for name, value in row.values.items():
            parts = value if isinstance(value, (list, tuple)) else (value,)
            size = sum(len(part) for part in parts if isinstance(part, str))
            if size > LONGEST_TEXT:
                raise PolydistillError(
                    f"{row.where()}: its {name} has {size:,} characters, and {LONGEST_TEXT:,} is the most.",
                    "Shorten it, or leave the example out.",
                )
        yield row


def _json_rows(path: Path) -> Iterator[Row]:
    """One JSON object a line, with the keys premise, hypothesis and label."""
    import orjson

    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        try:
            values = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise PolydistillError(
                f"{path} line {number} is not JSON ({error.msg}).", "Write one JSON object a line."
            ) from error
        if not isinstance(values, dict):
            raise PolydistillError(f"{path} line {number} is not a JSON object.", "Write one JSON object a line.")
        yield Row(str(path), f"line {number}", values)


def _conll_rows(path: Path) -> Iterator[Row]:
    """Sentences with blank lines between them; a line has a word first and its tag last, as in CoNLL-2003."""
    tokens: list[str] = []
    tags: list[str] = []
    number = 0
    for number, line in numbered_lines(path):
        cells = _BLANKS.split(line.strip(" \t\r"))
        if cells != [""] and cells[0] != _DOCUMENT_START:
            if len(cells) == 1:
                raise PolydistillError(
                    f"{path} line {number} has a word without a tag: {cells[0]!r}.",
                    "Write a word, a space and its tag a line, and a blank line between sentences.",
                )
            if len(tokens) == _MOST_WORDS:
                raise PolydistillError(
                    f"{path} line {number}: the sentence has more than {_MOST_WORDS:,} words.",
                    "Put blank lines between sentences.",
                )
            tokens.append(cells[0])
            tags.append(cells[-1])
        elif tokens:
            yield _sentence(path, number - len(tokens), tokens, tags)
            tokens, tags = [], []
    if tokens:
        yield _sentence(path, number - len(tokens) + 1, tokens, tags)


def _sentence(path: Path, line: int, tokens: list[str], tags: list[str]) -> Row:
    return Row(str(path), f"line {line}", {"tokens": tokens, "tags": tags}, line)


def _squad_rows(path: Path) -> Iterator[Row]:
    """SQuAD v1.1: articles of paragraphs of questions; `answer_start` counts code points."""
    import orjson

    try:
        document = orjson.loads(read_document(path))
    except orjson.JSONDecodeError as error:
        raise PolydistillError(
            f"{path} line {error.lineno} is not JSON ({error.msg}).", "Give one JSON document in SQuAD's format."
        ) from error
    try:
        for article in document["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    values = {name: question[name] for name in ("id", "question", "answers")}
                    values["context"] = paragraph["context"]
                    yield Row(str(path), f"question {values['id']}", values)
    except (KeyError, TypeError, IndexError) as error:
        missing = f"a {error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise PolydistillError(
            f"{path} is not in SQuAD's format: {missing}.",
            "It has data, of paragraphs, of context and qas, of id, question and answers.",
        ) from error


def _table_rows(kind: str) -> Callable[[Path], Iterator[Row]]:
    """Tab-separated values without a header, as many in each line as in the first.

    What follows the last field, such as an origin, is left alone.
    """
    fields = FIELDS[kind]

    def read(path: Path) -> Iterator[Row]:
        width = 0
        for number, line in numbered_lines(path):
            if not line.strip():
                continue
            cells = line.split("\t")
            if len(cells) < len(fields):
                raise PolydistillError(
                    f"{path} line {number} has {len(cells)} columns instead of {len(fields)}.",
                    f"Write {', '.join(fields)}, with tabs between them.",
                )
            width = width or len(cells)
            if len(cells) != width:
                raise PolydistillError(
                    f"{path} line {number} has {len(cells)} columns, and the lines before it have {width}.",
                    "Give every line as many columns, and take the tabs out of the texts.",
                )
            yield Row(str(path), f"line {number}", dict(zip(fields, cells, strict=False)))

    return read


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    CLASSIFICATION: _json_rows,
    TAGGING: _conll_rows,
    SPAN_EXTRACTION: _squad_rows,
    RETRIEVAL: _table_rows(RETRIEVAL),
    SIMILARITY: _table_rows(SIMILARITY),
}
