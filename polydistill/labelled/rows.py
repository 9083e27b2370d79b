"""A row of labelled data: the content of one example, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One example as its source has it.

    Attributes:
        place: The file or data set.
        at: Where it is in there: `line 3`, `row 3` or `question a1`.
        values: Field -> value, not checked.
        lines: Number of the line of each word of a tagged sentence, None if words have no lines of their own.
    """

    place: str
    at: str
    values: Mapping[str, Any]
    lines: Sequence[int] | None = None

    def where(self, word: int | None = None) -> str:
        """The place, for a message; for a tagged sentence, that of one word."""
        if word is not None and self.lines is not None:
            return f"{self.place} line {self.lines[word]}"
        return f"{self.place} {self.at}"
