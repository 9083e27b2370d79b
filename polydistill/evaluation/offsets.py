"""Where tokens stand in a text, up to the last mark of their last letter.

Tokenizers compose, decompose or drop marks before they cut text into tokens, and their offsets then end at the letter:
of an e with a dot below and an acute, as Yoruba writes it, they may have the first code point alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

Offset = tuple[int, int] | None
_JOINER = "\u200d"
_MARKS = ("Mn", "Mc", "Me")
# Vowels and final consonants of decomposed Hangul, skin tones, letters of flags.
_OTHERS = ((0x1160, 0x11FF), (0xD7B0, 0xD7FF), (0x1F3FB, 0x1F3FF), (0xE0020, 0xE007F))


def completed(text: str, windows: Sequence[Sequence[Offset]]) -> tuple[list[list[Offset]], bytes]:
    """Extends tokens over the marks after them that no token has.

    Args:
        text: What was tokenized.
        windows: Of each window of its tokens, (start, end) of every token; None for those outside of the text.

    Returns:
        The same windows with longer ends, and for each character of the text whether a token has it (1 or 0).
    """
    covered = bytearray(len(text))
    for window in windows:
        for offset in window:
            if offset:
                covered[offset[0] : offset[1]] = b"\1" * (offset[1] - offset[0])

    def end_of(end: int) -> int:
        while end < len(text) and not covered[end] and _continues(text[end]):
            end += 1
        return end

    longer = [[(offset[0], end_of(offset[1])) if offset else None for offset in window] for window in windows]
    return longer, bytes(covered)


def _continues(character: str) -> bool:
    """Whether a character belongs to the one before it."""
    if character == _JOINER or unicodedata.category(character) in _MARKS:
        return True
    return any(first <= ord(character) <= last for first, last in _OTHERS)


def tokens_of(offsets: Sequence[Offset], covered: bytes, start: int, end: int) -> tuple[int, int] | None:
    """The first and the last token of a part of the text.

    Args:
        offsets: Of a window's tokens.
        covered: Whether a token has it, for each character of the text; see `completed`.
        start: Where the part begins.
        end: Where it ends. Spaces and characters that the tokenizer drops may stand at both ends.

    Returns:
        Two positions in `offsets`; None if the window does not have the whole part.
    """
    first, last = covered.find(1, start, end), covered.rfind(1, start, end)
    begins = [i for i, offset in enumerate(offsets) if offset and offset[0] <= first < offset[1]]
    ends = [i for i, offset in enumerate(offsets) if offset and offset[0] <= last < offset[1]]
    return (begins[0], ends[-1]) if begins and ends else None
