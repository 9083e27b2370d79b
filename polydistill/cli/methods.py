"""The command of a method, made from the method's description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from polydistill.cli.messages import with_flags
from polydistill.cli.options import SectionedCommand, build_config, common_options, config_file_option, config_options
from polydistill.cli.output import Console
from polydistill.options.settings import declared
from polydistill.runs.method import Method
from polydistill.runs.runner import run
from polydistill.runs.tables import place, table


def command_of(method: Method[Any], summary: str) -> click.Command:
    """The command line of a method.

    Args:
        method: The method.
        summary: One sentence, as an order.
    """

    def run_it(
        ctx: click.Context, config_file: Path | None, as_json: bool, quiet: bool, verbose: bool, **values: Any
    ) -> None:
        console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
        result = run(method, build_config(method.options, ctx, values, config_file, method.exclusive), console)
        console.result(result.to_json(), lambda: f"{(method.table or table)(result)}\n\n{place(result)}")

    function: Any = click.pass_context(run_it)
    for decorate in (common_options, config_file_option, config_options(method.options)):
        function = decorate(function)
    for one in reversed(declared(method.options).values()):
        if one.is_argument:
            function = click.argument(one.name)(function)
    made = click.command(method.name.rpartition(" ")[2], cls=SectionedCommand, short_help=summary)(function)
    here = click.Context(made)
    made.help = f"{summary}\n\n{with_flags(method.about, here)}"
    lines = [with_flags(f"`{line}`", here).strip("`") for line in method.examples]
    made.epilog = "\b\nExamples:\n" + "".join(f"  {line}\n" for line in lines) if lines else None
    return made
