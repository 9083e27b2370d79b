"""The Python function of a method, made from the method's description."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from polydistill import registry
from polydistill.labelled.objects import with_files
from polydistill.options.functions import function
from polydistill.progress import Progress
from polydistill.runs.method import Method, python_name
from polydistill.runs.result import Result
from polydistill.runs.runner import run


def function_of(method: Method[Any], summary: str) -> Callable[..., Result]:
    """A function that runs a method.

    Args:
        method: The method.
        summary: One sentence, as an order.
    """

    def work(options: Any, progress: Progress) -> Result:
        return run(method, options, progress)

    return function(
        python_name(method.name),
        method.options,
        work,
        summary=summary,
        about=method.about,
        returns=Result,
        what="What was done; `result.output` is the new folder.",
        prepared=partial(with_files, method.options),
    )


@cache
def named(name: str) -> Callable[..., Result] | None:
    """The function of the method that has this name in Python; None if there is none."""
    for command, entry in registry.entries().items():
        if python_name(command) == name:
            found = registry.find(command)
            return function_of(found, entry.summary) if isinstance(found, Method) else None
    return None
