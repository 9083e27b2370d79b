"""The checkpoints of a training: which one to go on from, which to keep.

One appears whole or not at all, with a list of its files (`sealing`), before an older one goes. Training follows from
the seed alone, so where none is whole, it begins again and comes to the same weights.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from polydistill.errors import PolydistillError
from polydistill.files.durable import rename
from polydistill.files.outputs import disk_error, reason_of
from polydistill.files.sealing import SEAL, is_whole, seal
from polydistill.progress import Progress

STATE = "trainer_state.json"
PREFIX = "checkpoint-"
PARTIAL = ".unfinished"  # the folder of a checkpoint that is being written
LOSSES = "losses.jsonl"  # the terms of every step, one line each
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # what a disk refuses


def checkpoint_of(work: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return work / f"{PREFIX}{step}"


def newest_checkpoint(work: Path, progress: Progress | None = None) -> Path | None:
    """The newest checkpoint that is whole, as is the one with the best dev score that it knows of.

    Args:
        work: The folder of checkpoints.
        progress: Where to say which are left out.
    """
    for folder in sorted(_checkpoints(work), key=_step, reverse=True):
        damaged = folder if not is_whole(folder) else next((p for p in needed_of(folder)[1:] if not is_whole(p)), None)
        if damaged is None:
            return folder
        if progress is not None:
            why = "is not whole" if damaged == folder else f"needs {damaged.name}, which is not whole"
            progress.warn(f"{folder} {why}, so that it is left out.")
    return None


def state_of(checkpoint: Path) -> dict[str, Any]:
    """What the Trainer keeps of itself."""
    state: dict[str, Any] = orjson.loads((checkpoint / STATE).read_bytes())
    return state


def has_ended(checkpoint: Path) -> bool:
    """Whether training had stopped there: after its last step, by patience or because the time was up."""
    return bool(state_of(checkpoint)["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"])


def needed_of(checkpoint: Path) -> tuple[Path, ...]:
    """The checkpoint, and the one with the best dev score that it knows of where that is another."""
    best = checkpoint_of(checkpoint.parent, state_of(checkpoint)["best_global_step"])
    return (checkpoint, best) if best != checkpoint else (checkpoint,)


def keep_only(work: Path, needed: Collection[Path]) -> None:
    """Removes all other checkpoints, and one that was not finished."""
    for folder in _checkpoints(work):
        if folder not in needed:
            (folder / SEAL).unlink(missing_ok=True)  # half of it is none
            shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(work / PARTIAL, ignore_errors=True)


def finish(partial: Path, work: Path) -> None:
    """Puts a checkpoint that was written below `PARTIAL` in its place."""
    seal(partial)
    final = work / partial.name
    shutil.rmtree(final, ignore_errors=True)  # a damaged one
    rename(partial, final)


def _checkpoints(work: Path) -> list[Path]:
    return [path for path in work.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix(PREFIX))


@contextmanager
def writing(work: Path) -> Iterator[None]:
    """Says in one sentence that what a training keeps could not be written.

    Raises:
        PolydistillError: It could not.
    """
    try:
        yield
    except Exception as error:
        found = disk_error(error, work)
        if found is None or (found is error and found.errno not in FULL):  # what cannot be read has its own sentence
            raise
        raise PolydistillError(
            f"A checkpoint could not be written to {work}: {reason_of(found, work)}.",
            "Free some space; the same command with `resume` continues from the last whole checkpoint.",
        ) from error
