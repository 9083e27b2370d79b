from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny

from polydistill.vocab import open_vocabulary, sentencepiece_unigram
from polydistill.vocab.tokenizer_json import TokenizerJson

ODD = ["", " a  b ", "ﬁn\u00a0ou", "a\u200db", "x<s>y", "1 234,5", "💥🙂", "\u0301", "ǆ Å", "<unk>"]


def opened(recipe: str, folder: Path) -> TokenizerJson:
    vocabulary = open_vocabulary(tiny.tokenizer_files(recipe, folder))
    assert isinstance(vocabulary, TokenizerJson)
    return vocabulary


def test_it_gives_the_ids_of_the_tokenizer_itself(tmp_path: Path) -> None:
    vocabulary = opened("xlm-roberta", tmp_path)
    fast = sentencepiece_unigram.encoder(vocabulary.data, vocabulary.encoders[0])
    assert fast is not None and vocabulary.counting_encoders != vocabulary.encoders
    texts = tiny.sentences(count=400) + [t for t in ODD if "<" not in t]
    assert fast(texts) == vocabulary.encoders[0](texts)


@pytest.mark.parametrize("recipe", ["gpt2", "gemma"])
def test_other_models_count_with_their_own_library(recipe: str, tmp_path: Path) -> None:
    vocabulary = opened(recipe, tmp_path)
    assert sentencepiece_unigram.encoder(vocabulary.data, vocabulary.encoders[0]) is None
    assert vocabulary.counting_encoders == vocabulary.encoders


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": None},
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": True}},
    ],
)
def test_a_tokenizer_that_reads_text_otherwise_is_left_alone(change: dict[str, Any], tmp_path: Path) -> None:
    assert sentencepiece_unigram.encoder({**opened("xlm-roberta", tmp_path).data, **change}, list) is None


def test_byte_fallback_is_left_alone(tmp_path: Path) -> None:
    data = opened("xlm-roberta", tmp_path).data
    assert sentencepiece_unigram.encoder({**data, "model": {**data["model"], "byte_fallback": True}}, list) is None


def test_long_pieces_are_written_whole() -> None:
    assert [sentencepiece_unigram._varint(n) for n in (0, 127, 128, 300)] == [b"\0", b"\x7f", b"\x80\x01", b"\xac\x02"]
