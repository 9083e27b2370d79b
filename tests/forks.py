"""Processes without the second that their imports take: each is a fork of one that has imported what they need.

A fork has an environment, a standard input, a standard output and an exit code of its own, and ends as a process of
Python ends. What has to begin in a new interpreter (what is imported, what happens while it is) starts one instead.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

LIGHT = ("huggingface_hub.hf_api", "polydistill.cli.publish", "polydistill.hub.session", "polydistill.hub.commit")
"""What publishing imports, and most of what else talks to the Hub does; no torch."""
SECONDS = 120  # a fork is killed after


class Done(NamedTuple):
    """What a process did."""

    returncode: int
    stdout: str
    stderr: str


def fork(code: str, args: Sequence[str] = (), *, env: Mapping[str, str], cwd: Path | None = None) -> Done:
    """Runs Python as `python -c CODE ARGS` would, with this environment."""
    return _parent().run({"code": code, "args": list(args), "env": dict(env), "cwd": str(cwd or Path.cwd())})


class Parent:
    """The process that is forked."""

    def __init__(self, modules: Sequence[str]) -> None:
        """Starts it, without what this environment says of the Hub."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        command = [sys.executable, __file__, *modules]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def run(self, job: dict[str, Any]) -> Done:
        """Runs one fork to its end."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            self.process.stdin.write(json.dumps({**job, "out": str(out), "err": str(err)}) + "\n")
            self.process.stdin.flush()
            code = int(self.process.stdout.readline())
            return Done(code, out.read_text("utf-8"), err.read_text("utf-8"))

    def end(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@functools.cache
def _parent() -> Parent:
    parent = Parent(LIGHT)
    atexit.register(parent.end)
    return parent


def _serve() -> None:
    """Forks for every line of stdin, and answers with the exit code, negative for a signal."""
    for line in sys.stdin:
        job = json.loads(line)
        if not (child := os.fork()):
            _become(job)
            return
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


def _become(job: dict[str, Any]) -> None:
    """In the fork: what a new process would have, then the code."""
    signal.alarm(SECONDS)
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, job["out"], os.O_WRONLY | os.O_CREAT),
        (2, job["err"], os.O_WRONLY | os.O_CREAT),
    ):
        opened = os.open(path, flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.argv = ["-c", *job["args"]]
    importlib.reload(sys.modules["huggingface_hub.constants"])  # which reads the environment
    exec(compile(job["code"], "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    sys.path[0] = ""
    for module in sys.argv[1:]:
        importlib.import_module(module)
    _serve()
