"""The Python function of a method, made from what the method says of itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from polydistill import registry
from polydistill.options.settings import by_place, declared
from polydistill.progress import SILENT, Progress
from polydistill.runs.method import Method, python_name
from polydistill.runs.result import Result
from polydistill.runs.runner import run


def function_of(method: Method[Any], summary: str) -> Callable[..., Result]:
    """A function that runs a method, with a signature and a docstring that list every option.

    Args:
        method: The method.
        summary: One sentence, as an order.
    """

    def call(*arguments: Any, progress: Progress = SILENT, **options: Any) -> Result:
        return run(method, method.options.of(*arguments, **options), progress)

    call.__name__ = call.__qualname__ = python_name(method.name)
    call.__module__ = "polydistill"
    call.__doc__ = documentation(method, summary)
    call.__signature__ = signature(method)  # type: ignore[attr-defined]
    return call


def signature(method: Method[Any]) -> inspect.Signature:
    """Arguments and the model by their place, options by their names, and where to report."""
    kinds = inspect.Parameter
    known = declared(method.options)
    places = by_place(known)
    parameters = [
        kinds(
            one.name,
            kinds.POSITIONAL_OR_KEYWORD if one in places else kinds.KEYWORD_ONLY,
            default=kinds.empty if one.is_argument else one.default,
            annotation=one.hint,
        )
        for one in [*places, *(one for one in known.values() if one not in places)]
    ]
    parameters.append(kinds("progress", kinds.KEYWORD_ONLY, default=SILENT, annotation=Progress))
    return inspect.Signature(parameters, return_annotation=Result)


def documentation(method: Method[Any], summary: str) -> str:
    """The docstring: what it does, every option, what comes back and what can go wrong."""
    lines = [summary, "", method.about, "", "Args:"]
    lines += [f"    {one.name}: {one.asked('help') or 'See above.'}" for one in declared(method.options).values()]
    lines += ["    progress: Where to report; silent by default.", "", "Returns:"]
    lines += ["    What was done; `result.output` is the new folder.", "", "Raises:"]
    lines += ["    PolydistillError: The message says what is wrong and the way out."]
    return "\n".join(lines)


@cache
def named(name: str) -> Callable[..., Result] | None:
    """The function of the method that has this name in Python; None if there is none."""
    for command, entry in registry.entries().items():
        if python_name(command) == name:
            found = registry.find(command)
            return function_of(found, entry.summary) if isinstance(found, Method) else None
    return None
