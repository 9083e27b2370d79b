"""Several processes of one run, as `torchrun` starts them: one writes, the others wait. Processes that answer a job."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import orjson

from polydistill.devices import CPU, current
from polydistill.errors import PolydistillError, library_said

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


def answer_of(
    module: str, job: Mapping[str, Any], problem: str, hint: str, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What a module of this package prints that is run as a process of its own; an interruption ends it too.

    Args:
        module: The module.
        job: What it reads, as JSON.
        problem: What to say if it fails.
        hint: The way out.
        environment: Its environment; None for the one of this process.

    Raises:
        PolydistillError: The process failed.
    """
    command = [sys.executable, "-P", "-m", module]  # no code from where we are
    asked = orjson.dumps(job, option=orjson.OPT_SERIALIZE_NUMPY)
    ended = subprocess.run(command, input=asked, capture_output=True, check=False, env=environment)
    if ended.returncode:
        said = ended.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it was killed"]
        raise PolydistillError(f"{problem} ({library_said(said[0]).rstrip('.')}).", hint)
    answer: dict[str, Any] = orjson.loads(ended.stdout.splitlines()[-1])
    return answer


def answer(job_done: Callable[[dict[str, Any]], object]) -> None:
    """What such a process does: it reads a job from stdin and prints what is made of it."""
    try:
        found = job_done(orjson.loads(sys.stdin.buffer.read()))
    except PolydistillError as error:
        sys.exit(error.message)
    sys.stdout.write("\n" + orjson.dumps(found).decode())


def _state() -> Any:
    """What connects the processes; without a GPU they have to be told to meet on the CPU."""
    from accelerate import PartialState

    return PartialState(cpu=current() == CPU)
