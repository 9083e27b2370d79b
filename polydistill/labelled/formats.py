"""Files of labelled examples, read into rows that know their place: JSON lines, CoNLL, SQuAD and tsv.

Every file may also be packed with gzip. What the rows say is checked in `checks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

from polydistill.catalog.task import (
    CLASSIFICATION,
    FIELDS,
    RETRIEVAL,
    SIMILARITY,
    SPAN_EXTRACTION,
    TAGGING,
    WORD_TAGGING,
)
from polydistill.errors import PolydistillError, library_said
from polydistill.labelled.nli import as_pair
from polydistill.labelled.rows import Row
from polydistill.labelled.words import entity_rows, word_rows
from polydistill.texts.files import format_of
from polydistill.texts.lines import LONGEST_TEXT, numbered_lines, read_document
from polydistill.wording import counted


def read_rows(path: Path, kind: str) -> Iterator[Row]:
    """Yield the rows of a file in the format that a kind of task has.

    Raises:
        PolydistillError: The file cannot be read, is not UTF-8, or not in that format.
    """
    if kind in (TAGGING, WORD_TAGGING) and format_of(path) == ".jsonl":
        return _tagged_rows(path)
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
                    f"{row.where()}: its {name} has {size:,} characters; the limit is {LONGEST_TEXT:,}.",
                    "Shorten it, or leave the example out.",
                )
        yield row


def _json_rows(path: Path) -> Iterator[Row]:
    """One JSON object a line, with the keys premise, hypothesis and label, or those of `nli.as_pair`."""
    for row in _objects(path):
        yield replace(row, values=as_pair(row.values))


def _tagged_rows(path: Path) -> Iterator[Row]:
    """One JSON object a line, with the keys tokens and tags: as many tags as words."""
    for row in _objects(path):
        words, tags = row.values.get("tokens"), row.values.get("tags")
        if not _are_texts(words) or not _are_texts(tags):
            raise PolydistillError(
                f"{row.where()} has no words with their tags.", "Write the keys tokens and tags, each a list of texts."
            )
        if len(words) != len(tags):
            raise PolydistillError(
                f"{row.where()} has {counted(len(words), 'word')} and {counted(len(tags), 'tag')}.",
                "Give each word one tag.",
            )
        if words:
            yield replace(row, values={"tokens": words, "tags": tags})


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(each, str) and each for each in value)


def _objects(path: Path) -> Iterator[Row]:
    """One JSON object a line."""
    import orjson

    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        try:
            values = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise PolydistillError(
                f"{path} line {number} is not JSON ({library_said(error.msg)}).", "Write one JSON object per line."
            ) from error
        if not isinstance(values, dict):
            raise PolydistillError(f"{path} line {number} is not a JSON object.", "Write one JSON object per line.")
        yield Row(str(path), f"line {number}", values)


def _squad_rows(path: Path) -> Iterator[Row]:
    """SQuAD v1.1: articles of paragraphs of questions; `answer_start` counts code points."""
    import orjson

    try:
        document = orjson.loads(read_document(path))
    except orjson.JSONDecodeError as error:
        raise PolydistillError(
            f"{path} line {error.lineno} is not JSON ({library_said(error.msg)}).",
            "Give one JSON document in SQuAD's format.",
        ) from error
    try:
        for article in document["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    values = {name: question[name] for name in ("id", "question", "answers")}
                    values["context"] = paragraph["context"]
                    yield Row(str(path), f"question {values['id']}", values)
    except (KeyError, TypeError, IndexError) as error:
        missing = f"a {error.args[0]!r} is missing" if isinstance(error, KeyError) else library_said(error)
        raise PolydistillError(
            f"{path} is not in SQuAD's format: {missing}.",
            "Its data has paragraphs, each with context and qas, each with id, question and answers.",
        ) from error


def _table_rows(kind: str) -> Callable[[Path], Iterator[Row]]:
    """Tab-separated values without a header, the same number in each line.

    What follows the last field, such as an origin, is ignored.
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
                    f"{path} line {number} has {counted(len(cells), 'column')} instead of {len(fields)}.",
                    f"Write {', '.join(fields)}, with tabs between them.",
                )
            width = width or len(cells)
            if len(cells) != width:
                raise PolydistillError(
                    f"{path} line {number} has {counted(len(cells), 'column')}, but the lines before it have {width}.",
                    "Give every line the same number of columns, and take the tabs out of the texts.",
                )
            yield Row(str(path), f"line {number}", dict(zip(fields, cells, strict=False)))

    return read


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    CLASSIFICATION: _json_rows,
    TAGGING: entity_rows,
    WORD_TAGGING: word_rows,
    SPAN_EXTRACTION: _squad_rows,
    RETRIEVAL: _table_rows(RETRIEVAL),
    SIMILARITY: _table_rows(SIMILARITY),
}
