"""What a trim does to text that it did not count, estimated on lines held out of the counts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polydistill.models.source import Source
from polydistill.trimming.plan import Wishes, plan, write_vocabulary
from polydistill.vocab import open_vocabulary
from polydistill.vocab.counts import Fertility, LanguageCounts, TokenCounts, at_once, fertility


def estimate(
    source: Source, counts: TokenCounts, wishes: Wishes, listed: Mapping[str, LanguageCounts], most: int
) -> dict[str, Any] | None:
    """Chooses a vocabulary by the same rule from the counts without the lines held out, and reads those with it.

    The vocabulary that a trim writes comes from all lines, so it does a little better than this.

    Args:
        source: The model.
        counts: Of all lines.
        wishes: As for the trim.
        listed: Counts of word lists, as for the trim.
        most: Lines to read, shared among the languages.

    Returns:
        `sentences`, `identical` (how many of them have only tokens that are kept), and `fertility` and `unknown_rate`
        before and after; None where no line was held out.
    """
    share = max(1, most // len(wishes.languages))
    lines = [line for lang in wishes.languages for line in counts.languages[lang.code].held_out[:share]]
    if not lines:
        return None
    before = source.vocabulary
    fewer = plan(source, counts.without_held_out(before.spaces), wishes, listed)
    encode, keep = before.spaces[0].encoders[0], fewer.keeps[0]
    covered = [all(i in keep for i in ids) for part in at_once(lines) for ids in encode(lines[part])]
    with tempfile.TemporaryDirectory() as scratch:
        write_vocabulary(fewer, Path(scratch))
        old, new = (_fertility(vocabulary, lines) for vocabulary in (before, open_vocabulary(Path(scratch))))
    return {
        "sentences": len(lines),
        "identical": sum(covered),
        "fertility": {"before": old.fertility, "after": new.fertility},
        "unknown_rate": {"before": old.unknown_rate, "after": new.unknown_rate},
    }


def _fertility(vocabulary: Any, lines: list[str]) -> Fertility:
    space = vocabulary.spaces[0]
    unknown = frozenset(space.ids[token] for token in vocabulary.unknown() if token in space.ids)
    return fertility(space.encoders[0], lines, unknown)
