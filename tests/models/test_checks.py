"""A broken tokenizer is refused at the door, with a message that says what is wrong where."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import tiny

from polydistill.errors import PolydistillError
from polydistill.models.loading import load_tokenizer
from polydistill.vocab import check_tokenizer_files, open_vocabulary
from polydistill.vocab.charsmap import fault
from polydistill.vocab.checks import MOST_IDS
from polydistill.vocab.sentencepiece_model import read_model
from polydistill.vocab.tokenizer_json import TokenizerJson

Change = Callable[[dict[str, Any]], Any]


def added(content: str, i: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": content, **flags, "special": True}


def split(pattern: Any) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


def replace(content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": "a"}, "content": content}


def steps(kind: str, *members: Any) -> dict[str, Any]:
    name = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers"}[kind]
    return {"type": "Sequence", name: list(members)}


def nested(data: dict[str, Any]) -> None:
    for _ in range(100):
        data["normalizer"] = steps("normalizer", data["normalizer"])


CASES: list[tuple[str, Change, str]] = [
    ("bert", lambda d: d.update(model=[]), r"model is a list of 0, but must be an object"),
    ("bert", lambda d: d["model"].update(type=["a"]), r"model\.type is a list of 1, but must be a text"),
    ("bert", lambda d: d["model"].update(vocab=[]), r"model\.vocab is a list of 0, but must be an object"),
    ("bert", lambda d: d["model"].update(vocab={}), r"model\.vocab has no tokens"),
    ("bert", lambda d: d["model"]["vocab"].update(x=2**31), r"model\.vocab\.x is 2147483648, but .* 0 to 3,999,999"),
    ("bert", lambda d: d["model"]["vocab"].update(x=-1), r"model\.vocab\.x is -1, but must be a whole number"),
    ("bert", lambda d: d["model"]["vocab"].update(x=True), r"model\.vocab\.x is true, but must be a whole number"),
    ("bert", lambda d: d["model"]["vocab"].update(x=1.0), r"model\.vocab\.x is 1\.0, but must be a whole number"),
    ("bert", lambda d: d["model"]["vocab"].update(x=7), r"model\.vocab gives the id 7 to two tokens, '.+' and 'x'"),
    ("bert", lambda d: d["model"]["vocab"].update({"x" * 5_000: 999}), r"a token of more than 4,096 characters"),
    ("bert", lambda d: d["model"].update(unk_token=3), r"model\.unk_token is 3, but must be a text"),
    ("bert", lambda d: d["model"].update(max_input_chars_per_word=10**9), r"whole number from 0 to 10,000"),
    ("bert", lambda d: d.update(added_tokens={}), r"added_tokens is an object of 0, but must be a list"),
    ("bert", lambda d: d["added_tokens"].append(3), r"added_tokens\[5\] is 3, but must be an object"),
    (
        "bert",
        lambda d: d["added_tokens"][1].pop("content"),
        r"added_tokens\[1\]\.content is missing, but must be a text",
    ),
    ("bert", lambda d: d["added_tokens"][1].update(id="1"), r"added_tokens\[1\]\.id is \"1\", but must be a whole"),
    ("bert", lambda d: d["added_tokens"][1].update(id=2**31), r"added_tokens\[1\]\.id is 2147483648"),
    ("bert", lambda d: d["added_tokens"][1].update(id=9), r"added_tokens\[1\]\.id is 9, but '\[UNK\]' has the id 1"),
    (
        "bert",
        lambda d: d["added_tokens"].append(added("<x>", 7)),
        r"added_tokens\[5\]\.id is 7, which another token has",
    ),
    (
        "bert",
        lambda d: d["added_tokens"].append(added("<x>", 9_000)),
        r"<x>' the id 9000, but the `tokenizers` library",
    ),
    (
        "bert",
        lambda d: d["added_tokens"].append(added("", 9_000)),
        r"\.content is \"\", but must be a text of 1 to 4,096",
    ),
    (
        "bert",
        lambda d: d["added_tokens"].extend([added("<x>", 9_000), added("<x>", 9_001)]),
        r"added_tokens\[6\] is '<x>', which is there twice",
    ),
    (
        "bert",
        lambda d: d["added_tokens"].append({**d["added_tokens"][1], "special": False}),
        r"added_tokens\[5\] is '\[UNK\]', which is there twice",
    ),
    ("bert", lambda d: d["added_tokens"].append(added("<x>", -1)), r"added_tokens\[5\]\.id is -1, but must be a whole"),
    ("bert", lambda d: d.update(normalizer={"type": 3}), r"normalizer\.type is 3, but must be a text"),
    ("bert", lambda d: d.update(normalizer=steps("normalizer", 3)), r"normalizer\.normalizers\[0\] is 3"),
    ("bert", nested, r"tokenizer\.json is nested more than 64 levels deep"),
    ("bert", lambda d: d.update(pre_tokenizer={"type": "Nothing"}), r"tokenizer\.json cannot be read \(ValueError: "),
    ("bert", lambda d: d.update(pre_tokenizer=split({"Regex": "("})), r"cannot be read \(.*unmatched parenthesis"),
    ("bert", lambda d: d.update(pre_tokenizer=split({"Regex": "(a+)+c"})), r"cannot be read \(PanicException: .*retry"),
    (
        "bert",
        lambda d: d.update(pre_tokenizer=split({"Regex": "a" * 20_000})),
        r"pre_tokenizer\.pattern\.Regex is .*10,000",
    ),
    ("bert", lambda d: d.update(normalizer=steps("normalizer", *[replace("aaaa")] * 30)), r"1,024 times as long"),
    ("bert", lambda d: d.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "%"}), r"is not base64"),
    ("bert", lambda d: d.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}), r"is cut off"),
    ("bert", lambda d: d.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "BAAAAP////8="}), r"trie"),
    ("bert", lambda d: d["post_processor"]["special_tokens"]["[CLS]"].update(ids=[]), r"needs one id per token"),
    ("bert", lambda d: d["post_processor"]["special_tokens"]["[CLS]"].update(ids=[9]), r"ids\[0\] is 9, but must be 2"),
    ("bert", lambda d: d["post_processor"]["special_tokens"].pop("[CLS]"), r"'\[CLS\]', which special_tokens does not"),
    (
        "bert",
        lambda d: d["post_processor"]["single"].append({}),
        r"single\[3\] is an object of 0, but must be a Sequence",
    ),
    (
        "bert",
        lambda d: d.update(post_processor={"type": "BertProcessing", "sep": ["x", 1], "cls": ["x", 1]}),
        r"sep\[0\] is 'x', which the vocabulary does not have",
    ),
    ("bert", lambda d: d.update(padding={"pad_token": "none"}), r"padding\.pad_token is 'none', which the vocabulary"),
    ("bert", lambda d: d.update(padding={"pad_token": "[PAD]", "strategy": {"Fixed": 10**10}}), r"strategy\.Fixed"),
    ("bert", lambda d: d.update(version=2), r"cannot be read \(ValueError: "),
    ("xlm-roberta", lambda d: d["model"].update(vocab={}), r"model\.vocab is an object of 0, but must be a list"),
    ("xlm-roberta", lambda d: d["model"].update(vocab=[]), r"model\.vocab is a list of 0, but must be a list of 1 to"),
    ("xlm-roberta", lambda d: d["model"]["vocab"].append(["x"]), r"\] is a list of 1, but must be a list of a piece"),
    ("xlm-roberta", lambda d: d["model"]["vocab"][9].append(1), r"vocab\[9\] is a list of 3, but must be a list of a"),
    ("xlm-roberta", lambda d: d["model"]["vocab"].append(["x", "y"]), r"\]\[1\] is \"y\", but must be a log-prob"),
    ("xlm-roberta", lambda d: d["model"]["vocab"].append(["x", 1e300]), r"\]\[1\] is 1e\+?300, but must be a log-prob"),
    ("xlm-roberta", lambda d: d["model"]["vocab"].append([None, 1]), r"\]\[0\] is missing, but must be a text"),
    ("xlm-roberta", lambda d: d["model"]["vocab"].append(["", -1.0]), r"\]\[0\] is \"\", but must be a text of 1 to"),
    (
        "xlm-roberta",
        lambda d: d["model"]["vocab"].append(["▁", -1.0]),
        r"\] is the piece '▁', which is there twice|"
        r"vocab\[\d+\] is the piece '▁'",
    ),
    ("xlm-roberta", lambda d: d["model"].update(unk_id=10**6), r"model\.unk_id is 1000000, but must be a whole number"),
    ("xlm-roberta", lambda d: d["model"].update(unk_id="3"), r"model\.unk_id is \"3\", but must be a whole number"),
    ("qwen2", lambda d: d["model"].update(merges={}), r"model\.merges is an object of 0, but must be a list"),
    ("qwen2", lambda d: d["model"]["merges"].append(["a"]), r"\] is a list of 1, but must be two tokens"),
    (
        "qwen2",
        lambda d: d["model"]["merges"].append("a b"),
        r"\] is \"a b\", but must be two tokens, each merge written",
    ),
    ("qwen2", lambda d: d["model"]["merges"].append(["a", 3]), r"but must be two tokens"),
    ("qwen2", lambda d: d["model"]["merges"].append([["a"], "b"]), r"but must be two tokens"),
    ("qwen2", lambda d: d["model"]["merges"].append(["a", "漢"]), r"\] needs the token '漢', which the vocabulary"),
    ("qwen2", lambda d: d["model"]["merges"].append(["q", "q"]), r"\] needs the token 'qq', which the vocabulary"),
    ("qwen2", lambda d: d["model"].update(dropout=0.5), r"model\.dropout is 0\.5, but must be null"),
    ("qwen2", lambda d: d["model"].update(byte_fallback="yes"), r"byte_fallback is \"yes\", but must be true or false"),
]


@pytest.mark.parametrize(("family", "change", "message"), CASES)
def test_a_broken_tokenizer_json_is_refused(family: str, change: Change, message: str, tmp_path: Path) -> None:
    path = tiny.tokenizer_files(family, tmp_path) / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_bytes(orjson.dumps(data))
    with pytest.raises(PolydistillError, match=message) as caught:
        open_vocabulary(tmp_path)
    assert str(path) in caught.value.message and "etch or save the model again" in caught.value.hint
    if "library" not in message:  # whoever loads it with transformers gets the same sentence
        with pytest.raises(PolydistillError, match=message):
            load_tokenizer(tmp_path)


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("place", ['"vocab":{', '"added_tokens":['])
def test_a_token_that_stands_twice_in_a_table_is_refused(place: str, spaced: bool, tmp_path: Path) -> None:
    path = tiny.tokenizer_files("qwen2", tmp_path) / "tokenizer.json"
    raw = orjson.dumps(json.loads(path.read_text(encoding="utf-8"))).decode()
    twice = '"vocab":{"a":3,' if place.startswith('"vocab') else '"added_tokens":[],"added_tokens":['
    raw = raw.replace(place, twice, 1)
    path.write_text(raw.replace('":', '" :') if spaced else raw, encoding="utf-8")
    with pytest.raises(PolydistillError, match=r"tokenizer\.json says '(a|added_tokens)' twice"):
        open_vocabulary(tmp_path)


def test_tokens_that_look_like_keys_pass(tmp_path: Path) -> None:
    path = tiny.tokenizer_files("bert", tmp_path) / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    vocab = data["model"]["vocab"]
    vocab.update({token: len(vocab) + i for i, token in enumerate(['"', '":', '" :', '\\":', "\\"])})
    for written in (orjson.dumps(data), orjson.dumps(data, option=orjson.OPT_INDENT_2), json.dumps(data).encode()):
        path.write_bytes(written)
        assert TokenizerJson(tmp_path).model.ids == vocab


@pytest.mark.parametrize("recipe", [recipe for recipes in tiny.FAMILIES.values() for recipe in recipes])
@pytest.mark.parametrize("beside", [False, True])
def test_whole_tokenizers_pass(recipe: str, beside: bool, tmp_path: Path) -> None:
    tiny.tokenizer_files(recipe, tmp_path, beside=beside, legacy=beside and recipe[0] != "m")
    check_tokenizer_files(tmp_path)
    assert open_vocabulary(tmp_path).spaces[0].ids


def test_old_files_pass(tmp_path: Path) -> None:
    path = tiny.tokenizer_files("qwen2", tmp_path) / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    merges = data["model"]["merges"]
    data["model"] = {"vocab": data["model"]["vocab"], "merges": [" ".join(merge) for merge in merges]}
    path.write_bytes(orjson.dumps(data))
    found = TokenizerJson(tmp_path)
    assert found.model.pairs == [*map(tuple, merges)] and found.encoders[0](["ab"])


def test_ids_with_holes_pass(tmp_path: Path) -> None:
    path = tiny.tokenizer_files("bert", tmp_path) / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    vocab, last = data["model"]["vocab"], max(data["model"]["vocab"].values())
    vocab["far"] = last + 50
    path.write_bytes(orjson.dumps(data))
    assert TokenizerJson(tmp_path).size == last + 51 and MOST_IDS > 262_144 * 10


def test_a_panic_at_the_door_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tiny.tokenizer_files("bert", tmp_path) / "tokenizer.json"
    path.write_bytes(orjson.dumps({**json.loads(path.read_bytes()), "pre_tokenizer": split({"Regex": "(a+)+c"})}))
    capfd.readouterr()
    with pytest.raises(PolydistillError, match="PanicException"):
        open_vocabulary(tmp_path)
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


def test_panics_of_the_library_are_errors_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny.tokenizer_files("bert", tmp_path) / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["pre_tokenizer"] = split({"Regex": "(q+)+c"})  # nothing that is tried at the door has a q
    path.write_bytes(orjson.dumps(data))
    encode = open_vocabulary(tmp_path).spaces[0].encoders[0]
    assert encode(["abc"])
    with pytest.raises(PolydistillError, match=r"The tokenizer of .* cannot cut a text \(PanicException: Onig"):
        encode(["q" * 60])


# ---- the files beside it ----

BESIDE: list[tuple[str, Any, str]] = [
    ("tokenizer_config.json", [], r"tokenizer_config\.json holds a list of 0, but must hold an object"),
    ("tokenizer_config.json", {"tokenizer_class": ["a"]}, r"tokenizer_class is a list of 1, but must be a text"),
    ("tokenizer_config.json", {"pad_token": 3}, r"pad_token is 3, but must be a text"),
    ("tokenizer_config.json", {"pad_token": {"content": []}}, r"pad_token\.content is a list of 0, but must be a text"),
    ("tokenizer_config.json", {"extra_special_tokens": "<a>"}, r"extra_special_tokens is \"<a>\", but must be an obj"),
    (
        "tokenizer_config.json",
        {"added_tokens_decoder": {"-1": {"content": "a"}}},
        r"'-1', which is not an id below 4,000,000",
    ),
    ("tokenizer_config.json", {"added_tokens_decoder": {"9999999999": {"content": "a"}}}, r"which is not an id below"),
    ("tokenizer_config.json", {"added_tokens_decoder": {"900": "a"}}, r"decoder\.900 is \"a\", but must be an object"),
    ("tokenizer_config.json", {"added_tokens_decoder": {"7": {"content": "<a>"}}}, r"'<a>' the id 7, which another"),
    ("tokenizer_config.json", {"model_max_length": "512"}, r"model_max_length is \"512\", but must be a number of tok"),
    ("tokenizer_config.json", {"chat_template": [{"name": "a"}]}, r"chat_template\[0\]\.template is missing"),
    ("tokenizer_config.json", {"chat_template": 3}, r"chat_template is 3, but must be a list"),
    ("special_tokens_map.json", {"pad_token": ["<pad>"]}, r"special_tokens_map\.json: pad_token is a list of 1"),
    ("special_tokens_map.json", {"additional_special_tokens": [3]}, r"additional_special_tokens\[0\] is 3, but must"),
    ("added_tokens.json", {"<a>": "900"}, r"added_tokens\.json: <a> is \"900\", but must be a whole number"),
    ("added_tokens.json", {"<a>": 2**31}, r"added_tokens\.json: <a> is 2147483648, but must be a whole number"),
    ("added_tokens.json", ["<a>"], r"added_tokens\.json holds a list of 1, but must hold an object"),
]


@pytest.mark.parametrize(("name", "content", "message"), BESIDE)
def test_a_broken_file_beside_the_tokenizer_is_refused(name: str, content: Any, message: str, tmp_path: Path) -> None:
    tiny.tokenizer_files("bert", tmp_path)
    (tmp_path / name).write_bytes(orjson.dumps(content))
    with pytest.raises(PolydistillError, match=message):
        open_vocabulary(tmp_path)


def test_a_length_of_ten_to_the_thirty_passes(tmp_path: Path) -> None:
    tiny.tokenizer_files("bert", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    check_tokenizer_files(tmp_path)


@pytest.mark.parametrize("name", ["vocab.txt", "vocab.json", "spiece.model"])
def test_a_broken_older_form_is_refused(name: str, tmp_path: Path) -> None:
    recipe = {"vocab.txt": "bert", "vocab.json": "gpt2", "spiece.model": "t5"}[name]
    tiny.tokenizer_files(recipe, tmp_path, beside=True)
    (tmp_path / "tokenizer.json").unlink()
    check_tokenizer_files(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(
        {
            "vocab.txt": b"\xff\xfe" + content,
            "vocab.json": b'{"a": 4294967296}',
            "spiece.model": content[: len(content) // 2],
        }[name]
    )
    with pytest.raises(PolydistillError):
        open_vocabulary(tmp_path)


# ---- SentencePiece models ----


def test_a_cut_sentencepiece_model_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    whole = (tiny.tokenizer_files("marian", tmp_path / "whole") / "source.spm").read_bytes()
    path = tmp_path / "source.spm"
    for length in (*range(0, len(whole), 997), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(PolydistillError, match=r"source\.spm is not a (whole )?SentencePiece model"):
            read_model(path)
    path.write_bytes(whole)
    assert read_model(path).pieces


PIECES: list[tuple[Callable[[Any], object], str]] = [
    (lambda m: m.pieces.add(piece="▁", score=0.0), "the piece '▁' is in it twice"),
    (lambda m: m.pieces.add(piece="", score=0.0), "a piece is empty"),
    (lambda m: setattr(m.pieces[9], "score", float("nan")), "a score is not a number"),
    (lambda m: setattr(m.pieces[9], "type", 2), "no unknown piece, or several"),
    (lambda m: m.ClearField("trainer_spec"), "it is cut off"),
    (lambda m: setattr(m.normalizer_spec, "precompiled_charsmap", b"\4\0\0\0\xff\xff\xff\x7fa\0"), "its character map"),
]


@pytest.mark.parametrize(("change", "message"), PIECES)
def test_a_broken_sentencepiece_model_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    path = tiny.tokenizer_files("marian", tmp_path) / "source.spm"
    model = read_model(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(PolydistillError, match=rf"source\.spm is not a whole SentencePiece model: .*{message}"):
        _ = open_vocabulary(tmp_path).spaces[0].encoders


def test_every_flipped_offset_of_a_character_map_is_found_or_harmless() -> None:
    from tokenizers.normalizers import Precompiled

    blob = tiny.train_pieces("unigram", 380).charsmap
    assert fault(blob) is None and fault(b"") == "is cut off"
    found = 0
    for place in range(4, 4_000, 13):
        changed = bytearray(blob)
        changed[place] ^= 0x80
        if fault(bytes(changed)):
            found += 1
        else:  # a walk through it ends; with what, is another matter
            Precompiled(bytes(changed)).normalize_str("Țară ﬁ ｡ ① é 中")
    assert found > 50
    assert base64.b64encode(blob[:4])
