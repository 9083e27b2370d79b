"""`info` and `diff`: what they say is counted again here with the libraries that users have."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny
from safetensors.numpy import load_file
from tokenizers import Tokenizer

import polydistill
from polydistill.cli import diff as diff_command
from polydistill.cli import info as info_command
from polydistill.errors import PolydistillError
from polydistill.reports.inspection import diff, info


class Folders(NamedTuple):
    """A model, the same trimmed to Romanian, that trimmed again, and text."""

    model: Path
    trimmed: Path
    twice: Path
    ro: Path
    mixed: Path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("inspection")
    found = Folders(*(root / name for name in ("model", "trimmed", "twice", "ro.txt", "mixed.txt")))
    tiny.model_folder("bert", "masked-lm", found.model, tokenizer="xlm-roberta", rows=421, tied=False)
    ro, ru = (tiny.sentences(code, count=100) for code in ("ro", "ru"))
    found.ro.write_text("\n".join(ro) + "\n", encoding="utf-8")
    found.mixed.write_text("\n".join([*ro[:50], *ru[:30], "漢字 漢字"]) + "\n", encoding="utf-8")
    options: dict[str, Any] = {"languages": ["ro"], "text": str(found.ro), "verify": False}
    polydistill.trim(str(found.model), output=found.trimmed, **options)
    polydistill.trim(str(found.trimmed), output=found.twice, vocab_size=90, **options)
    return found


def encode(folder: Path, text: Path) -> list[list[str]]:
    """The tokens of each line, by the tokenizers library alone."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    lines = text.read_text(encoding="utf-8").splitlines()
    rows = tokenizer.encode_batch(lines, add_special_tokens=False)
    return [[tokenizer.id_to_token(i) for i in row.ids] for row in rows]  # `row.tokens` has what <unk> stood for


def test_info_counts_what_is_there(folders: Folders) -> None:
    report = info(str(folders.model))
    tensors = load_file(folders.model / "model.safetensors")
    assert report.model == str(folders.model) and report.architecture == "bert"
    vocabulary = Tokenizer.from_file(str(folders.model / "tokenizer.json")).get_vocab_size(with_added_tokens=True)
    assert report.vocabulary == vocabulary and report.rows == 421
    assert report.parameters == sum(t.size for t in tensors.values())
    long = sum(t.size for t in tensors.values() if 421 in t.shape)  # embedding, head and its bias
    assert report.embedding_share == pytest.approx(long / report.parameters) and report.embedding_share > 0.5
    files = [p for p in folders.model.iterdir() if p.name != "config.json" and p.name != "generation_config.json"]
    assert report.bytes == sum(p.stat().st_size for p in files)
    assert set(report.added_tokens) == {"<s>", "<pad>", "</s>", "<unk>", "<mask>"}
    assert report.lineage == () and report.texts == {}


def test_info_measures_text(folders: Folders) -> None:
    report = info(str(folders.model), [str(folders.ro), str(folders.mixed)])
    assert list(report.texts) == [str(folders.ro), str(folders.mixed)]
    for text in (folders.ro, folders.mixed):
        tokens = Counter(token for row in encode(folders.model, text) for token in row)
        words = len(text.read_text(encoding="utf-8").split())
        got = report.texts[str(text)]
        assert (got["words"], got["tokens"]) == (words, tokens.total())
        assert got["fertility"] == pytest.approx(tokens.total() / words)
        assert got["unknown_rate"] == pytest.approx(tokens["<unk>"] / tokens.total())
        assert got["vocabulary_in_use"] == pytest.approx(len(tokens) / report.vocabulary)
    assert report.texts[str(folders.ro)]["unknown_rate"] == 0 < report.texts[str(folders.mixed)]["unknown_rate"]


def test_info_counts_bytes_as_unknown_where_a_model_falls_back_to_them(tmp_path: Path) -> None:
    for name, model_type in (("gemma", "gemma3_text"), ("gpt2", "gpt2")):
        folder = tiny.model_folder(model_type, "causal-lm", tmp_path / name)
        (tmp_path / "t.txt").write_text("漢字\n")
        assert info(str(folder), [str(tmp_path / "t.txt")]).texts[str(tmp_path / "t.txt")]["unknown_rate"] > 0.5


def test_lineage_newest_first(folders: Folders) -> None:
    report = info(str(folders.twice))
    assert report.lineage == (f"trim (ro) of {folders.trimmed}", f"trim (ro) of {folders.model}")
    table = info_command.table(report)
    assert f"made by         trim (ro) of {folders.trimmed}\nfrom            trim (ro) of {folders.model}" in table


def test_info_json_and_table(folders: Folders) -> None:
    report = info(str(folders.trimmed), [str(folders.ro)])
    data = json.loads(json.dumps(report.to_json()))
    assert data["command"] == "info" and data["rows"] == data["vocabulary"] == report.rows
    assert set(data["texts"][str(folders.ro)]) == {"words", "tokens", "fertility", "unknown_rate", "vocabulary_in_use"}
    table = info_command.table(report)
    assert "tokens per word" in table and "in embeddings and heads" in table and "5: <s> <pad>" in table


def test_record_that_is_none(folders: Folders) -> None:
    record = folders.twice / "polydistill.json"
    whole = record.read_bytes()
    try:
        for content in (b"{}", b"[]", b"{", whole[:-20]):
            record.write_bytes(content)
            with pytest.raises(PolydistillError, match=r"polydistill\.json is not a polydistill record\. Remove it"):
                info(str(folders.twice))
    finally:
        record.write_bytes(whole)


def test_diff_of_equal_models(folders: Folders) -> None:
    report = diff(str(folders.model), str(folders.model), [str(folders.mixed)])
    assert report.identical == report.sentences == 81
    assert report.lost == 0 and report.lost_tokens == {} and report.examples == ()
    assert diff_command.table(report).startswith("81 of 81 sentences (100.0%) tokenize identically")


def test_diff_counts_what_was_lost(folders: Folders) -> None:
    report = diff(str(folders.model), str(folders.twice), [str(folders.ro), str(folders.mixed)])
    before = encode(folders.model, folders.ro) + encode(folders.model, folders.mixed)
    after = encode(folders.twice, folders.ro) + encode(folders.twice, folders.mixed)
    kept = Tokenizer.from_file(str(folders.twice / "tokenizer.json")).get_vocab()
    lost = Counter(token for row in before for token in row if token not in kept)
    assert report.sentences == 181
    assert report.identical == sum(a == b for a, b in zip(before, after, strict=True))
    assert 0 < report.identical < 181
    assert report.tokens == sum(map(len, before)) and report.lost == lost.total()
    assert report.lost_tokens == lost
    assert list(report.lost_tokens.values()) == sorted(lost.values(), reverse=True)
    lines = (folders.ro.read_text(encoding="utf-8") + folders.mixed.read_text(encoding="utf-8")).splitlines()
    for example in report.examples:
        at = lines.index(example["text"])
        assert (example["before"], example["after"]) == (before[at], after[at]) and before[at] != after[at]
    table = diff_command.table(report)
    assert f"{report.lost:,} of {report.tokens:,} token occurrences" in table and "lost token" in table


def test_diff_shows_only_the_part_that_differs() -> None:
    def example(before: str, after: str) -> list[str]:
        found = {"text": "x" * 500, "before": before.split(), "after": after.split()}
        report = diff_command.DiffReport(1, 0, 30, 1, {"Q": 1}, (found,))
        return diff_command.table(report).splitlines()[-3:]

    text, before, after = example("a b c d e Q f g h i j", "a b c d e R S f g h i j")
    assert len(text) == 160 and text.endswith("x ...")
    assert before == "  before  ... c d e Q f g h ..."
    assert after == "  after   ... c d e R S f g h ..."
    assert example("Q a", "a")[1:] == ["  before  Q a", "  after   a"]
    assert example("a a", "a a a")[1:] == ["  before  a a", "  after   a a a"]
    assert max(map(len, example(" ".join("abc" * 99), " ".join("cba" * 99)))) == 170


def test_diff_and_info_read_every_kind_of_text(folders: Folders, tmp_path: Path) -> None:
    rows = [json.dumps({"id": str(i), "text": line}) for i, line in enumerate(tiny.sentences("ro", count=20))]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    text = f"{tmp_path}/a.jsonl#text"
    assert diff(str(folders.model), str(folders.trimmed), [text]).sentences == 20
    assert info(str(folders.model), [text]).texts[text]["words"] > 40
