"""Messages name settings as Python does; the command line shows them as the flags of the command that runs.

Below `cli/` a message names a setting in backticks, with or without a value, or gives a whole command:

    `max_length`                         --max-length
    `languages=sw`                       --lang sw
    `verify=False`                       --no-verify
    `source`, an argument                SOURCE
    `polydistill finetune task=ner`      `polydistill finetune --task ner`

Anything else in backticks stays as it is, and so does everything outside of them. What a user or a library wrote may be
part of a message: only a name that a command declares, in backticks and without spaces, is ever replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import click

_SETTING = re.compile(r"`([a-z][a-z0-9_]*)(?:=([^`\n]+))?`")
_COMMAND = re.compile(r"`(polydistill) ([^`\n]+)`")
_PAIR = re.compile(r"(?<!\S)([a-z][a-z0-9_]*)=(True\b|False\b)?")

Parameters = Mapping[str, click.Parameter]


def with_flags(text: str, context: click.Context | None = None) -> str:
    """A message as the command line shows it.

    Args:
        text: The message; settings stand in backticks.
        context: Of the command that runs; by default the current one. Without one, the text stays as it is.
    """
    context = context or click.get_current_context(silent=True)
    if context is None or "`" not in text:
        return text
    here, root = declared(context.command.get_params(context)), context.find_root()

    def setting(match: re.Match[str]) -> str:
        name, value = match.groups()
        param = here.get(name) or _elsewhere(root, name)
        return (param and _flag(param, value)) or match[0]

    text = _COMMAND.sub(lambda match: _command_line(match, root), text)
    return _SETTING.sub(setting, text)


def declared(params: Iterable[click.Parameter]) -> Parameters:
    """The parameters of a command by the names of their settings."""
    return {param.name: param for param in params if param.name}


def _flag(param: click.Parameter, value: str | None) -> str | None:
    """How a setting with a value is written; None where the command line has no way to write it."""
    if isinstance(param, click.Argument):
        return param.human_readable_name if value is None else None
    if isinstance(param, click.Option) and param.is_flag:
        names = {None: param.opts, "True": param.opts, "False": param.secondary_opts}.get(value)
        return names[0] if names else None
    return param.opts[0] if value is None else f"{param.opts[0]} {value}"


def _command_line(match: re.Match[str], root: click.Context) -> str:
    """A whole command with the flags that it declares."""
    command: click.Command | None = root.command
    words = match[2].split()
    while isinstance(command, click.Group) and words:
        command = command.get_command(root, words.pop(0))
    if command is None:
        return match[0]
    params = declared(command.params)

    def pair(found: re.Match[str]) -> str:
        param, switch = params.get(found[1]), found[2]
        if not isinstance(param, click.Option):
            return found[0]
        return (_flag(param, switch) or found[0]) if switch else f"{param.opts[0]} "

    return f"`{match[1]} {_PAIR.sub(pair, match[2])}`"


def _elsewhere(root: click.Context, name: str) -> click.Parameter | None:
    """An option of that name of another command: messages of shared code may name one that this command lacks."""
    for command in _commands(root.command, root):
        param = declared(command.params).get(name)
        if isinstance(param, click.Option):
            return param
    return None


def _commands(command: click.Command, context: click.Context) -> Iterator[click.Command]:
    """A command and all below it."""
    yield command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                yield from _commands(below, context)
