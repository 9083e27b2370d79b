"""Random words: some are left out, and neighbours change places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from polydistill.distill.augmentation.base import Augmentation
from polydistill.options.settings import Options, setting

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

FOLLOW = ("input_ids", "attention_mask", "token_type_ids", "word_ids", "labels")  # (B, N) keys that go with the tokens


@dataclass(frozen=True)
class WordsOptions(Options):
    """The options of `words`."""

    delete: float = setting(0.1, "Chance of each word to be left out.", "", least=0, most=0.9)
    swap: float = setting(0.1, "Chance of each word to change places with the next.", "", least=0, most=1)


class Words(Augmentation):
    """Words are left out or swapped with their neighbours (EDA, Wei and Zou 2019, arXiv 1901.11196).

    A word goes with all of its tokens and, for tags, with its place. Special tokens stay where they are, and a text
    keeps at least one word between two of them.

    Args:
        options: Chances.
        tokenizer: The student's, which knows where words begin.
    """

    options_class = WordsOptions
    for_words: ClassVar[bool] = True

    def __init__(self, options: WordsOptions = WordsOptions(), *, tokenizer: Any) -> None:
        super().__init__(tokenizer=tokenizer)
        self._options = options
        self._special = frozenset(tokenizer.all_special_ids)
        self._wordpiece = any(piece.startswith("##") for piece in tokenizer.get_vocab())

    def __call__(self, batch: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
        """The batch with other words; rows that became shorter are padded."""
        changed = {key: batch[key].clone() for key in FOLLOW if key in batch and batch[key].ndim == 2}
        for row, ids in enumerate(batch["input_ids"]):
            count = int(batch["attention_mask"][row].sum())
            tagged = batch["word_ids"][row][:count].tolist() if "word_ids" in batch else None
            order = self._order(ids[:count].tolist(), tagged, random)
            for key, tensor in changed.items():
                tensor[row] = _moved(batch[key][row], order, self._padding(key))
        return {**batch, **changed}

    def _order(self, ids: Sequence[int], tagged: Sequence[int] | None, random: np.random.Generator) -> list[int]:
        """The tokens that are left, in their new order; `tagged` is not below 0 where a word with a tag begins."""
        found: list[int] = []
        for words in self._stretches(ids, tagged):
            if words and ids[words[0][0]] in self._special:
                found += words[0]
                continue
            kept = [word for word in words if random.random() >= self._options.delete] or words[:1]
            for i in range(len(kept) - 1):
                if random.random() < self._options.swap:
                    kept[i], kept[i + 1] = kept[i + 1], kept[i]
            found += [place for word in kept for place in word]
        return found

    def _stretches(self, ids: Sequence[int], tagged: Sequence[int] | None) -> list[list[list[int]]]:
        """The words between special tokens, each as the places of its tokens; a special token is a stretch itself."""
        pieces = self.tokenizer.convert_ids_to_tokens(list(ids))
        begins = [self._begins_word(piece) for piece in pieces] if tagged is None else [word >= 0 for word in tagged]
        found: list[list[list[int]]] = []
        for place, token in enumerate(ids):
            if token in self._special or not found or ids[found[-1][0][0]] in self._special:
                found.append([[place]])
            elif begins[place]:
                found[-1].append([place])
            else:
                found[-1][-1].append(place)
        return found

    def _begins_word(self, piece: str) -> bool:
        """Whether a token begins a word: in SentencePiece and byte-level BPE by a mark, in WordPiece by its absence."""
        return not piece.startswith("##") if self._wordpiece else piece.startswith(("\u2581", "\u0120"))

    def _padding(self, key: str) -> int:
        return {"input_ids": self.tokenizer.pad_token_id or 0, "word_ids": -1, "labels": -100}.get(key, 0)


def _moved(values: Tensor, order: Sequence[int], padding: int) -> Tensor:
    found = values.new_full(values.shape, padding)
    found[: len(order)] = values[list(order)]
    return found
