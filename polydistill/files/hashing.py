"""Hashes of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

CHUNK_BYTES = 16 << 20


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, read in large pieces, as a thread may have to wait for its turn between two."""
    digest, buffer = hashlib.sha256(), bytearray(CHUNK_BYTES)
    with file.open("rb", buffering=0) as stream:
        while n := stream.readinto(buffer):
            digest.update(memoryview(buffer)[:n])
    return digest.hexdigest()
