"""Commands with a fault at the n-th thing that they do to the disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

HERE = Path(__file__).parent
KILL, STOP = -1, -2  # beside numbers of errors
NEVER = 1 << 40


def compile_library(folder: Path) -> Path:
    """disk.c as a library."""
    library = folder / "disk.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, HERE / "disk.c", "-ldl"], check=True)
    return library


def has_compiler() -> bool:
    """Whether the library can be made here."""
    return sys.platform == "linux" and shutil.which("cc") is not None


class Ended(NamedTuple):
    """What became of a command: its exit code (minus a signal's number), its text, and what it did to the disk."""

    code: int
    said: str
    operations: int | None


class Stopped(NamedTuple):
    """A command that was stopped in the middle."""

    pid: int
    reader: int


class Disk:
    """Runs commands, one at a time, each in a fork of a process that has loaded everything.

    Args:
        library: disk.c, compiled.
        modules: What is loaded beside the commands.
    """

    def __init__(self, library: Path, *modules: str) -> None:
        settings = {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), *modules],
            env={**os.environ, **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Disk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate()

    def run(self, args: list[str], cwd: Path, *, at: int = NEVER, what: int = 0, once: bool = False) -> Ended:
        """Runs a command.

        Args:
            args: Its command line.
            cwd: Where it runs.
            at: The operation where the fault comes, from 1.
            what: An error's number, or `KILL`, with which what is removed counts as an operation too.
            once: Whether later operations go well.
        """
        answer = self._ask(args=args, cwd=str(cwd), first=at, last=at if once else NEVER, what=what)
        return Ended(**answer)

    def stop(self, args: list[str], cwd: Path, at: int) -> Stopped | Ended:
        """Runs a command up to its `at`-th operation, or to its end if that comes first."""
        answer = self._ask(args=args, cwd=str(cwd), first=at, last=at, what=STOP)
        return Stopped(answer["stopped"], answer["reader"]) if "stopped" in answer else Ended(**answer)

    def kill(self, stopped: Stopped) -> Ended:
        """Ends a command that was stopped."""
        return Ended(**self._ask(go_on=stopped.pid, reader=stopped.reader, signal=signal.SIGKILL))

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())
