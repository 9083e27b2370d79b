"""WordPiece models (BERT, DistilBERT, ELECTRA, MPNet): greedy longest match."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polydistill.vocab.keep import KeepSet

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class WordPiece:
    """The `model` part of a WordPiece tokenizer.json.

    In a word that was cut into kept pieces, the longest kept match is the one that the whole vocabulary gave, so no
    piece depends on another.
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
        """The forms of a short text in the vocabulary: at the start of a word and inside it."""
        return [text, self.model.get("continuing_subword_prefix", "##") + text]

    def dependencies(self, token: str) -> tuple[str, ...]:
        """None."""
        return ()

    def trimmed(self, keep: KeepSet) -> dict[str, Any]:
        """The model with the kept pieces under contiguous ids."""
        return {**self.model, "vocab": keep.vocabulary(self.ids)}


def splits_at_punctuation(data: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json cleans and splits text as BERT does: at white space, each punctuation mark by itself."""
    normalizer = data.get("normalizer") or {}
    return (
        data["model"].get("type") == "WordPiece"
        and normalizer.get("type", "BertNormalizer") == "BertNormalizer"
        and (data.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
        and not any(token.get("normalized") for token in data.get("added_tokens", []))
    )


def encoder(
    data: Mapping[str, Any], tokenizer: Tokenizer, added: Collection[str]
) -> Callable[[list[str]], list[list[int]]]:
    """A function from texts to ids that leaves the normaliser out for ASCII, of which it only lowers the case.

    Args:
        data: tokenizer.json, one that `splits_at_punctuation`.
        tokenizer: The same, loaded, without truncation and padding.
        added: Its added tokens, which are matched before the normaliser.
    """
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    plain = Tokenizer(tokenizer.model)
    plain.pre_tokenizer = BertPreTokenizer()
    lower = bool((data.get("normalizer") or {}).get("lowercase"))
    special = re.compile("|".join(map(re.escape, added)) or "(?!)")

    def encode(texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = [[]] * len(texts)
        simple = [i for i, t in enumerate(texts) if t.isascii() and t.isprintable() and not special.search(t)]
        others = sorted(set(range(len(texts))).difference(simple))
        ready = [texts[i].lower() if lower else texts[i] for i in simple]
        for engine, places, found in ((plain, simple, ready), (tokenizer, others, [texts[i] for i in others])):
            for i, encoding in zip(places, engine.encode_batch_fast(found, add_special_tokens=False), strict=True):
                ids[i] = encoding.ids
        return ids

    return encode
