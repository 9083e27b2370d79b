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
from polydistill.files.durable import (
    InUse,
    followed,
    locked,
    make_folders,
    rename,
    replace_folder,
    restore,
    sync_tree,
    write_file,
)
from polydistill.interrupts import held, let_in

TORCH_WRITES = re.compile(
    r"No space left|PytorchStreamWriter|file write failed|unexpected pos \d|iostream error|basic_filebuf"
)
# What is read of a model's folder.
MODEL_FILES = re.compile(
    r"(.*config|modules|special_tokens_map|added_tokens|vocab|tokenizer|.*\.index|polydistill)\.json"
    r"|.*\.(safetensors|model|spm|onnx|jinja|tiktoken)|vocab\.txt|merges\.txt"
)
RECORD = "polydistill.json"  # what every folder written by a command has
NEARLY_FULL = 16 << 20  # free bytes, as torch does not say why it could not write
_kept: list[Path] = []


def keep(*files: Path) -> None:
    """Names files that this run must not replace, besides those that the command reads."""
    _kept[:] = files


@contextmanager
def new_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder that appears whole or not at all: written beside its place and renamed when the block succeeds.

    Once it has its name, it is on the disk. If `path` is a link to a folder, that folder is written.

    Args:
        path: The folder to make.
        overwrite: Whether an existing one may be replaced, in one step and only when the new one is whole.

    Yields:
        The folder to write into.

    Raises:
        PolydistillError: `path` exists, even if it appeared meanwhile; another run is making it; the disk is
            full, or the place cannot be written.
    """
    check_output(path, overwrite=overwrite)
    place = followed(path)
    missing = [parent for parent in place.parents if not parent.exists()]
    with held():
        try:
            make_folders(place.parent)
            with locked(place.with_name(f".{place.name}.lock")), held():
                partial = place.with_name(f".{place.name}.partial")
                _tidy_up(place, partial)
                check_output(path, overwrite=overwrite)  # again: what was restored may not be replaced
                partial.mkdir()
                try:
                    with let_in(), os_errors(path):
                        yield partial
                        sync_tree(partial)
                    _put_in_place(partial, place, overwrite=overwrite)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
        except InUse as error:
            raise in_use(path) from error
        except OSError as error:
            raise explain_os_error(error, path) from error
        finally:
            for parent in missing:
                with suppress(OSError):  # it holds the result
                    parent.rmdir()


def _tidy_up(place: Path, partial: Path) -> None:
    """Removes or restores what a killed run left behind.

    Raises:
        PolydistillError: It cannot be removed.
    """
    shutil.rmtree(partial, ignore_errors=True)
    if os.path.lexists(partial):
        raise PolydistillError(
            f"{partial} was left by another run, and cannot be removed.",
            "Remove it by hand, or choose another place with `output`.",
        )
    restore(place)


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turns what libraries raise for a full disk and the like into one sentence.

    Args:
        path: What is being written.

    Raises:
        PolydistillError: The operating system refused something.
    """
    try:
        yield
    except Exception as error:
        found = None if isinstance(error, OSError) else disk_error(error, path)
        if found is None:
            raise
        raise explain_os_error(found, path) from error


def disk_error(error: Exception, path: Path) -> OSError | None:
    """The operating system's error behind an exception of safetensors, tokenizers or torch; None if there is none.

    Args:
        error: What was raised.
        path: What was being written.
    """
    if isinstance(error, OSError):
        return error if error.errno is not None else None
    text = str(error)
    if type(error) is Exception or isinstance(error, SafetensorError):  # tokenizers have no class of their own
        number = re.search(r"os error (\d+)", text)
        return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None
    if not isinstance(error, RuntimeError) or not TORCH_WRITES.search(text):
        return None
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    full = "No space left" in text or shutil.disk_usage(there).free < NEARLY_FULL
    code, why = (errno.ENOSPC, "") if full else (errno.EIO, "torch could not write all of it")
    return OSError(code, why or os.strerror(code))


def check_output(path: Path, *, overwrite: bool, reads: Iterable[Path | str | None] = ()) -> None:
    """Refuses an output that exists, unless it may be overwritten and is an earlier output of ours.

    Args:
        path: The folder to make.
        overwrite: Whether one that is there may be replaced.
        reads: Files and folders that the run reads; names that are not paths on this machine are ignored.

    Raises:
        PolydistillError: It exists, or overwriting it would delete something other than an earlier output.
    """
    place = followed(path)
    found = next((p for p in (place, *place.parents) if os.path.lexists(p)), place)
    if os.path.lexists(found) and not found.is_dir():
        raise PolydistillError(f"{found} is a file, not a folder.", "Choose another place with `output`.")
    if found != place or not os.path.lexists(place):
        return
    try:
        empty = not any(place.iterdir())
    except OSError as error:
        raise explain_os_error(error, path) from error
    if not empty and not overwrite:
        raise _exists(path)
    _check_replaceable(path, empty, reads)


def _check_replaceable(path: Path, empty: bool, reads: Iterable[Path | str | None]) -> None:
    """Refuses to replace the current folder, one that the run reads, or one that polydistill did not write.

    Raises:
        UsageError: It is one of these.
    """
    place, elsewhere = path.resolve(), "Choose another place with `output`."
    for given, source in _places(reads):
        if place == source or place in source.parents:
            raise UsageError(f"{path} holds {given}, which is read here and would be deleted.", elsewhere)
    if place == Path.cwd() or place in Path.cwd().parents:
        raise UsageError(f"{place} is the folder that you are in, and cannot be replaced.", elsewhere)
    if not empty and not (place / RECORD).is_file():
        raise UsageError(
            f"{path} was not written by polydistill, so `overwrite` does not delete it.",
            "Choose another place with `output`, or delete it yourself.",
        )


def _places(reads: Iterable[Path | str | None]) -> Iterator[tuple[Path, Path]]:
    """The paths that are read, as given and resolved: the path of LANG=PATH#column, every file of a pattern."""
    for read in filter(None, (*reads, *_kept)):
        texts = {str(read), str(read).rpartition("=")[2]}
        for text in texts | {text.partition("#")[0] for text in texts}:
            path = Path(text).expanduser()
            # Path.glob does not take absolute patterns.
            found = glob.glob(str(path), recursive=True) if glob.has_magic(text) else []  # noqa: PTH207
            yield from ((p, p.resolve()) for p in (path, *map(Path, found)) if text and p.exists())


def check_outside(path: Path, folder: Path, what: str) -> None:
    """Refuses an output that lies in the folder of what is read.

    Raises:
        UsageError: It does.
    """
    if folder.resolve() in path.resolve().parents:
        raise UsageError(f"{path} lies in the folder of {what}.", "Choose another place with `output`.")


def check_file(path: Path, *, overwrite: bool, option: str = "output", reads: Iterable[Path | str | None] = ()) -> None:
    """Refuses a place where no file can be written, or where a file may not be replaced.

    Args:
        path: The file to write.
        overwrite: Whether one that is there may be replaced.
        option: The setting that names the place.
        reads: Files and folders that the run reads; names that are not paths on this machine are ignored.

    Raises:
        PolydistillError: It exists and may not be replaced, or is read.
    """
    place = followed(path)
    if place.is_dir():
        raise PolydistillError(f"{path} is a folder, not a file.", f"Name a file with `{option}`.")
    if not place.exists():
        return
    if not overwrite:
        raise _exists(path, option)
    elsewhere = f"Choose another place with `{option}`."
    if not place.is_file():
        raise PolydistillError(f"{path} is not a file that can be replaced.", elsewhere)
    for given, source in _places(reads):
        if place.samefile(given):
            raise UsageError(f"{path} is read here, and would be replaced.", elsewhere)
        if source in place.resolve().parents and (not _is_model(source) or MODEL_FILES.fullmatch(place.name)):
            raise UsageError(f"{path} is part of {given}, which is read here.", elsewhere)


def _is_model(folder: Path) -> bool:
    """Whether it is a model's folder, of which only files with known names are read."""
    return any((folder / name).is_file() for name in ("config.json", "modules.json", RECORD))


def write_beside(path: Path, content: bytes, *, overwrite: bool = True, option: str = "output") -> None:
    """Writes a file that appears whole or not at all; if `path` is a link, what it points to is written.

    Args:
        path: The file.
        content: All of it.
        overwrite: Whether a file that is there may be replaced.
        option: The setting that names the place.

    Raises:
        PolydistillError: A file is there that may not be replaced, the disk is full, or the place cannot be written.
    """
    try:
        place = followed(path)
        make_folders(place.parent)
        write_file(place, content, replace=overwrite)
    except FileExistsError as error:
        raise _exists(path, option) from error
    except OSError as error:
        raise explain_os_error(error, path, option) from error


def in_use(path: Path) -> PolydistillError:
    """The error if another process is making the same output."""
    return PolydistillError(
        f"Another run is making {path} right now.", "Wait until it ends, or choose another place with `output`."
    )


def _exists(path: Path, option: str = "output") -> PolydistillError:
    return PolydistillError(
        f"{path} already exists and was left as it is.", f"Choose another place with `{option}`, or add `overwrite`."
    )


def _put_in_place(partial: Path, place: Path, *, overwrite: bool) -> None:
    """Gives a finished folder its name, unless something has appeared there since the run began.

    Raises:
        PolydistillError: Something has appeared that may not be replaced.
    """
    if os.path.lexists(place) and overwrite:
        check_output(place, overwrite=True)
        replace_folder(partial, place)
        return
    try:
        rename(partial, place)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            raise
        raise PolydistillError(
            f"{place} appeared while this ran and was left as it is.",
            "Move it away and run the command again, or choose another place with `output`.",
        ) from error


def explain_os_error(error: OSError, path: Path, option: str = "output") -> PolydistillError:
    """Turns a writing error into a sentence with the way out; `option` is the setting that names the place."""
    if error.errno is None:  # not from the operating system, so the place is not at fault
        raise error
    free = "Free some space or choose" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Choose"
    return PolydistillError(
        f"{path} could not be written: {reason_of(error, path)}. Nothing was left behind.",
        f"{free} another place with `{option}`.",
    )


def reason_of(error: OSError, path: Path) -> str:
    """Why something below `path` could not be written."""
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "your disk quota is used up",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "there is no permission to write there",
        errno.EPERM: "there is no permission to write there",
    }
    return reasons.get(error.errno or 0) or f"{error.strerror} ({error.filename or path})"
