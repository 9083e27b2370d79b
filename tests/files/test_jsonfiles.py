"""Reading the JSON files of a model folder: limits, and errors that say what is wrong where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from polydistill.errors import PolydistillError
from polydistill.files import jsonfiles
from polydistill.files.jsonfiles import DEEPEST, HINT, Part, parse_json, read_json, read_text, shown
from polydistill.vocab.tokenizer_config import write_json

FILE = Path("x.json")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ș": [1, None]})
    assert read_json(tmp_path / "a.json") == {"ș": [1, None]}
    assert "ș" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_a_file_may_be_missing_only_where_that_is_said(tmp_path: Path) -> None:
    assert read_json(tmp_path / "none.json", optional=True) == {}
    assert read_json(tmp_path / "none.json", list, optional=True) == []
    with pytest.raises(PolydistillError, match=r"There is no file .*none\.json"):
        read_json(tmp_path / "none.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(PolydistillError, match=r"There is no file .*folder\.json"):
        read_json(tmp_path / "folder.json", optional=True)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b'{"a": ',
        b"\xff{}",
        b"\xef\xbb\xbf{}",
        b"{} {}",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 01}',
        b'{"a": "\\ud800"}',
        '{"a": 1}'.encode("utf-16"),
        b'{"a": ' + b"9" * 5_000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(PolydistillError, match=r"^x\.json is not valid JSON \(") as caught:
        parse_json(raw, FILE)
    assert caught.value.hint == HINT and len(str(caught.value)) < 300


@pytest.mark.parametrize(("raw", "found"), [(b"[]", "a list of 0"), (b"3", "3"), (b"null", "null"), (b'"a"', '"a"')])
def test_another_top_is_refused(raw: bytes, found: str) -> None:
    with pytest.raises(PolydistillError, match=rf"^x\.json holds {found}, but must hold an object\."):
        parse_json(raw, FILE)
    with pytest.raises(PolydistillError, match=r"holds an object of 0, but must hold a list"):
        parse_json(b"{}", FILE, list)


@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_nesting_has_a_limit(pair: str) -> None:
    def nested(levels: int) -> bytes:
        opening = "[" if pair == "[]" else '{"a":'
        return f"[1,{opening * (levels - 1)}{pair[1] * (levels - 1)}]".replace('"a":}', '"a":1}').encode()

    parse_json(nested(DEEPEST), FILE, list)
    for levels in (DEEPEST + 1, 200, 1_000):
        with pytest.raises(PolydistillError, match=r"x\.json is nested more than 64 levels deep"):
            parse_json(nested(levels), FILE, list)


def test_size_and_number_of_values_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"[" + b"1," * 600 + b"1]")
    assert len(read_json(path, list)) == 601
    monkeypatch.setattr(jsonfiles, "MOST_VALUES", 500)
    with pytest.raises(PolydistillError, match=r"a\.json has more than 500 values"):
        read_json(path, list)
    with pytest.raises(PolydistillError, match=r"a\.json has 0 MiB, more than the 0 MiB that such a file can have"):
        read_json(path, list, largest=1_000)


def test_a_file_larger_than_memory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(1 << 34)  # 16 GiB that take no room on the disk
    with pytest.raises(PolydistillError, match=r"has 16,384 MiB, more than the 32 MiB"):
        read_json(path)


def test_text_is_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.jinja").write_bytes("ab\xff".encode("latin-1"))
    with pytest.raises(PolydistillError, match=r"a\.jinja is not UTF-8 \(byte 2\)"):
        read_text(tmp_path / "a.jinja")


PLACES: list[tuple[Any, str]] = [
    (lambda p: p["a"]["b"][1]["c"].of(str), "x.json: a.b[1].c is 3, but must be a text."),
    (lambda p: p["a"]["none"].of(dict), "x.json: a.none is missing, but must be an object."),
    (lambda p: p["a"]["b"].of(dict), "x.json: a.b is a list of 2, but must be an object."),
    (lambda p: p["a"]["b"][0].of(int), "x.json: a.b[0] is true, but must be a whole number."),
    (
        lambda p: p["a"]["b"][1]["c"].whole_number(5, 9_000),
        "x.json: a.b[1].c is 3, but must be a whole number from 5 to 9,000.",
    ),
    (lambda p: p["f"].whole_number(0, 9), "x.json: f is 3.0, but must be a whole number from 0 to 9."),
    (lambda p: [*p["a"].items()], "x.json: a is an object of 1, but must be a list."),
    (lambda p: [*p["a"]["b"].members()], "x.json: a.b is a list of 2, but must be an object."),
    (lambda p: p["a"]["b"][1]["c"]["d"], "x.json: a.b[1].c is 3, but must be an object."),
    (lambda p: p.of(list), "x.json is an object of 2, but must be a list."),
]


@pytest.mark.parametrize(("ask", "message"), PLACES)
def test_a_wrong_value_is_named_with_its_place(ask: Any, message: str) -> None:
    part = Part(FILE, {"a": {"b": [True, {"c": 3}]}, "f": 3.0})
    with pytest.raises(PolydistillError) as caught:
        ask(part)
    assert caught.value.message == message and caught.value.hint == HINT


def test_missing_values_are_nothing_to_go_through() -> None:
    part = Part(FILE, {})
    assert [*part["a"].items(), *part["a"].members()] == [] and part["a"].optional(str) is None


def test_long_values_are_shown_short() -> None:
    assert shown("a" * 1_000) == '"' + "a" * 56 + "..." and shown({"a": 1}) == "an object of 1"
    assert len(Part(FILE, {"a" * 1_000: 1})["a" * 1_000].where) == 60
    assert json.loads(shown("line\nbreak")) == "line\nbreak"
