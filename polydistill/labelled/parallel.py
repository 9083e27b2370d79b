"""Sentences and their translations, from a file of the user's own."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from polydistill.errors import PolydistillError
from polydistill.texts.lines import FileErrors, line_blocks


@dataclass(frozen=True)
class Parallel:
    """Pairs of sentences.

    Args:
        pairs: (source, target), in the order of the file.
        where: The file; goes into records.
        sha256: Hash of the pairs.
        left_out: Rows of origins that were not wanted.
    """

    pairs: tuple[tuple[str, str], ...]
    where: str
    sha256: str
    left_out: int


def read_parallel(path: Path, *, leave_out: Collection[str] = (), limit: int | None = None) -> Parallel:
    """Reads lines of a source sentence, its translation and, if there is one, an origin, with tabs between them.

    Args:
        path: The file; it may be packed with gzip.
        leave_out: Origins whose rows are not read.
        limit: Take only the first so many pairs.

    Raises:
        PolydistillError: It cannot be read, a line is not of this form, an origin does not occur, or no pair is left.
    """
    found: list[tuple[str, str]] = []
    origins: set[str] = set()
    number = left_out = 0
    with FileErrors(path):
        for block in line_blocks(path):
            for line in block:
                number += 1
                if not line.strip():
                    continue
                cells = [cell.strip() for cell in line.split("\t")]
                if len(cells) not in (2, 3) or not cells[0] or not cells[1]:
                    raise PolydistillError(
                        f"{path} line {number} is not a sentence, a tab and its translation.",
                        "Write these two, and after another tab an origin if you like, on each line.",
                    )
                origins.update(cells[2:])
                if set(cells[2:]) & set(leave_out):
                    left_out += 1
                else:
                    found.append((cells[0], cells[1]))
    if unknown := sorted(set(leave_out) - origins):
        known = f"Its origins are {', '.join(sorted(origins))}." if origins else "It names no origins."
        raise PolydistillError(f"No line of {path} has the origin {unknown[0]}.", known)
    if not found:
        raise PolydistillError(f"{path} has no pair of sentences.", "Give a file with some.")
    pairs = tuple(found[:limit])
    digest = hashlib.sha256("\n".join("\t".join(pair) for pair in pairs).encode()).hexdigest()
    return Parallel(pairs, str(path), digest, left_out)
