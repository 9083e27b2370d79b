"""Every file from which a reader may take the vocabulary agrees with the rows after a trim, or is left out."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from conftest import TEXT, Cut, read, write
from sentencepiece import SentencePieceProcessor

from polydistill.errors import PolydistillError
from polydistill.vocab import open_vocabulary, sentencepiece_model
from polydistill.vocab.agreement import disagreements
from polydistill.vocab.bpe import byte_alphabet

pytestmark = pytest.mark.usefixtures("quick_verification")

FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)


def list_as_added(folder: Path, tokens: list[str]) -> None:
    """Makes tokens of the vocabulary special added tokens."""
    data = read(folder / "tokenizer.json")
    ids = data["model"]["vocab"]
    data["added_tokens"] += [{"id": ids[t], "content": t, **FLAGS, "special": True} for t in tokens]
    data["added_tokens"].sort(key=lambda token: token["id"])
    write(folder / "tokenizer.json", data)


def pieces(folder: Path) -> list[str]:
    processor = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    return [processor.id_to_piece(i) for i in range(len(processor))]


def tokens(folder: Path) -> list[str]:
    return open_vocabulary(folder).spaces[0].tokens


@pytest.mark.parametrize("case", ["plain vocabulary", "kept", "dropped"])
def test_control_pieces_have_the_ids_of_tokenizer_json(case: str, cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("mistral", "base", tmp_path / "old", tokenizer="mistral", beside=True)
    if case != "plain vocabulary":
        list_as_added(folder, tiny._CONTROL)
    new = cut(folder, tmp_path / "new", drop_added=("[control_*]",) if case == "dropped" else (), verify=True)
    assert new.result.notes == ()
    assert pieces(new.folder) == tokens(new.folder) and len(pieces(new.folder)) == new.result.rows["after"]
    left = set(tiny._CONTROL) & set(pieces(new.folder))
    assert left == (set(tiny._CONTROL) if case == "kept" else set())
    processor = SentencePieceProcessor(model_file=str(new.folder / "tokenizer.model"))
    names = open_vocabulary(new.folder).spaces[0]
    assert processor.encode(TEXT[:9]) == names.encoders[0](TEXT[:9])


def test_spare_pieces_of_gemma_go_from_every_file(cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("gemma2", "causal-lm", tmp_path / "old", beside=True)
    list_as_added(folder, ["<unused0>", "<unused1>"])
    new = cut(folder, tmp_path / "new", drop_added=("<unused*>",), verify=True)
    assert pieces(new.folder) == tokens(new.folder) and "<unused0>" not in pieces(new.folder)


def test_a_control_piece_that_was_renamed_keeps_its_place(cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("mistral", "base", tmp_path / "old", tokenizer="mistral", beside=True)
    data = read(folder / "tokenizer.json")
    vocab = {{"[control_9]": "<|im_start|>"}.get(token, token): i for token, i in data["model"]["vocab"].items()}
    data["model"]["vocab"] = vocab
    write(folder / "tokenizer.json", data)
    list_as_added(folder, ["<|im_start|>"])
    new = cut(folder, tmp_path / "new", verify=True)
    names = tokens(new.folder)
    assert [p if p != "[control_9]" else "<|im_start|>" for p in pieces(new.folder)] == names
    assert "<|im_start|>" in names and "[control_9]" in pieces(new.folder)


def test_an_offset_that_no_layout_has_is_not_taken_for_granted(cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("llama", "base", tmp_path / "old", beside=True)
    front = ["<unk>", "<s>", "</s>", "<pad>", *tiny._BYTES]  # one piece more than tokenizer.json has there
    tiny.train_pieces("bpe", 380, 0).write(folder / "tokenizer.model", front)
    new = cut(folder, tmp_path / "new", verify=True)
    assert not (new.folder / "tokenizer.model").exists()
    (note,) = new.result.notes
    assert note == (
        "tokenizer.model was left out, since it would not agree with tokenizer.json: the model gives its piece "
        "'<0x00>' the id 4, tokenizer.json gives it 3."
    )


def test_a_model_that_the_library_would_refuse_is_left_out(cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("llama", "base", tmp_path / "old", beside=True)
    data = read(folder / "tokenizer.json")
    data["model"]["byte_fallback"] = False  # so that bytes are tokens like others
    write(folder / "tokenizer.json", data)
    new = cut(folder, tmp_path / "new")
    assert not (new.folder / "tokenizer.model").exists()
    assert "it needs pieces, such as its bytes, that were dropped" in new.result.notes[0]


@pytest.mark.parametrize(
    ("recipe", "model_type", "patterns"),
    [
        ("mistral", "mistral", ("[control_*]",)),
        ("gemma", "gemma2", ("<unused1>",)),
        ("xlm-roberta", "xlm-roberta", ()),
        ("t5", "t5", ("<extra_id_*>",)),
    ],
)
def test_transformers_reads_the_same_without_tokenizer_json(
    recipe: str, model_type: str, patterns: tuple[str, ...], cut: Cut, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder = tiny.model_folder(model_type, "base", tmp_path / "old", tokenizer=recipe, beside=True)
    if recipe in ("mistral", "gemma"):
        list_as_added(folder, tiny._CONTROL if recipe == "mistral" else ["<unused0>", "<unused1>"])
    tiny._write_version_4_config(folder)
    new = cut(folder, tmp_path / "new", drop_added=patterns)
    before, after = tokens(folder), tokens(new.folder)
    for place in (folder, new.folder):
        (place / "tokenizer.json").unlink()
    old, slow = (AutoTokenizer.from_pretrained(place) for place in (folder, new.folder))
    assert slow.get_vocab() == {token: i for i, token in enumerate(after)}
    assert old.get_vocab() == {token: i for i, token in enumerate(before)}
    ids = {old_id: new_id for new_id, old_id in enumerate(new.kept[0])}
    lines = [(old(text)["input_ids"], slow(text)["input_ids"]) for text in TEXT[:20]]
    found = [[ids[i] for i in first] == second for first, second in lines if ids.keys() >= set(first)]
    assert len(found) > 5 and all(found)
    flags = [{str(t): repr(t) for t in names.added_tokens_decoder.values()} for names in (old, slow)]
    assert flags[1] == {token: flag for token, flag in flags[0].items() if token in after}


def test_a_model_whose_class_numbers_language_codes_after_it_goes_with_them(cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("mbart", "base", tmp_path / "old", beside=True)
    assert (cut(folder, tmp_path / "all").folder / "sentencepiece.bpe.model").is_file()
    new = cut(folder, tmp_path / "new", drop_added=("fr_XX",))
    assert not (new.folder / "sentencepiece.bpe.model").exists()
    assert [n for n in new.result.notes if "MBartTokenizer numbers all language codes" in n]


def test_files_of_another_kind_of_tokenizer_are_named(cut: Cut, tmp_path: Path) -> None:
    folder = tiny.model_folder("xlm-roberta", "base", tmp_path / "old")
    (folder / "vocab.txt").write_text("a\nb\n")
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    write(folder / "tekken.json", tekken({"a": 0}))
    new = cut(folder, tmp_path / "new")
    names = ("vocab.txt", "merges.txt", "tekken.json")
    assert not [name for name in names if (new.folder / name).exists()]
    (note,) = new.result.notes
    assert note.startswith("Left out") and all(name in note for name in names)


# ---- verification reads them back ----


def shift(table: dict[str, int]) -> dict[str, int]:
    return {token: i + 1 for token, i in table.items()}


def tekken(ids: dict[str, int]) -> dict[str, Any]:
    """A file of Mistral's kind, with the bytes of a byte-level vocabulary and no special tokens."""
    table = {c: b for b, c in byte_alphabet().items()}
    entries = [
        {"rank": i, "token_bytes": base64.b64encode(bytes(table[c] for c in t)).decode()} for t, i in ids.items()
    ]
    return {"config": {"default_num_special_tokens": 0}, "vocab": entries, "special_tokens": []}


BROKEN: list[tuple[str, str, Callable[[Path], object]]] = [
    ("bert", "vocab.txt", lambda p: p.write_text("new\n" + p.read_text("utf-8"), "utf-8")),
    ("bert", "vocab.txt", lambda p: p.write_text(p.read_text("utf-8").rsplit("\n", 2)[0] + "\n", "utf-8")),
    ("gpt2", "vocab.json", lambda p: write(p, shift(read(p)))),
    ("gpt2", "merges.txt", lambda p: p.write_text(p.read_text("utf-8").rsplit("\n", 2)[0], "utf-8")),
    ("gpt2", "tekken.json", lambda p: write(p, tekken({**read(p.parent / "vocab.json"), "zzz": 9_999}))),
    ("gpt2", "added_tokens.json", lambda p: write(p, {"<|endoftext|>": 3})),
    ("gemma", "tokenizer.model", lambda p: tiny.train_pieces("bpe", 380, 0).write(p, tiny._GEMMA[:-1] + tiny._BYTES)),
    ("xlm-roberta", "sentencepiece.bpe.model", lambda p: tiny.train_pieces("unigram", 380, 0).write(p, ["<unk>"])),
]


@pytest.mark.parametrize(("recipe", "name", "change"), BROKEN, ids=[f"{r}-{n}" for r, n, _ in BROKEN])
def test_a_file_that_numbers_tokens_otherwise_is_found(
    recipe: str, name: str, change: Callable[[Path], object], tmp_path: Path
) -> None:
    folder = tiny.tokenizer_files(recipe, tmp_path, beside=True)
    assert disagreements(open_vocabulary(folder)) == []
    change(folder / name)
    (found,) = disagreements(open_vocabulary(folder))
    assert name in found or name == "added_tokens.json"


def test_a_tekken_file_that_agrees_is_right(tmp_path: Path) -> None:
    folder = tiny.tokenizer_files("gpt2", tmp_path, beside=True)
    data = tekken(read(folder / "tokenizer.json")["model"]["vocab"])
    ends = data["vocab"].pop()  # <|endoftext|> is a special token
    data["special_tokens"] = [{"rank": ends["rank"], "token_str": "<|endoftext|>"}]
    write(folder / "tekken.json", data)
    assert disagreements(open_vocabulary(folder)) == []


def test_a_trim_that_leaves_a_stale_file_is_refused(cut: Cut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.model_folder("llama", "base", tmp_path / "old", beside=True)

    def copied(path: Path, target: Path, *_: Any) -> list[str]:
        shutil.copy(path, target)
        return []

    monkeypatch.setattr(sentencepiece_model, "rewrite_beside", copied)
    with pytest.raises(PolydistillError, match=r"the tokenizer's files differ: tokenizer\.model: the model gives its"):
        cut(folder, tmp_path / "new", verify=True)
    assert not (tmp_path / "new").exists()


def test_a_model_that_cuts_text_otherwise_is_refused_and_the_trim_works_without_it(
    cut: Cut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.model_folder("xlm-roberta", "base", tmp_path / "old", beside=True)
    real = sentencepiece_model._with_pieces

    def worse(proto: Any, kept: list[Any]) -> Any:
        new = real(proto, kept)
        for piece in new.pieces:
            piece.score = -1.0 if len(piece.piece) == 1 else piece.score - 50
        return new

    monkeypatch.setattr(sentencepiece_model, "_with_pieces", worse)
    with pytest.raises(PolydistillError, match=r"sentencepiece\.bpe\.model cuts it differently") as caught:
        cut(folder, tmp_path / "new", verify=True)
    assert "Take sentencepiece.bpe.model out of a copy" in caught.value.hint
    (folder / "sentencepiece.bpe.model").unlink()
    assert cut(folder, tmp_path / "new", verify=True).result.verification
