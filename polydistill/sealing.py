"""Folders that are known to be whole: each has a list of its files with their hashes, which is written last."""

from __future__ import annotations

from pathlib import Path

import orjson

from polydistill.checkpoint import file_sha256
from polydistill.durable import sync_tree

SEAL = "whole.json"


def seal(folder: Path) -> None:
    """Notes what a folder holds, and brings all of it to the disk."""
    files = {str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    (folder / SEAL).write_bytes(orjson.dumps(files, option=orjson.OPT_INDENT_2))
    sync_tree(folder)


def is_whole(folder: Path) -> bool:
    """Whether every file is there and as it was when the folder was sealed."""
    try:
        files = orjson.loads((folder / SEAL).read_bytes())
        return bool(files) and all(file_sha256(folder / name) == sha for name, sha in files.items())
    except (OSError, ValueError):
        return False
