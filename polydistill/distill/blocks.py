"""Text as blocks of one length without padding, and the masking of their tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from os import getpid
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import torch
from torch.utils.data import Dataset

from polydistill.errors import PolydistillError
from polydistill.files.hashing import file_sha256
from polydistill.files.outputs import explain_os_error, write_beside
from polydistill.files.sealing import checked, with_hash
from polydistill.models.checkpoint import write_all
from polydistill.progress import SILENT, Progress
from polydistill.texts.sources import TextReader, TextSource
from polydistill.training.batching import NOT_TRAINED, Feature
from polydistill.vocab.counts import Text, at_once

FORMAT = 1  # to be raised whenever the same text gives other blocks
LINES_AT_ONCE = 1_000


class Edges(NamedTuple):
    """The special tokens around a text.

    Attributes:
        prefix: Ids that stand before it.
        suffix: Ids that stand after it.
        separator: Ids between two lines: the suffix, or the end-of-text token of tokenizers that add none.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    separator: tuple[int, ...]


def edges_of(tokenizer: Any) -> Edges:
    """What a tokenizer puts around a text of its own accord."""
    probe = tokenizer("a", return_special_tokens_mask=True, verbose=False)
    ids, special = probe["input_ids"], probe["special_tokens_mask"]
    start = special.index(0) if 0 in special else len(ids)
    stop = len(ids) - special[::-1].index(0) if 0 in special else len(ids)
    suffix = tuple(ids[stop:])
    end = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    return Edges(tuple(ids[:start]), suffix, suffix or end)


@dataclass(frozen=True)
class Blocks:
    """Blocks of one language; item i is an input without padding.

    Args:
        ids: (rows, length) int32, in memory or mapped from a file.
        places: (n,) the rows that belong here.
        language: Its code.
        texts: What was read.
    """

    ids: np.ndarray = field(repr=False)
    places: np.ndarray = field(repr=False)
    language: str
    texts: tuple[Text, ...] = ()

    @property
    def length(self) -> int:
        """Tokens of a block."""
        return int(self.ids.shape[1])

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Feature:
        ids = self.ids[self.places[index]].astype(np.int64)
        return {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "example_id": int(self.places[index]),
            "language": self.language,
        }

    def split(self, share: float) -> tuple[Blocks, Blocks]:
        """The blocks to train on and those to validate on, the latter evenly spread over the text.

        Args:
            share: How many are held out, above 0 and at most 0.5; always at least one.

        Raises:
            PolydistillError: There is only one block.
        """
        if len(self) < 2:
            raise PolydistillError(
                f"The text of {self.language} has only one block of {self.length} tokens, so none can be held out.",
                "Give more text, or shorter blocks.",
            )
        count = max(1, round(share * len(self)))
        held = (np.arange(count) * len(self) + len(self) // 2) // count
        rest = np.setdiff1d(np.arange(len(self)), held)
        return replace(self, places=self.places[rest]), replace(self, places=self.places[held])


def pack(
    tokenizer: Any,
    sources: Sequence[TextSource],
    language: str,
    length: int,
    *,
    limit_tokens: int | None = None,
    folder: Path | None = None,
    progress: Progress = SILENT,
) -> Blocks:
    """Packs running text into blocks: the tokenizer's prefix, lines with separators between them, its suffix.

    Lines run on into the next block; what is left at the end is dropped.

    Args:
        tokenizer: What tokenizes.
        sources: Files or data sets of the Hub.
        language: Its code.
        length: Tokens of a block, special tokens included.
        limit_tokens: Stop after so many tokens of text.
        folder: Where the blocks are kept and found again; in memory without.
        progress: Where to report.

    Raises:
        PolydistillError: The text is too short for one block or cannot be read, or the folder cannot be written.
    """
    if any(source.kind == "wordlist" for source in sources):
        raise PolydistillError(
            f"There is no running text of {language}, only a list of its words.", f"Give some: `text={language}=PATH`."
        )
    if folder is None:
        packer = _Packer(tokenizer, language, length, limit_tokens)
        parts = list(packer.blocks(sources, progress))
        ids = np.concatenate(parts) if parts else np.empty((0, length), np.int32)
        return _checked(ids, packer)
    facts = _facts(tokenizer, sources, language, length, limit_tokens)
    name = hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
    data, about = folder / f"{language}-{name}.i32", folder / f"{language}-{name}.json"
    found = _kept(about, data)
    if found is None:
        packer = _Packer(tokenizer, language, length, limit_tokens)
        rows = _write(packer.blocks(sources, progress), data)
        if not rows:
            data.unlink()
            return _checked(np.empty((0, length), np.int32), packer)  # which refuses it
        texts = [asdict(text) for text in packer.texts]
        found = {**facts, "rows": rows, "texts": texts, "blocks": file_sha256(data)}
        write_beside(about, with_hash(found), option="POLYDISTILL_CACHE")
    ids = np.memmap(data, np.int32, "r", shape=(found["rows"], length))
    return Blocks(ids, np.arange(len(ids)), language, tuple(Text(**text) for text in found["texts"]))


def _kept(about: Path, data: Path) -> dict[str, Any] | None:
    """What was noted of blocks, None if they are not there or not what was written."""
    found = checked(about)
    try:
        return found if found is not None and file_sha256(data) == found["blocks"] else None
    except (OSError, KeyError):
        return None


class _Packer:
    """Tokenizes text and cuts it into blocks, a batch of lines at a time.

    Attributes:
        tokens: Tokens of text so far, separators included.
        texts: What was read.
    """

    def __init__(self, tokenizer: Any, language: str, length: int, limit: int | None) -> None:
        self.tokenizer, self.language, self.length, self.limit = tokenizer, language, length, limit
        self.edges = edges_of(tokenizer)
        self.room = length - len(self.edges.prefix) - len(self.edges.suffix)
        if self.room < 1:
            raise PolydistillError(f"Blocks of {length} tokens have no room for text.", "Choose longer ones.")
        self.tokens = 0
        self.texts: list[Text] = []

    def blocks(self, sources: Sequence[TextSource], progress: Progress) -> Iterator[np.ndarray]:
        """Yields (k, length) int32."""
        left = np.empty(0, np.int32)
        size = sum(file.stat().st_size for source in sources for file in source.files)
        total, unit = (self.limit, "token") if self.limit else (size or None, "B")
        with progress.bar(f"packing {self.language}", total, unit) as done:
            for flat, nbytes in self._tokens(sources):
                done(len(flat) if self.limit else nbytes)
                left = np.concatenate([left, flat])
                whole = len(left) // self.room * self.room
                if whole:
                    yield self._framed(left[:whole].reshape(-1, self.room))
                    left = left[whole:]

    def _framed(self, pieces: np.ndarray) -> np.ndarray:
        blocks = np.empty((len(pieces), self.length), np.int32)
        start = len(self.edges.prefix)
        blocks[:, :start] = self.edges.prefix
        blocks[:, start : start + self.room] = pieces
        blocks[:, start + self.room :] = self.edges.suffix
        return blocks

    def _tokens(self, sources: Sequence[TextSource]) -> Iterator[tuple[np.ndarray, int]]:
        """Yields tokens of some lines, each line with a separator after it, and the number of bytes."""
        for source in sources:
            reader = TextReader(source)
            for flat, nbytes in self._tokens_of(reader):
                flat = flat[: None if self.limit is None else self.limit - self.tokens]
                self.tokens += len(flat)
                yield flat, nbytes
                if self.tokens == self.limit:
                    break
            self.texts.append(Text(source.where, reader.lines, reader.bytes, reader.sha256))
            if self.tokens == self.limit:
                return

    def _tokens_of(self, reader: TextReader) -> Iterator[tuple[np.ndarray, int]]:
        separator, before = list(self.edges.separator), 0
        for texts in reader.blocks():
            for part in at_once(texts, LINES_AT_ONCE):
                # Called through transformers: the backend alone would cut and pad as its file says.
                ids = self.tokenizer(
                    texts[part],
                    add_special_tokens=False,
                    return_attention_mask=False,
                    return_token_type_ids=False,
                    verbose=False,
                )["input_ids"]
                flat = np.fromiter(chain.from_iterable(line + separator for line in ids if line), np.int32)
                last = part.stop == len(texts)
                yield flat, reader.bytes - before if last else 0
            before = reader.bytes


def _checked(ids: np.ndarray, packer: _Packer) -> Blocks:
    if not len(ids):
        raise PolydistillError(
            f"The text of {packer.language} has {packer.tokens:,} tokens, too few for one block of {packer.length}.",
            "Give more text, or shorter blocks.",
        )
    return Blocks(ids, np.arange(len(ids)), packer.language, tuple(packer.texts))


def _write(blocks: Iterable[np.ndarray], path: Path) -> int:
    """Writes blocks to a file that appears whole or not at all; returns their number."""
    partial, rows = path.with_name(f".{path.name}.partial-{getpid()}"), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb", buffering=0) as out:
            for part in blocks:
                write_all(out, part)
                rows += len(part)
        partial.replace(path)
    except OSError as error:
        raise explain_os_error(error, path, "POLYDISTILL_CACHE") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return rows


def _facts(
    tokenizer: Any, sources: Sequence[TextSource], language: str, length: int, limit: int | None
) -> dict[str, Any]:
    """Whatever could change the blocks."""
    texts = [source.facts() for source in sources]
    return {
        "format": FORMAT,
        "tokenizer": _fingerprint(tokenizer),
        "language": language,
        "length": length,
        "limit": limit,
        "sources": texts,
    }


def _fingerprint(tokenizer: Any) -> str:
    if tokenizer.is_fast:
        content = orjson.loads(tokenizer.backend_tokenizer.to_str())
        content.update(truncation=None, padding=None)  # of the last call
    else:
        content = tokenizer.get_vocab()
    content = {"tokenizer": content, "edges": list(edges_of(tokenizer))}
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


class MaskedBlocks(Dataset[Feature]):
    """Blocks of several languages, some of their tokens masked (Devlin et al. 2019, section 3.1).

    Of the chosen tokens 80% become the mask token, 10% any token that is not special, and 10% stay. Which ones follows
    from the seed, the block and its turn alone. Item `turn * len(self) + place` is the block at `place` the turn-th
    time that it is seen, so that whoever says which blocks come next (`GroupBatches`) also says how they are masked.

    Args:
        parts: Blocks of one length, one part a language.
        tokenizer: Whose mask token is used.
        mask_share: Share of the tokens that is chosen, special tokens left out; BiStil has 0.15 (Ansell et al. 2023).
        masked: Share of the chosen ones that the mask token replaces.
        replaced: Share that another token replaces.
        seed: Of the choice.

    Attributes:
        groups: Language -> its places.

    Raises:
        PolydistillError: The tokenizer has no mask token.
    """

    def __init__(
        self,
        parts: Sequence[Blocks],
        tokenizer: Any,
        *,
        mask_share: float = 0.15,
        masked: float = 0.8,
        replaced: float = 0.1,
        seed: int = 0,
    ) -> None:
        if mask_share and tokenizer.mask_token_id is None:
            raise PolydistillError(
                "The model's tokenizer has no mask token.", "Choose an encoder, or set the share of masked tokens to 0."
            )
        self._parts, self._share, self._seed = tuple(parts), mask_share, seed
        self._mask, self._masked, self._replaced = tokenizer.mask_token_id, masked, replaced
        ids = np.unique(np.fromiter(tokenizer.get_vocab().values(), np.int64))
        special = np.union1d(tokenizer.all_special_ids, list(chain(*edges_of(tokenizer)))).astype(np.int64)
        self._ordinary = np.setdiff1d(ids, special)
        self._special = special
        starts = np.cumsum([0, *map(len, self._parts)])
        self.groups: Mapping[str, range] = {
            part.language: range(int(a), int(b))
            for part, a, b in zip(self._parts, starts[:-1], starts[1:], strict=True)
        }
        if len(self.groups) < len(self._parts):
            raise ValueError("each language must come once")
        self._size = int(starts[-1])

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Feature]:
        return (self[i] for i in range(len(self)))  # every item has further turns, so indexing would never end

    def __getitem__(self, index: int) -> Feature:
        turn, place = divmod(int(index), len(self))
        part = next(p for p in self._parts if place in self.groups[p.language])
        feature = part[place - self.groups[part.language].start]
        ids, labels = self._hide(feature["input_ids"], np.random.default_rng([self._seed, turn, place]))
        return {**feature, "input_ids": ids, "labels": labels, "example_id": place}

    def _hide(self, ids: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(length,) what the model reads, and the original ids where tokens were chosen."""
        chosen = (random.random(len(ids)) < self._share) & ~np.isin(ids, self._special)
        how, others = random.random(len(ids)), random.choice(self._ordinary, len(ids))
        hidden = chosen & (how < self._masked)
        changed = chosen & ~hidden & (how < self._masked + self._replaced)
        read = np.where(changed, others, ids)
        if hidden.any():
            read[hidden] = self._mask
        return read, np.where(chosen, ids, NOT_TRAINED)


def stacked(features: Sequence[Feature]) -> dict[str, Any]:
    """A batch of blocks: tensors (B, length), `example_id` (B,), `language` (a list of B where there are several)."""
    keys = [key for key in ("input_ids", "attention_mask", "labels") if key in features[0]]
    batch: dict[str, Any] = {key: torch.from_numpy(np.stack([f[key] for f in features])) for key in keys}
    batch["example_id"] = torch.tensor([f["example_id"] for f in features])
    languages = [f["language"] for f in features]
    batch["language"] = languages if len(set(languages)) > 1 else languages[0]
    return batch
