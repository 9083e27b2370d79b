"""A fast tokenizer of XLM-R's layout, built from its pieces and its character map.

XLM-R normalises text with a character map that SentencePiece compiled from NFKC in 2019. Today's SentencePiece compiles
a slightly different one (newer characters, and the zero-width joiner, which scripts such as Sinhala need, is no longer
a space), so today's map is read out, corrected, and compiled again.
"""

from __future__ import annotations

import base64
import io
import struct
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

_NODES_AT_ONCE = 4096


@dataclass(frozen=True)
class Pieces:
    """The Unigram vocabulary: pieces in id order, their scores, and the special ids."""

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    bos: int
    eos: int
    pad: int
    unk: int


def charsmap(characters: dict[str, str]) -> bytes:
    """Compile SentencePiece's `nmt_nfkc` with the single characters of another version of it.

    Args:
        characters: Character -> what it becomes; every other single character stays as it is.

    Returns:
        A compiled map, as `tokenizer.json` has it under `precompiled_charsmap`.
    """
    rules = _nmt_nfkc()
    later = {key for key in rules if len(key) == 1 and key not in characters}
    rules = {key: value for key, value in rules.items() if later.isdisjoint(key)}
    rules.update(characters)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rules.tsv"
        lines = (f"{_code_points(key)}\t{_code_points(value)}\n" for key, value in rules.items())
        table.write_text("".join(lines), encoding="utf-8")
        return _compile(normalization_rule_tsv=str(table))


@cache
def _nmt_nfkc() -> dict[str, str]:
    return read_charsmap(_compile(normalization_rule_name="nmt_nfkc"))


def _code_points(text: str) -> str:
    return " ".join(f"{ord(char):X}" for char in text)


def _compile(**rules: Any) -> bytes:
    """Have SentencePiece compile a character map: it does so for every model, so the smallest one is trained."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e"]),
        model_writer=model,
        model_type="char",
        vocab_size=9,
        minloglevel=2,
        **rules,
    )
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(model.getvalue())
    return proto.normalizer_spec.precompiled_charsmap


def read_charsmap(compiled: bytes) -> dict[str, str]:
    """Read the rules out of a compiled character map.

    It is a double-array trie over UTF-8 bytes: u32 size, units of u32, then the outputs, each ended by a zero byte. A
    unit has its byte in bits 0-7 (bit 31 marks a leaf's value instead), whether a leaf follows in bit 8, and the
    distance to its children in bits 10-30, times 256 where bit 9 is set; child c lies at that place XOR c.

    Returns:
        Sequence of characters -> what it becomes.
    """
    (size,) = struct.unpack_from("<I", compiled)
    units = np.frombuffer(compiled, "<u4", size // 4, 4)
    outputs = compiled[4 + size :]
    rules: dict[str, str] = {}
    letters = np.arange(1, 256, dtype=np.uint32)
    waiting = [([b""], _distance(units[:1]))]
    while waiting:
        keys, places = waiting.pop()
        near = places[:, None] ^ letters
        inside = np.minimum(near, len(units) - 1)
        rows, columns = np.nonzero((near < len(units)) & ((units[inside] & 0x800000FF) == letters))
        found = near[rows, columns]
        keys = [keys[row] + bytes([column + 1]) for row, column in zip(rows, columns, strict=True)]
        places = found ^ _distance(units[found])
        for index in np.nonzero(units[found] & 0x100)[0]:
            start = int(units[places[index]]) & 0x7FFFFFFF
            rules[keys[index].decode()] = outputs[start : outputs.index(b"\0", start)].decode()
        for start in range(0, len(keys), _NODES_AT_ONCE):
            part = slice(start, start + _NODES_AT_ONCE)
            waiting.append((keys[part], places[part]))
    return rules


def _distance(units: np.ndarray) -> np.ndarray:
    return (units >> 10) << ((units & 0x200) >> 6)


def tokenizer_json(vocabulary: Pieces, characters: dict[str, str]) -> dict[str, Any]:
    """Build a `tokenizer.json` of XLM-R's layout around a vocabulary.

    Args:
        vocabulary: Pieces, the last of which is `<mask>`.
        characters: What single characters are normalised to, see `charsmap`.

    Raises:
        ValueError: The last piece is not `<mask>`.
    """
    pieces = vocabulary.pieces
    bos, eos = pieces[vocabulary.bos], pieces[vocabulary.eos]
    mask = len(pieces) - 1
    if pieces[mask] != "<mask>":
        raise ValueError(f"its last piece is {pieces[mask]}, not <mask>")
    special = sorted((vocabulary.bos, vocabulary.pad, vocabulary.eos, vocabulary.unk, mask))
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    begin, end = ({"SpecialToken": {"id": token, "type_id": 0}} for token in (bos, eos))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": pieces[index],
                "single_word": False,
                "lstrip": index == mask,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index in special
        ],
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap(characters)).decode()},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, first, end],
            "pair": [begin, first, end, end, second, end],
            "special_tokens": {
                token: {"id": token, "ids": [index], "tokens": [token]}
                for token, index in ((bos, vocabulary.bos), (eos, vocabulary.eos))
            },
        },
        "decoder": metaspace,
        "model": {
            "type": "Unigram",
            "unk_id": vocabulary.unk,
            "vocab": [list(pair) for pair in zip(pieces, vocabulary.scores, strict=True)],
            "byte_fallback": False,
        },
    }
