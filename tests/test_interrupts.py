"""Ctrl-C and SIGTERM at bad moments, each in a process of its own that sends them to itself."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

BEGIN = """
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job has ignored
from polydistill import interrupts, cli
number = int(sys.argv[1])
def send(times=1):
    for _ in range(times):
        os.kill(os.getpid(), number)
def command(args, **options):
    body()
    print("done", flush=True)
cli.cli.main = command
"""
END = """
import polydistill.__main__
polydistill.__main__.main()
"""
SENTENCE = "Interrupted; no unfinished output was left behind.\n"


def run(body: str, number: int, end: str = END) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command that does what `body` says."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + body + end, str(int(number))], capture_output=True, text=True, timeout=30
    )
    return done.returncode, done.stdout, done.stderr


BODIES = {
    "in the command": "def body(): send()",
    "in code made of text": """
def body(): exec("send()")
""",
    "twice": """
def body():
    try: send()
    finally:
        send(3)
        print("clean", flush=True)
""",
    "where signals wait": """
def body():
    with interrupts.held():
        send()
        print("clean", flush=True)
    print("not here")
""",
    "where signals wait, but not in here": """
def body():
    try:
        with interrupts.held():
            try:
                with interrupts.let_in():
                    send()
                    print("not here")
            finally:
                send()
                print("clean", flush=True)
        print("nor here")
    finally: send()
""",
    "where signals waited before they are let in": """
def body():
    with interrupts.held():
        send()
        try:
            with interrupts.let_in(): print("not here")
        finally: print("clean", flush=True)
""",
    "where another thread holds signals": """
import time
def hold():
    with interrupts.held(): time.sleep(60)
def body():
    threading.Thread(target=hold, daemon=True).start()
    time.sleep(0.05)
    send()
    print("not here")
""",
    "while an error is told": """
def body():
    try: raise ValueError
    except ValueError: send()
""",
    "in a destructor": """
import time
class Thing:
    def __del__(self): send()
def body():
    Thing()
    while True: time.sleep(0.01)
""",
    "in a callback of C": """
import ctypes, time
@ctypes.CFUNCTYPE(None)
def call(): send()
def body():
    call()
    while True: time.sleep(0.01)
""",
    "in an import that makes another error of it": """
def body():
    try: send()
    except BaseException as error: raise ImportError("some module") from error
""",
    "while a module in C loads that would crash": """
import json
for name in [name for name in sys.modules if name.split(".")[0] in ("json", "orjson")]:
    del sys.modules[name]
class Finder:
    def find_spec(self, name, *more):
        if name == "orjson.orjson": send()
sys.meta_path.insert(0, Finder())
def body():
    import click
    context = click.Context(cli.cli)
    del cli.cli.main
    cli.cli.get_command(context, "count")
    print("not here")
""",
    "while a module in C loads that would swallow it": """
class Finder:
    def find_spec(self, name, *more):
        if name == "numpy":
            sys.meta_path.remove(self)
            send()
def body():
    import time
    sys.meta_path.insert(0, Finder())
    import torch  # whose module in C imports numpy, and goes on without it
    for _ in range(100): time.sleep(0.01)
    print("not here")
""",
    "while the command line loads": """
cli.quiet_bitsandbytes = send
""",
    "where a library swallows it, and again": """
def body():
    try: send()
    except BaseException: pass
    send()
""",
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", BODIES)
def test_a_signal_ends_the_command_with_one_sentence(moment: str, number: int) -> None:
    code, out, err = run(BODIES[moment], number)
    assert (code, err) == (128 + number, SENTENCE)
    assert out == ("clean\n" if "clean" in BODIES[moment] else "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_end_changes_nothing(number: int) -> None:
    body = """
import atexit
def body(): pass
atexit.register(send)
threading._register_atexit(send)
"""
    assert run(body, number) == (0, "done\n", "")


def test_cleaning_that_hangs_can_be_ended(tmp_path: Path) -> None:
    body = """
import time
interrupts.PATIENCE = 0.0
def body():
    try: send()
    finally:
        try:
            send()
            time.sleep(30)
        finally: print("rest", flush=True)
"""
    assert run(body, signal.SIGINT) == (130, "rest\n", SENTENCE)


def test_errors_in_destructors_are_still_told() -> None:
    body = """
class Thing:
    def __del__(self): raise ValueError("mine")
def body(): Thing()
"""
    code, out, err = run(body, signal.SIGINT)
    assert (code, out) == (0, "done\n") and "ValueError: mine" in err


def test_a_background_job_keeps_ignoring_ctrl_c() -> None:
    code = BEGIN.replace("default_int_handler", "SIG_IGN") + "def body(): send()\n" + END
    done = subprocess.run([sys.executable, "-c", code, "2"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
