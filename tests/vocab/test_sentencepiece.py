"""SentencePiece models with a vocab.json (Marian, M2M-100), and models that stand beside a tokenizer.json."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from sentencepiece import sentencepiece_model_pb2 as pb2
from strategies import (
    BYTES,
    CASES,
    FEWER,
    check_texts,
    choices,
    evidence_for,
    feasible_sizes,
    sentencepiece_models,
    text_pieces,
    texts_with,
    workspace,
)

from polydistill.errors import PolydistillError
from polydistill.vocab import open_vocabulary, sentencepiece_model
from polydistill.vocab.keep import Evidence, KeepRule, KeepSet, select
from polydistill.vocab.sentencepiece_model import JsonSpace, SentencePieceVocabulary

kinds = pytest.mark.parametrize("kind", ["unigram", "bpe"])
LAYOUTS = ("marian", "marian-separate", "m2m_100")


def write_folder(draw: Callable[[Any], Any], layout: str, kind: str, folder: Path) -> dict[str, list[str]]:
    """A tokenizer folder of random models; table -> pieces of text in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    names = ["sentencepiece.bpe.model"] if layout == "m2m_100" else ["source.spm", "target.spm"]
    models = {name: draw(sentencepiece_models(kind)) for name in names}
    for name, model in models.items():
        (folder / name).write_bytes(model)
    groups = {"vocab.json": list(models.values())}
    if layout == "marian-separate":
        groups = {"vocab.json": [models["source.spm"]], "target_vocab.json": [models["target.spm"]]}
    learnt = {}
    for file, group in groups.items():
        pieces = draw(st.permutations(sorted({p for model in group for p in text_pieces(model)})))
        pieces = pieces[draw(st.integers(0, 1)) :]  # a table can lack a piece of its model
        code = [">>ron<<"] if layout == "marian" else []
        tokens = ["</s>", "<unk>", *pieces, *BYTES, *code, "<s>", "<pad>"]
        (folder / file).write_text(json.dumps({t: i for i, t in enumerate(tokens)}), encoding="utf-8")
        learnt[file] = pieces
    name = "M2M100Tokenizer" if layout == "m2m_100" else "MarianTokenizer"
    config = {"tokenizer_class": name, "unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"}
    config["separate_vocabs"] = layout == "marian-separate"
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return learnt


def encoder(path: Path, table: dict[str, int]) -> Callable[[str], list[int]]:
    processor = SentencePieceProcessor(model_file=str(path))
    return lambda text: [table.get(piece, table["<unk>"]) for piece in processor.encode(text, out_type=str)]


def encoders(folder: Path) -> dict[tuple[str, str], Callable[[str], list[int]]]:
    """(table, model) -> text to ids, as the classes of transformers do it."""
    tables = {p.name: json.loads(p.read_text(encoding="utf-8")) for p in folder.glob("*vocab.json")}
    found = {}
    for path in sentencepiece_model.files(folder):
        file = "target_vocab.json" if path.name == "target.spm" and "target_vocab.json" in tables else "vocab.json"

        found[file, path.name] = encoder(path, tables[file])
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def trim(vocabulary: Any, keeps: list[KeepSet], name: str) -> Path:
    out = workspace() / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    assert vocabulary.write(out, keeps, frozenset(), []) == []
    return out


def check_folder(data: Any, layout: str, kind: str) -> Counter[str]:
    learnt = write_folder(data.draw, layout, kind, workspace() / "model")
    vocabulary = open_vocabulary(workspace() / "model")
    assert isinstance(vocabulary, SentencePieceVocabulary)
    picked = [data.draw(choices(space, learnt[space.file])) for space in vocabulary.spaces]
    keeps = [choice.keep for choice in picked]
    out = trim(vocabulary, keeps, "trimmed")
    seen: Counter[str] = Counter()
    before, after = encoders(vocabulary.folder), encoders(out)
    for space, keep in zip(vocabulary.spaces, keeps, strict=True):
        table = json.loads((out / space.file).read_text(encoding="utf-8"))
        assert list(table.values()) == list(range(len(keep)))
        assert table == {t: keep.new(i) for t, i in space.ids.items() if i in keep}
        surfaces = [t.replace("▁", " ") for t, i in space.ids.items() if i in keep and t in learnt[space.file]]
        texts = data.draw(texts_with(surfaces))
        for file, model in before:
            if file == space.file:
                seen += check_texts(texts, before[file, model], after[file, model], keep)
                left = text_pieces((out / model).read_bytes())
                assert [p for p in left if p in space.ids] == [
                    p for p in text_pieces((vocabulary.folder / model).read_bytes()) if space.ids.get(p, -1) in keep
                ]
    everything = [KeepSet.everything(space.size) for space in vocabulary.spaces]
    unchanged = trim(vocabulary, everything, "unchanged")
    assert {k: json.loads(v) if k.endswith("json") else v for k, v in contents(unchanged).items()} == {
        k: json.loads(v) if k.endswith("json") else v for k, v in contents(vocabulary.folder).items()
    }
    reopened = open_vocabulary(vocabulary.folder)
    again = [choice.again(space) for choice, space in zip(picked, reopened.spaces, strict=True)]
    assert contents(trim(reopened, again, "again")) == contents(out), "same input, other bytes"
    small = open_vocabulary(out)
    second = [choice.on_trimmed(space) for choice, space in zip(picked, small.spaces, strict=True)]
    assert [len(k) for k in second] == [len(k) for k in keeps], "trimming twice is not trimming once"
    assert contents(trim(small, second, "twice")) == contents(out)
    return seen


@kinds
def test_any_models_and_selection_keep_the_invariants(kind: str) -> None:
    seen: Counter[str] = Counter()

    @CASES
    @given(st.sampled_from(LAYOUTS), st.data())
    def check(layout: str, data: st.DataObject) -> None:
        seen.update(check_folder(data, layout, kind))

    check()
    assert seen["same"] > 400 and seen["other"] > 100, seen


@kinds
def test_every_size_is_exact(kind: str) -> None:
    @FEWER
    @given(st.data())
    def check(data: st.DataObject) -> None:
        learnt = write_folder(data.draw, "marian", kind, workspace() / "model")
        (space,) = open_vocabulary(workspace() / "model").spaces
        feasible_sizes(space, data.draw(evidence_for(space.ids, learnt[space.file], space.size)))

    check()


# ---- the models themselves ----


def model_of(*pieces: tuple[str, float, str], kind: str = "bpe") -> Any:
    model = pb2.ModelProto()
    model.trainer_spec.model_type = pb2.TrainerSpec.BPE if kind == "bpe" else pb2.TrainerSpec.UNIGRAM
    model.normalizer_spec.add_dummy_prefix = False
    model.pieces.add(piece="<unk>", type=pb2.ModelProto.SentencePiece.UNKNOWN)
    for piece, score, role in pieces:
        model.pieces.add(piece=piece, score=score, type=getattr(pb2.ModelProto.SentencePiece, role))
    return model


def normal(*pieces: str) -> list[tuple[str, float, str]]:
    return [(piece, -float(i), "NORMAL") for i, piece in enumerate(pieces)]


def space_of(model: Any, folder: Path) -> JsonSpace:
    path = folder / "source.spm"
    path.write_bytes(model.SerializeToString())
    return JsonSpace("vocabulary", "vocab.json", {p.piece: i for i, p in enumerate(model.pieces)}, {}, (path,))


def test_merges_follow_the_scores_and_need_no_single_letters(tmp_path: Path) -> None:
    # bc is the best merge, so abc comes from a + bc although ab is a piece as well; a and c are no pieces.
    space = space_of(model_of(*normal("bc", "abc", "xa", "ab", "x", "b")), tmp_path)
    assert SentencePieceProcessor(model_file=str(space.models[0])).encode("xabc", out_type=str) == ["x", "abc"]
    assert set(space.dependencies("abc")) == {"a", "b", "c", "bc", "abc"}
    keep = select(
        space, {**space.required(), space.ids["abc"]: "corpus", space.ids["x"]: "corpus"}, [], KeepRule(min_count=1)
    )
    assert {t for t, i in space.ids.items() if i in keep} == {"<unk>", "abc", "x", "bc", "b"}
    new = sentencepiece_model.trimmed(space.protos[0], lambda p: space.ids[p] in keep)
    (tmp_path / "new.spm").write_bytes(new.SerializeToString())
    assert SentencePieceProcessor(model_file=str(tmp_path / "new.spm")).encode("xabc", out_type=str) == ["x", "abc"]


def test_a_path_may_pass_through_an_unused_piece(tmp_path: Path) -> None:
    pieces = [("ab", 0.0, "UNUSED"), *normal("abc", "abcd"), ("a", -9.0, "NORMAL"), ("b", -9.0, "NORMAL")]
    space = space_of(model_of(*pieces), tmp_path)
    assert set(space.dependencies("abcd")) >= {"ab", "abc"}
    keep = select(space, {**space.required(), space.ids["abcd"]: "corpus"}, [], KeepRule(min_count=1))
    new = sentencepiece_model.trimmed(space.protos[0], lambda p: space.ids[p] in keep)
    (tmp_path / "new.spm").write_bytes(new.SerializeToString())
    assert SentencePieceProcessor(model_file=str(tmp_path / "new.spm")).encode("abcd", out_type=str) == ["abcd"]


def test_the_lowest_normal_piece_of_a_unigram_model_is_guarded(tmp_path: Path) -> None:
    pieces = [("low", -99.0, "CONTROL"), *normal("p", "pxq", "zzz"), ("q", -1.0, "NORMAL")]
    space = space_of(model_of(*pieces, kind="unigram"), tmp_path)
    assert space.guards() == [space.ids["zzz"]] and space.dependencies("pxq") == ()
    assert space_of(model_of(*pieces), tmp_path).guards() == []


def test_the_specification_of_a_trimmed_model_agrees_with_its_pieces() -> None:
    model = model_of(("<s>", 0.0, "CONTROL"), *normal("a", "b"), ("</s>", 0.0, "CONTROL"), ("<0x41>", 0.0, "BYTE"))
    spec = model.trainer_spec
    spec.unk_id, spec.bos_id, spec.eos_id, spec.pad_id, spec.vocab_size = 0, 1, 4, -1, 6
    new = sentencepiece_model.trimmed(model, lambda piece: piece == "b")
    assert [p.piece for p in new.pieces] == ["<unk>", "<s>", "b", "</s>", "<0x41>"]
    spec = new.trainer_spec
    assert (spec.unk_id, spec.bos_id, spec.eos_id, spec.pad_id, spec.vocab_size) == (0, 1, 3, -1, 5)
    assert len(model.pieces) == 6 and new.normalizer_spec == model.normalizer_spec


def test_samples_for_a_self_test_go_since_they_need_dropped_pieces(tmp_path: Path) -> None:
    sample = b"\n\x0bself-tested\x12\x01a"  # input and expected, field 1 of SelfTestData, which is field 4
    path = tmp_path / "a.spm"
    path.write_bytes(
        model_of(*normal("a", "b")).SerializeToString() + bytes([0x22, len(sample) + 2, 0x0A, len(sample)]) + sample
    )
    new = sentencepiece_model.trimmed(
        sentencepiece_model.read_model(path), lambda piece: piece == "b"
    ).SerializeToString()
    assert b"self-tested" in path.read_bytes() and b"self-tested" not in new
    assert SentencePieceProcessor(model_proto=new).encode("bb", out_type=str) == ["b", "b"]


def test_a_specification_left_at_its_defaults_may_name_dropped_pieces() -> None:
    model = model_of(*normal("a", "b", "c"))  # bos_id and eos_id are 1 and 2 where nothing is said
    new = sentencepiece_model.trimmed(model, lambda piece: piece in "bc")
    assert (new.trainer_spec.bos_id, new.trainer_spec.eos_id, new.trainer_spec.unk_id) == (-1, 1, 0)


# ---- beside a tokenizer.json ----


@pytest.mark.parametrize("recipe", sorted(tiny._MODEL_FILES))
def test_a_model_beside_a_tokenizer_json_agrees_with_it_or_is_left_out(recipe: str, tmp_path: Path) -> None:
    vocabulary = open_vocabulary(tiny.tokenizer_files(recipe, tmp_path / "model", beside=True))
    counts = np.zeros(vocabulary.size, np.int64)
    for ids in vocabulary.encoders[0](tiny.sentences("ro", "sw", count=80)):
        np.add.at(counts, ids, 1)
    evidence = Evidence("ro", counts, counts.astype(float))
    keep = select(vocabulary, vocabulary.required(), [evidence], KeepRule(min_count=2))
    assert len(keep) < vocabulary.size
    out = tmp_path / "out"
    out.mkdir()
    notes = vocabulary.write(out, [keep], frozenset(), [])
    (path,) = sentencepiece_model.files(vocabulary.folder)
    assert notes == [] and (out / path.name).is_file(), "this layout can be made to agree"
    ids = open_vocabulary(out).ids
    before, after = (sentencepiece_model.read_model(folder / path.name) for folder in (vocabulary.folder, out))
    text = [(i, p) for i, p in enumerate(after.pieces) if p.type in (1, 4, 6)]
    assert len({ids[p.piece] - i for i, p in text}) == 1
    scores = {p.piece: (p.score, p.type) for p in before.pieces}
    assert all(scores[p.piece] == (p.score, p.type) for p in after.pieces)
    assert {p.piece for _, p in text} == {p.piece for p in before.pieces if p.type in (1, 4, 6) and p.piece in ids}
    old, new = (SentencePieceProcessor(model_file=str(folder / path.name)) for folder in (vocabulary.folder, out))
    texts = tiny.sentences("ro", "sw", count=80)
    same = [t for t in texts if set(old.encode(t, out_type=str)) <= set(ids)]
    assert len(same) > 5
    assert new.encode(same, out_type=str) == old.encode(same, out_type=str)


def test_a_model_that_cannot_agree_or_is_none_is_left_out_with_a_note(tmp_path: Path) -> None:
    model = model_of(*normal("a", "b", "c", "d"))
    path, out = tmp_path / "spiece.model", tmp_path / "out.model"
    path.write_bytes(model.SerializeToString())
    keep = KeepSet.of(dict.fromkeys((0, 1, 3), "corpus"), 5)
    ids = {"<unk>": 0, "b": 1, "a": 2, "c": 3, "d": 4}  # another order than the model's
    assert sentencepiece_model.rewrite_beside(path, out, ids, KeepSet.everything(5)) != []
    assert not out.exists()
    agreeing = {"<unk>": 0, "a": 1, "b": 2, "c": 3, "d": 4}
    assert sentencepiece_model.rewrite_beside(path, out, agreeing, keep) == []
    assert [p.piece for p in sentencepiece_model.read_model(out).pieces] == ["<unk>", "a", "c"]
    out.unlink()
    path.write_bytes(b"IQ==\xff 0\nIg== 1\n")  # a tiktoken file has the same ending
    (note,) = sentencepiece_model.rewrite_beside(path, out, agreeing, keep)
    assert "spiece.model" in note and not out.exists()


# ---- folders ----


def test_broken_folders_are_refused(tmp_path: Path) -> None:
    folder = tiny.tokenizer_files("marian", tmp_path / "marian")
    (folder / "source.spm").write_bytes(b"\xff\xff\xff")
    with pytest.raises(PolydistillError, match=r"source\.spm is not a SentencePiece model"):
        open_vocabulary(folder).spaces[0].guards()
    for path in sentencepiece_model.files(folder):
        path.unlink()
    with pytest.raises(PolydistillError, match=r"lacks vocab\.json"):
        open_vocabulary(folder)
    folder = tiny.tokenizer_files("m2m_100", tmp_path / "m2m")
    (folder / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(PolydistillError, match=r"lacks vocab\.json with <unk>"):
        open_vocabulary(folder)
    (folder / "vocab.json").write_text('{"a": 0')
    with pytest.raises(PolydistillError, match="not valid JSON"):
        open_vocabulary(folder)


def test_rows_beyond_the_table_of_m2m_100_all_stay(tmp_path: Path) -> None:
    folder = tiny.tokenizer_files("m2m_100", tmp_path / "m2m")
    size = len(json.loads((folder / "vocab.json").read_text(encoding="utf-8")))
    (folder / "config.json").write_text(json.dumps({"vocab_size": size + 108}))
    vocabulary = open_vocabulary(folder)
    (space,) = vocabulary.spaces
    assert space.size == size + 108
    keep = select(space, space.required(), [], KeepRule(min_count=1))
    assert set(range(size, size + 108)) <= set(keep.ids.tolist())
    out = tmp_path / "out"
    out.mkdir()
    vocabulary.write(out, [keep], frozenset(), [])
    table = json.loads((out / "vocab.json").read_text(encoding="utf-8"))
    assert sorted(table.values()) == list(range(len(keep) - 108))
