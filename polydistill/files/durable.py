"""Writes that survive a power cut, and locks between processes."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from polydistill.interrupts import held, let_in

AT_FDCWD, RENAME_NOREPLACE, RENAME_EXCHANGE = -100, 1, 2  # of renameat2(2)
MOST_GONE = 100  # times that a lock's folder may vanish before its file is made
NO_FOLDER_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EACCES)  # some network file systems


class InUse(Exception):
    """Another process holds a lock."""


def sync(path: Path) -> None:
    """Flushes a file, or the names in a folder, to the disk.

    Raises:
        OSError: The disk is full or broken.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in NO_FOLDER_SYNC):
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flushes a folder to the disk: every file, then every folder, from the bottom up.

    Raises:
        OSError: The disk is full or broken.
    """
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(place, name))
        sync(Path(place))


def make_folders(folder: Path) -> None:
    """Makes a folder and those above it, as far as they are missing, and flushes their names to the disk.

    Raises:
        OSError: The disk refused, or a file has the name.
    """
    if not folder.is_dir():
        make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def rename(source: Path, target: Path) -> None:
    """Renames a file or folder, and flushes the new name to the disk.

    Raises:
        OSError: `target` is a folder with something in it, or the disk refused; both are as they were.
    """
    source.rename(target)
    try:
        sync(target.parent)
    except OSError:
        target.rename(source)
        raise


def write_file(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Writes a file that appears whole or not at all.

    Args:
        path: The file; a link is replaced, not followed.
        content: All of it.
        replace: Whether a file that is there may be replaced.

    Raises:
        FileExistsError: A file is there that may not be replaced.
        OSError: The disk is full, or the place cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    with held(), _locked(partial, wait=True) as file:
        try:
            file.truncate(0)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if replace:
                partial.replace(path)
            else:
                _rename_new(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
    with suppress(OSError):  # it has its name, and the old file is gone
        sync(path.parent)


def _rename_new(partial: Path, place: Path) -> None:
    """Renames a file, unless the new name is taken.

    Raises:
        FileExistsError: There is one.
    """
    if _renameat2(partial, place, RENAME_NOREPLACE):
        return
    if os.path.lexists(place):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(place))
    partial.rename(place)


def replace_folder(new: Path, place: Path) -> None:
    """Puts a folder in the place of another one, which is removed.

    On Linux the two swap places in one step. Where a file system cannot do that, a kill in between leaves the old
    folder under the name that `restore` looks for.

    Raises:
        OSError: The disk refused; `place` is as it was.
    """
    if _renameat2(new, place, RENAME_EXCHANGE):
        old = new
        try:
            sync(place.parent)
        except OSError:
            _renameat2(new, place, RENAME_EXCHANGE)
            raise
    else:
        old = _replaced(place)
        place.rename(old)
        try:
            rename(new, place)
        except BaseException:
            old.rename(place)
            raise
    shutil.rmtree(old, ignore_errors=True)


def restore(place: Path) -> None:
    """Tidies up after a `replace_folder` that was killed: brings the old folder back, or removes it."""
    old = _replaced(place)
    if old.is_dir() and not os.path.lexists(place):
        old.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _replaced(place: Path) -> Path:
    return place.with_name(f".{place.name}.replaced")


def _renameat2(one: Path, other: Path, flag: int) -> bool:
    """Renames with a flag of renameat2(2); False where that fails, or the system does not have it."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return renameat2 is not None and renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), flag) == 0


def followed(path: Path) -> Path:
    """Where an output really goes: links are followed, so they stay links, and `..` is resolved."""
    return Path(os.path.realpath(path)) if path.is_symlink() or ".." in path.parts else path


@contextmanager
def locked(lock: Path, *, wait: bool = False) -> Iterator[None]:
    """Holds a lock file, and removes it when the block ends. A killed process holds nothing.

    Args:
        lock: The file; its folder is made if need be.
        wait: Whether to wait for another process that holds it.

    Raises:
        InUse: Another process holds it.
        OSError: It cannot be written.
    """
    with held():
        file = _locked(lock, wait=wait)
        try:
            with let_in():
                yield
        finally:
            with suppress(OSError):
                lock.unlink()
            file.close()


def _hold(file: IO[bytes], *, wait: bool) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            raise
        with let_in():  # another process has it, which may take long
            fcntl.flock(file, fcntl.LOCK_EX)


def _locked(lock: Path, *, wait: bool) -> IO[bytes]:
    """The open lock file, held. One that its holder has just removed or renamed is created again."""
    gone = 0
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            # No link is followed: a model's folder may hold one of this name.
            file = open(os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+b")  # noqa: PTH123, SIM115
        except FileNotFoundError:  # the folder has just vanished; or it takes no new files, like those of /proc
            gone += 1
            if gone > MOST_GONE:
                raise
            continue
        try:
            _hold(file, wait=wait)
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
        except BlockingIOError:
            file.close()
            raise InUse(lock) from None
        except FileNotFoundError:
            pass
        except OSError:  # a file system without locks
            return file
        file.close()
