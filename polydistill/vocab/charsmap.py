"""The character map of SentencePiece's normaliser, checked before a library walks through it.

Four bytes with the size of a trie (a double array of Darts-clone, https://github.com/s-yata/darts-clone), the trie,
and the texts that its values point to, each ended by a zero byte.
"""

from __future__ import annotations

import numpy as np

LABEL, LEAF, VALUE = 0xFF, 1 << 31, (1 << 31) - 1
HAS_LEAF, FAR = 1 << 8, 1 << 9


def fault(blob: bytes) -> str | None:
    """What is wrong with a character map; None if no lookup can leave it.

    SentencePiece itself would read whatever memory a broken trie points to.
    """
    size = int.from_bytes(blob[:4], "little")
    if len(blob) < 4 or size % 4 or not 0 < size <= len(blob) - 4:
        return "is cut off"
    units, texts = np.frombuffer(blob, "<u4", size // 4, 4).astype(np.int64), blob[4 + size :]
    try:
        texts.decode()
    except UnicodeDecodeError:
        return "holds texts that are not UTF-8"
    inner = np.flatnonzero(units & LEAF == 0)
    offsets = (units >> 10) << ((units & FAR) >> 6)
    following = inner ^ offsets[inner]
    if following.size == 0 or inner[0] != 0 or (following | LABEL).max() >= len(units):
        return "has a trie that points out of itself"
    values = units[following[units[inner] & HAS_LEAF != 0]] & VALUE
    if values.size and (values.max() >= len(texts) or texts[-1]):
        return "points to texts that it does not have"
    starts = np.frombuffer(texts, np.uint8)[values] if values.size else np.zeros(0, np.uint8)
    return "points into the middle of a character" if (starts & 0xC0 == 0x80).any() else None
