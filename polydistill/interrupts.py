"""Ctrl-C and SIGTERM: whenever one comes, a run cleans up after itself, says one sentence and ends.

The first signal raises KeyboardInterrupt or SystemExit in the main thread, so that what has to be cleaned up is; more
of them change nothing while that goes on, but for one that comes after five seconds, as the cleaning may hang. Python
drops exceptions in destructors and callbacks: there it is raised again a moment later. Once the command has ended, a
signal ends the process as it is.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ExtensionFileLoader
from types import FrameType
from typing import Any, NoReturn

PATIENCE = 5.0  # seconds of cleaning that no signal disturbs
AGAIN = 0.01  # seconds until a stop that was lost is raised again
LOADING = (ExtensionFileLoader.create_module.__code__, ExtensionFileLoader.exec_module.__code__)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C; Python itself would end by the signal, with no exit code, after a bare KeyboardInterrupt in `exec`."""


class _Stop:
    """The one that this process may have been asked for.

    Attributes:
        number: Of the signal that asked, None before.
        since: When the run began to end.
        waits: Whether signals wait.
        waiting: Number of one that does.
        said: Whether the user has been told.
        code: The exit code, once the command is over.
    """

    number: int | None = None
    since: float | None = None
    waits = said = False
    waiting: int | None = None
    code: int | None = None


_hook = sys.unraisablehook


def install() -> None:
    """Sets the handlers; a SIGINT that is ignored, as a shell's background jobs have it, stays so."""
    _Stop.number = _Stop.since = _Stop.waiting = None
    _Stop.said = False
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _arrived)
    signal.signal(signal.SIGTERM, _arrived)
    global _hook
    if sys.unraisablehook is not _dropped:
        _hook, sys.unraisablehook = sys.unraisablehook, _dropped


def exit_code() -> int | None:
    """The exit code that a signal has asked for; None if there was none."""
    return None if _Stop.number is None else 128 + _Stop.number


def say() -> None:
    """Writes the sentence, once."""
    if not _Stop.said:
        _Stop.said = True
        with suppress(OSError, ValueError):
            sys.stderr.write("Interrupted; no unfinished output was left behind.\n")


def end(code: int) -> NoReturn:
    """Ends the process whose command is over."""
    _Stop.code = code
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    sys.exit(code)


@contextmanager
def held() -> Iterator[None]:
    """Lets signals wait until the block has ended: for what must not stop between two steps."""
    if not _is_main():
        yield
        return
    before, _Stop.waits = _Stop.waits, True
    try:
        yield
    finally:
        _Stop.waits = before
        _raise_waiting()


@contextmanager
def let_in() -> Iterator[None]:
    """Inside `held`, the part that may be stopped."""
    if not _is_main():
        yield
        return
    before, _Stop.waits = _Stop.waits, False
    try:
        _raise_waiting()
        yield
    finally:
        _Stop.waits = before


def _is_main() -> bool:
    """Whether this is the thread that Python handles signals in."""
    return threading.current_thread() is threading.main_thread()


def _raise_waiting() -> None:
    number, _Stop.waiting = (None, _Stop.waiting) if _Stop.waits else (_Stop.waiting, None)
    if number is not None:
        _arrived(number, None)


def _arrived(number: int, frame: FrameType | None) -> None:
    if _Stop.code is not None:
        os._exit(_Stop.code)
    if _Stop.waits:
        _Stop.waiting = number
        return
    if _is_loading(frame):
        _Stop.waiting = number
        signal.signal(signal.SIGALRM, _after_loading)
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
        return
    if _is_ending(sys.exc_info()[1]):
        _Stop.since = _Stop.since or time.monotonic()
        if time.monotonic() - _Stop.since < PATIENCE:
            return
    _Stop.number = _Stop.number or number
    _Stop.since = time.monotonic()
    _raise()


def _is_loading(frame: FrameType | None) -> bool:
    """Whether a module in C is being loaded, which may import others: it may swallow an exception, or crash."""
    while frame is not None and frame.f_code not in LOADING:
        frame = frame.f_back
    return frame is not None


def _after_loading(number: int, frame: FrameType | None) -> None:
    waiting, _Stop.waiting = _Stop.waiting, None
    if waiting is not None:
        _arrived(waiting, frame)


def _is_ending(error: BaseException | None) -> bool:
    """Whether what runs is there to clean up after an exception that ends the process."""
    while error is not None and not isinstance(error, (KeyboardInterrupt, SystemExit)):
        error = error.__context__
    return error is not None


def _raise() -> NoReturn:
    raise Interrupted if _Stop.number == signal.SIGINT else SystemExit(exit_code())


def _dropped(lost: Any) -> None:
    """What Python calls for an exception that nothing can catch."""
    if _Stop.number is None or not _is_ending(lost.exc_value):
        _hook(lost)
    elif _Stop.code is None:
        signal.signal(signal.SIGALRM, _once_more)
        signal.setitimer(signal.ITIMER_REAL, AGAIN)


def _once_more(number: int, frame: FrameType | None) -> None:
    if _Stop.code is None and not _is_ending(sys.exc_info()[1]):
        _raise()
