"""The command line: one file per command, each a thin function over a plain one. Commands load when they are run."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module

import click

from polydistill.errors import PolydistillError, is_panic
from polydistill.loading import quiet_bitsandbytes

COMMANDS = {
    "trim": "Cut a model's vocabulary down to some languages, verified.",
    "count": "Count the tokens of text; counts of shards add up.",
    "plan": "Size and training time of a bilingual student, before it is trained.",
    "finetune": "Tune a model for a task on a source language.",
    "bistil": "Make a small bilingual model out of a multilingual one.",
    "prokd": "Make a tagger for a language without a single label.",
    "stack": "Give an English LLM the languages of a multilingual encoder.",
    "embed": "One vector a line of text, from a stack.",
    "evaluate": "Score models on a task in many languages.",
    "sparse": "Tune a language sparsely; put differences on models, take them off, add them up.",
    "compare": "Models side by side: differences, intervals, plots.",
    "export": "Write a model as ONNX files, checked against torch, also with 8 bits.",
    "card": "The model card of a folder, from its record.",
    "publish": "Put a model on the Hub, with its card.",
    "info": "Sizes, share of embeddings and lineage of a model.",
    "diff": "What a trimmed model does differently on text.",
    "ls": "List languages, tasks or architectures.",
}
EPILOG = """\b
Examples:
  polydistill trim --lang ro
  polydistill trim --model google/gemma-3-270m --lang en --lang sw --vocab-size 32000
  polydistill info polydistill-out/multilingual-e5-small-ro
"""
DEBUG = "POLYDISTILL_DEBUG"


class LazyGroup(click.Group):
    """A group that knows its commands' names and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which one uses them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command."""
        if cmd_name not in COMMANDS:
            return None
        return import_module(f"polydistill.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"polydistill {version('polydistill')}")
        ctx.exit()


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show it.")
def cli() -> None:
    """Make multilingual language models small enough to use in one language or pair, and see what was kept."""


def main(args: list[str] | None = None) -> None:
    """Runs the command line: one clear sentence for a mistake, and the exit code that says whose it was."""
    quiet_bitsandbytes()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what a scheduler sends: unfinished folders are removed
    try:
        cli.main(args, prog_name="polydistill", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted; no unfinished output was left behind.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except PolydistillError as error:
        _raise_if_debug()
        click.echo(f"Error: {error.message}", err=True)
        if error.hint:
            click.echo(error.hint, err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        _raise_if_debug()
        place = f"{error.filename}: " if error.filename else ""
        click.echo(f"Error: {place}{error.strerror or error}.", err=True)
        click.echo("Check that the place exists, that you may use it, and that its disk has space.", err=True)
        sys.exit(1)
    except Exception as error:
        _raise_if_debug()
        click.echo(f"Error: {type(error).__name__}: {error}", err=True)
        click.echo(f"This is a bug in polydistill; run again with {DEBUG}=1 and report the traceback.", err=True)
        sys.exit(1)
    except BaseException as error:
        if not is_panic(error):
            raise
        _raise_if_debug()
        click.echo(f"Error: A library that reads tokenizers and weights gave up: {error}.", err=True)
        click.echo("A file of the model is probably broken: fetch or save the model again.", err=True)
        sys.exit(1)


def _raise_if_debug() -> None:
    if os.environ.get(DEBUG):
        raise
