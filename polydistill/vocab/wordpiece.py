"""WordPiece models (BERT, DistilBERT, ELECTRA, MPNet): greedy longest match."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from polydistill.vocab.keep import KeepSet


@dataclass(frozen=True)
class WordPiece:
    """The `model` part of a WordPiece tokenizer.json.

    The longest kept match of a word that was cut into kept pieces is the one that the whole vocabulary gave, so no
    piece depends on another one.
    """

    model: dict[str, Any]

    @property
    def ids(self) -> dict[str, int]:
        """Piece -> id."""
        return self.model["vocab"]

    def required(self) -> dict[int, str]:
        """The unknown piece."""
        unk = self.ids.get(self.model.get("unk_token", "[UNK]"))
        return {} if unk is None else {unk: "special"}

    def guards(self) -> list[int]:
        """None."""
        return []

    def forms(self, text: str) -> list[str]:
        """How a short text can stand in the vocabulary: at the start of a word and inside it."""
        return [text, self.model.get("continuing_subword_prefix", "##") + text]

    def dependencies(self, token: str) -> tuple[str, ...]:
        """None."""
        return ()

    def trimmed(self, keep: KeepSet) -> dict[str, Any]:
        """The model with the kept pieces under contiguous ids."""
        return {**self.model, "vocab": keep.vocabulary(self.ids)}
