"""The folder of an unfinished run: one run at a time, which only the same options and data can continue."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import orjson

from polydistill.errors import PolydistillError
from polydistill.files.durable import InUse, followed, locked, make_folders, sync, write_file
from polydistill.files.outputs import in_use
from polydistill.processes import is_main, wait
from polydistill.progress import Progress
from polydistill.training.deciding import ANEW

NAME = "stage.json"
LOCK = "lock"
SETTINGS = "config.json"  # what has to be the same for a run to go on
FORMAT = 2  # of the folder; 1 had no number


@contextmanager
def work_folder(
    output: Path, config: dict[str, Any], *, resume: bool, overwrite: bool, progress: Progress
) -> Iterator[Path]:
    """The folder of an output's checkpoints and stages, `.NAME.training` beside it.

    It goes when the block ends well, and stays for `resume` otherwise. With both `resume` and `overwrite`, what is
    replaced is the output alone: training goes on.

    Raises:
        PolydistillError: An unfinished run is there and neither `resume` nor `overwrite` was asked for, or it was
            made with another configuration; or a run that makes the same output has not ended.
    """
    place = followed(output)
    if is_main():
        make_folders(place.parent)
    work = place.with_name(f".{place.name}.training")
    with (
        _alone(work, output) if is_main() else nullcontext(),
        _begun(work, output, config, resume=resume, overwrite=overwrite, progress=progress),
    ):
        yield work


@contextmanager
def _alone(work: Path, output: Path) -> Iterator[None]:
    """Keeps out a second run of the same output until the block has ended and what is left over is gone."""
    try:
        with locked(work / LOCK):
            try:
                yield
            finally:
                with suppress(OSError, PolydistillError):
                    if not unfinished(work):
                        _clear(work)
    except InUse as error:
        raise in_use(output) from error
    finally:
        with suppress(OSError):  # an unfinished run is there, or the next one
            work.rmdir()


def _clear(work: Path) -> None:
    """Removes everything but the lock.

    Raises:
        PolydistillError: Something cannot be removed.
    """
    for path in sorted(work.iterdir(), key=lambda path: path.name == SETTINGS):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()
        except OSError as error:
            raise PolydistillError(f"{path} cannot be removed ({error.strerror}).", "Remove it by hand.") from error


@contextmanager
def _begun(
    work: Path, output: Path, config: dict[str, Any], *, resume: bool, overwrite: bool, progress: Progress
) -> Iterator[None]:
    wait()  # for the lock
    settings = work / SETTINGS
    written = orjson.dumps({**config, "format": FORMAT}, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    if unfinished(work) and (resume or not overwrite):
        if not resume:
            raise PolydistillError(
                f"An unfinished training of {output} is there.",
                "Continue it with `resume`, or start again with `overwrite`.",
            )
        if not _is_json(settings):
            raise PolydistillError(f"The unfinished training of {output} is damaged: {settings} cannot be read.", ANEW)
        if _format_of(settings) != FORMAT:
            raise PolydistillError(
                f"The unfinished training of {output} was begun by another version of polydistill.", ANEW
            )
        if settings.read_bytes() != written:
            raise PolydistillError(
                f"The unfinished training of {output} had other options or data{_differing(settings, written)}.",
                f"Give the options in {settings}, or: {ANEW}",
            )
    elif is_main():
        _clear(work)
        write_file(settings, written)
        sync(work.parent)
    wait()
    try:
        yield
    except BaseException:
        if unfinished(work):
            progress.warn(f"What was done stays in {work}: the same command with `resume` continues from there.")
        raise
    wait()
    if is_main():
        with suppress(PolydistillError):
            _clear(work)


def _format_of(settings: Path) -> Any:
    found = orjson.loads(settings.read_bytes())
    return found.get("format") if isinstance(found, dict) else None


def _differing(settings: Path, written: bytes) -> str:
    """The options that differ, in brackets; empty if something else differs."""
    before, now = (orjson.loads(part).get("options", {}) for part in (settings.read_bytes(), written))
    names = [f"`{name}`" for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return f" ({', '.join(names)})" if names else ""


def _is_json(path: Path) -> bool:
    try:
        orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def unfinished(work: Path) -> bool:
    """Whether a folder holds a stage or a checkpoint."""
    return any(work.glob(f"*/{NAME}")) or any(work.glob("**/checkpoint-*/trainer_state.json"))
