"""What a person gets wrong: one clear sentence and the way out, exit code 1 or 2, and nothing lost or left behind."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny

from polydistill.cli import main
from polydistill.models.offline.words import installed


class Said(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


Refuse = Callable[..., str]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and text in three languages."""
    folder = tmp_path_factory.mktemp("models")
    tiny.model_folder("bert", "base", folder / "e5", tokenizer="xlm-roberta", rows=421)
    for code in ("ro", "ru", "en"):
        (folder / f"{code}.txt").write_text("\n".join(tiny.sentences(code, count=150)) + "\n", encoding="utf-8")
    (folder / "nli/en").mkdir(parents=True)
    labels = ("entailment", "neutral", "contradiction")
    rows = [
        {"premise": t, "hypothesis": t, "label": labels[i % 3]} for i, t in enumerate(tiny.sentences("en", count=6))
    ]
    for split in ("train", "dev", "test"):
        (folder / f"nli/en/{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "here"


@pytest.fixture
def say(models: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs a command in this process, with `{m}` for the folder of models."""

    def say(*args: str | Path) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(arg).replace("{m}", str(models)) for arg in args])
            sys.exit(0)
        return Said(int(stop.value.code or 0), *capsys.readouterr())

    return say


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.fixture
def refuse(say: Callable[..., Said], here: Path, models: Path) -> Refuse:
    """Runs a command that must fail, and returns what it said; nothing may have changed on the disk."""

    def refuse(*args: str | Path, code: int) -> str:
        before = tree(here), tree(models)
        said = say(*args)
        assert said.code == code, said
        assert not said.out
        assert (tree(here), tree(models)) == before
        lines = said.err.splitlines()
        assert lines[-2].startswith("Error: ") and lines[-2].endswith((".", ")")), said.err
        assert len(lines[-1]) > 5 and (lines[-1][0].isupper() or lines[-1][0] == "`"), said.err  # the way out
        assert "Traceback" not in said.err and "bug in polydistill" not in said.err and "errno" not in said.err.lower()
        return f"{lines[-2]} {lines[-1]}"

    return refuse


E5 = ("trim", "--model", "{m}/e5")
TRIM = (*E5, "--lang", "ro", "--text", "{m}/ro.txt", "--no-verify")


# --- languages


@pytest.mark.parametrize("command", [(*E5, "--dry-run"), ("count", "--model", "{m}/e5", "-o", "c.json")])
def test_unknown_language(command: tuple[str, ...], refuse: Refuse) -> None:
    assert "Unknown language 'rp'" in refuse(*command, "--lang", "rp", code=2)
    assert "Did you mean ro (Romanian)" in refuse(*command, "--lang", "Romanain", code=2)
    assert "Unknown language ''" in refuse(*command, "--lang", "", code=2)
    assert "No language was given. Add one, for instance --lang" in refuse(*command, code=2)


def test_language_that_is_not_kept(refuse: Refuse) -> None:
    assert "Add --lang sw" in refuse(*TRIM, "--weight", "sw=2", code=2)
    assert "is not one of the languages (ro)" in refuse(*E5, "--lang", "ro", "--text", "sw={m}/ro.txt", code=2)
    two = (*E5, "--lang", "ro", "--lang", "en")
    assert "Write --text ro=" in refuse(*two, "--text", "{m}/ro.txt", code=2)


# --- models


@pytest.fixture
def copy(models: Path, here: Path) -> Path:
    """A copy of the model to break."""
    return Path(shutil.copytree(models / "e5", here / "copy"))


BROKEN = ("trim", "--model", "copy", "--lang", "ro", "--text", "{m}/ro.txt")


@pytest.mark.parametrize("args", [BROKEN, (*BROKEN, "--dry-run"), ("info", "copy")])
def test_model_without_a_tokenizer(args: tuple[str, ...], copy: Path, refuse: Refuse) -> None:
    for file in copy.glob("tokenizer*"):
        file.unlink()
    assert "copy has no tokenizer. Save it there too" in refuse(*args, code=1)


@pytest.mark.parametrize("args", [BROKEN, (*BROKEN, "--dry-run"), ("info", "copy")])
def test_broken_weights(args: tuple[str, ...], copy: Path, refuse: Refuse) -> None:
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    for content in (
        whole[:-1],
        whole[: len(whole) // 2],
        whole[:5],
        b"",
        whole + b"x",
        b"\xff" * 200,
        whole[:8] + b"?" * length + whole[8 + length :],
        whole.replace(b'"F32"', b'"F16"', 1),
        b"<html>Sign in to download</html>",
    ):
        weights.write_bytes(content)
        said = refuse(*args, code=1)
        assert "is not a whole safetensors file" in said and "Download or save the model again" in said


@pytest.mark.parametrize("args", [BROKEN, ("info", "copy")])
def test_model_with_only_a_pickle(args: tuple[str, ...], copy: Path, refuse: Refuse) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    said = refuse(*args, code=1)
    assert "only has pickled weights (pytorch_model.bin)" in said and "Convert it once to safetensors" in said


def test_model_that_lacks_a_shard(copy: Path, refuse: Refuse) -> None:
    index = {"weight_map": {"embeddings.word_embeddings.weight": "model-00001-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "it lacks model-00001-of-00002.safetensors" in refuse(*BROKEN, code=1)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("config.json", "{", "config.json is not valid JSON"),
        ("config.json", "{}", "does not say its model_type"),
        ("config.json", '{"model_type": "weird"}', "The architecture 'weird' is unknown"),
        ("tokenizer.json", '{"a": 1}', "cannot be trimmed"),
        ("tokenizer.json", "not JSON", "tokenizer.json is not valid JSON"),
    ],
)
def test_broken_configuration(file: str, text: str, said: str, copy: Path, refuse: Refuse) -> None:
    (copy / file).write_text(text)
    assert said in refuse(*BROKEN, code=1)
    assert said in refuse("info", "copy", code=1)


TWO = ("ro", "en", "--text", "ro={m}/ro.txt", "--text", "en={m}/en.txt")
COMMANDS = {
    "trim": BROKEN,
    "count": ("count", "--model", "copy", "--lang", "ro", "--text", "{m}/ro.txt", "-o", "c.json"),
    "info": ("info", "copy"),
    "diff": ("diff", "{m}/e5", "copy", "--text", "{m}/ro.txt"),
    "plan": ("plan", "--model", "copy", *TWO),
    "finetune": ("finetune", "--model", "copy", "--task", "nli", "--lang", "en", "--data-dir", "{m}", "-o", "out"),
    "bistil": ("bistil", "--model", "copy", *TWO, "-o", "out"),
    "prokd": ("prokd", "--teacher", "copy", "en", "ro", "--text", "{m}/ro.txt", "--data-dir", "{m}", "-o", "out"),
    "stack": ("stack", "copy", "copy", "-o", "out"),
    "evaluate": ("evaluate", "--model", "copy", "--task", "nli", "--lang", "en", "--data-dir", "{m}"),
    "sparse": ("sparse", "train", "--model", "copy", "--lang", "ro", "--text", "{m}/ro.txt", "-o", "out"),
    "export": ("export", "copy", "-o", "out"),
    "publish": ("publish", "copy", "org/name", "--dry-run"),
}
HOSTILE: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "layers": (
        "config.json",
        lambda raw: raw.replace(b'"num_hidden_layers": 2', b'"num_hidden_layers": 1000000000'),
        "config.json: num_hidden_layers is 1000000000, but must be a whole number from 0 to 1,024.",
    ),
    "nesting": ("config.json", lambda raw: b'{"a":' * 10_000, "config.json is not valid JSON (depth limit exceeded"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("command", COMMANDS)
def test_hostile_configuration(command: str, name: str, copy: Path, refuse: Refuse) -> None:
    file, change, said = HOSTILE[name]
    content = change((copy / file).read_bytes())
    assert content != (copy / file).read_bytes()
    (copy / file).write_bytes(content)
    assert said in refuse(*COMMANDS[command], code=1)


def test_hostile_stack(copy: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"text\n")))
    (copy / "config.json").write_bytes(b'{"a":' * 10_000)
    assert "config.json is not valid JSON (depth limit exceeded" in refuse("embed", "copy", code=1)


def test_modules_that_are_none(copy: Path, refuse: Refuse) -> None:
    (copy / "inner").mkdir()
    for file in [path for path in copy.iterdir() if path.is_file()]:
        file.rename(copy / "inner" / file.name)
    for modules, said in (
        ([{"path": 3, "type": "sentence_transformers.models.Transformer"}], "modules.json"),
        ([{"path": "inner", "type": ["Transformer"]}], "modules.json"),
        ([3], "modules.json"),
        ({}, "modules.json holds an object of 0, but must hold a list."),
    ):
        (copy / "modules.json").write_text(json.dumps(modules))
        assert said in refuse("info", "copy", code=1)


def test_a_source_that_is_no_text(copy: Path, refuse: Refuse) -> None:
    (copy / "polydistill-source.json").write_text('{"source": [1]}')
    assert "polydistill-source.json: source is a list of 1, but must be a text." in refuse("info", "copy", code=1)


@pytest.mark.parametrize("number", ["Infinity", "NaN", "1e999", "-1", "2.0", "9" * 400, '"8"', "[1]"])
def test_numbers_that_no_header_has(number: str, copy: Path, refuse: Refuse) -> None:
    weights = copy / "model.safetensors"
    raw = weights.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + length].replace(b"[0,", f"[{number},".encode(), 1)
    weights.write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + length :])
    assert "is not a whole safetensors file: its header cannot be read (" in refuse("info", "copy", code=1)


def test_a_header_as_long_as_its_file(copy: Path, refuse: Refuse) -> None:
    with (copy / "model.safetensors").open("wb") as file:
        file.write((100_000_000).to_bytes(8, "little"))
        file.truncate(100_000_008)
    assert "its header has 100,000,000 bytes, more than 33,554,432" in refuse("info", "copy", code=1)


def test_a_panic_of_a_library(say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Split

    def panic(*args: Any, **options: Any) -> None:
        Split(Regex("(a+)+c"), "isolated").pre_tokenize_str("a" * 60)

    monkeypatch.setattr("polydistill.cli.info.info", panic)
    said = say("info", "{m}/e5")
    assert said.code == 1 and "Error: A library that reads tokenizers and weights gave up: Onig: " in said.err
    assert "Traceback" not in said.err and "bug in polydistill" not in said.err


def test_model_that_is_not_there(refuse: Refuse, copy: Path) -> None:
    assert "There is no folder nope" in refuse("info", "nope", code=2)
    assert "Did you mean copy?" in refuse("info", "./copie", code=2)
    assert "is a file, not a model's folder" in refuse("info", "{m}/e5/config.json", code=2)
    assert "The model's name is empty" in refuse("trim", "--model", "", "--lang", "ro", code=2)
    assert "The revision after the @" in refuse("info", "org/name@", code=2)
    assert "has no config.json" in refuse("info", "{m}", code=1)
    said = refuse("trim", "--model", "org/name", "--lang", "ro", code=1)
    assert "so org/name cannot be fetched. Give a folder that has the model." in said


# --- text


def test_corpus_that_is_no_text(here: Path, models: Path, refuse: Refuse) -> None:
    ro = (models / "ro.txt").read_text(encoding="utf-8")
    files: dict[str, tuple[bytes, str]] = {
        "empty.txt": (b"", "holds no text"),
        "blank.txt": (b"\n \n\t\n", "holds no text"),
        "binary.txt": (bytes(range(256)) * 20, "is not text: it has a zero byte at offset 0"),
        "latin2.txt": (
            ("ok\n" * 4 + "învățătoare").encode("iso8859-16"),
            "is not UTF-8: byte 0xEE at offset 12, line 5",
        ),
        "utf16.txt": (ro.encode("utf-16"), "is UTF-16, not UTF-8"),
        "hidden.txt": (gzip.compress(ro.encode()), "is gzip-compressed"),
        "cut.txt.gz": (gzip.compress(ro.encode())[:200], "is not a whole gzip file"),
        "text.zip": (b"PK", "has a compression that is not supported"),
        "bad.jsonl": (b'{"text": "abc"}\n{"text"', "line 2 is not JSON"),
        "two.jsonl": (b'{"a": "x", "b": "y"}\n', "It is not clear which column"),
        "bad.parquet": (b"PAR1", "is not a whole parquet file"),
    }
    for name, (content, said) in files.items():
        Path(name).write_bytes(content)
        assert said in refuse(*E5, "--lang", "ro", "--text", name, code=1), name
        assert said in refuse("info", "{m}/e5", "--text", name, code=1), name
    assert said in refuse("diff", "{m}/e5", "{m}/e5", "--text", name, code=1)
    assert "iconv" in refuse("count", "--model", "{m}/e5", "--lang", "ro", "--text", "utf16.txt", "-o", "c", code=1)


def test_corpus_that_is_not_there(here: Path, refuse: Refuse) -> None:
    Path("text.txt").write_text("a\n")
    args = (*E5, "--lang", "ro", "--text")
    assert "Did you mean text.txt?" in refuse(*args, "texts.txt", code=1)
    assert "No file matches *.csv" in refuse(*args, "*.csv", code=1)
    assert "is out of reach" in refuse(*args, "org/set", code=1)
    Path("folder").mkdir()
    assert "The folder folder has no text" in refuse(*args, "folder", code=1)
    assert "is plain text and has no column 2" in refuse(*args, "text.txt#2", code=1)
    # Found before anything is counted or cut.
    assert "verify.txt does not exist" in refuse(*TRIM[:-1], "--verify-text", "verify.txt", code=1)


def test_corpus_in_another_language_warns(say: Callable[..., Said], here: Path) -> None:
    said = say(*E5, "--lang", "ro", "--text", "{m}/ru.txt", "--dry-run", "-q")
    assert said.code == 0
    assert said.err.startswith("Warning: Only 0% of the letters in the text given for Romanian are its own")
    syllables = ("ba", "de", "fo", "gu", "ti", "mo", "ne", "ra", "so")
    plain = " ".join(a + b + c for a in syllables for b in syllables for c in syllables)
    Path("plain.txt").write_text(plain, encoding="utf-8")  # its letters are Romanian ones, but never ă, â, î, ș, ț
    said = say(*E5, "--lang", "ro", "--text", "plain.txt", "--dry-run", "-q")
    assert said.code == 0 and "never has its letters" in said.err and "ș" in said.err
    assert not say(*TRIM, "--dry-run").err
    assert not say(*E5, "--lang", "en", "--text", "{m}/en.txt", "--dry-run").err


def test_language_without_any_text(refuse: Refuse) -> None:
    said = refuse(*E5, "--lang", "sw", code=1)
    assert "There is no text for Swahili" in said and "Give text: --text sw=PATH." in said


@pytest.mark.skipif(not installed(), reason="needs the package wordfreq")
def test_word_list_stands_in_with_a_warning(say: Callable[..., Said]) -> None:
    said = say(*E5, "--lang", "ro", "--no-verify", "-q", "--json")
    assert said.code == 0
    assert said.err.startswith("Warning: There is no text for Romanian") and said.err.count("\n") == 1
    assert "word list of wordfreq" in said.err and "% of the tokens of running text" in said.err
    assert "--text" in said.err
    result = json.loads(said.out)
    assert result["coverage"]["ro"] > 0.999
    record = json.loads(Path(result["output"], "polydistill.json").read_text(encoding="utf-8"))
    assert record["texts"][0]["where"].startswith("wordfreq")


# --- sizes and tokens


def test_sizes_that_cannot_be(refuse: Refuse) -> None:
    said = refuse(*TRIM, "--vocab-size", "10", code=2)
    assert "A --vocab-size of 10 is too small" in said
    least = int(said.partition("small: ")[2].split()[0])
    assert f"Ask for {least} or more" in said
    assert "must stay" in refuse(*TRIM, "--vocab-size", str(least - 1), code=2)
    assert "is more than the 325 tokens" in refuse(*TRIM, "--vocab-size", "1000000", code=2)
    assert "at least 1, not -3" in refuse(*TRIM, "--vocab-size", "-3", code=2)
    assert "at least 1, not 0" in refuse(*TRIM, "--min-count", "0", code=2)
    assert "--coverage must be a number, not nan" in refuse(*TRIM, "--coverage", "nan", code=2)
    for share in ("0", "2", "-1"):
        assert "--coverage is a share" in refuse(*TRIM, "--coverage", share, code=2)
        assert "--min-share is a share" in refuse(*TRIM, "--min-share", share, code=2)
    assert "They exclude each other" in refuse(*TRIM, "--coverage", "0.9", "--min-count", "2", code=2)
    assert "They exclude each other" in refuse(*TRIM, "--coverage", "0.9", "--min-share", "1e-6", code=2)
    assert "--limit must be at least 1" in refuse(*TRIM, "--limit", "-5", code=2)
    assert "--limit must be at least 1" in refuse("count", *TRIM[1:-1], "-o", "c.json", "--limit", "0", code=2)
    assert "--seed must be at least 0" in refuse(*TRIM, "--seed", "-1", code=2)
    assert "--pad-to-multiple must be at least 1" in refuse(*TRIM, "--pad-to-multiple", "0", code=2)
    assert "--dtype float64 is unknown. Choose keep," in refuse(*TRIM, "--dtype", "float64", code=2)
    for weight in ("2", "ro=0", "ro=many", "ro=inf", "ro=nan"):
        assert "Write --weight ro=2" in refuse(*TRIM, "--weight", weight, code=2)


def test_the_least_size_is_possible(refuse: Refuse, say: Callable[..., Said]) -> None:
    least = refuse(*TRIM, "--vocab-size", "10", code=2).partition("small: ")[2].split()[0]
    said = say(*TRIM, "--vocab-size", least, "--dry-run", "--json")
    assert json.loads(said.out)["vocabulary"]["after"] == int(least)


def test_tokens_that_cannot_be_kept_or_dropped(refuse: Refuse) -> None:
    assert "The model has no tokens for --keep-token" in refuse(*TRIM, "--keep-token", "漢", code=2)
    assert "The model has no tokens for --keep-token" in refuse(*TRIM, "--keep-token", "", code=2)
    assert "--keep-file none cannot be read" in refuse(*TRIM, "--keep-file", "none", code=2)
    assert "would drop <s>, which must stay" in refuse(*TRIM, "--drop-added", "*", code=2)
    assert "matches none of the 5 added tokens" in refuse(*TRIM, "--drop-added", "<extra*>", code=2)


# --- counts


def test_counts_that_do_not_fit(say: Callable[..., Said], refuse: Refuse, here: Path, copy: Path) -> None:
    count = ("count", "--model", "{m}/e5", "--lang", "ro", "--text", "{m}/ro.txt", "-o")
    assert say(*count, "c.json").code == 0
    assert "c.json already exists and was left as it is" in refuse(*count, "c.json", code=1)
    assert "copy is a folder, not a file" in refuse(*count, "copy", code=1)
    use = (*E5, "--no-verify", "--counts")
    assert "have ro but not sw" in refuse(*use, "c.json", "--lang", "sw", code=1)
    assert "exclude each other" in refuse(*use, "c.json", "--lang", "ro", "--text", "{m}/ro.txt", code=2)
    assert "There is no file none.json" in refuse(*use, "none.json", "--lang", "ro", code=1)
    assert "copy cannot be read" in refuse(*use, "copy", "--lang", "ro", code=1)
    whole = Path("c.json").read_bytes()
    half = json.loads(whole)
    half["languages"]["ro"]["spaces"]["tokens"] = {"size": 5, "ids": [7], "counts": [1]}
    for content in (whole[: len(whole) // 2], b"{}", b"[]", b'"text"', b"", json.dumps(half).encode()):
        Path("bad.json").write_bytes(content)
        said = refuse(*use, "bad.json", "--lang", "ro", code=1)
        assert "bad.json does not hold token counts" in said or "another tokenizer" in said
    tokenizer = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"][9][0] += "x"
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    assert "another tokenizer" in refuse("trim", "--model", "copy", "--lang", "ro", "--counts", "c.json", code=1)


def test_weights_that_cannot_be_hashed_are_told_once_without_a_traceback(
    say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, copy: Path
) -> None:
    def broken(file: Path) -> str:
        raise OSError(errno.EIO, "Input/output error", str(file))

    monkeypatch.setattr("polydistill.models.checkpoint.file_sha256", broken)
    in_threads: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", in_threads.append)
    said = say("trim", "--model", "copy", *TRIM[3:], "-o", "out")
    assert not in_threads
    assert said.code == 1 and "Input/output error" in said.err and "Traceback" not in said.err
    assert not Path("out").exists()


def test_places_for_counts(say: Callable[..., Said], refuse: Refuse, here: Path) -> None:
    assert "a dry run writes nothing" in refuse(*TRIM, "--dry-run", "--save-counts", "c.json", code=2)
    Path("c.json").write_text("mine")
    assert "c.json already exists and was left" in refuse(*TRIM, "-o", "out", "--save-counts", "c.json", code=1)
    assert "lies in the output folder" in refuse(*TRIM, "-o", "out", "--save-counts", "out/c.json", code=2)
    assert "lies in the output folder" in refuse(*TRIM, "-o", "out", "--save-counts", "out", code=2)
    assert say(*TRIM, "-o", "out", "--save-counts", "c.json", "--overwrite").code == 0
    assert json.loads(Path("c.json").read_bytes())["tokenizer"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_counts_appear_whole_or_not_at_all(
    error: BaseException, say: Callable[..., Said], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    said = say("count", "--model", "{m}/e5", "--lang", "ro", "--text", "{m}/ro.txt", "-o", "c.json")
    assert said.code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert "the disk is full" in said.err or "Interrupted" in said.err
    assert not list(here.iterdir())


# --- the output


def test_output_that_exists(say: Callable[..., Said], refuse: Refuse, here: Path, models: Path) -> None:
    assert say(*TRIM, "-o", "out").code == 0
    assert "out already exists and was left as it is" in refuse(*TRIM, "-o", "out", code=1)
    Path("out/more.txt").write_text("from before")
    assert say(*TRIM, "-o", "out", "--overwrite", "--vocab-size", "100").code == 0
    assert not Path("out/more.txt").exists()
    assert json.loads(Path("out/config.json").read_bytes())["vocab_size"] == 100
    Path("file").write_text("mine")
    for option in ((), ("--overwrite",)):
        assert "file is a file, not a folder" in refuse(*TRIM, "-o", "file", *option, code=1)
        assert "file is a file, not a folder" in refuse(*TRIM, "-o", "file/below/it", *option, code=1)
    Path("empty").mkdir()
    assert say(*TRIM, "-o", "empty").code == 0 and Path("empty/config.json").is_file()


def test_overwrite_deletes_only_what_polydistill_wrote(refuse: Refuse, here: Path, copy: Path) -> None:
    args = ("trim", "--model", "copy", "--lang", "ro", "--text", "{m}/ro.txt", "--overwrite", "-o")
    Path("thesis").mkdir()
    Path("thesis/chapter.txt").write_text("years of work")
    assert "thesis was not written by polydistill" in refuse(*args, "thesis", code=2)
    assert "copy holds copy, which is read here" in refuse(*args, "copy", code=2)
    assert "holds copy, which is read here" in refuse(*args, here.parent, code=2)
    assert "lies in the folder of the model" in refuse(*args, "copy/ro", code=2)
    Path("inside").mkdir()
    os.chdir("inside")
    assert "is the folder that you are in" in refuse(
        "trim", "--model", "../copy", *args[3:-2], "--overwrite", "-o", ".", code=2
    )


READS = {
    "-o text/ro.txt": "count --model copy --lang ro --text ro=text/ro.txt",
    "-o text/en.txt": "count --model copy --lang ro --text text/*.txt",
    "-o copy/tokenizer.json": "count --model copy --lang ro --text text/ro.txt",
    "--save-counts text/ro.txt -o new": "trim --model copy --lang ro --text text",
    "--save-counts keep.txt -o new": "trim --model copy --lang ro --text text --keep-file keep.txt",
    "-o copy/config.json": "evaluate --model copy --task nli --lang sw",
    "-o ro.jsonl": "evaluate --model copy --task nli --lang sw --data ro.jsonl",
    "-o data/nli/sw/test.jsonl": "evaluate --model copy --task nli --lang sw --data-dir data",
    "-o trimmed/polydistill.json": "card trimmed",
    "--html trimmed/polydistill.json": "compare trimmed trimmed",
    "--html run.json": "compare run.json trimmed",
    "-o a.safetensors": "sparse combine a.safetensors b.safetensors",
    "-o trimmed": "trim --model copy --lang ro --counts trimmed/counts.json",
    "-o ./trimmed/": "trim --model copy --lang ro --text text --keep-file trimmed/keep.txt",
    "-o trimmed/": "finetune --model copy --task nli --lang sw --include-path trimmed/more",
    "-o other/../trimmed": "export trimmed",
}


@pytest.mark.parametrize("place", READS)
def test_overwrite_leaves_alone_what_is_read(place: str, say: Callable[..., Said], refuse: Refuse, copy: Path) -> None:
    """Each command with an output that is one of its inputs, or that holds one."""
    assert say(*TRIM, "-o", "trimmed").code == 0
    Path("text").mkdir()
    for name in (
        "text/ro.txt",
        "text/en.txt",
        "keep.txt",
        "trimmed/keep.txt",
        "ro.jsonl",
        "a.safetensors",
        "run.json",
        "trimmed/counts.json",
        "trimmed/more/tasks/x",
        "data/nli/sw/test.jsonl",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        rows = [{"premise": "a", "hypothesis": "b", "label": label} for label in ("neutral", "entailment")]
        Path(name).write_text("\n".join(map(json.dumps, rows)))
    said = refuse(*READS[place].split(), *place.split(), "--overwrite", code=2)
    assert "is read here" in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("output = 'out'", "out holds out/trim.toml, which is read here"),
        ("output = 'out/../out'", "which is read here"),
        ("output = 'out/trim.toml'", "is a file, not a folder"),
        ("save_counts = 'out/trim.toml'", "out/trim.toml is read here"),
    ],
)
def test_the_file_of_options_is_not_overwritten(line: str, said: str, refuse: Refuse, here: Path) -> None:
    Path("out").mkdir()
    Path("out/trim.toml").write_text(f"{line}\noverwrite = true\n")
    content = Path("out/trim.toml").read_text()
    assert said in refuse(*TRIM, "--config", "out/trim.toml", code=1 if "not a folder" in said else 2)
    assert Path("out/trim.toml").read_text() == content


def test_the_file_of_options_in_the_usual_output_is_not_overwritten(
    say: Callable[..., Said], refuse: Refuse, here: Path
) -> None:
    assert say(*TRIM).code == 0
    file = next(Path("polydistill-out").iterdir()) / "trim.toml"
    file.write_text("overwrite = true\n")
    assert "trim.toml, which is read here" in refuse(*TRIM, "--config", str(file), code=2)
    assert say(*TRIM, "--overwrite").code == 0  # it is no file of this run


def test_toml_files_of_ones_own_are_not_overwritten(say: Callable[..., Said], refuse: Refuse, here: Path) -> None:
    Path("own/languages").mkdir(parents=True)
    file = Path("own/languages/qq.toml")
    shipped = Path(__file__).parents[2] / "languages/ro.toml"
    file.write_text(shipped.read_text().replace('code = "ro"', 'code = "qq"', 1))
    text, own = TRIM[1:-1], ("--include-path", "own", "--overwrite")
    assert "qq.toml is read here" in refuse("count", *text, *own, "-o", file, code=2)
    assert "qq.toml is read here" in refuse(*TRIM, *own, "--save-counts", file, code=2)
    Path("own/c.json").write_text("mine")
    assert say(*TRIM, *own, "--save-counts", "own/c.json").code == 0


def test_names_that_no_disk_takes(refuse: Refuse, here: Path) -> None:
    assert "File name too long" in refuse(*TRIM, "-o", "a" * 300, code=1)
    assert "File name too long" in refuse(*TRIM, "-o", "a" * 250, code=1)


STAGES = {
    "folder": "pathlib.Path.mkdir",
    "weights": "polydistill.trimming.surgery.write_all",
    "other files": "polydistill.models.copying.copy_file",
    "tokenizer": "polydistill.trimming.plan.write_vocabulary",
    "record": "polydistill.records.record.RunRecord.save",
    "card": "polydistill.methods.trim.method.write_card",
    "rename": "polydistill.files.outputs._put_in_place",
}
ERRORS: dict[str, tuple[Callable[[], BaseException], int, str]] = {
    "full": (lambda: OSError(errno.ENOSPC, "No space left on device"), 1, "could not be written: the disk is full."),
    "quota": (lambda: OSError(errno.EDQUOT, "Quota exceeded"), 1, "your disk quota is used up."),
    "read-only": (lambda: OSError(errno.EROFS, "Read-only"), 1, "could not be written: the file system is read-only."),
    "broken": (lambda: OSError(errno.EIO, "Input/output error"), 1, "could not be written: Input/output error"),
    "ctrl-c": (KeyboardInterrupt, 130, "Interrupted; no unfinished output was left behind."),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("exists", [False, True])
def test_output_never_half_exists(
    stage: str, kind: str, exists: bool, copy: Path, say: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, code, sentence = ERRORS[kind]
    (copy / "LICENSE").write_text("MIT")  # something to copy
    here = copy.parent
    out = here / "new" / "out"
    args = ("trim", "--model", "copy", "--lang", "ro", "--text", "{m}/ro.txt", "--no-verify", "-o", "new/out")
    if exists:
        assert say(*args).code == 0
    before = tree(here)

    def fail(*args: Any, **options: Any) -> None:
        seen.append(tree(here))
        raise make()

    seen: list[dict[str, bytes | None]] = []
    monkeypatch.setattr(STAGES[stage], fail)
    said = say(*args, "--overwrite")
    monkeypatch.undo()
    assert seen, "the stage was never reached"
    assert said.code == code and sentence in said.err and "Traceback" not in said.err and "bug" not in said.err
    if code == 1:
        assert "new/out" in said.err and "another place with -o" in said.err
    os.chdir(here)
    assert tree(here) == before, "something was left behind, or the old output was touched"
    assert out.exists() == exists
    if stage not in ("folder", "other files"):  # the failure came when there was something to lose
        assert len(seen[0]) > len(before)
    # And nothing stands in the way of the next run.
    assert say(*args, "--overwrite").code == 0 and (out / "polydistill.json").is_file()


def test_what_a_killed_run_left_is_cleared_away(say: Callable[..., Said], here: Path) -> None:
    Path(".out.partial/sub").mkdir(parents=True)
    Path(".out.lock").touch()
    assert say(*TRIM, "-o", "out").code == 0
    assert [p.name for p in here.iterdir()] == ["out"]


# --- without the Hub


def test_hub_that_does_not_answer(models: Path, tmp_path: Path) -> None:
    secret = "hf_" + "Secret" * 6
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    env |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": secret, "HF_HOME": str(tmp_path / "hub")}
    env |= {"POLYDISTILL_CACHE": str(tmp_path / "cache"), "no_proxy": "127.0.0.1"}

    def run(*args: str) -> Said:
        command = [sys.executable, "-m", "polydistill", *args]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert secret not in done.stdout + done.stderr and "Traceback" not in done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    said = run("trim", "--lang", "ro", "--model", "org/name", "-v")
    assert said.code == 1 and "so org/name cannot be fetched" in said.err
    assert "Give a folder that has the model" in said.err
    said = run("trim", "--lang", "sw", "--model", str(models / "e5"), "-v")
    assert said.code == 1 and "There is no text for Swahili: the Hub is out of reach" in said.err
    assert "Give text: --text sw=PATH." in said.err
    said = run("trim", "--lang", "ro", "--model", str(models / "e5"), "--text", "org/set", "-v")
    assert said.code == 1 and "is out of reach" in said.err
    text = str(models / "ro.txt")
    said = run("trim", "--lang", "ro", "--model", str(models / "e5"), "--text", text, "--no-verify", "-o", "out", "-v")
    assert said.code == 0, said.err
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and secret.encode() in p.read_bytes()]


# --- click's own


def test_words_that_are_no_command(say: Callable[..., Said]) -> None:
    for args in (["bogus"], ["trim", "--bogus"], ["trim", "--coverage", "much"], ["info"], ["ls", "bogus"], ["count"]):
        said = say(*args)
        assert said.code == 2 and not said.out
        assert "Error: " in said.err and "--help' for help" in said.err and "Traceback" not in said.err
    assert say("trim", "--lang").code == 2
