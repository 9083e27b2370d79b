"""Folders and JSON that carry hashes of their content, so that damage is noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from polydistill.files.durable import sync_tree
from polydistill.files.hashing import file_sha256
from polydistill.files.outputs import RECORD

SEAL = "whole.json"
HASH = "sha256"


def seal(folder: Path) -> None:
    """Notes what a folder holds, and flushes it to the disk; except for records, to which scores are added later."""
    kept = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != RECORD]
    files = {str(path.relative_to(folder)): file_sha256(path) for path in kept}
    (folder / SEAL).write_bytes(orjson.dumps(files, option=orjson.OPT_INDENT_2))
    sync_tree(folder)


def is_whole(folder: Path) -> bool:
    """Whether every file is there and as it was when the folder was sealed."""
    try:
        files = orjson.loads((folder / SEAL).read_bytes())
        if not isinstance(files, dict) or not files:
            return False
        return all(file_sha256(folder / name) == sha for name, sha in files.items())
    except (OSError, ValueError):
        return False


def with_hash(content: Mapping[str, Any]) -> bytes:
    """A JSON object with a hash of its content."""
    plain = orjson.loads(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))
    return orjson.dumps({**plain, HASH: _hash(plain)})


def checked(file: Path) -> dict[str, Any] | None:
    """The object that `with_hash` made, None if it is missing or was changed."""
    try:
        found = orjson.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.pop(HASH, None) == _hash(found) else None


def _hash(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)).hexdigest()
