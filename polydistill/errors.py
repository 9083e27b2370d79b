"""Every mistake that a user can make becomes a `PolydistillError`: one sentence and the way out."""

from __future__ import annotations


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
