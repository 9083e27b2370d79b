"""Unigram models (Kudo 2018): XLM-R, T5, mBART, ALBERT, DeBERTa-v3, XGLM."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

from polydistill.vocab.keep import KeepSet


@dataclass(frozen=True)
class Unigram:
    """The `model` part of a Unigram tokenizer.json: pieces with log-probabilities, ids are positions."""

    model: dict[str, Any]

    @cached_property
    def ids(self) -> dict[str, int]:
        """Piece -> id."""
        vocab = self.model["vocab"]
        return dict(zip(map(itemgetter(0), vocab), range(len(vocab)), strict=True))

    def required(self) -> dict[int, str]:
        """The unknown piece, and the byte pieces if the model falls back to bytes."""
        required = {}
        if self.model.get("unk_id") is not None:
            required[int(self.model["unk_id"])] = "special"
        if self.model.get("byte_fallback"):
            required.update({self.ids[b]: "alphabet" for b in BYTE_PIECES if b in self.ids})
        return required

    def guards(self) -> list[int]:
        """The piece with the lowest score: the unknown penalty is min(score) - 10, so losing it changes other text."""
        scores = [*map(itemgetter(1), self.model["vocab"])]
        return [scores.index(min(scores))]

    def forms(self, text: str) -> list[str]:
        """The forms of a short text in the vocabulary: inside a word and at its start."""
        return [text, "▁" + text]

    def dependencies(self, token: str) -> tuple[str, ...]:
        """None: the best path needs nothing but its own pieces."""
        return ()

    def trimmed(self, keep: KeepSet) -> dict[str, Any]:
        """The model with the kept pieces, scores and order unchanged."""
        vocab = self.model["vocab"]
        unk = self.model.get("unk_id")
        return {
            **self.model,
            "unk_id": None if unk is None else keep.new(unk),
            "vocab": [vocab[i] for i in keep.ids.tolist() if i < len(vocab)],
        }


BYTE_PIECES = tuple(f"<0x{b:02X}>" for b in range(256))
