"""A config.json with wrong types or absurd sizes is refused before anything is built from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from polydistill.errors import PolydistillError
from polydistill.models.configuration import check_config

BERT = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 72,
}


def write(folder: Path, config: Any, stored: int = 60_000) -> Path:
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(stored)  # only its size is looked at
    return folder


CASES: list[tuple[dict[str, Any], str]] = [
    ({"num_hidden_layers": 10**9}, r"num_hidden_layers is 1000000000, but must be a whole number from 0 to 1,024"),
    ({"num_hidden_layers": 1_000}, r"describes 1,000 layers of width 32, far more than the 60,000 bytes"),
    ({"num_hidden_layers": "2"}, r"num_hidden_layers is \"2\", but must be a whole number"),
    ({"num_hidden_layers": True}, r"num_hidden_layers is true, but must be a whole number"),
    ({"num_hidden_layers": -2}, r"num_hidden_layers is -2, but must be a whole number"),
    ({"num_hidden_layers": 2.0}, r"num_hidden_layers is 2\.0, but must be a whole number"),
    ({"hidden_size": 10**6}, r"describes 2 layers of width 1,000,000"),
    ({"hidden_size": 10**12}, r"hidden_size is 1000000000000, but must be a whole number from 0 to 1,048,576"),
    ({"intermediate_size": 1 << 20}, r"describes 2 layers of width 32, far more"),
    ({"intermediate_size": [40, 1 << 30]}, r"intermediate_size\[1\] is 1073741824"),
    ({"num_attention_heads": 10**6}, r"num_attention_heads is 1000000"),
    ({"num_attention_heads": 0}, r"num_attention_heads is 0, but must be a whole number from 1 to 4,096"),
    ({"vocab_size": 3_999_999}, r"describes 3,999,999 tokens of width 32, far more"),
    ({"vocab_size": 10**10}, r"vocab_size is 10000000000, but must be a whole number from 0 to 4,000,000"),
    ({"max_position_embeddings": 10**7}, r"describes 10,000,000 positions of width 32, far more"),
    ({"type_vocab_size": 1 << 20}, r"describes tables of 1,048,576 rows, far more"),
    ({"architectures": "BertModel"}, r"architectures is \"BertModel\", but must be a list"),
    ({"architectures": [3]}, r"architectures\[0\] is 3, but must be a text"),
    ({"id2label": ["A"]}, r"id2label is a list of 1, but must be an object"),
    ({"id2label": {"0": 3}}, r"id2label\.0 is 3, but must be a text"),
    ({"label2id": ["A"]}, r"label2id is a list of 1, but must be an object"),
    ({"num_labels": 10**9}, r"num_labels is 1000000000"),
    ({"tie_word_embeddings": "no"}, r"tie_word_embeddings is \"no\", but must be true or false"),
    ({"text_config": {"num_hidden_layers": 10**9}}, r"text_config\.num_hidden_layers is 1000000000"),
    ({"text_config": {"inner": {"hidden_size": 1 << 30}}}, r"text_config\.inner\.hidden_size is 1073741824"),
    ({"eos_token_id": [1, "2"]}, r"eos_token_id\[1\] is \"2\", but must be a whole number"),
    ({"pad_token_id": "<pad>"}, r"pad_token_id is \"<pad>\", but must be a whole number"),
    ({"suppress_tokens": [1, None]}, r"suppress_tokens\[1\] is missing, but must be a whole number"),
    ({"suppress_tokens": 3}, r"suppress_tokens is 3, but must be a list"),
    ({"bad_words_ids": [3]}, r"bad_words_ids\[0\] is 3, but must be a list"),
    ({"forced_decoder_ids": [[1]]}, r"forced_decoder_ids\[0\] is a list of 1, but must be a position and an id"),
    ({"sequence_bias": [[[1]]]}, r"sequence_bias\[0\] is a list of 1, but must be ids and their bias"),
    ({"lang_code_to_id": {"ro": "3"}}, r"lang_code_to_id\.ro is \"3\", but must be a whole number"),
]


@pytest.mark.parametrize(("change", "message"), CASES)
def test_a_broken_configuration_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(PolydistillError, match=rf"config\.json:? {message}") as caught:
        check_config(write(tmp_path, {**BERT, **change}))
    assert "etch or save the model again" in caught.value.hint


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, BERT)
    (folder / "config.json").write_text('{"a":' * 10_000 + "1" + "}" * 10_000)
    with pytest.raises(PolydistillError, match=r"config\.json is not valid JSON \(depth limit"):
        check_config(folder)
    (folder / "config.json").write_text('{"a":' * 500 + "1" + "}" * 500)
    with pytest.raises(PolydistillError, match=r"config\.json is nested more than 64 levels deep"):
        check_config(folder)


# Sizes of published models: (values of the configuration, bytes of the weights).
PUBLISHED: list[tuple[dict[str, Any], int]] = [
    (
        {
            "model_type": "albert",
            "hidden_size": 4096,
            "intermediate_size": 16384,
            "num_hidden_layers": 12,
            "embedding_size": 128,
            "vocab_size": 30_000,
            "num_hidden_groups": 1,
            "max_position_embeddings": 512,
        },
        890_450_040,
    ),
    (
        {
            "model_type": "llama",
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_key_value_heads": 8,
            "rope_theta": 500000.0,
            "max_position_embeddings": 10_485_760,
            "vocab_size": 128_256,
        },
        2_471_645_608,
    ),
    (
        {
            "model_type": "llama",
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "max_position_embeddings": 2048,
            "vocab_size": 32_000,
        },
        3_892_000_000,
    ),  # packed in 4 bits
    (
        {
            "model_type": "mt5",
            "d_model": 512,
            "d_ff": 1024,
            "d_kv": 64,
            "num_layers": 8,
            "num_decoder_layers": 8,
            "num_heads": 6,
            "vocab_size": 250_112,
            "relative_attention_num_buckets": 32,
        },
        293_000_000,
    ),  # its encoder alone
    (
        {
            "model_type": "bert",
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_hidden_layers": 12,
            "vocab_size": 250_037,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
            "pad_token_id": 0,
            "n_inner": None,
        },
        235_000_000,
    ),
]


@pytest.mark.parametrize(("config", "stored"), PUBLISHED)
def test_published_models_pass(config: dict[str, Any], stored: int, tmp_path: Path) -> None:
    assert check_config(write(tmp_path, config, stored)) == config


@pytest.mark.parametrize("model_type", ["bert", "albert", "gemma3", "marian", "mt5", "xglm", "deberta-v2"])
def test_tiny_models_pass(model_type: str, tmp_path: Path) -> None:
    head = "seq2seq-lm" if model_type in ("marian", "mt5") else "causal-lm" if model_type == "xglm" else "base"
    check_config(tiny.model_folder(model_type, head, tmp_path))
