"""BPE: byte-level (GPT-2, RoBERTa, Qwen, BLOOM), and of SentencePiece with bytes (Llama, Gemma) or without (NLLB)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from strategies import CASES, FEWER, Made, byte_bpes, check_made, evidence_for, feasible_sizes, piece_bpes
from tokenizers import Tokenizer, models, pre_tokenizers

from polydistill.errors import PolydistillError
from polydistill.vocab import open_vocabulary
from polydistill.vocab.bpe import BPE, NEVER, byte_alphabet, merge_path
from polydistill.vocab.keep import Evidence, KeepRule, select

both = pytest.mark.parametrize("family", [byte_bpes, piece_bpes], ids=["byte-level", "pieces"])


@both
def test_any_vocabulary_and_selection_keeps_the_invariants(family) -> None:
    seen: Counter[str] = Counter()

    @CASES
    @given(family(), st.data())
    def check(made: Made, data: st.DataObject) -> None:
        seen.update(check_made(made, data))

    check()
    assert seen["same"] > 400 and seen["other"] > 100 and seen["paths"] > 1000, seen


@both
def test_every_size_is_exact(family) -> None:
    @FEWER
    @given(family(), st.data())
    def check(made: Made, data: st.DataObject) -> None:
        space = made.vocabulary
        feasible_sizes(space, data.draw(evidence_for(space.ids, made.learnt, space.size)))

    check()


# ---- the path of one token ----


def ranked(*merges: str) -> Callable[[str, str], float]:
    table = {tuple(merge.split("+")): i for i, merge in enumerate(merges)}
    return lambda left, right: table.get((left, right), NEVER)


@pytest.mark.parametrize(
    ("merges", "token", "path"),
    [
        (["a+b"], "ab", ["a", "b", "ab"]),
        (["a+b"], "a", ["a"]),
        (["a+b"], "ba", []),
        ([], "", []),
        (["a+b", "ab+c"], "abc", ["a", "b", "c", "ab", "abc"]),
        (["b+c", "a+b", "ab+c", "a+bc"], "abc", ["a", "b", "c", "bc", "abc"]),
        # The first rule for abc is never used: b+c comes before a+b, so that only a+bc can give it.
        (["ab+c", "b+c", "a+bc", "x+a", "a+b"], "abc", ["a", "b", "c", "bc", "abc"]),
        # b+c takes the b before a+b can, and nothing joins a and bc.
        (["b+c", "a+b", "ab+c"], "abc", []),
        # Equal ranks: the leftmost pair first, again and again.
        (["a+a", "aa+a"], "aaa", ["a", "aa", "aaa"]),
        (["a+a", "aa+a"], "aaaa", []),
        (["a+a", "aa+aa"], "aaaa", ["a", "aa", "aaaa"]),
        (["a+a", "aa+a", "aaa+aa"], "aaaaa", []),
        (["a+a", "aa+aa", "aaaa+a"], "aaaaa", ["a", "aa", "aaaa", "aaaaa"]),
        (["Ġ+t", "h+e", "Ġt+he"], "Ġthe", ["Ġ", "t", "h", "e", "Ġt", "he", "Ġthe"]),
        (["h+e", "t+he", "Ġ+the", "Ġ+t"], "Ġthe", ["Ġ", "t", "h", "e", "he", "the", "Ġthe"]),
    ],
    ids=str,
)
def test_merge_paths_by_hand(merges: list[str], token: str, path: list[str]) -> None:
    found = merge_path(token, ranked(*merges))
    assert sorted(found) == sorted(path)
    assert not path or found[-1] == token


def byte_fallback_free(merges: list[str], vocab: str) -> dict:
    return {
        "added_tokens": [],
        "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(vocab.split())}, "merges": merges},
    }


@pytest.mark.parametrize("needed", [["abc", "x"], ["abc", "x", "ab"], ["abc", "x", "xa"], ["abc", "x", "xa", "ab"]])
def test_closing_over_a_tokens_first_rule_is_not_enough(needed: list[str]) -> None:
    """The counterexample of vocabulary.md: without bc, xabc becomes [xa, b, c]."""
    merges = ["ab c", "b c", "a bc", "x a", "a b"]
    made = Made(whole(byte_fallback_free(merges, "a b c x ab bc abc xa")), ())
    assert made.tokenizer.encode("xabc").tokens == ["x", "abc"]
    ids = made.vocabulary.ids
    keep = select(made.vocabulary, {ids[t]: "requested" for t in needed}, [], KeepRule(min_count=1))
    assert {t for t, i in ids.items() if i in keep} == {*needed, "a", "b", "c", "bc"}
    new = made.trimmed(keep)
    assert new.tokenizer.encode("xabc").tokens == ["x", "abc"]
    broken = dict(made.data["model"], merges=["ab c", "x a", "a b"])
    del broken["vocab"]["bc"]
    assert Tokenizer.from_buffer(orjson.dumps({**made.data, "model": broken})).encode("xabc").tokens == ["xa", "b", "c"]


def whole(data: dict) -> dict:
    parts = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    return {"version": "1.0", **dict.fromkeys(parts), **data}


def test_an_added_token_that_the_model_writes_too_keeps_its_path() -> None:
    data = byte_fallback_free(["ab c", "b c", "a bc", "x a", "a b"], "a b c x ab bc abc xa")
    flags = {"single_word": True, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    made = Made(whole({**data, "added_tokens": [{"id": 6, "content": "abc", **flags}]}), ())
    assert made.tokenizer.encode("xabc").tokens == ["x", "abc"]
    keep = select(made.vocabulary, {**made.vocabulary.required(), 3: "requested"}, [], KeepRule(min_count=1))
    new = made.trimmed(keep)
    assert [new.tokenizer.encode(t).tokens for t in ("xabc", "x abc")] == [["x", "abc"], ["x", "abc"]]


def test_merges_stay_in_rank_order_in_the_form_they_had() -> None:
    for merges in (["a b", "ab c", "x a", "b c"], [["a", "b"], ["ab", "c"], ["x", "a"], ["b", "c"]]):
        made = Made(whole(byte_fallback_free(merges, "xa a b ab bc c abc x")), ())
        ids = made.vocabulary.ids
        keep = select(made.vocabulary, {ids["abc"]: "requested", ids["bc"]: "requested"}, [], KeepRule(min_count=1))
        new = made.trimmed(keep)
        assert new.data["model"]["merges"] == [merges[0], merges[1], merges[3]]
        assert new.data["model"]["vocab"] == {"a": 0, "b": 1, "ab": 2, "bc": 3, "c": 4, "abc": 5}


def test_the_alphabet_is_that_of_the_library_and_stays() -> None:
    table = byte_alphabet()
    assert sorted(table) == list(range(256)) and sorted(table.values()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in ("aé \n\t~", "ț€🙂", "".join(map(chr, range(1, 0x250)))):
        assert split.pre_tokenize_str(text)[0][0] == "".join(table[b] for b in text.encode())
    model = {"vocab": {c: i for i, c in enumerate([*table.values(), "ab"])}, "merges": []}
    assert BPE(model, True).required() == dict.fromkeys(range(256), "alphabet")
    assert BPE(model, False).required() == {}


@pytest.mark.parametrize("key", ["continuing_subword_prefix", "end_of_word_suffix"])
def test_marked_symbols_are_refused(key: str) -> None:
    assert BPE({"vocab": {}, "merges": [], key: ""}, False).ids == {}
    with pytest.raises(PolydistillError, match=key):
        BPE({"vocab": {}, "merges": [], key: "##"}, False)


@pytest.mark.parametrize("recipe", ["gpt2", "roberta"])
def test_the_older_files_beside_are_rewritten(recipe: str, tmp_path: Path) -> None:
    vocabulary = open_vocabulary(tiny.tokenizer_files(recipe, tmp_path / "model", beside=True))
    counts = np.zeros(vocabulary.size, np.int64)
    for ids in vocabulary.encoders[0](tiny.sentences("ro", count=50)):
        np.add.at(counts, ids, 1)
    evidence = Evidence("ro", counts, counts.astype(float))
    keep = select(vocabulary, vocabulary.required(), [evidence], KeepRule(min_count=2))
    out = tmp_path / "out"
    out.mkdir()
    assert vocabulary.write(out, [keep], frozenset(), []) == []
    model = orjson.loads((out / "tokenizer.json").read_bytes())["model"]
    assert orjson.loads((out / "vocab.json").read_bytes()) == model["vocab"] and len(model["vocab"]) < vocabulary.size
    lines = (out / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert [tuple(line.split(" ")) for line in lines[1:]] == [tuple(m) for m in model["merges"]]
    text = models.BPE.from_file(str(out / "vocab.json"), str(out / "merges.txt"))
    kept_text = tiny.sentences("ro", count=50)
    both = [Tokenizer(text), Tokenizer.from_file(str(out / "tokenizer.json"))]
    both[0].pre_tokenizer = both[1].pre_tokenizer
    assert [both[0].encode(t, add_special_tokens=False).ids for t in kept_text] == [
        both[1].encode(t, add_special_tokens=False).ids for t in kept_text
    ]
