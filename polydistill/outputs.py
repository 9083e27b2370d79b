"""Outputs that appear whole or not at all: written beside and renamed."""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from polydistill.errors import PolydistillError, UsageError
from polydistill.record import NAME as RECORD


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def new_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder that appears whole or not at all: written beside and renamed when the block ends well.

    Args:
        path: The folder to make.
        overwrite: Whether an existing one may be replaced; it is, in one rename, only when the new one is whole.

    Yields:
        The folder to write into.

    Raises:
        PolydistillError: `path` exists, the disk is full, or the place cannot be written.
    """
    check_output(path, overwrite=overwrite)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    missing = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for stale in path.parent.glob(f".{glob.escape(path.name)}.partial-*"):
            if stale == partial or not _alive(stale.name.rpartition("-")[2]):
                shutil.rmtree(stale, ignore_errors=True)
        partial.mkdir()
        with os_errors(path):
            yield partial
        _put_in_place(partial, path)
    except OSError as error:
        raise explain_os_error(error, path) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in missing:
            with suppress(OSError):  # it holds the result
                parent.rmdir()


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Says in one sentence what safetensors could not write, as it raises errors of its own for a full disk.

    Args:
        path: What is being written.

    Raises:
        PolydistillError: The operating system refused something.
    """
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        code = int(number[1])
        raise explain_os_error(OSError(code, os.strerror(code)), path) from error


def check_output(path: Path, *, overwrite: bool, reads: Iterable[Path | str | None] = ()) -> None:
    """Refuses an output that exists, unless it may be overwritten, which costs nothing but an earlier output.

    Args:
        path: The folder to make.
        overwrite: Whether one that is there may be replaced.
        reads: Files and folders that the run reads; what is no place on this machine is not looked at.

    Raises:
        PolydistillError: It exists, or other things than an earlier output would go with it.
    """
    found = next((p for p in (path, *path.parents) if os.path.lexists(p)), path)
    if os.path.lexists(found) and not found.is_dir():
        raise PolydistillError(f"{found} is a file, not a folder.", "Choose another place with -o.")
    if found == path and os.path.lexists(path) and any(path.iterdir()) and not overwrite:
        raise PolydistillError(
            f"{path} exists already and was left as it is.", "Choose another place with -o, or add --overwrite."
        )
    if found == path and os.path.lexists(path):
        _check_replaceable(path, reads)


def _check_replaceable(path: Path, reads: Iterable[Path | str | None]) -> None:
    """Refuses to replace a folder that this process stands in, that the run reads from, or that others have made.

    Raises:
        UsageError: It is one of these.
    """
    place, elsewhere = path.resolve(), "Choose another place with -o."
    for read in reads:
        if not read:
            continue
        source = Path(read).expanduser().resolve()
        if source.exists() and (place == source or place in source.parents):
            raise UsageError(f"{path} holds {read}, which is read here, and --overwrite would delete it.", elsewhere)
    if place == Path.cwd() or place in Path.cwd().parents:
        raise UsageError(f"{place} is the folder that you are in, and cannot be replaced.", elsewhere)
    if any(path.iterdir()) and not (path / RECORD).is_file():
        raise UsageError(
            f"{path} was not written by polydistill, so --overwrite does not delete it.",
            "Choose another place with -o, or delete it yourself.",
        )


def check_outside(path: Path, folder: Path, what: str) -> None:
    """Refuses an output that lies in the folder of what is read.

    Raises:
        UsageError: It does.
    """
    if folder.resolve() in path.resolve().parents:
        raise UsageError(f"{path} lies in the folder of {what}.", "Choose another place with -o.")


def check_file(path: Path, *, overwrite: bool, option: str = "-o") -> None:
    """Refuses a place for a file that is a folder, or a file that may not be replaced; `option` is what names it.

    Raises:
        PolydistillError: It exists.
    """
    if path.is_dir():
        raise PolydistillError(f"{path} is a folder, not a file.", f"Name a file with {option}.")
    if path.exists() and not overwrite:
        raise PolydistillError(
            f"{path} exists already and was left as it is.", f"Choose another place with {option}, or add --overwrite."
        )


def write_beside(path: Path, content: bytes, *, option: str = "-o") -> None:
    """Writes a file that appears whole or not at all, in place of what is there; `option` is what names it.

    Raises:
        PolydistillError: The disk is full, or the place cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise explain_os_error(error, path, option) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _put_in_place(partial: Path, path: Path) -> None:
    if not path.exists():
        partial.rename(path)
        return
    old = path.with_name(f".{path.name}.replaced-{os.getpid()}")
    path.rename(old)
    try:
        partial.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def explain_os_error(error: OSError, path: Path, option: str = "-o") -> PolydistillError:
    """Turns a writing error into a sentence with the way out; `option` is the one that names the place."""
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "your disk quota is used up",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "there is no permission to write there",
        errno.EPERM: "there is no permission to write there",
    }
    if error.errno is None:  # not from the operating system, so no place is at fault
        raise error
    why = reasons.get(error.errno) or f"{error.strerror} ({error.filename or path})"
    free = "Free some space or choose" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Choose"
    return PolydistillError(
        f"{path} could not be written: {why}. Nothing was left behind.", f"{free} another place with {option}."
    )
