"""Unigram: XLM-R, T5, mBART, ALBERT, DeBERTa-v3, XGLM."""

from __future__ import annotations

import itertools
from collections import Counter

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import BYTES, CASES, FEWER, Made, check_made, evidence_for, feasible_sizes, unigrams
from tokenizers import Tokenizer

from polydistill.vocab.keep import KeepRule, select
from polydistill.vocab.unigram import Unigram


def test_any_vocabulary_and_selection_keeps_the_invariants() -> None:
    seen: Counter[str] = Counter()

    @CASES
    @given(unigrams(), st.data())
    def check(made: Made, data: st.DataObject) -> None:
        seen.update(check_made(made, data))

    check()
    assert seen["same"] > 400 and seen["other"] > 100, seen


@FEWER
@given(unigrams(), st.data())
def test_every_size_is_exact(made: Made, data: st.DataObject) -> None:
    space = made.vocabulary
    feasible_sizes(space, data.draw(evidence_for(space.ids, made.learnt, space.size)))


EXAMPLE = {"<unk>": 0, "p": -0.1, "pxq": -20, "r": -20, "qr": -0.1, "q": -20, "zzz": -35}


def made(vocab: dict[str, float], **model) -> Made:
    parts = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    model = {"type": "Unigram", "unk_id": 0, "vocab": [[t, float(s)] for t, s in vocab.items()], **model}
    return Made({"version": "1.0", **dict.fromkeys(parts), "added_tokens": [], "model": model}, ())


@pytest.mark.parametrize("needed", [["pxq", "r"], ["pxq", "r", "p", "qr"], ["pxq", "r", "p", "qr", "q"]])
def test_the_lowest_score_stays(needed: list[str]) -> None:
    """The counterexample of vocabulary.md: the penalty of unknown text hangs on an unrelated piece."""
    whole = made(EXAMPLE)
    assert whole.tokenizer.encode("pxqr").tokens == ["pxq", "r"]
    ids = whole.vocabulary.ids
    required = {**whole.vocabulary.required(), **{ids[t]: "requested" for t in needed}}
    keep = select(whole.vocabulary, required, [], KeepRule(min_count=1))
    assert {t for t, i in ids.items() if i in keep} == {"<unk>", "zzz", *needed}
    assert keep.count_reasons()["guard"] == 1
    new = whole.trimmed(keep)
    assert new.tokenizer.encode("pxqr").tokens == ["pxq", "r"]
    assert new.data["model"]["vocab"] == [
        [t, s] for t, s in whole.data["model"]["vocab"] if t in {"<unk>", "zzz", *needed}
    ]
    without = made({t: s for t, s in EXAMPLE.items() if t != "zzz"})
    assert [without.tokenizer.id_to_token(i) for i in without.tokenizer.encode("pxqr").ids] == ["p", "<unk>", "qr"]


def test_cheap_and_dear_pieces_of_one_word() -> None:
    """What unknown text costs decides between the ways to cut a word: every price, every selection of these pieces."""
    pieces = ("p", "pxq", "r", "qr", "q")
    for prices in itertools.product((-0.1, -20.0), repeat=len(pieces)):
        whole = made({"<unk>": 0.0, **dict(zip(pieces, prices, strict=True)), "zzz": -35.0})
        used = whole.tokenizer.encode("pxqr").ids
        for chosen in itertools.product((False, True), repeat=len(pieces)):
            required = dict.fromkeys([0, *used, *(i for i, take in enumerate(chosen, 1) if take)], "requested")
            keep = select(whole.vocabulary, required, [], KeepRule(min_count=1))
            assert whole.trimmed(keep).tokenizer.encode("pxqr").ids == [keep.new(i) for i in used]


def test_the_unknown_piece_may_stand_anywhere() -> None:
    whole = made({"b": -1.0, "c": -2.0, "<unk>": 0.0, "a": -1.0}, unk_id=2)
    keep = select(whole.vocabulary, {**whole.vocabulary.required(), 3: "corpus"}, [], KeepRule(min_count=1))
    new = whole.trimmed(keep)
    assert new.data["model"]["unk_id"] == 1
    assert new.tokenizer.encode("abc").ids == [2, 1, 0]
    nothing = Unigram({"unk_id": None, "vocab": [["a", -1.0], ["b", -2.0]]})
    assert nothing.required() == {} and nothing.guards() == [1]
    assert nothing.trimmed(keep.of({1: "guard"}, 2)) == {"unk_id": None, "vocab": [["b", -2.0]]}


def test_bytes_stay_where_the_model_falls_back_to_them() -> None:
    vocab = {"<unk>": 0.0, **dict.fromkeys(BYTES, 0.0), "a": -1.0, "b": -2.0}
    assert set(made(vocab, byte_fallback=True).vocabulary.required()) == set(range(257))
    assert set(made(vocab, byte_fallback=False).vocabulary.required()) == {0}


def test_an_old_file_without_a_type_is_recognised() -> None:
    whole = made(EXAMPLE)
    data = {**whole.data, "model": {k: v for k, v in whole.data["model"].items() if k != "type"}}
    keep = select(Made(data, ()).vocabulary, {0: "special", 2: "corpus", 3: "corpus"}, [], KeepRule(min_count=1))
    new = Made(data, ()).trimmed(keep)
    assert "type" not in new.data["model"]
    assert Tokenizer.from_buffer(orjson.dumps(new.data)).encode("pxqr").tokens == ["pxq", "r"]
