"""The Hub's client with an end to every wait: limits on silence, and Ctrl-C at any time.

By default the client waits for an answer for ever, tries everything six times, and an interrupt waits for
its threads. `connect` adds limits to the HTTP client that it makes, whichever library that comes from.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from polydistill.errors import PolydistillError

TIMEOUT = 10.0  # seconds without a byte until a request counts as unanswered
STORING = 60.0  # the same while a file or a commit is stored
PATIENCE = 30.0  # seconds after which what failed is not tried a third time; also the longest pause the Hub may ask for
SLOWEST = 1000  # bytes a second, over PATIENCE; anything slower counts as silence
_BUSY = (408, 429, 500, 502, 503, 504)
_PASSED = 1 << 16  # bytes of an answer after which a request has not failed, whatever happens then

_lock = threading.Lock()
_factory: Callable[[], Any] | None = None  # of clients with limits
_thread = threading.local()  # since: when the first request in a row without a good answer began; tries: how many
_interrupted = threading.Event()
_sockets: deque[weakref.ref[Any]] = deque(maxlen=256)


class HubSilent(Exception):
    """For too long the Hub said nothing, or only that it cannot answer; the text says which, as in "it ..."."""


def connect() -> None:
    """Puts the limits on the Hub's client. It is called before every use; only the first call does anything.

    Raises:
        PolydistillError: The user's token is malformed, so no request could be sent.
    """
    from huggingface_hub import get_token, set_client_factory
    from huggingface_hub.utils import _http

    global _factory
    with _lock:
        if _http._GLOBAL_CLIENT_FACTORY is not _factory:
            _factory = _limited(_http._GLOBAL_CLIENT_FACTORY)
            set_client_factory(_factory)
    forget()
    _interrupted.clear()  # not where an interrupt ends: a thread may only begin its work then
    token = get_token()
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise PolydistillError(
            "The Hub token has characters that a token cannot have.",
            "Log in again with `hf auth login`, or set HF_TOKEN to a valid one.",
        )


def forget() -> None:
    """Forgets the failures so far: the next request of this thread counts as its first."""
    _thread.since, _thread.tries = None, 0


def _limited(factory: Callable[[], Any]) -> Callable[[], Any]:
    """A factory of clients with limits."""

    def make() -> Any:
        client = factory()
        hooks = client.event_hooks
        paced = _paced(sys.modules[type(client).__module__.partition(".")[0]].SyncByteStream)
        client.event_hooks = {
            "request": [*hooks["request"], _ask],
            "response": [lambda response: _answer(response, paced), *hooks["response"]],
        }
        return client

    return make


def _ask(request: Any) -> None:
    """Before each request, also one that the client repeats: may it be made, and how long may it take."""
    now = time.monotonic()
    if _interrupted.is_set():
        raise HubSilent("it was interrupted")
    if _thread.__dict__.setdefault("since", None) is None:
        _thread.since, _thread.tries = now, 0
    elif _thread.tries > 1 and now - _thread.since > PATIENCE:
        tries = _thread.tries
        forget()
        raise HubSilent(f"it gave no good answer in {tries} tries")
    _thread.tries += 1
    stores = request.method == "PUT" or (
        request.method == "POST" and ("/commit/" in request.url.path or not request.url.path.startswith("/api/"))
    )
    limits = {"connect": TIMEOUT, "read": STORING if stores else TIMEOUT, "write": STORING, "pool": PATIENCE}
    given = request.extensions.get("timeout") or {}
    chosen = {kind: limit if given.get(kind) is None else min(given[kind], limit) for kind, limit in limits.items()}
    request.extensions["timeout"] = chosen
    request.extensions["trace"] = _remember


def _remember(event: str, info: dict[str, Any]) -> None:
    """Keeps a connection's socket, so that an interrupt can end what waits for it."""
    if event.endswith(("connect_tcp.complete", "start_tls.complete")):
        known = weakref.ref(info["return_value"].get_extra_info("socket"))
        _sockets.append(known)
        if _interrupted.is_set():  # it was not known yet when the others were shut
            _shut(known)


def _shut(known: weakref.ref[Any]) -> None:
    if (connection := known()) is not None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _answer(response: Any, paced: Callable[..., Any]) -> None:
    """After each answer's head: if the pause that it asks for is too long, the answer is final."""
    from huggingface_hub.utils import hf_raise_for_status

    busy = response.status_code in _BUSY
    response.stream = paced(response.stream, counts=not busy)
    if busy:
        with suppress(ValueError):
            if float(response.headers.get("Retry-After", "0")) > PATIENCE:
                hf_raise_for_status(response)


def _paced(base: type) -> Callable[..., Any]:
    """A stream of an answer's body that ends when it comes too slowly; `base` is the class that the library wants."""

    class Paced(base):
        def __init__(self, stream: Any, *, counts: bool) -> None:
            self.stream = stream
            self.counts = counts  # as a good answer, once it is through
            self.failed = False

        def __iter__(self) -> Iterator[bytes]:
            began, came, total = time.monotonic(), 0, 0
            self.failed = True
            for piece in self.stream:
                came, total = came + len(piece), total + len(piece)
                if total > _PASSED and self.counts:
                    forget()
                if _interrupted.is_set():
                    raise HubSilent("it was interrupted")
                if (now := time.monotonic()) - began > PATIENCE:
                    if came < SLOWEST * PATIENCE:
                        raise HubSilent(f"it sent less than {SLOWEST} bytes a second")
                    began, came = now, 0
                self.failed = False
                yield piece
                self.failed = True
            self.failed = False

        def close(self) -> None:
            self.stream.close()
            if self.counts and not self.failed:
                forget()

    return Paced


@contextmanager
def interruptible() -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM also end the requests of other threads, for which the client would wait."""
    before: dict[int, Any] = {}

    def stop(number: int, frame: Any) -> None:
        _interrupted.set()
        for known in list(_sockets):
            _shut(known)
        handler = before[number]
        if callable(handler):
            handler(number, frame)
        else:
            sys.exit(128 + number)

    if threading.current_thread() is threading.main_thread():
        for number in map(int, (signal.SIGINT, signal.SIGTERM)):
            if (handler := signal.getsignal(number)) not in (None, signal.SIG_IGN):
                before[number] = handler
                signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
