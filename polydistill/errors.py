"""Every mistake that a user can make becomes a `PolydistillError`: one sentence and the way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

MORE_MEMORY = "Try smaller batches, shorter inputs or fewer lines, or a machine with more memory."
# What torch, the loader of shared libraries and Python's threads say where memory is wanting.
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to map segment",
    "can't start new thread",
)


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


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what it comes from, is for want of memory."""
    while error is not None:
        words = str(error).lower()
        if isinstance(error, MemoryError) or any(part in words for part in _OUT_OF_MEMORY):
            return True
        error = error.__cause__
    return False


def is_panic(error: BaseException) -> bool:
    """Whether a library written in Rust (tokenizers, safetensors) gave up: its exception is no `Exception`."""
    return type(error).__name__ == "PanicException"


def library_said(said: object, limit: int = 300) -> str:
    """What a library said, as a part of a message: one line, cut, and without backticks, which mark settings.

    Args:
        said: An exception, or a text.
        limit: Most characters.
    """
    return " ".join(str(said).split())[:limit].replace("`", "'")


def loading_failed(sentence: str, error: BaseException, hint: str) -> PolydistillError:
    """A sentence with what a library said; running out of memory has a hint of its own."""
    hint = MORE_MEMORY if is_out_of_memory(error) else hint
    return PolydistillError(f"{sentence} ({type(error).__name__}: {library_said(error)}).", hint)


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
