"""Data as objects are the data of the same rows in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
import trainings

import polydistill
from polydistill.errors import PolydistillError, UsageError
from polydistill.labelled.objects import as_file, is_object


class Dataset:
    """What `datasets.Dataset` has of use here: columns that may name their numbers, and rows."""

    def __init__(self, rows: list[dict[str, Any]], **names: list[str]) -> None:
        self.rows = rows
        self.column_names = list(rows[0])
        plain, named = SimpleNamespace(dtype="string"), {k: SimpleNamespace(names=v) for k, v in names.items()}
        self.features = {k: named.get(k, plain) for k in rows[0]}

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))


def lines(path: Path) -> list[Any]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


TEXTS = [{"text": "good", "label": "yes"}, {"text": "bad", "label": "no"}]
WORDS = [{"tokens": ["Ana", "sees"], "tags": ["B-PER", "O"]}]


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (TEXTS, "classification", TEXTS),
        ([("good", "yes"), ["bad", "no"]], "classification", TEXTS),
        ({"text": ["good", "bad"], "label": ["yes", "no"]}, "classification", TEXTS),
        (
            {"text": np.array(["good", "bad"]), "label": np.array([1, 0])},
            "classification",
            [{"text": "good", "label": 1}, {"text": "bad", "label": 0}],
        ),
        (
            Dataset([{"text": "good", "label": 1}, {"text": "bad", "label": 0}], label=["no", "yes"]),
            "classification",
            TEXTS,
        ),
        ([("a", "b", "neutral")], "classification", [{"premise": "a", "hypothesis": "b", "label": "neutral"}]),
        (WORDS, "tagging", WORDS),
        ([(["Ana", "sees"], ["B-PER", "O"])], "tagging", WORDS),
        ({"words": [["Ana", "sees"]], "ner_tags": [("B-PER", "O")]}, "tagging", WORDS),
        (
            Dataset([{"id": "7", "tokens": ["Ana", "sees"], "ner_tags": [1, 0]}], ner_tags=["O", "B-PER"]),
            "tagging",
            WORDS,
        ),
        ([(["x"], ["NOUN"])], "word-tagging", [{"tokens": ["x"], "tags": ["NOUN"]}]),
    ],
)
def test_what_is_given_is_what_is_written(value: Any, kind: str, expected: list[Any]) -> None:
    assert is_object(value)
    place = as_file(value, kind, "data")
    assert lines(place) == expected and place.suffix == ".jsonl"
    assert as_file(value, kind, "data") == place  # the same data, the same file
    place.write_bytes(b"damaged")
    assert lines(as_file(value, kind, "data")) == expected


def test_questions_are_written_as_squad_has_them() -> None:
    answers = {"text": ["Ana"], "answer_start": [4]}
    rows = [{"context": "The Ana.", "question": "Who?", "answers": answers}]
    rows.append({"id": "q", "context": "The Ana.", "question": "Who?", "answers": [{"text": "Ana", "answer_start": 4}]})
    place = as_file(rows, "span-extraction", "data")
    paragraphs = orjson.loads(place.read_bytes())["data"][0]["paragraphs"]
    assert [p["qas"][0]["id"] for p in paragraphs] == ["0", "q"]
    assert all(p["qas"][0]["answers"] == [{"text": "Ana", "answer_start": 4}] for p in paragraphs)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ([], "classification", "`data` has no rows"),
        (3, "classification", "`data` is int, not data"),
        (["good", "bad"], "classification", "Row 1 of `data` is not a row"),
        ([("a", "b"), ("a",)], "classification", "Row 2 of `data` is not a row"),
        ([("a", ["b"])], "classification", "Row 1 of `data` is not a row"),
        ({"text": ["a"], "label": []}, "classification", "different lengths: text 1, label 0"),
        ([(["a", "b"], ["O"])], "tagging", "Row 1 of `data` has 2 words and 1 tags"),
        ([(["a"], [0])], "tagging", "Row 1 of `data` is not a row"),
        ([("a b", "O O")], "tagging", "Row 1 of `data` is not a row"),
        ([{"tokens": ["a"]}], "tagging", "Row 1 of `data` is not a row"),
        ([{"context": "a"}], "span-extraction", "Row 1 of `data` is not a row"),
        ([("a", "b")], "retrieval", "takes only a file"),
    ],
)
def test_what_is_no_data_is_refused(value: Any, kind: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        as_file(value, kind, "data")
    assert message in refused.value.message and refused.value.hint


def test_a_model_learns_the_same_from_objects_and_from_a_file(tmp_path: Path) -> None:
    root = trainings.prepare(tmp_path / "root")
    sentences = (root / "ner/en/train.conll").read_text().strip().split("\n\n")
    rows = [tuple(zip(*(line.split() for line in s.splitlines()), strict=True)) for s in sentences]
    given = {
        "model": root / "base",
        "task": "ner",
        "languages": "en",
        "epochs": 1,
        "lr": 5e-3,
        "batch_size": 4,
        "max_length": 32,
    }
    results = [
        polydistill.finetune(**given, data=data, output=tmp_path / name)
        for name, data in (
            ("file", root / "ner/en/train.conll"),
            ("rows", rows),
            ("columns", {"tokens": [words for words, _ in rows], "ner_tags": [tags for _, tags in rows]}),
        )
    ]
    assert trainings.weights(results[0].output) == trainings.weights(results[1].output)
    assert trainings.weights(results[1].output) == trainings.weights(results[2].output)
    scores = [
        polydistill.evaluate(results[0].output, task="ner", languages="en", data=data).scores[0].value
        for data in (root / "ner/en/train.conll", rows)
    ]
    assert scores[0] == scores[1]
    with pytest.raises(UsageError, match="No task was given"):
        polydistill.finetune(model=root / "base", languages="en", data=rows)
    with pytest.raises(UsageError, match="Row 1 of `data`"):
        polydistill.evaluate(results[0].output, task="ner", languages="en", data=["Ana sees"])


def test_words_and_tags_as_json_lines(tmp_path: Path) -> None:
    from polydistill.catalog import task
    from polydistill.labelled.formats import read_rows

    path = tmp_path / "t.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in [*WORDS, {"tokens": [], "tags": []}]))
    assert [dict(row.values) for row in read_rows(path, task("ner").kind)] == WORDS
    for content, message in (
        (b'{"tokens": ["a"]}', "line 1 has no words with their tags"),
        (b'{"tokens": "a", "tags": "O"}', "line 1 has no words with their tags"),
        (b'{"tokens": ["a", ""], "tags": ["O", "O"]}', "line 1 has no words with their tags"),
        (b'{"tokens": ["a", "b"], "tags": ["O"]}', "line 1 has 2 words and 1 tag"),
        (b'["a"]', "line 1 is not a JSON object"),
    ):
        path.write_bytes(content)
        with pytest.raises(PolydistillError, match=message):
            list(read_rows(path, "tagging"))
