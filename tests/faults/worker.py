"""Runs commands in forks of one process, with a fault at the n-th thing that they do to the disk (see disk.c).

A line of JSON on stdin is a request, a line of JSON on stdout its answer.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import click

from polydistill import registry
from polydistill.cli import cli, commands, main


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Runs one command; one that was stopped is waited for with the request {"go_on": pid}."""
    if "go_on" in request:
        return waited(request["go_on"], request["reader"], request["signal"])
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        os.chdir(request["cwd"])
        library = ctypes.CDLL(None)
        library.disk_arm(ctypes.c_long(request["first"]), ctypes.c_long(request["last"]), request["what"])
        code = 99
        try:
            main(request["args"])
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 98
        finally:
            sys.stdout.flush()
            os.write(1, f"\n{library.disk_count()}".encode())
            os._exit(code)
    os.close(writer)
    return waited(pid, reader, None)


def waited(pid: int, reader: int, signal: int | None) -> dict[str, Any]:
    """What became of a process, which gets a signal first where one is given."""
    if signal is not None:
        os.kill(pid, signal)
    _, status = os.waitpid(pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return {"stopped": pid, "reader": reader}
    said = b""
    while piece := os.read(reader, 1 << 16):
        said += piece
    os.close(reader)
    text, _, count = said.decode(errors="replace").rpartition("\n")
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return {"code": code, "said": text, "operations": int(count) if count.isdecimal() else None}


for name in commands():
    cli.get_command(click.Context(cli), name)
for entry in registry.entries().values():
    if find_spec(f"{entry.module}.plan"):  # what a method imports when it is run
        import_module(f"{entry.module}.plan")
for name in sys.argv[1:]:
    import_module(name)
for line in sys.stdin:
    print(json.dumps(run(json.loads(line))), flush=True)
