"""The command of a method, made from what the method says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

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
    lines = "".join(f"  {line}\n" for line in method.examples)
    return click.command(
        method.name.rpartition(" ")[2],
        cls=SectionedCommand,
        help=f"{summary}\n\n{method.about}",
        short_help=summary,
        epilog=f"\b\nExamples:\n{lines}" if lines else None,
    )(function)
