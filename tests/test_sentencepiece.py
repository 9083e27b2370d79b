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


def encoders(folder: Path) -> dict[tuple[str, str], Callable[[str], list[int]]]:
    """(table, model) -> text to ids, as the classes of transformers do it."""
    tables = {p.name: json.loads(p.read_text(encoding="utf-8")) for p in folder.glob("*vocab.json")}
    found = {}
    for path in sentencepiece_model.files(folder):
        file = "target_vocab.json" if path.name == "target.spm" and "target_vocab.json" in tables else "vocab.json"

        def encode(text: str, p=SentencePieceProcessor(model_file=str(path)), table=tables[file]) -> list[int]:
            return [table.get(piece, table["<unk>"]) for piece in p.encode(text, out_type=str)]

        found[file, path.name] = encode
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
