"""Blocks of text: full, nothing lost or added, found again on disk; masks follow from seed, turn and block alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers

from polydistill.distill import blocks as module
from polydistill.distill.blocks import Blocks, MaskedBlocks, edges_of, pack, stacked
from polydistill.errors import PolydistillError
from polydistill.progress import Progress
from polydistill.texts.sources import TextReader, TextSource
from polydistill.training.batching import NOT_TRAINED

LINES = tiny.sentences("en", "ro", count=200)


def tokenizer_of(recipe: str, folder: Path) -> Any:
    tiny.tokenizer_files(recipe, folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tokenizer_of("xlm-roberta", tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def source(tmp_path: Path) -> TextSource:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return TextSource("en", "file", str(path), (path,))


def stream(tokenizer: Any, separator: list[int]) -> list[int]:
    return [i for line in LINES for i in (*tokenizer(line, add_special_tokens=False)["input_ids"], *separator)]


@pytest.mark.parametrize("recipe", ["xlm-roberta", "bert", "roberta", "gpt2", "llama", "modernbert"])
def test_blocks_are_the_text_with_special_tokens_and_no_padding(
    recipe: str, source: TextSource, tmp_path: Path
) -> None:
    tokenizer = tokenizer_of(recipe, tmp_path / "tokenizer")
    packed = pack(tokenizer, [source], "en", 32)
    around = tokenizer("", verbose=False)["input_ids"]
    edges = edges_of(tokenizer)
    assert [*edges.prefix, *edges.suffix] == around
    room = 32 - len(around)
    expected = stream(tokenizer, list(edges.separator))
    inside = packed.ids[:, len(edges.prefix) : 32 - len(edges.suffix)]
    assert inside.flatten().tolist() == expected[: len(expected) // room * room]
    assert packed.ids.dtype == np.int32 and packed.ids.shape == (len(expected) // room, 32)
    for row in packed.ids.tolist():
        assert row[: len(edges.prefix)] == list(edges.prefix) and row[32 - len(edges.suffix) :] == list(edges.suffix)


def test_separators_are_the_end_of_text_token(tokenizer: Any, tmp_path: Path) -> None:
    edges = edges_of(tokenizer)
    assert edges.prefix == (tokenizer.cls_token_id,) and edges.suffix == edges.separator == (tokenizer.eos_token_id,)
    edges = edges_of(tokenizer_of("gpt2", tmp_path))
    assert edges.prefix == edges.suffix == () and len(edges.separator) == 1


def test_batches_of_lines_change_nothing(
    tokenizer: Any, source: TextSource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = pack(tokenizer, [source], "en", 24)
    monkeypatch.setattr(module, "LINES_AT_ONCE", 3)
    assert np.array_equal(pack(tokenizer, [source], "en", 24).ids, whole.ids)
    assert np.array_equal(pack(tokenizer, [source], "en", 24, folder=tmp_path).ids, whole.ids)


def test_a_tokenizer_that_cuts_and_pads_of_its_own_does_neither(tokenizer: Any, source: TextSource) -> None:
    plain = pack(tokenizer, [source], "en", 24).ids
    tokenizer(LINES[:4], truncation=True, max_length=5, padding="max_length")
    assert np.array_equal(pack(tokenizer, [source], "en", 24).ids, plain)


def test_the_limit_stops_reading(tokenizer: Any, source: TextSource) -> None:
    whole = pack(tokenizer, [source], "en", 32)
    some = pack(tokenizer, [source, source], "en", 32, limit_tokens=200)
    assert np.array_equal(some.ids, whole.ids[: 200 // 30])
    assert len(some.texts) == 1
    twice = pack(tokenizer, [source, source], "en", 32)
    assert len(twice.texts) == 2 and len(twice) >= 2 * len(whole)


def test_the_record_says_what_was_read(tokenizer: Any, source: TextSource) -> None:
    reader = TextReader(source)
    assert sum(map(len, reader.blocks())) == len(LINES)
    (text,) = pack(tokenizer, [source], "en", 32).texts
    assert (text.where, text.lines, text.bytes, text.sha256) == (source.where, len(LINES), reader.bytes, reader.sha256)


def test_too_short_a_text_is_refused_with_its_length(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("the red house.\n")
    source = TextSource("sw", "file", str(path), (path,))
    n = len(tokenizer("the red house.")["input_ids"]) - 1
    for folder in (None, tmp_path / "blocks"):
        with pytest.raises(PolydistillError, match=rf"text of sw has {n} tokens, too few for one block of 64"):
            pack(tokenizer, [source], "sw", 64, folder=folder)
    assert not list((tmp_path / "blocks").iterdir())
    with pytest.raises(PolydistillError, match="no room for text"):
        pack(tokenizer, [source], "sw", 2)
    with pytest.raises(PolydistillError, match="no running text of sw"):
        pack(tokenizer, [TextSource("sw", "wordlist", "wordfreq:sw")], "sw", 64)


def test_blocks_on_disk_are_mapped_and_found_again(
    tokenizer: Any, source: TextSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "blocks"
    first = pack(tokenizer, [source], "en", 32, folder=folder)
    assert isinstance(first.ids, np.memmap)
    other = pack(tokenizer, [source], "en", 16, folder=folder)
    assert other.ids.shape[1] == 16
    tokenizer(LINES[:2], truncation=True, max_length=5, padding="max_length")  # leaves traces in the tokenizer
    with monkeypatch.context() as patch:
        patch.setattr(module._Packer, "blocks", lambda *a: pytest.fail("tokenized again"))
        again = pack(tokenizer, [source], "en", 32, folder=folder)
    assert np.array_equal(again.ids, first.ids) and again.texts == first.texts
    source.files[0].write_text("\n".join(LINES[5:]) + "\n", encoding="utf-8")
    changed = pack(tokenizer, [source], "en", 32, folder=folder)
    assert not np.array_equal(changed.ids[0], first.ids[0])


@pytest.mark.parametrize("ending", ["i32", "json"])
def test_blocks_on_disk_that_were_damaged_are_made_again(
    ending: str, tokenizer: Any, source: TextSource, tmp_path: Path
) -> None:
    whole = np.array(pack(tokenizer, [source], "en", 32, folder=tmp_path / "blocks").ids)
    (file,) = (tmp_path / "blocks").glob(f"*.{ending}")
    content = file.read_bytes()
    for damaged in (content[:-7], b"", bytes([*content[:40], content[40] ^ 1, *content[41:]]), None):
        if damaged is None:
            file.unlink()
        else:
            file.write_bytes(damaged)
        assert np.array_equal(pack(tokenizer, [source], "en", 32, folder=tmp_path / "blocks").ids, whole)
        assert file.read_bytes() == content


def test_a_run_that_was_stopped_leaves_no_blocks(tokenizer: Any, source: TextSource, tmp_path: Path) -> None:
    class Stop(Progress):
        def bar(self, what: str, total: int | None, unit: str) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(tokenizer, [source], "en", 32, folder=tmp_path / "blocks", progress=Stop())
    assert not list((tmp_path / "blocks").iterdir())
    assert len(pack(tokenizer, [source], "en", 32, folder=tmp_path / "blocks"))


def test_held_out_blocks_are_spread_and_fixed(tokenizer: Any, source: TextSource) -> None:
    packed = pack(tokenizer, [source], "en", 16)
    train, held = packed.split(0.1)
    assert sorted([*train.places, *held.places]) == list(range(len(packed)))
    assert len(held) == round(0.1 * len(packed)) >= 5
    assert np.diff(held.places).min() >= 9 and held.places[0] < 10 and held.places[-1] > len(packed) - 11
    assert train.ids is packed.ids
    assert [held[i]["example_id"] for i in range(len(held))] == held.places.tolist()
    assert np.array_equal(held[2]["input_ids"], packed.ids[held.places[2]])
    assert len(packed.split(1e-9)[1]) == 1
    with pytest.raises(PolydistillError, match="only one block"):
        pack(tokenizer, [source], "en", 16, limit_tokens=20).split(0.1)


# ---- masking ----


@pytest.fixture
def parts(tokenizer: Any, source: TextSource) -> list[Blocks]:
    packed = pack(tokenizer, [source], "en", 64)
    return [packed, Blocks(packed.ids[::-1], packed.places, "sw")]


def test_masks_follow_from_seed_turn_and_block_alone(tokenizer: Any, parts: list[Blocks]) -> None:
    data, same = (MaskedBlocks(parts, tokenizer, seed=3) for _ in range(2))
    n = len(data)
    backwards = {i: same[i] for i in range(2 * n - 1, -1, -1)}
    for i in range(2 * n):
        assert np.array_equal(data[i]["input_ids"], backwards[i]["input_ids"])
    assert not np.array_equal(data[0]["labels"], data[n]["labels"])  # another turn
    assert data[0]["example_id"] == data[n]["example_id"] == 0
    assert not np.array_equal(data[0]["labels"], MaskedBlocks(parts, tokenizer, seed=4)[0]["labels"])
    assert [f["example_id"] for f in data] == list(range(n))
    assert data.groups == {"en": range(len(parts[0])), "sw": range(len(parts[0]), n)}
    assert data[n - 1]["language"] == "sw" and data[0]["language"] == "en"


def test_labels_are_the_text_where_it_was_chosen(tokenizer: Any, parts: list[Blocks]) -> None:
    for item in MaskedBlocks(parts[:1], tokenizer, mask_share=0.5):
        original, chosen = parts[0].ids[item["example_id"]], item["labels"] != NOT_TRAINED
        assert np.array_equal(item["labels"][chosen], original[chosen])
        assert np.array_equal(item["input_ids"][~chosen], original[~chosen])
        assert not chosen[np.isin(original, tokenizer.all_special_ids)].any()


def test_shares_of_masked_replaced_and_kept(tokenizer: Any, parts: list[Blocks]) -> None:
    data = MaskedBlocks(parts[:1], tokenizer)
    items = [data[i] for i in range(60 * len(data))]
    read, labels = (np.concatenate([f[key] for f in items]) for key in ("input_ids", "labels"))
    text = np.concatenate([parts[0].ids[f["example_id"]] for f in items])
    free = ~np.isin(text, tokenizer.all_special_ids)
    chosen = labels != NOT_TRAINED
    assert chosen.sum() > 5_000
    assert chosen[free].mean() == pytest.approx(0.15, abs=0.01)
    masked, kept = read[chosen] == tokenizer.mask_token_id, read[chosen] == labels[chosen]
    assert masked.mean() == pytest.approx(0.8, abs=0.02) and kept.mean() == pytest.approx(0.1, abs=0.02)
    others = read[chosen][~masked & ~kept]
    assert not np.isin(others, tokenizer.all_special_ids).any() and len(set(others.tolist())) > 100


def test_no_masking_needs_no_mask_token(tokenizer: Any, parts: list[Blocks], tmp_path: Path) -> None:
    gpt2 = tokenizer_of("gpt2", tmp_path / "gpt2")
    item = MaskedBlocks(parts, gpt2, mask_share=0)[0]
    assert np.array_equal(item["input_ids"], parts[0].ids[0]) and (item["labels"] == NOT_TRAINED).all()
    with pytest.raises(PolydistillError, match="no mask token"):
        MaskedBlocks(parts, gpt2)


def test_batches_of_blocks(tokenizer: Any, parts: list[Blocks]) -> None:
    data = MaskedBlocks(parts, tokenizer)
    rows = [data[0], data[1]]
    batch = stacked(rows)
    assert batch["language"] == "en" and batch["example_id"].tolist() == [0, 1]
    assert stacked([data[0], data[len(data) - 1]])["language"] == ["en", "sw"]
    for key in ("input_ids", "attention_mask", "labels"):
        assert batch[key].shape == (2, 64) and batch[key].dtype == torch.int64
    assert batch["input_ids"][1].tolist() == rows[1]["input_ids"].tolist()
    assert batch["labels"][0].tolist() == rows[0]["labels"].tolist()
