"""What a failing disk does to a file."""

from __future__ import annotations

import random
from pathlib import Path


def damage(file: Path, chance: random.Random) -> str:
    """Flips a bit, or cuts something off."""
    content = bytearray(file.read_bytes())
    if chance.random() < 0.1:
        size = chance.randrange(len(content))
        file.write_bytes(content[:size])
        return f"{file.name} cut at {size}"
    place, bit = chance.randrange(len(content)), chance.randrange(8)
    content[place] ^= 1 << bit
    file.write_bytes(content)
    return f"bit {bit} of byte {place} of {file.name}"
