"""Keeps paths inside a model's folder: those that its files name, and links."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from polydistill.errors import PolydistillError

LONGEST = 1000  # characters of a path
LONGEST_NAME = 255  # bytes of one name in it, which is the limit of the usual file systems
WAY_OUT = "Fetch the model again from its source, or put all of its files into the folder."


def inside(folder: Path, name: object, said_by: Path) -> Path:
    """The path that a file of a folder names.

    Args:
        folder: Where the path starts.
        name: What the file says, of whatever type; the empty string is the folder itself.
        said_by: The file, for the message.

    Returns:
        A path in `folder`, which need not exist.

    Raises:
        PolydistillError: It is not a path, is absolute, goes up with `..`, or is a link that leads out of the folder.
    """
    if not isinstance(name, str) or not _is_path(name):
        raise PolydistillError(f"{said_by} names {_short(name)}, which is not a valid path.", WAY_OUT)
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or PureWindowsPath(name).anchor or "\\" in name:
        raise PolydistillError(f"{said_by} names {_short(name)}, which leads out of its folder.", WAY_OUT)
    path = folder / parts
    if leads_out(path, folder):
        raise PolydistillError(f"{said_by} names {_short(name)}, a link that leads out of its folder.", WAY_OUT)
    return path


def leads_out(path: Path, folder: Path) -> bool:
    """Whether a path in a folder is, or goes through, a link to something outside.

    A snapshot of the Hub's cache is made of links to `blobs` beside it (`models--ORG--NAME/snapshots/COMMIT/FILE` ->
    `../../blobs/HASH`). These are its own files; other links out of it are not.
    """
    root, target = Path(os.path.realpath(folder)), Path(os.path.realpath(path))
    return not (target == root or root in target.parents or target.parent == _blobs_of(root))


def files_below(folder: Path) -> Iterator[Path]:
    """All files of a folder, sorted by path; links to folders and links that lead out are left out."""
    return (path for path, is_ours in _walk(folder) if is_ours)


def links_out(folder: Path) -> list[Path]:
    """The links of a folder, to files and to folders, that lead out of it."""
    return [path for path, is_ours in _walk(folder) if not is_ours]


def _walk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """(file, whether it lies in the folder), and links to folders outside."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        for path in sorted(Path(place, name) for name in (*names, *folders)):
            if path.is_symlink() and leads_out(path, folder):
                yield path, False
            elif path.is_file():
                yield path, True


def _blobs_of(root: Path) -> Path | None:
    """Where the Hub's cache keeps the files of a snapshot; None for other folders. `root` may be part of one."""
    for snapshot in (root, *root.parents):
        repository = snapshot.parent.parent
        if snapshot.parent.name == "snapshots" and repository.name.startswith("models--"):
            return repository / "blobs"
    return None


def _is_path(name: str) -> bool:
    try:
        names = [os.fsencode(part) for part in PurePosixPath(name).parts]
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold
        return False
    return name.isprintable() and len(name) <= LONGEST and all(len(part) <= LONGEST_NAME for part in names)


def _short(name: object) -> str:
    text = ascii(name)
    return text if len(text) <= 80 else f"{text[:77]}..."
