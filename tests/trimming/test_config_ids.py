"""Ids in config.json and generation_config.json."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from polydistill.errors import PolydistillError
from polydistill.trimming.config_ids import needed_ids, remap, set_rows
from polydistill.vocab.keep import KeepSet

# 100 ids, of which the even ones stay: the new id of 2n is n.
KEEP = KeepSet.of(dict.fromkeys(range(0, 100, 2), "corpus"), 100)

CONFIG: dict[str, Any] = {
    "model_type": "made-up",
    "architectures": ["MadeUpForConditionalGeneration"],
    "vocab_size": 100,
    "hidden_size": 32,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "mm_tokens_per_image": 4,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "id2label": {"0": "no", "2": "yes"},
    "label2id": {"no": 0, "yes": 2},
    "bos_token_id": 2,
    "eos_token_id": [4, 6],
    "pad_token_id": 0,
    "unk_token_id": 8,
    "cls_token_id": None,
    "sep_token_id": -1,
    "mask_token_id": 98,
    "decoder_start_token_id": [10, 12],
    "padding_idx": 0,
    "image_token_id": 14,
    "image_token_index": 16,
    "boi_token_index": 18,
    "eoi_token_index": 120,
    "audio_token_id": 20,
    "text_config": {"bos_token_id": 2, "pad_token_id": 0, "vocab_size": 100, "deeper": {"eos_token_id": 22}},
    "task_specific_params": {
        "translation_en_to_ro": {"prefix": "translate: ", "forced_bos_token_id": 24, "num_beams": 4},
        "summarization": {"decoder_start_token_id": 26, "bad_words_ids": [[28]], "max_length": 2},
    },
}

GENERATION: dict[str, Any] = {
    "_from_model_config": True,
    "max_length": 20,
    "top_k": 50,
    "eos_token_id": [4, 6, 30],
    "forced_bos_token_id": 32,
    "forced_eos_token_id": [4, 6],
    "forced_decoder_ids": [[1, 34], [2, None], [3, 36]],
    "suppress_tokens": [-1, 38, 39, 40],
    "begin_suppress_tokens": [41, 220, 42],
    "bad_words_ids": [[44], [45], [46, 47], [48, 50]],
    "force_words_ids": [[52, 54], [[56], [58, 60]]],
    "sequence_bias": [[[62], -1.5], [[64, 65], 2.0], [[66, 68], 10.0]],
    "lang_to_id": {"<|en|>": 70, "<|ro|>": 71, "<|sw|>": 72},
    "lang_code_to_id": {"en": 74, "ro": 75},
    "language_to_id": {"de": 77},
    "task_to_id": {"translate": 76},
    "no_timestamps_token_id": 78,
}


def test_every_id_of_a_config_is_mapped() -> None:
    before = copy.deepcopy(CONFIG)
    assert remap(CONFIG, KEEP) == {
        **CONFIG,
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "unk_token_id": 4,
        "mask_token_id": 49,
        "decoder_start_token_id": [5, 6],
        "image_token_id": 7,
        "image_token_index": 8,
        "boi_token_index": 9,
        "audio_token_id": 10,
        "text_config": {"bos_token_id": 1, "pad_token_id": 0, "vocab_size": 100, "deeper": {"eos_token_id": 11}},
        "task_specific_params": {
            "translation_en_to_ro": {"prefix": "translate: ", "forced_bos_token_id": 12, "num_beams": 4},
            "summarization": {"decoder_start_token_id": 13, "bad_words_ids": [[14]], "max_length": 2},
        },
    }
    assert before == CONFIG, "the original was changed"


def test_every_id_of_a_generation_config_is_mapped_and_dropped_ones_vanish_where_they_may() -> None:
    before = copy.deepcopy(GENERATION)
    assert remap(GENERATION, KEEP) == {
        **GENERATION,
        "eos_token_id": [2, 3, 15],
        "forced_bos_token_id": 16,
        "forced_eos_token_id": [2, 3],
        "forced_decoder_ids": [[1, 17], [2, None], [3, 18]],
        "suppress_tokens": [-1, 19, 20],
        "begin_suppress_tokens": [21],
        "bad_words_ids": [[22], [24, 25]],
        "force_words_ids": [[26, 27], [[28], [29, 30]]],
        "sequence_bias": [[[31], -1.5], [[33, 34], 10.0]],
        "lang_to_id": {"<|en|>": 35, "<|sw|>": 36},
        "lang_code_to_id": {"en": 37},
        "language_to_id": {},
        "task_to_id": {"translate": 38},
        "no_timestamps_token_id": 39,
    }
    assert before == GENERATION, "the original was changed"


@pytest.mark.parametrize(
    "part",
    [
        {"bos_token_id": 3},
        {"eos_token_id": [4, 5]},
        {"pad_token_id": 1},
        {"decoder_start_token_id": 7},
        {"forced_bos_token_id": 9},
        {"forced_eos_token_id": [9]},
        {"forced_decoder_ids": [[1, 2], [2, 11]]},
        {"force_words_ids": [[2, 13]]},
        {"force_words_ids": [[[2], [13]]]},
        {"image_token_index": 15},
        {"audio_token_id": 15},
        {"padding_idx": 1},
        {"text_config": {"deeper": {"bos_token_id": 17}}},
        {"task_specific_params": {"translation": {"decoder_start_token_id": 19}}},
    ],
    ids=str,
)
def test_a_dropped_id_that_is_needed_is_refused_with_its_key(part: dict[str, Any]) -> None:
    key = next(iter(part))
    with pytest.raises(PolydistillError, match=rf"needs token \d+ \({key}.*\), which would be dropped") as caught:
        remap({"hidden_size": 8, **part}, KEEP)
    assert "`drop_added`" in caught.value.hint


def test_the_message_names_the_nested_key() -> None:
    with pytest.raises(PolydistillError, match=r"\(text_config\.deeper\.bos_token_id\)"):
        remap({"text_config": {"deeper": {"bos_token_id": 17}}}, KEEP)


@pytest.mark.parametrize("value", [None, -1, -100, 100, 250112, [None, -1, 100], [], "<s>", True, False, 1.5], ids=str)
def test_what_is_no_id_of_a_token_is_untouched(value: Any) -> None:
    for key in ("bos_token_id", "eos_token_id", "pad_token_id", "forced_bos_token_id", "image_token_index"):
        config = {key: value, "text_config": {key: value}}
        assert remap(config, KEEP) == config
        assert remap(config, KeepSet.everything(100)) == config


@pytest.mark.parametrize("key", [k for k in GENERATION if isinstance(GENERATION[k], list)])
def test_empty_and_missing_lists_are_untouched(key: str) -> None:
    assert remap({key: None}, KEEP) == {key: None}
    assert remap({key: []}, KEEP) == {key: []}


@pytest.mark.parametrize("config", [CONFIG, {k: v for k, v in GENERATION.items() if k != "begin_suppress_tokens"}, {}])
def test_keeping_everything_changes_nothing(config: dict[str, Any]) -> None:
    assert remap(config, KeepSet.everything(100)) == config


def test_needed_ids_are_named_with_their_key() -> None:
    assert sorted(needed_ids(CONFIG)) == [
        (0, "pad_token_id"),
        (0, "padding_idx"),
        (0, "text_config.pad_token_id"),
        (2, "bos_token_id"),
        (2, "text_config.bos_token_id"),
        (4, "eos_token_id"),
        (6, "eos_token_id"),
        (8, "unk_token_id"),
        (10, "decoder_start_token_id"),
        (12, "decoder_start_token_id"),
        (14, "image_token_id"),
        (16, "image_token_index"),
        (18, "boi_token_index"),
        (20, "audio_token_id"),
        (22, "text_config.deeper.eos_token_id"),
        (24, "task_specific_params.translation_en_to_ro.forced_bos_token_id"),
        (26, "task_specific_params.summarization.decoder_start_token_id"),
        (98, "mask_token_id"),
        (120, "eoi_token_index"),
    ]
    assert {i for i, _ in needed_ids(GENERATION)} == {4, 6, 30, 32, 34, 36, 52, 54, 56, 58, 60, 78}


@pytest.mark.parametrize("config", [CONFIG, GENERATION])
def test_what_is_needed_is_enough(config: dict[str, Any]) -> None:
    keep = KeepSet.of({i: "special" for i, _ in needed_ids(config) if i < 100}, 100)
    new = remap(config, keep)
    old_of = dict(enumerate(keep.ids.tolist()))
    assert [(old_of.get(i, i), key) for i, key in needed_ids(new)] == list(needed_ids(config))


def test_rows_are_written_where_the_architecture_has_them() -> None:
    config = copy.deepcopy(CONFIG)
    set_rows(config, ("vocab_size", "text_config.vocab_size", "missing", "bos_token_id.vocab_size", "no.such"), (50,))
    assert config == {**CONFIG, "vocab_size": 50, "text_config": {**CONFIG["text_config"], "vocab_size": 50}}
    marian = {"vocab_size": 9, "decoder_vocab_size": 8}
    set_rows(marian, ("vocab_size", "decoder_vocab_size"), (5, 4))
    assert marian == {"vocab_size": 5, "decoder_vocab_size": 4}
    shared = {"vocab_size": 9, "decoder_vocab_size": 9}
    set_rows(shared, ("vocab_size", "decoder_vocab_size"), (5,))
    assert shared == {"vocab_size": 5, "decoder_vocab_size": 5}
