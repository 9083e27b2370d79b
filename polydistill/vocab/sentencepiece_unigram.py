"""A Unigram tokenizer.json run by the SentencePiece library, to count text.

The two libraries search for the same best path over the same pieces; SentencePiece adds scores in single precision,
so a tie may break differently (none did in 1.9 million tokens of eight languages). That is good enough for counts;
verification and `diff`, which have to be exact, use the tokenizer itself.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

NORMAL, UNKNOWN, CONTROL = 1, 2, 3  # sentencepiece_model.proto
UNIGRAM = 1
Encode = Callable[[list[str]], list[list[int]]]
# Normalisers that do what SentencePiece does by itself: white space is collapsed, and stripped at the end.
COLLAPSING = ({"type": "Replace", "pattern": {"Regex": " {2,}"}}, {"type": "Strip"})

# White space and marks that the two libraries may treat differently: such a text is left to the other one.
ODD = re.compile(r"[^\S ]|  |^ | $|\u2581| [\u0300-\u036f\u0900-\u0dff\u200c\u200d\ufe00-\ufe0f]|[\x00-\x1f\x7f-\x9f]")


def encoder(data: Mapping[str, Any], exact: Encode) -> Encode | None:
    """A function from texts to ids, None if SentencePiece would read the tokenizer differently.

    Args:
        data: tokenizer.json. Its model has to be Unigram without byte fallback, its normaliser SentencePiece's
            character map, and its pre-tokenizer has to put "▁" before every word.
        exact: Encodes texts with odd white space.
    """
    model = data["model"]
    charsmap = _charsmap(data.get("normalizer"))
    if charsmap is None or "unk_id" not in model or model.get("byte_fallback") or not _marks_words(data):
        return None
    from sentencepiece import SentencePieceProcessor

    controls = {t["id"] for t in data.get("added_tokens", [])} - {model["unk_id"]}
    proto = _proto(model["vocab"], model["unk_id"], controls, charsmap)
    try:
        processor, threads = SentencePieceProcessor(model_proto=proto), os.cpu_count() or 1
    except RuntimeError:  # another kind of character map
        return None

    def encode(texts: list[str]) -> list[list[int]]:
        odd = [i for i, text in enumerate(texts) if ODD.search(text)]
        ids = processor.encode(texts, out_type=int, num_threads=threads)
        for i, row in zip(odd, exact([texts[i] for i in odd]) if odd else (), strict=True):
            ids[i] = row
        return ids

    return encode


def splits_at_white_space(data: Mapping[str, Any]) -> bool:
    """Whether text is split at white space before every word gets its "▁" (XLM-R, T5)."""
    steps = (data.get("pre_tokenizer") or {}).get("pretokenizers") or [{}]
    return (
        data["model"].get("type") == "Unigram"
        and steps[0].get("type") == "WhitespaceSplit"
        and _charsmap(data.get("normalizer")) is not None
        and _marks_words(data)
    )


def _charsmap(normalizer: Any) -> bytes | None:
    """The character map of a normaliser that does nothing else, except collapsing white space."""
    steps = normalizer["normalizers"] if normalizer and normalizer["type"] == "Sequence" else [normalizer or {}]
    maps = [base64.b64decode(s["precompiled_charsmap"]) for s in steps if s.get("type") == "Precompiled"]
    rest = [s for s in steps if s.get("type") != "Precompiled"]
    known = all(any(known.items() <= step.items() for known in COLLAPSING) for step in rest)
    return maps[0] if len(maps) == 1 and known else None


def _marks_words(data: Mapping[str, Any]) -> bool:
    steps = data.get("pre_tokenizer") or {}
    steps = steps["pretokenizers"] if steps.get("type") == "Sequence" else [steps]
    *before, last = steps or [{}]
    always = last.get("prepend_scheme", "always") == "always" and last.get("add_prefix_space", True)
    return (
        last.get("type") == "Metaspace"
        and last.get("replacement") == "▁"
        and bool(always)
        and all(step.get("type") == "WhitespaceSplit" for step in before)
    )


def _proto(vocab: list[Any], unk: int, controls: set[int], charsmap: bytes) -> bytes:
    """A serialised ModelProto; the pieces are written by hand, for a quarter of a million objects take their time."""
    from sentencepiece import sentencepiece_model_pb2

    scores = np.array([score for _, score in vocab], "<f4").tobytes()
    parts = []
    for i, (piece, _) in enumerate(vocab):
        text = piece.encode()
        kind = UNKNOWN if i == unk else CONTROL if i in controls else NORMAL
        body = b"\x0a" + _varint(len(text)) + text + b"\x15" + scores[4 * i : 4 * i + 4] + b"\x18" + bytes((kind,))
        parts.append(b"\x0a" + _varint(len(body)) + body)
    rest = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    rest.trainer_spec.model_type = UNIGRAM
    rest.trainer_spec.unk_id, rest.trainer_spec.bos_id = unk, -1
    rest.trainer_spec.eos_id, rest.trainer_spec.pad_id = -1, -1
    rest.normalizer_spec.precompiled_charsmap = charsmap
    return b"".join(parts) + rest.SerializeToString()


def _varint(n: int) -> bytes:
    found = bytearray()
    while n > 0x7F:
        found.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes((*found, n))
