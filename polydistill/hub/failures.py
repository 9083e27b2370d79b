"""What can go wrong on the Hub while something is sent: what is tried again, and the error in the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from polydistill.errors import PolydistillError
from polydistill.fetching import client as hub_client
from polydistill.fetching.client import HubSilent
from polydistill.fetching.reach import chain, is_network_error
from polydistill.redaction import redacted

ATTEMPTS = 4
NOTHING = "nothing was published"
_AGAIN = (408, 429, 500, 502, 503, 504)
_RUN_AGAIN = "Run the same command again: files that have arrived are not sent again."
_WAYS_OUT = {
    401: ("The Hub does not accept the token", "Log in again with `hf auth login`, or set HF_TOKEN to a valid one."),
    403: ("The token may not write to {name}", "Use one with the right to write there, and be a member of its owner."),
    404: ("The Hub has no {name}, or hides it from this token", "Check the name, and what the token may see."),
    409: ("{name} was changed by somebody else meanwhile", _RUN_AGAIN),
    412: ("{name} was changed by somebody else meanwhile", _RUN_AGAIN),
    429: ("The Hub is limiting requests", "Wait a few minutes, then run the same command again."),
    507: ("The Hub has no room left for these files", "Free some of its owner's storage, then run it again."),
}
# What reading a malformed answer raises.
_UNREADABLE = (AttributeError, KeyError, IndexError, TypeError, RecursionError, UnicodeDecodeError)

Result = TypeVar("Result")


class Unreadable(Exception):
    """An answer of the Hub that cannot be read."""


def patiently(call: Callable[[], Result]) -> Result:
    """Calls again, after a pause, what failed for a reason that may pass; the last failure is raised."""
    for attempt in range(ATTEMPTS):
        try:
            return call()
        except Exception as error:
            pause = pause_after(error, attempt)
            if attempt + 1 == ATTEMPTS or pause is None:
                raise
            time.sleep(pause)
    raise AssertionError


def pause_after(error: Exception, attempt: int) -> float | None:
    """Seconds to wait before the next try, None if there is none.

    A silent Hub was already given its time, and the Hub's client itself tries uploads of large files again before it
    gives up.
    """
    if _has(error, HubSilent) or isinstance(error, RuntimeError):
        return None
    status = _status(error)
    if status is None:
        return 2.0**attempt if is_network_error(error) or is_unreadable(error) else None
    if status not in _AGAIN:
        return None
    asked = getattr(error, "response", None)
    try:
        wait = float(asked.headers.get("Retry-After", "")) if asked is not None else 0.0
    except ValueError:
        wait = 0.0
    return max(wait, 2.0**attempt) if wait <= hub_client.PATIENCE else None


def timed_out(error: Exception) -> bool:
    """Whether no answer came in time."""
    return _status(error) is None and any("Timeout" in type(each).__name__ for each in chain(error))


def still_at_work(error: Exception) -> bool:
    """Whether the Hub may still be working on a request that it did not answer in time."""
    return _status(error) in (408, 504) or timed_out(error)


def is_unreadable(error: Exception) -> bool:
    """Whether the Hub's answer cannot be read."""
    return _status(error) is None and (
        isinstance(error, (Unreadable, *_UNREADABLE)) or type(error).__name__ == "JSONDecodeError"
    )


def _has(error: BaseException, kind: type[BaseException]) -> bool:
    return any(isinstance(each, kind) for each in chain(error))


def _status(error: BaseException) -> int | None:
    """The HTTP status in an exception or its causes."""
    responses = (getattr(each, "response", None) for each in chain(error))
    return next((int(response.status_code) for response in responses if response is not None), None)


@contextmanager
def explained(name: str, outcome: str = NOTHING) -> Iterator[None]:
    """Turns what the Hub's client raises into one sentence.

    Args:
        name: The repository.
        outcome: How the sentence ends: what became of the model.

    Raises:
        PolydistillError: Something failed.
    """
    try:
        yield
    except PolydistillError:
        raise
    except Exception as error:
        raise failure(error, name, outcome) from None


def failure(error: Exception, name: str, outcome: str, hint: str | None = None) -> PolydistillError:
    """One sentence for a failure; the client's own texts repeat addresses and may hold secrets.

    Args:
        error: What the Hub's client raised.
        name: The repository.
        outcome: How the sentence ends.
        hint: The way out, if it does not depend on the reason.
    """
    if isinstance(error, PolydistillError):
        return error
    said, way_out = _said(error, name)
    return PolydistillError(f"{said}; {outcome}.", hint or way_out)


def _said(error: Exception, name: str) -> tuple[str, str]:
    status = _status(error)
    if status in _WAYS_OUT:
        said, hint = _WAYS_OUT[status]
        return f"{said.format(name=name)} ({status})", hint
    if status is not None and status >= 500:
        return f"The Hub failed several times ({status})", _RUN_AGAIN
    if _has(error, HubSilent) or timed_out(error):
        return "The Hub did not answer", "Try again later: files that have arrived are not sent again."
    if status is None and is_network_error(error):
        return "The connection to the Hub broke", _RUN_AGAIN
    if is_unreadable(error):
        return "The Hub's answer cannot be read", "Check HF_ENDPOINT and proxies, then run the same command again."
    if isinstance(error, OSError) and error.errno is not None:
        return (
            f"{error.filename or 'A file'} cannot be read ({error.strerror})",
            "Fix the file, then run the command again.",
        )
    what = redacted(str(error)) if status is None else f"status {status}"
    return f"The Hub refused what was sent ({type(error).__name__}: {what})", "Check the folder and its README.md."
