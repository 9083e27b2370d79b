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

from polydistill.vocab import open_vocabulary
from polydistill.vocab.keep import Evidence, KeepRule, KeepSet, select
from polydistill.vocab.tokenizer_json import TokenizerJson
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
