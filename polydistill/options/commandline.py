"""The command line that a record stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from polydistill.options.settings import Options, Setting, declared

# What a run is not made of: where it went, how it went on, and what it might replace.
_NOT_SHOWN = frozenset({"output", "overwrite", "resume", "dry_run"})


def words(value: Any) -> list[str]:
    """A value of an option as words of a command line: one for each that it has, none for None and nested values."""
    given = value if isinstance(value, (list, tuple)) else [value]
    return [str(v) for v in given if isinstance(v, (str, int, float))]


def command_line(
    command: str,
    config: Mapping[str, Any],
    options: type[Options] | None = None,
    *,
    output: str | None = None,
    words: Callable[[Any], Sequence[str]] = words,
) -> list[str]:
    """A command line that gives a configuration again, also where some of its values are defaults today.

    What `options` does not declare, since the record is older or nobody knows the command, is written by a plain rule:
    a flag for what is true, and `--name value` for the rest.

    Args:
        command: Such as `sparse train`.
        config: Flat name -> value, as `Options.to_json` gives it.
        options: The class of the command's options.
        output: The folder to write.
        words: Makes the words of one option of its value.
    """
    known = declared(options) if options is not None else {}
    places = [word for name, one in known.items() if one.is_argument for word in _given(words(config.get(name)))]
    line = ["polydistill", *command.split()]
    dashed = any(word.startswith("-") for word in places)  # it would be taken for an option
    line += [] if dashed else places
    for name, value in config.items():
        one = known.get(name)
        if isinstance(name, str) and name not in _NOT_SHOWN and not (one and one.is_argument):
            line += _plain(name, value, words) if one is None else _declared(one, value, words)
    return [*line, *(["-o", output] if output else []), *(["--", *places] if dashed else [])]


def _given(words: Sequence[str]) -> list[str]:
    return [word for word in words if word]


def _plain(name: str, value: Any, words: Callable[[Any], Sequence[str]]) -> Iterator[str]:
    """An option of which nothing is known."""
    flag = f"--{''.join(words(name)).replace('_', '-')}"
    if isinstance(value, bool):
        yield from [flag] if value else []
        return
    for word in _given(words(value)):
        yield from (flag, word)


def _declared(one: Setting, value: Any, words: Callable[[Any], Sequence[str]]) -> Iterator[str]:
    """An option as it is declared today; a switch is written where it is not as it would be without."""
    if isinstance(value, bool):
        long = next(flag for flag in one.flags if flag.startswith("--"))
        on, _, off = long.partition("/")
        if value != one.default:
            yield on if value else off
        return
    shown = words(value)
    for word in shown if one.default not in ("", ()) else _given(shown):  # empty text can differ from the default
        yield from (one.flag, word)
