"""Every mistake that a user can make becomes a `PolydistillError`: one sentence and the way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class PolydistillError(Exception):
    """Something was refused or failed for a reason that the user can act on.

    Args:
        message: What is wrong, in one sentence.
        hint: The way out, in one sentence.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(PolydistillError):
    """The command line, or an argument of the Python API, was wrong."""

    exit_code = 2


def is_panic(error: BaseException) -> bool:
    """Whether a library written in Rust (tokenizers, safetensors) gave up: its exception is no `Exception`."""
    return type(error).__name__ == "PanicException"


def loading_failed(sentence: str, error: BaseException, hint: str) -> PolydistillError:
    """A sentence with what a library said, on one line."""
    said = " ".join(str(error).split())[:300]
    return PolydistillError(f"{sentence} ({type(error).__name__}: {said}).", hint)


@contextmanager
def library_errors(sentence: str, hint: str) -> Iterator[None]:
    """Turns whatever a library raises, also what is no `Exception`, into a sentence with what it said.

    Args:
        sentence: What could not be done, without a full stop.
        hint: The way out.

    Raises:
        PolydistillError: The library failed.
    """
    try:
        yield
    except PolydistillError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        raise loading_failed(sentence, error, hint) from error
