"""Several processes of one run, as `torchrun` starts them: one of them writes, the others wait for it."""

from __future__ import annotations

import os
from typing import Any, TypeVar

T = TypeVar("T")


def several() -> bool:
    """Whether there is more than one process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main() -> bool:
    """Whether this is the process that writes and reports."""
    return os.environ.get("RANK", "0") == "0"


def wait() -> None:
    """Waits until all processes are here."""
    if several():
        _state().wait_for_everyone()


def told_by_main(value: T) -> T:
    """What the main process has there, in every process."""
    if not several():
        return value
    from accelerate.utils import broadcast_object_list

    _state()
    found = [value]
    broadcast_object_list(found, from_process=0)
    return found[0]


def _state() -> Any:
    """What connects the processes; without a GPU they have to be told to meet on the CPU."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())
