"""What a run decides once and notes in its folder, so that it does the same when it is resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson

from polydistill.errors import PolydistillError
from polydistill.files.durable import write_file
from polydistill.processes import is_main, wait

SIGNALS = "signals.json"  # whether a teacher's signals are on disk, see `decided`
ANEW = "Start again with `overwrite` instead of `resume`."


def decided(note: Path, decide: Callable[[], bool]) -> bool:
    """What is decided once in a run and noted in its folder, so that a resumed run does the same.

    Args:
        note: The file.
        decide: Called once, by the main process.

    Raises:
        PolydistillError: The file is damaged.
    """
    if is_main() and not note.is_file():
        write_file(note, orjson.dumps(decide()))
    wait()
    try:
        found = orjson.loads(note.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, bool):
        raise PolydistillError(f"{note} is damaged.", ANEW)
    return found
