"""How long work reports: the library says what happens, the command line shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Progress:
    """Reports nothing; the command line has one that writes to stderr."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def warn(self, text: str) -> None:
        """Something the user should act on."""

    @contextmanager
    def bar(self, what: str, total: int | None, unit: str) -> Iterator[Callable[[int], object]]:
        """A bar over `total` units; yields the function to call with the number of units just done."""
        yield lambda n: None


SILENT = Progress()
