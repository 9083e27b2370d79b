"""A model's config.json, checked before anything is built from it: types, sizes, ids, and what the weights say of it.

A configuration decides how much memory a model takes. Its sizes have limits far above those of any model, and the
model that it describes must be of the size of the weights that lie beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polydistill.files.jsonfiles import Part, read_json

# One id or a list of ids that the model starts, ends, pads or marks something with.
NEEDED = re.compile(r".*_token_(id|ids|index)|padding_idx|force_words_ids")
# Lists whose dropped members mean nothing any more: a token that is gone cannot be generated.
SUPPRESSED = ("suppress_tokens", "begin_suppress_tokens")
CODE_MAPS = ("lang_to_id", "lang_code_to_id", "language_to_id", "task_to_id")

LAYERS = (
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "encoder_layers",
    "decoder_layers",
    "num_decoder_layers",
    "num_encoder_layers",
)
HEADS = (
    "num_attention_heads",
    "n_head",
    "n_heads",
    "num_heads",
    "attention_heads",
    "num_key_value_heads",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "num_hidden_groups",
    "inner_group_num",
)
WIDTHS = (
    "hidden_size",
    "d_model",
    "dim",
    "n_embd",
    "embedding_size",
    "head_dim",
    "d_kv",
    "intermediate_size",
    "d_ff",
    "hidden_dim",
    "n_inner",
    "ffn_dim",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "projection_dim",
    "pooler_hidden_size",
)
INNER = ("intermediate_size", "d_ff", "hidden_dim", "n_inner", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim")
STATES = ("hidden_size", "d_model", "dim", "n_embd")
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_target_positions", "max_source_positions")
ROWS = ("vocab_size", "decoder_vocab_size")
OTHER = (
    "type_vocab_size",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "position_buckets",
    "max_relative_positions",
)
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "num_channels")
LIMITS = {
    **dict.fromkeys(LAYERS, 1_024),
    **dict.fromkeys((*HEADS, *EXPERTS), 4_096),
    "image_size": 1 << 14,
    **dict.fromkeys(WIDTHS, 1 << 20),
    **dict.fromkeys(POSITIONS, 1 << 24),
    **dict.fromkeys(ROWS, 4_000_000),
    **dict.fromkeys(OTHER, 1 << 20),
}
MOST_LABELS = 100_000
KINDS: dict[str, type] = {
    "model_type": str,
    "problem_type": str,
    "position_embedding_type": str,
    "default_language": str,
    "tie_word_embeddings": bool,
    "is_encoder_decoder": bool,
    "is_decoder": bool,
    "share_encoder_decoder_embeddings": bool,
}
PACKED = 16  # embeddings can be narrower than the layers
SMALL = 1 << 18  # values that any model may have


def check_config(folder: Path) -> dict[str, Any]:
    """The config.json of a folder, whose types and sizes are those of a model.

    Args:
        folder: The part of a snapshot that has config.json, and the weights with whose size it is compared.

    Raises:
        PolydistillError: Something in it is wrong; the message says what and where.
    """
    config: dict[str, Any] = read_json(folder / "config.json")
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    for part in _parts(Part(folder / "config.json", config)):
        _check_types(part)
        check_ids(part)
        _compare(part, stored)
    return config


def _parts(top: Part) -> Iterator[Part]:
    """The configuration and those inside it."""
    yield top
    for key, value in top.value.items():
        if isinstance(value, dict) and key not in ("id2label", "label2id", *CODE_MAPS):
            yield from _parts(top[key])


def _check_types(part: Part) -> None:
    """The values that polydistill reads, or that decide how large a model is."""
    for key in filter(part.value.__contains__, KINDS):
        part[key].optional(KINDS[key])
    for name in part["architectures"].items():
        name.of(str)
    for key in filter(part.value.__contains__, LIMITS):
        for size in part[key].items() if isinstance(part[key].value, list) else [part[key]]:
            if size.value is not None and not (key == "image_size" and isinstance(size.value, dict)):
                size.whole_number(_least(key), LIMITS[key])
    if len(part["id2label"].optional(dict) or ()) > MOST_LABELS:
        raise part["id2label"].wrong(f"an object of at most {MOST_LABELS:,} labels")
    for label in part["id2label"].members():
        label.of(str)
    part["label2id"].optional(dict)
    if part["num_labels"].value is not None:
        part["num_labels"].whole_number(0, MOST_LABELS)


def _least(key: str) -> int:
    if key in HEADS:  # widths are divided by them
        return 1
    return -1 if key in POSITIONS or key in OTHER else 0


def check_ids(part: Part) -> None:
    """The token ids of a configuration or of generation_config.json are whole numbers where they should be.

    Raises:
        PolydistillError: One is not.
    """
    for key, value in part.value.items():
        if value is None:
            continue
        if NEEDED.fullmatch(key) and not isinstance(value, dict):
            for i in _flat(part[key]):
                i.optional(int)
        elif key in SUPPRESSED:
            _check_list(part[key])
        elif key == "bad_words_ids":
            for word in part[key].items():
                _check_list(word)
        elif key == "forced_decoder_ids":
            for pair in part[key].items():
                position, i = _pair(pair, "a position and an id")
                position.of(int)
                i.optional(int)
        elif key == "sequence_bias" and isinstance(value, list):
            for pair in part[key].items():
                _check_list(_pair(pair, "ids and their bias")[0])
        elif key in CODE_MAPS:
            for i in part[key].members():
                i.of(int)


def _check_list(part: Part) -> None:
    part.of(list)
    for i in part.items():
        i.of(int)


def _pair(part: Part, should: str) -> tuple[Part, Part]:
    if len(part.of(list)) != 2:
        raise part.wrong(should)
    return part[0], part[1]


def _flat(part: Part) -> Iterator[Part]:
    if isinstance(part.value, list):
        for item in part.items():
            yield from _flat(item)
    else:
        yield part


def _compare(part: Part, stored: int) -> None:
    """Refuses sizes that a model of `stored` bytes of weights cannot have.

    Each layer has a matrix from its width to its inner one at least, unless one group of layers runs many times.
    """
    layers, width = _largest(part, LAYERS), _largest(part, STATES)
    inner, positions = max(width, _largest(part, INNER)), _largest(part, POSITIONS)
    shared = part["model_type"].value == "albert"
    turned = part["num_key_value_heads"].value is not None or any("rope" in key for key in part.value)
    needed = {
        f"{layers:,} layers of width {width:,}": (1 if shared else layers) * width * inner,
        f"{_largest(part, ROWS):,} tokens of width {width:,}": _largest(part, ROWS) * width // PACKED,
        f"{positions:,} positions of width {width:,}": 0 if turned else positions * width // PACKED,
        f"tables of {_largest(part, OTHER):,} rows": _largest(part, OTHER) * width // PACKED,
    }
    for what, values in needed.items():
        if values > max(stored, SMALL):
            raise part.refuse(f"describes {what}, far more than the {stored:,} bytes of its weights can hold")


def _largest(part: Part, keys: tuple[str, ...]) -> int:
    """The largest of some sizes, 0 where none is given."""
    values = [part.value.get(key) for key in keys]
    flat = [n for value in values for n in (value if isinstance(value, list) else [value]) if n is not None]
    return max(flat, default=0)
