"""BPE models (Sennrich et al. 2016): byte-level (GPT-2, Qwen, Llama 3) and SentencePiece with byte fallback (Gemma).

Trimming keeps the symbols that the merges of a kept token really pass through. They depend on the token alone: in any
text, the merges inside it are those that BPE makes of its text by itself, since no merge crossed its border. Its last
merge splits it into two parts, and the same holds for each part.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from polydistill.errors import PolydistillError
from polydistill.vocab.keep import KeepSet
from polydistill.vocab.unigram import BYTE_PIECES

Rank = Callable[[str, str], float]
NEVER = float("inf")


def merge_path(token: str, rank: Rank) -> tuple[str, ...]:
    """The symbols that BPE passes through on its way from single characters to `token`.

    Args:
        token: A vocabulary entry, as text.
        rank: The rank of merging two symbols (lower goes first), infinite if they do not merge.

    Returns:
        Every symbol on the path with `token` last, or `()` if the merges do not lead there.
    """
    symbols = list(token)
    path = dict.fromkeys(symbols)
    ranks = [rank(left, right) for left, right in pairwise(symbols)]
    while ranks:
        lowest = min(ranks)
        if lowest == NEVER:
            return ()
        i = ranks.index(lowest)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
        path[symbols[i]] = None
        del ranks[i]
        if i > 0:
            ranks[i - 1] = rank(symbols[i - 1], symbols[i])
        if i < len(ranks):
            ranks[i] = rank(symbols[i], symbols[i + 1])
    return tuple(path)


@functools.cache
def byte_alphabet() -> dict[int, str]:
    """Byte -> the printable character that stands for it in byte-level BPE (Radford et al. 2019)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}


@dataclass(frozen=True)
class BPE:
    """The `model` part of a BPE tokenizer.json.

    Args:
        model: The JSON object: vocab, merges in rank order, unk_token, byte_fallback, ignore_merges.
        byte_level: Whether text reaches the model in the byte alphabet of 256 characters.
    """

    model: dict[str, Any]
    byte_level: bool

    def __post_init__(self) -> None:
        for key in ("continuing_subword_prefix", "end_of_word_suffix"):
            if self.model.get(key):
                raise PolydistillError(
                    f"This BPE tokenizer marks its symbols with a {key} ({self.model[key]!r}), which is not supported.",
                    "Byte-level BPE and SentencePiece BPE are.",
                )

    @property
    def ids(self) -> dict[str, int]:
        """Symbol -> id."""
        return self.model["vocab"]

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """The merges in rank order; older files write each as one string."""
        merges = self.model["merges"]
        return [tuple(m.split(" ")) for m in merges] if merges and isinstance(merges[0], str) else [*map(tuple, merges)]

    @cached_property
    def ranks(self) -> dict[tuple[str, str], int]:
        """Merge -> rank."""
        return dict(zip(self.pairs, range(len(self.pairs)), strict=True))

    def required(self) -> dict[int, str]:
        """The unknown symbol and the 256 bytes, from which any text can be written."""
        required = {}
        unk = self.ids.get(self.model.get("unk_token") or "")
        if unk is not None:
            required[unk] = "special"
        alphabet = (
            byte_alphabet().values() if self.byte_level else BYTE_PIECES if self.model.get("byte_fallback") else ()
        )
        required.update({self.ids[b]: "alphabet" for b in alphabet if b in self.ids})
        return required

    def guards(self) -> list[int]:
        """None."""
        return []

    def forms(self, text: str) -> list[str]:
        """The forms of a short text in the vocabulary: without and with a space before it."""
        if self.byte_level:
            table = byte_alphabet()
            return ["".join(table[b] for b in t.encode()) for t in (text, " " + text)]
        return [text, "▁" + text]

    def dependencies(self, token: str) -> tuple[str, ...]:
        """The symbols on the merge path of `token`."""
        ranks = self.ranks
        return merge_path(token, lambda left, right: ranks.get((left, right), NEVER))

    def trimmed(self, keep: KeepSet) -> dict[str, Any]:
        """The model with the kept symbols and every merge whose parts and result are kept, in rank order."""
        vocab = keep.vocabulary(self.ids)
        original = self.model["merges"]
        merges = [original[i] for i, (a, b) in enumerate(self.pairs) if a in vocab and b in vocab and a + b in vocab]
        return {**self.model, "vocab": vocab, "merges": merges}
