"""Where text of a language comes from, and how each format is read."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_repos import Fault
from hub_stub import COMMIT, HubStub, refusing, run
from hypothesis import given
from hypothesis import strategies as st

from polydistill.catalog import Corpus, Language, language
from polydistill.errors import PolydistillError, UsageError
from polydistill.models.offline import words
from polydistill.texts import delimited
from polydistill.texts import lines as module
from polydistill.texts import sources as data
from polydistill.texts.sources import TextReader, TextSource, assign_corpora, parse_corpus, read_texts, text_sources

RO = Language(
    code="ro",
    name="Romanian",
    native_name="română",
    scripts=("Latn",),
    iso639_3="ron",
    letters=("a", "ș"),
    aliases=("ro", "ron", "ron_Latn", "Romanian"),
    variants={"ș": "ş", "Ș": "Ş"},
    wordfreq="ro",
    corpora=(Corpus("org/texts", "ro"),),
)
SW = Language(
    code="sw",
    name="Swahili",
    native_name="Kiswahili",
    scripts=("Latn",),
    iso639_3="swh",
    letters=("a",),
    aliases=("sw",),
)
LINES = ["Întâi.", "a doua\u2028tot ea\x85tot", 'a treia, cu "ghilimele"', "șase\u00a0"]


def source(path: Path | str, language: Language = RO) -> TextSource:
    return parse_corpus(language, str(path))


def texts(path: Path | str) -> list[str]:
    return list(read_texts(source(path)))


# --- formats


def write_txt(path: Path) -> None:
    path.write_bytes("\n".join(LINES).encode())


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps({"id": 1, "text": line}) + "\n" for line in LINES), encoding="utf-8")


def write_csv(path: Path) -> None:
    rows = ['"' + line.replace('"', '""') + '",other' for line in LINES]
    path.write_bytes(("text,more\r\n" + "\r\n".join(rows)).encode())


def write_tsv(path: Path) -> None:
    path.write_text("more\ttext\n" + "".join(f"other\t{line}\n" for line in LINES), encoding="utf-8")


def write_parquet(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": LINES, "number": range(len(LINES))}), path)


WRITERS = {"txt": write_txt, "jsonl": write_jsonl, "csv": write_csv, "tsv": write_tsv, "parquet": write_parquet}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_text(tmp_path: Path, suffix: str, packed: bool) -> None:
    path = tmp_path / f"t.{suffix}"
    WRITERS[suffix](path)
    if packed:
        bytes_ = path.read_bytes()
        path = path.with_name(path.name + ".gz")
        path.write_bytes(gzip.compress(bytes_))
    reader = TextReader(source(path))
    assert [text for block in reader.blocks() for text in block] == LINES
    expected = "".join(line + "\n" for line in LINES).encode()
    assert reader.lines == len(LINES) and reader.bytes == len(expected)
    assert reader.sha256 == hashlib.sha256(expected).hexdigest()


def test_plain_text_details(tmp_path: Path) -> None:
    path = tmp_path / "noname"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\n   \n\ntwo\rstill two\n three ")
    assert texts(path) == ["one", "two\rstill two", " three "]


@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"])), max_size=30),
    st.integers(1, 40),
)
def test_blocks_do_not_change_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], size: int
) -> None:
    path = tmp_path_factory.mktemp("t") / "t.txt"
    path.write_bytes("\n".join(lines).encode())
    expected = [line for line in "\n".join(lines).removeprefix("\ufeff").split("\n") if line and not line.isspace()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_BYTES", max(size, 3))  # a mark at the start is 3 bytes
        if expected:
            assert texts(path) == expected
        else:
            with pytest.raises(PolydistillError, match="no text"):
                texts(path)


def test_a_file_without_line_ends_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 64)
    monkeypatch.setattr(module, "LONGEST_LINE", 256)
    path = tmp_path / "t.txt"
    path.write_text("cuvânt " * 500, encoding="utf-8")
    parts = texts(path)
    assert len(parts) > 5 and max(map(len, parts)) < 400
    assert "".join(parts).split() == ["cuvânt"] * 500


@pytest.mark.parametrize("suffix", ["txt", "csv", "tsv", "jsonl"])
@pytest.mark.parametrize("block", [24, 1 << 22])
def test_carriage_returns_end_lines_where_no_line_feed_does(
    suffix: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", block)
    rows = ["întâi", "a doua", "", "a treia"]
    if suffix == "jsonl":
        rows = [json.dumps(row) for row in rows]
    path = tmp_path / f"t.{suffix}"
    path.write_bytes("\r".join([*(["text"] if suffix in ("csv", "tsv") else []), *rows]).encode())
    assert texts(path) == ["întâi", "a doua", "a treia"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", "text,b\none,2\ntw\ro,3\n", "t.csv line 3 has a carriage return in the middle of a cell."),
        ("t.tsv", "text\tb\none\t2\ntw\ro\t3\n", "t.tsv line 3 has a carriage return in the middle of a cell."),
        ("t.csv", 'text,b\none,2\n"two,3\nthree,4\n', "t.csv line 3 opens a quote that is never closed."),
        ("t.csv", '"text,b\n', "t.csv line 1 opens a quote that is never closed."),
    ],
)
def test_tables_whose_cells_do_not_end_are_refused_by_their_line(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    with pytest.raises(PolydistillError, match=re.escape(said)):
        texts(path)


def test_quoted_cells_may_have_line_ends_and_quotes(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'text,b\n"one\ntwo\rthree",2\n"a ""word""",3')
    assert texts(path) == ["one\ntwo\rthree", 'a "word"']


@pytest.mark.parametrize("name", ["t.jsonl.gz", "t.csv.gz", "t.tsv.gz"])
def test_a_packed_line_that_would_fill_the_memory_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"text": "' if "json" in name else b"text\n")
        for _ in range(40):
            file.write(b"a" * (1 << 20))
    assert path.stat().st_size < 1 << 18
    line = 1 if "json" in name else 2
    with pytest.raises(PolydistillError, match=f"{name} line {line} is longer than 16 MiB"):
        texts(path)


def test_a_row_of_many_quoted_lines_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "LONGEST_LINE", 1000)
    path = tmp_path / "t.csv"
    path.write_bytes(b'text,b\none,2\n"two' + b'\n","' * 400 + b'"\n')
    with pytest.raises(PolydistillError, match=r"t.csv line .* is longer than"):
        texts(path)


@pytest.mark.parametrize("space", ["", " "])
def test_long_texts_come_in_pieces_that_add_up(space: str, tmp_path: Path) -> None:
    text = f"șaptezeci{space}" * 250_000
    (tmp_path / "t.txt").write_text(text, encoding="utf-8")
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": text}), encoding="utf-8")
    for name in ("t.txt", "t.jsonl"):
        found = texts(tmp_path / name)
        assert "".join(found) == text and len(found) > 2 and max(map(len, found)) <= 1_000_000
        assert not space or all(piece.endswith(" ") for piece in found)


def test_text_without_line_ends_is_cut_between_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 5)
    monkeypatch.setattr(module, "LONGEST_LINE", 16)
    path = tmp_path / "t.txt"
    path.write_text("aș東🙂" * 100, encoding="utf-8")
    assert "".join(texts(path)) == "aș東🙂" * 100


def test_a_packed_parquet_file_that_would_fill_the_disk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet.gz"
    path.write_bytes(gzip.compress(bytes(1 << 23)))
    with pytest.raises(PolydistillError, match="unpacks to more than 100 times its size"):
        texts(path)


def test_one_long_text_in_every_row_of_a_parquet_file_is_held_once(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.DictionaryArray.from_arrays(pa.array([0, None, 0] * 1000, pa.int32()), pa.array(["a " * 200_000]))
    pq.write_table(pa.table({"text": column}), tmp_path / "t.parquet")
    reader = TextReader(source(tmp_path / "t.parquet"), 100)
    tracemalloc.start()
    found = sum(map(len, reader.blocks()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == 100 and peak < 30_000_000


def test_blocks_are_bounded_and_lazy(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(b"some words in a line\n" * 800_000)
    reader = TextReader(source(path))
    first = next(reader.blocks())
    assert reader.lines == len(first) < 250_000


def test_limit_and_max_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 16)
    path = tmp_path / "t.txt"
    path.write_text("".join(f"line {i}\n" for i in range(100)))
    reader = TextReader(source(path), limit=5)
    assert [t for block in reader.blocks() for t in block] == [f"line {i}" for i in range(5)]
    assert list(read_texts(source(path), limit=0)) == []
    capped = TextReader(TextSource("ro", "file", "x", (path,), max_bytes=100))
    assert 100 <= sum(len(t) + 1 for block in capped.blocks() for t in block) == capped.bytes < 140


def test_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": "x", "b": "y"}\n\n{"a": "x2", "b": null}\n{"b": "y3"}\n"bare"\n'.replace('"bare"\n', ""))
    assert texts(f"{path}#b") == ["y", "y3"]
    with pytest.raises(PolydistillError, match=r"not clear which column .* it has a, b.*PATH#column"):
        texts(path)
    with pytest.raises(PolydistillError, match=r"has no column c.*Its columns are a, b"):
        texts(f"{path}#c")
    with pytest.raises(PolydistillError, match="has no column a"):
        texts(f"{path}#a")  # the last row lacks it
    path.write_text('{"n": 1, "only": "x"}\n')
    assert texts(path) == ["x"]
    path.write_text('"bare"\n"strings"\n')
    assert texts(path) == ["bare", "strings"]


def test_table_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text('first\t"one\nsecond\t"two\n')
    assert texts(f"{path}#2") == ['"one', '"two']
    with pytest.raises(PolydistillError, match="not clear"):
        texts(path)
    with pytest.raises(PolydistillError, match="has no column 3"):
        texts(f"{path}#3")
    path = tmp_path / "t.csv"
    path.write_text('text,n\n"two\nlines",1\nplain,2\n')
    assert texts(path) == ["two\nlines", "plain"]
    path.write_text("n,text\n1,a\n2\n")
    with pytest.raises(PolydistillError, match=r"line 3 has 1 column instead of 2"):
        texts(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", "text\nZiua, noaptea\n", "line 2 has 2 columns instead of 1: each comma outside quotes"),
        ("t.csv", "id;text\n1;Pleci; rămâi\n", "line 2 has 3 columns instead of 2: each semicolon outside quotes"),
        ("t.csv", "text,n\na,1\nb,2,\n", "line 3 has 3 columns instead of 2"),
        ("t.tsv", "text\tn\na\tb\tc\n", "line 2 has 3 columns instead of 2: each tab begins another"),
        ("t.csv", "text;a,b\n1;2,3\n", "not clear what separates the columns of .*a comma and a semicolon"),
        ("t.csv", 'text,n\n"one" two,1\n', "line 2 has text right after a closing quote"),
        (
            "t.csv",
            'text,n\n"left open,1\nlost,2\n"closed, it seems",3\n',
            "line 4 has text right after a closing quote .the cell begins on line 2",
        ),
    ],
)
def test_text_of_a_table_is_never_cut(tmp_path: Path, name: str, content: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(PolydistillError, match=said) as caught:
        texts(f"{path}#text")
    assert caught.value.hint and str(path) in caught.value.message


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_separates_columns_is_read_off_the_first_line(tmp_path: Path, separator: str, end: str, mark: str) -> None:
    path = tmp_path / "t.csv"
    others = "".join({",", ";", "|"} - {separator})
    rows = [f'n{separator}"te{others}xt"', f"1{separator}a{others} b", "", f'2{separator}"c{separator} ""d"""']
    path.write_bytes((mark + "".join(row + end for row in rows)).encode())
    assert texts(f"{path}#te{others}xt") == [f"a{others} b", f'c{separator} "d"']


def test_one_column_needs_no_separator(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('\ntext\nZiua; noaptea\n"Ziua, ""azi"""\nel zise "da"\n', encoding="utf-8")
    assert texts(path) == ["Ziua; noaptea", 'Ziua, "azi"', 'el zise "da"']


def test_a_row_without_the_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a"}\n{"txt": "b"}\n')
    with pytest.raises(PolydistillError, match=r"t.jsonl line 2 has no column text.*Its columns are txt"):
        texts(path)


def test_parquet_columns(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"n": [1, 2], "body": pa.array(["a", None], pa.large_string()), "l": [["x"], ["y"]]}), path)
    assert texts(path) == ["a"]
    assert texts(f"{path}#body") == ["a"]
    with pytest.raises(PolydistillError, match=r"has no column z.*n, body, l"):
        texts(f"{path}#z")
    with pytest.raises(PolydistillError, match="column l holds list"):
        texts(f"{path}#l")
    pq.write_table(pa.table({"text": pa.array(["a", "b", "a"]).dictionary_encode()}), path)
    assert texts(path) == ["a", "b", "a"]


# --- what can be wrong with a file

GZ = gzip.compress(b"some text\n" * 1000, mtime=0)  # these bytes name tests, and workers have to agree on them
BAD: list[tuple[str, bytes, str]] = [
    ("t.txt", b"", "holds no text"),
    ("t.txt", b"\n \n\t\n", "holds no text"),
    ("t.jsonl", b"", "holds no text"),
    ("t.csv", b"", "holds no text"),
    ("t.csv", b"text\n", "holds no text"),
    ("t.txt", b"ab\ncd\0e\n", "zero byte at offset 5"),
    ("t.txt", "abc\n".encode("utf-16"), "is UTF-16.*iconv -f UTF-16"),
    ("t.txt", b"ok\nfine\nB\xe3sescu\n", "not UTF-8: byte 0xE3 at offset 9, line 3.*iconv"),
    ("t.txt", b"\xef\xbb\xbfok\nB\xe3\n", "offset 7, line 2"),
    ("t.txt", b"cut \xc3", "offset 4, line 1"),
    ("t.txt", GZ, "gzip-compressed.*ends in .gz"),
    ("t.txt.gz", b"plain text\n", "not a whole gzip file"),
    ("t.txt.gz", GZ[:-20], "not a whole gzip file"),
    ("t.txt.gz", GZ[:30] + b"XXXX" + GZ[34:], "not a whole gzip file"),
    ("t.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
    ("t.jsonl", b'{"text": "a"}\n[1]\n', "line 2 is not a JSON object"),
    ("t.json", b'[\n{"text": "a"}\n]\n', "line 1 is not JSON.*one JSON object per line"),
    ("t.jsonl", b'{"text": "a"}\n{"text": 7}\n', "line 2: the column text holds int"),
    ("t.jsonl", b'{"text": "B\xe3"}\n', "not UTF-8"),
    ("t.parquet", b"PAR1 not really", "not a whole parquet"),
    ("t.zip", b"PK", "has a compression that is not supported"),
]


@pytest.mark.parametrize(("name", "content", "said"), BAD)
def test_bad_files(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PolydistillError, match=said) as caught:
        texts(path)
    assert caught.value.hint and str(path) in caught.value.message


def test_offsets_count_earlier_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 10)
    path = tmp_path / "t.txt"
    path.write_bytes(b"line\n" * 20 + b"\xff\n")
    with pytest.raises(PolydistillError, match="offset 100, line 21"):
        texts(path)


def test_plain_text_has_no_columns(tmp_path: Path) -> None:
    write_txt(tmp_path / "t.txt")
    with pytest.raises(PolydistillError, match="has no column text"):
        texts(f"{tmp_path / 't.txt'}#text")


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_txt(tmp_path / "t.txt")
    found = source(tmp_path / "t.txt")
    (tmp_path / "t.txt").unlink()
    with pytest.raises(PolydistillError, match="cannot be read: No such file"):
        list(read_texts(found))


# --- which files


def test_folder_and_glob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.txt", "a.txt", "sub/c.txt.gz", "ignored.pdf", ".hidden/d.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(name.encode()) if name.endswith(".gz") else name.encode())
    assert texts(tmp_path) == ["a.txt", "b.txt", "sub/c.txt.gz"]
    assert texts(tmp_path / "*.txt") == ["a.txt", "b.txt"]
    assert texts(tmp_path / "**" / "*.gz") == ["sub/c.txt.gz"]
    monkeypatch.chdir(tmp_path)
    assert texts("?.txt") == ["a.txt", "b.txt"]
    assert source("a.txt").where == "a.txt"


def test_odd_names(tmp_path: Path) -> None:
    path = tmp_path / "a#b[1].txt"
    path.write_text("x")
    assert texts(path) == ["x"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rmoania.txt", "does not exist. Did you mean .*romania.txt"),
        ("zzz.txt", "does not exist. Check the path"),
        ("/dev/null", "is neither a file nor a folder"),
        ("none/zzz.txt", "no folder .*none either"),
        ("*.csv", "No file matches"),
        ("empty", "has no text.*.parquet"),
    ],
)
def test_missing(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "romania.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PolydistillError, match=said):
        source(tmp_path / name)


# --- which language


def test_assign_corpora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert assign_corpora([RO], ["a.txt", "ron=b.txt"]) == {"ro": ("a.txt", "b.txt")}
    assert assign_corpora([RO, SW], ["Romanian=a=b.txt", "SW=c.txt"]) == {"ro": ("a=b.txt",), "sw": ("c.txt",)}
    assert assign_corpora([RO, SW], []) == {"ro": (), "sw": ()}
    with pytest.raises(UsageError, match=r"Write `text=ro=a\.txt"):
        assign_corpora([RO, SW], ["a.txt"])
    with pytest.raises(UsageError, match=r"is for xx, which is not one of the languages \(ro, sw\)"):
        assign_corpora([RO, SW], ["xx=a.txt"])
    with pytest.raises(UsageError, match="names no file"):
        assign_corpora([RO], ["ro="])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "xx=a.txt").write_text("x")
    assert assign_corpora([RO], ["xx=a.txt", "dir/x=1.txt"]) == {"ro": ("xx=a.txt", "dir/x=1.txt")}


def test_text_of_a_language_in_one_script() -> None:
    whole, latin = language("sr"), language("sr-Latn")
    assert assign_corpora([latin], ["sr=a.txt", "sr_latn=b.txt"]) == {"sr-Latn": ("a.txt", "b.txt")}
    assert assign_corpora([whole, latin], ["sr=a.txt", "srp_Latn=b.txt"]) == {"sr": ("a.txt",), "sr-Latn": ("b.txt",)}
    assert assign_corpora([latin, whole], ["sr=a.txt"])["sr"] == ("a.txt",)


# --- the Hub

READ = """
import json, time
from polydistill.texts import sources as data
from polydistill.catalog import Corpus, Language
from polydistill.errors import PolydistillError
ro = Language(code="ro", name="Romanian", native_name="", scripts=("Latn",), iso639_3="ron", letters=("a",),
              wordfreq=WORDFREQ, corpora=(Corpus("org/none"), Corpus("org/texts", "ro")))
waited, sleep = [], time.sleep
time.sleep = lambda seconds: (waited.append(seconds), sleep(seconds))
try:
    source = data.text_sources(ro, CORPORA)[0]
    reader = data.TextReader(source, LIMIT)
    texts = [] if source.kind == "wordlist" else [text for block in reader.blocks() for text in block]
    out = dict(kind=source.kind, where=source.where, max_bytes=source.max_bytes, texts=texts, note=source.note)
except PolydistillError as error:
    out = dict(error=error.message, hint=error.hint)
print(json.dumps({**out, "waited": sum(waited)}))
"""


def read_hub(
    hub: str, home: Path, *corpora: str, limit: int | None = None, wordfreq: str | None = "ro", **more: str
) -> Any:
    code = READ.replace("CORPORA", repr(corpora)).replace("LIMIT", repr(limit)).replace("WORDFREQ", repr(wordfreq))
    return run(code, endpoint=hub, home=home, **more)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubStub]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("texts")
    for config, prefix in (("ro", "rând"), ("sw", "mstari")):
        (folder / config).mkdir()
        rows = [f"{prefix} {i}" for i in range(20)]
        pq.write_table(pa.table({"id": rows, "text": rows, "title": rows}), folder / config / "train-00000.parquet")
    (folder / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: ro\n  data_files: ro/*.parquet\n- config_name: sw\n  data_files: sw/*.parquet\n---\n"
    )
    with HubStub(datasets={"org/texts": folder}) as stub:
        yield stub


def test_hub_data_set(hub: HubStub, tmp_path: Path) -> None:
    found = read_hub(hub.endpoint, tmp_path, "org/texts:sw@main#title", limit=3)
    assert found["texts"] == ["mstari 0", "mstari 1", "mstari 2"], found
    assert found["where"] == "org/texts:sw@main#title" and found["max_bytes"] is None


def test_hub_data_set_of_the_language(hub: HubStub, tmp_path: Path) -> None:
    found = read_hub(hub.endpoint, tmp_path)  # org/none does not exist: the next one is taken
    assert found["texts"][0] == "rând 0" and len(found["texts"]) == 20
    assert found["where"] == f"org/texts:ro@{COMMIT}" and found["max_bytes"] == data.HUB_BYTES


@pytest.mark.parametrize(
    ("corpus", "said"),
    [
        ("org/none", "no data set org/none"),
        ("org/texts:ro@v9", "no revision v9"),
        ("org/texts:xx", "cannot be read.*xx"),
        ("org/texts", "cannot be read.*(ro|sw)"),
        ("org/texts:ro#body", "has no column body.*id, text, title"),
    ],
)
def test_hub_data_set_refused(hub: HubStub, tmp_path: Path, corpus: str, said: str) -> None:
    import re

    found = read_hub(hub.endpoint, tmp_path, corpus)
    assert re.search(said, found["error"] + " " + found["hint"]), found


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_a_data_set_from_a_hub_that_falls_silent(hub: HubStub, tmp_path: Path, share: float) -> None:
    """Left alone, the libraries try each read twenty times, and each try six times."""
    limits = "from polydistill.fetching import client as h; h.TIMEOUT = h.STORING = 0.3; h.PATIENCE = 0.5\n"
    code = READ.replace("CORPORA", "['org/texts:sw#title']").replace("LIMIT", "3").replace("WORDFREQ", "None")
    fault = Fault("GET .*/resolve/.*sw/", times=99, silent=True, share=share, done=True)
    hub.writable.faults[:] = [fault]
    found = run(limits + code, endpoint=hub.endpoint, home=tmp_path)
    hub.writable.faults.clear()
    assert "out of reach" in found["error"] and fault.times >= 99 - 5


def test_no_hub(tmp_path: Path) -> None:
    pytest.importorskip("wordfreq")
    given_ = read_hub(refusing(), tmp_path, "org/texts")
    assert "no file org/texts" in given_["error"] and "out of reach" in given_["error"]
    own = read_hub(refusing(), tmp_path)
    assert own["kind"] == "wordlist" and "out of reach" in own["note"] and "`text`" in own["note"]
    assert own["waited"] < 8
    assert read_hub(refusing(), tmp_path, HF_HUB_OFFLINE="1")["kind"] == "wordlist"
    neither = read_hub(refusing(), tmp_path, wordfreq=None)
    assert "no list of its words" in neither["error"] and "`text=ro=PATH`" in neither["hint"]


# --- word lists


def test_no_text_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PolydistillError, match=r"no text for Swahili.*`text=sw=PATH`"):
        text_sources(SW, [])
    monkeypatch.setattr(words, "installed", lambda: False)
    without = Language(
        code="ro", name="Romanian", native_name="", scripts=(), iso639_3="ron", letters=(), wordfreq="ro"
    )
    with pytest.raises(PolydistillError, match=r"wordfreq is not installed.*polydistill\[offline\]"):
        text_sources(without, [])
