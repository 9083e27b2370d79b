"""Where output goes: results to stdout, everything else to stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
import orjson

from polydistill.cli.messages import with_flags
from polydistill.processes import is_main
from polydistill.progress import Progress

LOG_SECONDS = 15.0  # between lines of progress where stderr is no terminal


class Console(Progress):
    """Reports on stderr as `-q` and `-v` ask, and prints one result on stdout.

    Args:
        as_json: Whether the result is one JSON object.
        quiet: Neither notes nor bars; warnings and errors remain.
        verbose: Bars of quick steps as well, and all of them stay.
    """

    def __init__(self, *, as_json: bool, quiet: bool = False, verbose: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet or not is_main()
        self.verbose = verbose
        self._context = click.get_current_context(silent=True)  # progress is also reported from other threads

    def note(self, text: str) -> None:
        """A line on stderr."""
        if not self.quiet:
            click.echo(with_flags(text, self._context), err=True)

    def warn(self, text: str) -> None:
        """A line on stderr, also with -q."""
        click.echo(f"Warning: {with_flags(text, self._context)}", err=True)

    @contextmanager
    def bar(self, what: str, total: int | None, unit: str) -> Iterator[Callable[[int], object]]:
        """A bar with a rate on stderr."""
        if self.quiet:
            yield lambda n: None
            return
        from tqdm import tqdm

        # Nothing is drawn for what is soon over, and in a log, where lines pile up, only now and then.
        delay, interval = (0.5, 0.1) if sys.stderr.isatty() else (LOG_SECONDS, LOG_SECONDS)
        options: dict[str, Any] = {"unit": unit, "unit_scale": unit == "B", "mininterval": interval}
        with tqdm(total=total, desc=what, delay=0 if self.verbose else delay, leave=self.verbose, **options) as shown:
            yield shown.update

    def result(self, value: Mapping[str, Any], table: Callable[[], str]) -> None:
        """Prints the result; of several processes one does."""
        if not is_main():
            return
        if self.as_json:
            click.echo(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode())
        else:
            click.echo(table())
