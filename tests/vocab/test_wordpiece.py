"""WordPiece: BERT, DistilBERT, ELECTRA, MPNet."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import orjson
import tiny
from hypothesis import given
from hypothesis import strategies as st
from strategies import CASES, FEWER, Made, check_made, evidence_for, feasible_sizes, wordpieces

from polydistill.vocab import open_vocabulary, wordpiece
from polydistill.vocab.keep import Evidence, KeepRule, KeepSet, select
from polydistill.vocab.wordpiece import WordPiece


def test_any_vocabulary_and_selection_keeps_the_invariants() -> None:
    seen: Counter[str] = Counter()

    @CASES
    @given(wordpieces(), st.data())
    def check(made: Made, data: st.DataObject) -> None:
        seen.update(check_made(made, data))

    check()
    assert seen["same"] > 400 and seen["other"] > 100, seen


@FEWER
@given(wordpieces(), st.data())
def test_every_size_is_exact(made: Made, data: st.DataObject) -> None:
    space = made.vocabulary
    feasible_sizes(space, data.draw(evidence_for(space.ids, made.learnt, space.size)))


def test_the_unknown_piece_is_required_whatever_it_is_called() -> None:
    assert WordPiece({"vocab": {"a": 0, "[UNK]": 1}}).required() == {1: "special"}
    assert WordPiece({"vocab": {"a": 0, "<?>": 1}, "unk_token": "<?>"}).required() == {1: "special"}
    assert WordPiece({"vocab": {"a": 0}}).required() == {}


def test_forms_use_the_models_own_prefix() -> None:
    assert WordPiece({"vocab": {}}).forms("x") == ["x", "##x"]
    assert WordPiece({"vocab": {}, "continuing_subword_prefix": "@@"}).forms("x") == ["x", "@@x"]


def test_ids_are_contiguous_in_the_old_order_with_gaps_closed() -> None:
    model = WordPiece({"type": "WordPiece", "vocab": {"d": 9, "a": 0, "c": 7, "b": 3}})
    keep = KeepSet.of(dict.fromkeys((9, 7, 0), "corpus"), 10)
    assert list(model.trimmed(keep)["vocab"].items()) == [("a", 0), ("c", 1), ("d", 2)]


def test_vocab_txt_beside_is_rewritten(tmp_path: Path) -> None:
    vocabulary = open_vocabulary(tiny.tokenizer_files("bert", tmp_path / "model", beside=True))
    counts = np.zeros(vocabulary.size, np.int64)
    for ids in vocabulary.encoders[0](tiny.sentences("sw")):
        np.add.at(counts, ids, 1)
    evidence = Evidence("sw", counts, counts.astype(float))
    keep = select(vocabulary, vocabulary.required(), [evidence], KeepRule(min_count=1))
    out = tmp_path / "out"
    out.mkdir()
    assert vocabulary.write(out, [keep], frozenset(), []) == []
    ids = orjson.loads((out / "tokenizer.json").read_bytes())["model"]["vocab"]
    lines = (out / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert lines == sorted(ids, key=ids.__getitem__) and len(lines) == len(keep) < vocabulary.size


def test_ascii_without_the_normaliser_gives_the_same_ids(tmp_path: Path) -> None:
    vocabulary = open_vocabulary(tiny.tokenizer_files("bert", tmp_path))
    (space,) = vocabulary.spaces
    assert space.counting_encoders != space.encoders
    texts = [
        *tiny.sentences(count=200),
        "",
        " ",
        "Don't STOP",
        "[MASK] a [mask]",
        "tab\there",
        "a\x00b",
        "déjà-VU",
        "x\x7fy",
    ]
    assert space.counting_encoders[0](texts) == space.encoders[0](texts)


def test_a_tokenizer_that_is_no_bert_keeps_its_own_encoder(tmp_path: Path) -> None:
    data = orjson.loads((tiny.tokenizer_files("bert", tmp_path) / "tokenizer.json").read_bytes())
    assert wordpiece.splits_at_punctuation(data)
    for change in (
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"added_tokens": [{"id": 1, "content": "Word", "normalized": True}]},
        {"model": {**data["model"], "type": "BPE"}},
    ):
        assert not wordpiece.splits_at_punctuation({**data, **change})
