"""Which tokens stay, and why.

Keep = what the tokenizer and the language need + what the text shows, then closed under what the tokenizer needs, then
capped (Ushio et al. 2023, arXiv 2305.15020; Abdaoui et al. 2020). Ties are broken by id: same input, same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from polydistill.errors import UsageError

if TYPE_CHECKING:
    from polydistill.vocab.counts import Cut

REASONS = ("special", "alphabet", "letters", "requested", "guard", "corpus", "spelling", "closure", "filling")


@dataclass(frozen=True)
class KeepSet:
    """The kept ids of one id space, with the reason for each.

    Args:
        ids: (K,) old ids, ascending except after `with_last` and `with_rows`; the new id of `ids[i]` is `i`.
        reasons: (K,) positions in `REASONS`.
        size: Number of ids before.
        bare: How many of the ids, at the end, are rows without a token.
    """

    ids: np.ndarray
    reasons: np.ndarray
    size: int
    bare: int = 0

    @classmethod
    def of(cls, reasons: Mapping[int, str], size: int) -> KeepSet:
        """From old id -> reason."""
        ids = np.array(sorted(reasons), np.int64)
        codes = {name: i for i, name in enumerate(REASONS)}
        return cls(ids, np.array([codes[reasons[i]] for i in ids.tolist()], np.uint8), size)

    @classmethod
    def everything(cls, size: int) -> KeepSet:
        """Keeps all ids."""
        return cls.of(dict.fromkeys(range(size), "requested"), size)

    def with_last(self, old: int) -> KeepSet:
        """The same tokens in the same order, but with the highest new id for `old`."""
        order = np.argsort(self.ids == old, kind="stable")
        return KeepSet(self.ids[order], self.reasons[order], self.size)

    def with_rows(self, olds: Sequence[int], size: int) -> KeepSet:
        """The same tokens, followed by rows for ids without a token that a configuration needs.

        Args:
            olds: Their old ids.
            size: Rows of the model before.
        """
        ids = np.append(self.ids, np.array(sorted(olds), np.int64))
        reasons = np.append(self.reasons, np.full(len(olds), REASONS.index("special"), np.uint8))
        return KeepSet(ids, reasons, max(self.size, size), len(olds))

    @property
    def tokens(self) -> np.ndarray:
        """(tokens,) the old ids that belong to a token."""
        return self.ids[: len(self.ids) - self.bare]

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, old: int) -> bool:
        return 0 <= old < self.size and self.table[old] >= 0

    @cached_property
    def table(self) -> np.ndarray:
        """(size,) old id -> new id, -1 where dropped."""
        table = np.full(self.size, -1, np.int64)
        table[self.ids] = np.arange(len(self.ids))
        return table

    def new(self, old: int) -> int:
        """The new id of a kept token.

        Raises:
            KeyError: It was dropped.
        """
        if old not in self:
            raise KeyError(old)
        return int(self.table[old])

    def vocabulary(self, ids: Mapping[str, int]) -> dict[str, int]:
        """The kept part of a token -> id table, with new ids, in their order."""
        table = self.table
        kept = [(int(table[old]), token) for token, old in ids.items() if table[old] >= 0]
        return {token: new for new, token in sorted(kept)}

    def count_reasons(self) -> dict[str, int]:
        """Reason -> number of tokens kept for it."""
        counts = np.bincount(self.reasons, minlength=len(REASONS))
        return {name: int(n) for name, n in zip(REASONS, counts, strict=True) if n}


def tokens_by_id(ids: Mapping[str, int], size: int) -> list[str]:
    """(size,) the token of each id, "" where there is none."""
    tokens = [""] * size
    for token, i in ids.items():
        tokens[i] = token
    return tokens


class IdSpace(Protocol):
    """What selection asks of one table of tokens (Marian may have two; all others have one)."""

    @property
    def name(self) -> str:
        """Its name in counts."""

    @property
    def ids(self) -> Mapping[str, int]:
        """Token -> id."""

    @property
    def encoders(self) -> Sequence[Callable[[list[str]], list[list[int]]]]:
        """Functions from texts to ids; with several, text is counted with each."""

    @property
    def counting_encoders(self) -> Sequence[Callable[[list[str]], list[list[int]]]]:
        """The same, from the fastest library that gives the same counts."""

    @property
    def cut(self) -> Cut | None:
        """How lines may be cut for counting according to its files, None if they do not tell."""

    def required(self) -> dict[int, str]:
        """Old id -> reason, for what stays whatever is in the text."""

    @property
    def size(self) -> int:
        """One more than the largest id."""

    @property
    def tokens(self) -> Sequence[str]:
        """(size,) the token of each id, "" where there is none."""

    def guards(self) -> list[int]:
        """Ids that must stay although nothing uses them."""

    def dependencies(self, token: str) -> Iterable[str]:
        """Tokens without which `token` would no longer be produced."""

    def forms(self, text: str) -> list[str]:
        """The forms of a short text in the vocabulary: inside a word and at its start."""


@dataclass(frozen=True)
class Evidence:
    """What one language's text says about the tokens of one id space.

    Args:
        language: Its code.
        counts: (size,) occurrences in the text.
        expected: (size,) smoothed occurrences, also for tokens not seen; the order of selection.
        weight: How much the language counts compared with the others.
    """

    language: str
    counts: np.ndarray
    expected: np.ndarray
    weight: float = 1.0

    @property
    def total(self) -> float:
        """Occurrences of all tokens."""
        return float(self.counts.sum())


@dataclass(frozen=True)
class KeepRule:
    """How many tokens stay; one of the four is set.

    Args:
        coverage: The shortest prefix of each language's ranking that holds this share of its token occurrences.
        vocab_size: Exactly this many tokens.
        min_count: Every token seen at least this often in some language.
        min_share: Every token that is at least this share of some language's token occurrences (Ansell et al. 2023,
            arXiv 2306.01709, section 3.2: 1e-6).
    """

    coverage: float | None = None
    vocab_size: int | None = None
    min_count: int | None = None
    min_share: float | None = None

    def __post_init__(self) -> None:
        rules = (self.coverage, self.vocab_size, self.min_count, self.min_share)
        if sum(v is not None for v in rules) != 1:
            raise UsageError(
                "Give one of `coverage`, `vocab_size`, `min_count` and `min_share`.", "They exclude each other."
            )
        if self.coverage is not None and not 0 < self.coverage <= 1:
            raise UsageError(f"`coverage` is a share between 0 and 1, not {self.coverage}.", "Try 0.9999.")
        if self.min_share is not None and not 0 < self.min_share <= 1:
            raise UsageError(f"`min_share` is a share between 0 and 1, not {self.min_share}.", "Try 1e-6.")
        for name, value in (("vocab_size", self.vocab_size), ("min_count", self.min_count)):
            if value is not None and value < 1:
                raise UsageError(f"`{name}` must be at least 1, not {value}.", "Ask for more.")


class _Builder:
    """A growing set of ids that is always closed: what a token needs is added just before it."""

    def __init__(self, space: IdSpace, limit: int | None) -> None:
        self.space = space
        self.limit = limit
        self.reasons: dict[int, str] = {}

    @property
    def full(self) -> bool:
        return self.limit is not None and len(self.reasons) >= self.limit

    def add(self, old: int, reason: str) -> None:
        if old in self.reasons:
            return
        for needed in self.space.dependencies(self.space.tokens[old]):
            needed_id = self.space.ids.get(needed)
            if needed_id is not None and needed_id != old and not self.full:
                self.reasons.setdefault(needed_id, "closure")
        if not self.full:
            self.reasons[old] = reason


def select(
    space: IdSpace,
    required: Mapping[int, str],
    evidence: Sequence[Evidence],
    rule: KeepRule,
    dropped: frozenset[int] = frozenset(),
) -> KeepSet:
    """Chooses the tokens of one id space.

    Args:
        space: The table of tokens.
        required: Old id -> reason, for what stays whatever is in the text.
        evidence: One entry per language.
        rule: How many tokens the text may add.
        dropped: Ids that the user does not want (added tokens).

    Returns:
        A closed set; with `rule.vocab_size`, of exactly that size.

    Raises:
        UsageError: `rule.vocab_size` is smaller than what must stay, or larger than the vocabulary.
    """
    builder = _Builder(space, None)
    for old in sorted(required):
        if old not in dropped:
            builder.add(old, required[old])
    for old in space.guards():
        builder.add(old, "guard")
    for old, reason in required.items():
        if old in builder.reasons:  # a stated reason takes precedence over "something needed it"
            builder.reasons[old] = reason
    if rule.vocab_size is not None:
        _check_size(space, rule.vocab_size, builder.reasons, dropped)
    builder.limit = rule.vocab_size
    for old, seen in _ranking(space, evidence, rule):
        if builder.full:
            break
        if old not in dropped:
            builder.add(old, "corpus" if seen else "spelling")
    if rule.vocab_size is not None:  # a tiny text ranks fewer tokens than were asked for: fill up in the model's order
        for old in sorted(space.ids.values()):
            if builder.full:
                break
            if old not in dropped:
                builder.add(old, "filling")
    return KeepSet.of(builder.reasons, space.size)


def _check_size(space: IdSpace, size: int, kept: Mapping[int, str], dropped: frozenset[int]) -> None:
    if size < len(kept):
        raise UsageError(
            f"A `vocab_size` of {size:,} is too small: {len(kept):,} tokens must stay (special tokens, letters, bytes, "
            "requested ones and what they are built from).",
            f"Ask for {len(kept):,} or more, or drop added tokens with `drop_added`.",
        )
    available = len(set(space.ids.values()) - dropped)
    if size > available:
        raise UsageError(
            f"A `vocab_size` of {size:,} is more than the {available:,} tokens that can stay.",
            f"Ask for {available:,} at most.",
        )


def _ranking(space: IdSpace, evidence: Sequence[Evidence], rule: KeepRule) -> Iterator[tuple[int, bool]]:
    """Yields (id, whether it was seen), best first; ends where the rule is fulfilled (vocab_size: by the caller)."""
    if not evidence:
        return
    seen = np.sum([e.counts for e in evidence], axis=0) > 0
    mixture = np.sum([e.weight * e.expected / max(e.expected.sum(), 1e-300) for e in evidence], axis=0)
    wanted = mixture > 0
    if rule.min_count is not None:
        wanted &= np.max([e.counts for e in evidence], axis=0) >= rule.min_count
    if rule.min_share is not None:
        # Whole counts: a rounding error must not drop a token that has exactly this share.
        wanted &= np.any([e.counts >= max(rule.min_share * e.total * (1 - 1e-12), 1) for e in evidence], axis=0)
    if rule.coverage is not None:
        wanted &= np.any([_covering(e, rule.coverage) for e in evidence], axis=0)
    order = np.argsort(-mixture, kind="stable")
    order = order[wanted[order]]
    yield from zip(order.tolist(), seen[order].tolist(), strict=True)


def _covering(evidence: Evidence, coverage: float) -> np.ndarray:
    """(size,) the shortest prefix of one language's ranking that holds the share `coverage` of its occurrences."""
    order = np.argsort(-evidence.expected, kind="stable")
    reached = np.cumsum(evidence.counts[order])
    needed = coverage * evidence.total * (1 - 1e-12)  # whole counts: a rounding error must not ask for one more token
    prefix = order[: int(np.searchsorted(reached, needed)) + 1] if evidence.total else order[:0]
    inside = np.zeros(len(order), bool)
    inside[prefix] = True
    return inside
