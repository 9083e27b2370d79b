"""BPE: byte-level (GPT-2, RoBERTa, Qwen, BLOOM) and of SentencePiece with byte fallback (Llama, Gemma) or without (NLLB)."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    CASES, FEWER, Made, byte_bpes, check_made, check_merge_paths, evidence_for, feasible_sizes, piece_bpes, choices,
)

both = pytest.mark.parametrize("family", [byte_bpes, piece_bpes], ids=["byte-level", "pieces"])


@both
def test_any_vocabulary_and_selection_keeps_the_invariants(family) -> None:
    seen: Counter[str] = Counter()

    @CASES
    @given(family(), st.data())
    def check(made: Made, data: st.DataObject) -> None:
        seen.update(check_made(made, data))

    check()
    assert seen["same"] > 400 and seen["other"] > 100, seen


@both
def test_every_kept_token_is_still_reached_by_merges(family) -> None:
    looked = []

    @CASES
    @given(family(), st.data())
    def check(made: Made, data: st.DataObject) -> None:
        keep = data.draw(choices(made.vocabulary, made.learnt)).keep
        looked.append(check_merge_paths(made, made.trimmed(keep), keep))

    check()
    assert sum(looked) > 1000


@both
def test_every_size_is_exact(family) -> None:
    @FEWER
    @given(family(), st.data())
    def check(made: Made, data: st.DataObject) -> None:
        space = made.vocabulary
        feasible_sizes(space, data.draw(evidence_for(space.ids, made.learnt, space.size)))

    check()
