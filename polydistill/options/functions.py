"""Python functions that are made of options: their signature, their docstring, and how they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from polydistill.errors import UsageError
from polydistill.options.settings import PLACES, Options, Setting, by_place, declared, value_type
from polydistill.progress import SILENT, Progress

_PLACES = {*PLACES, "M"}  # metavars of what is a path or the name of a model
_MODELS = {"model", "encoder", "llm", "folder"}  # arguments that are


@dataclass(frozen=True)
class Extra:
    """A parameter that is no option; it comes after those that are given by their place.

    Attributes:
        name: Its name.
        hint: Its type.
        help: What it is.
    """

    name: str
    hint: Any
    help: str


def function(
    name: str,
    options: type[Options],
    work: Callable[..., Any],
    *,
    summary: str,
    about: str = "",
    returns: type,
    what: str,
    extra: Extra | None = None,
    prepared: Callable[[dict[str, Any]], dict[str, Any]] = lambda given: given,
) -> Callable[..., Any]:
    """A function with a signature and a docstring that list every option.

    Args:
        name: Its name.
        options: The class of its options.
        work: Called with the options, the extra parameter if there is one, and the progress.
        summary: One sentence, as an order.
        about: A paragraph or two.
        returns: What comes back.
        what: The same in words.
        extra: A parameter beside the options.
        prepared: Turns what was given by name into what options take.
    """

    def call(*arguments: Any, progress: Progress = SILENT, **given: Any) -> Any:
        more, arguments = _taken(extra, arguments, given, len(by_place(declared(options))))
        return work(options.of(*arguments, **prepared(given)), *more, progress)

    call.__name__ = call.__qualname__ = name
    call.__module__ = "polydistill"
    call.__doc__ = _documentation(options, summary, about, what, extra)
    call.__signature__ = _signature(options, returns, extra)  # type: ignore[attr-defined]
    return call


def _taken(
    extra: Extra | None, arguments: tuple[Any, ...], given: dict[str, Any], places: int
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """(the extra parameter, the other arguments by place); it is taken out of those given by name.

    Raises:
        UsageError: It is missing, or given twice.
    """
    if extra is None:
        return (), arguments
    by_place = len(arguments) > places
    if by_place and extra.name in given:
        raise UsageError(f"`{extra.name}` is given twice.", "Give it once.")
    if extra.name in given:
        return (given.pop(extra.name),), arguments
    if not by_place:
        raise UsageError(f"`{extra.name}` is missing.", f"Give it: {extra.help[0].lower()}{extra.help[1:]}")
    return (arguments[places],), (*arguments[:places], *arguments[places + 1 :])


def _signature(options: type[Options], returns: type, extra: Extra | None) -> inspect.Signature:
    """Arguments and the model by their place, options by their names, and where to report."""
    kinds = inspect.Parameter
    known = declared(options)
    places = by_place(known)
    parameters = [
        kinds(one.name, kinds.POSITIONAL_OR_KEYWORD, default=_default(one), annotation=annotation(one))
        for one in places
    ]
    if extra is not None:
        parameters.append(kinds(extra.name, kinds.POSITIONAL_OR_KEYWORD, annotation=extra.hint))
    parameters += [
        kinds(one.name, kinds.KEYWORD_ONLY, default=_default(one), annotation=annotation(one))
        for one in known.values()
        if one not in places
    ]
    parameters.append(kinds("progress", kinds.KEYWORD_ONLY, default=SILENT, annotation=Progress))
    return inspect.Signature(parameters, return_annotation=returns)


def _default(one: Setting) -> Any:
    return inspect.Parameter.empty if one.is_argument else one.default


def annotation(one: Setting) -> Any:
    """The type of what a Python user may give for an option."""
    kind, several = value_type(one.hint)
    is_place = kind is Path or one.asked("metavar") in _PLACES or (one.is_argument and one.name in _MODELS)
    choices = one.asked("choices")
    found: Any = Literal[tuple(choices)] if choices else (str | Path) if is_place else kind
    if several:
        found = Sequence[found] | found
    if one.asked("objects"):
        found = found | Iterable[Any] | Mapping[str, Sequence[Any]]
    return found | None if one.default is None else found


def _documentation(options: type[Options], summary: str, about: str, what: str, extra: Extra | None) -> str:
    """What it does, every option, what comes back and what can go wrong."""
    lines = [summary, "", *([about, ""] if about else []), "Args:"]
    lines += [f"    {one.name}: {one.asked('help') or 'See above.'}" for one in declared(options).values()]
    lines += [f"    {extra.name}: {extra.help}"] if extra is not None else []
    lines += ["    progress: Where to report; silent by default.", "", "Returns:", f"    {what}", "", "Raises:"]
    lines += ["    PolydistillError: The message says what is wrong and the way out."]
    return "\n".join(lines)
