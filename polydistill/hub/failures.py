"""What can go wrong on the Hub while something is sent: what is tried again, and what is said in the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from polydistill.errors import PolydistillError
from polydistill.hub.leaks import redacted
from polydistill.refs import is_network_error

ATTEMPTS = 4
LONGEST_WAIT = 120.0  # seconds that the Hub may ask to wait for
_AGAIN = (408, 429, 500, 502, 503, 504)
_RUN_AGAIN = "Run the same command again: files that have arrived are not sent again."
_WAYS_OUT = {
    401: ("The Hub does not accept the token", "Log in again with `hf auth login`, or set HF_TOKEN to a valid one."),
    403: ("The token may not write to {name}", "Use one with the right to write there, and be a member of its owner."),
    404: ("The Hub has no {name}, or hides it from this token", "Check the name, and what the token may see."),
    409: ("{name} was changed by somebody else meanwhile", _RUN_AGAIN),
    412: ("{name} was changed by somebody else meanwhile", _RUN_AGAIN),
    429: ("The Hub wants fewer requests", "Wait some minutes, then run the same command again."),
    507: ("The Hub has no room left for these files", "Free some of its owner's storage, then run it again."),
}

Result = TypeVar("Result")


def patiently(call: Callable[[], Result]) -> Result:
    """Calls again, after a pause, what failed for a reason that may pass; the last failure is raised."""
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except Exception as error:
            pause = _pause(error, attempt)
            if attempt + 1 == ATTEMPTS or pause is None:
                raise
            time.sleep(pause)
    raise AssertionError


def _pause(error: Exception, attempt: int) -> float | None:
    """Seconds to wait before the next try, None if there is none.

    What came out of an upload of large files was tried again by the Hub's client before it gave up.
    """
    if isinstance(error, RuntimeError):
        return None
    status = _status(error)
    if status is None:
        return 2.0**attempt if is_network_error(error) else None
    if status not in _AGAIN:
        return None
    asked = getattr(error, "response", None)
    try:
        wait = float(asked.headers.get("Retry-After", "")) if asked is not None else 2.0**attempt
    except ValueError:
        wait = 2.0**attempt
    return max(wait, 0.0) if wait <= LONGEST_WAIT else None


def _status(error: BaseException) -> int | None:
    """The status of the answer that an exception or its cause has."""
    seen: BaseException | None = error
    while seen is not None:
        response = getattr(seen, "response", None)
        if response is not None:
            return int(response.status_code)
        seen = seen.__cause__ or seen.__context__
    return None


@contextmanager
def explained(name: str, token: str | None) -> Iterator[None]:
    """Turns what the Hub's client raises into one sentence; its own texts repeat addresses and may hold secrets.

    Args:
        name: The repository.
        token: What must not be repeated.

    Raises:
        PolydistillError: Something failed; nothing of it can be seen on the Hub.
    """
    try:
        yield
    except PolydistillError:
        raise
    except Exception as error:
        failure: Any = _failure(error, name, token)
        raise failure from None


def _failure(error: Exception, name: str, token: str | None) -> PolydistillError:
    status = _status(error)
    if status in _WAYS_OUT:
        said, hint = _WAYS_OUT[status]
        return PolydistillError(f"{said.format(name=name)} ({status}); nothing was published.", hint)
    if status is not None and status >= 500:
        return PolydistillError(f"The Hub failed several times ({status}); nothing was published.", _RUN_AGAIN)
    if status is None and is_network_error(error):
        return PolydistillError("The connection to the Hub broke; nothing was published.", _RUN_AGAIN)
    what = redacted(str(error), [token] if token else []) if status is None else f"status {status}"
    return PolydistillError(
        f"The Hub refused what was sent ({type(error).__name__}: {what}); nothing was published.",
        "Check the folder and its README.md.",
    )
