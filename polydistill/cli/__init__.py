"""The command line: one file per command, each a thin function over a plain one. Commands load when they are run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from polydistill import interrupts, registry
from polydistill.errors import MORE_MEMORY, PolydistillError, UsageError, is_out_of_memory, is_panic
from polydistill.models.loading import quiet_bitsandbytes

# In the order in which they are used; None for a method, whose summary is in the registry.
_LISTED: dict[str, str | None] = {
    "trim": None,
    "count": "Count the tokens of text; counts of shards add up.",
    "plan": "Estimate the size and training time of a bilingual student.",
    "finetune": None,
    "bistil": None,
    "prokd": None,
    "project": None,
    "stack": None,
    "run": "Run a recipe: several commands as one file, one folder, one record.",
    "tune": "Try variants of a recipe's stage, and write the recipe with the best.",
    "embed": "Write a vector for each line of text, from a stack.",
    "evaluate": "Score models on a task in many languages.",
    "sparse": "Tune a language sparsely; apply, remove and combine differences.",
    "compare": "Compare models side by side: differences, intervals, plots.",
    "export": None,
    "card": "Make the model card of a folder from its record.",
    "publish": "Put a model on the Hub, with its card.",
    "info": "Show the sizes, share of embeddings and lineage of a model.",
    "diff": "Show what a trimmed model does differently on text.",
    "ls": "List languages, tasks, architectures, methods or objectives.",
}
OWN = {"trim"}  # makers whose command is a file here
EPILOG = """\b
Examples:
  polydistill trim --lang ro
  polydistill trim --model google/gemma-3-270m --lang en --lang sw --vocab-size 32000
  polydistill info polydistill-out/multilingual-e5-small-ro
"""
DEBUG = "POLYDISTILL_DEBUG"


def commands() -> dict[str, str]:
    """Name -> summary of every command, those of other packages' methods last."""
    methods = {name: entry.summary for name, entry in registry.entries().items() if " " not in name}
    return {**{name: said or methods[name] for name, said in _LISTED.items()}, **methods}


class LazyGroup(click.Group):
    """A group that knows its commands' names and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which one uses them."""
        return list(commands())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command, or makes that of a method."""
        if cmd_name not in commands():
            return None
        with interrupts.held():  # not all modules in C take an exception while they load: orjson crashes
            if _LISTED.get(cmd_name) is None and cmd_name not in OWN:
                from polydistill.cli.methods import command_of

                return command_of(registry.method(cmd_name), commands()[cmd_name])
            return import_module(f"polydistill.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(commands().items()))


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"polydistill {version('polydistill')}")
        ctx.exit()


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Make multilingual language models small enough to use in one language or pair, and see what was kept."""


def main(args: list[str] | None = None) -> None:
    """Runs the command line: one clear sentence for a mistake, and the exit code that says whose it was."""
    interrupts.install()
    try:
        quiet_bitsandbytes()
        _refuse_other_bytes(sys.argv[1:] if args is None else args)
        cli.main(args, prog_name="polydistill", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except BaseException as error:
        stopped = interrupts.exit_code()  # also where a library has made another error of it
        if stopped is not None or isinstance(error, (KeyboardInterrupt, click.Abort)):
            interrupts.say()
            sys.exit(stopped or 130)
        if isinstance(error, SystemExit):
            raise
        _fail(error)


def _refuse_other_bytes(args: Sequence[str]) -> None:
    """Records are JSON, which cannot hold names that are not UTF-8.

    Raises:
        UsageError: There is one.
    """
    for arg in args:
        try:
            arg.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{arg!a} is not UTF-8.", "Rename the file, or set a UTF-8 locale.") from error


def _fail(error: BaseException) -> NoReturn:
    """Says what went wrong, and ends with the exit code for it."""
    if isinstance(error, click.ClickException):
        error.show()
        sys.exit(error.exit_code)
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    if os.environ.get(DEBUG):
        raise error
    if isinstance(error, PolydistillError):
        said, hint, code = f"Error: {error.message}", error.hint, error.exit_code
    elif is_out_of_memory(error):
        said, hint, code = "Error: Not enough memory.", MORE_MEMORY, 1
    elif isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        said, code = f"Error: {place}{error.strerror or error}.", 1
        hint = "Check that the place exists, that you may use it, and that its disk has space."
    elif is_panic(error):
        said, code = f"Error: A library that reads tokenizers and weights gave up: {error}.", 1
        hint = "A file of the model is probably broken: fetch or save the model again."
    else:
        said, code = f"Error: {type(error).__name__}: {error}", 1
        hint = f"This is a bug in polydistill; run again with {DEBUG}=1 and report the traceback."
    click.echo(said, err=True)
    if hint:
        click.echo(hint, err=True)
    sys.exit(code)
