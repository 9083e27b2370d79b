"""Small parts of sentences."""

from __future__ import annotations


def counted(n: float, noun: str) -> str:
    """`1 file`, `2,000 files`: a number with its noun, which takes an s in the plural."""
    return f"{n:,.0f} {noun}{'' if n == 1 else 's'}"
