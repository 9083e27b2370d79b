"""`polydistill sparse`: a group with one command for each thing that can be done with sparse differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from polydistill import registry
from polydistill.card import human_bytes
from polydistill.cli.methods import command_of
from polydistill.cli.options import Function, SectionedCommand, SectionedOption, common_options, config_options
from polydistill.cli.output import Console
from polydistill.methods.sparse.method import SparseResult, apply, combine, info, remove
from polydistill.methods.sparse.options import ApplyOptions, RemoveOptions
from polydistill.runs.tables import columns

EPILOG = """\b
Examples:
  polydistill sparse train --lang sw --text sw.txt -o sw-sft
  polydistill sparse apply student out/difference.safetensors -o student-ner
  polydistill sparse remove student-ner -o student-again
  polydistill sparse combine ner.safetensors sw.safetensors -o both.safetensors
  polydistill sparse info student-ner
"""


@click.group("sparse", epilog=EPILOG)
def command() -> None:
    """Work with sparse differences: what a sparse fine-tuning adds to some weights of a base model.

    A DIFFERENCE may be given as its file or as a folder that holds one.
    """


command.add_command(command_of(registry.method("sparse train"), registry.entries()["sparse train"].summary))


def _output(metavar: str) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        path = click.Path(path_type=Path)
        what = "Folder" if metavar == "DIR" else "File"
        for option in (
            click.option(
                "--overwrite",
                is_flag=True,
                cls=SectionedOption,
                section="Output",
                help=f"Replace the {what.lower()} if it exists.",
            ),
            click.option(
                "-o",
                "--output",
                required=True,
                type=path,
                metavar=metavar,
                cls=SectionedOption,
                section="Output",
                help=f"{what} to write.",
            ),
        ):
            function = option(function)
        return function

    return decorate


@command.command("apply", short_help="Add differences to a model.", cls=SectionedCommand)
@click.argument("model")
@click.argument("differences", nargs=-1, required=True, metavar="DIFFERENCE...", type=click.Path(path_type=Path))
@config_options(ApplyOptions, only=("force",))
@_output("DIR")
@common_options
def _apply(
    model: str,
    differences: tuple[Path, ...],
    force: bool,
    output: Path,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Add differences to a MODEL, on top of those that it already carries.

    What they overwrite is kept beside the weights, so that `sparse remove` restores it bit for bit.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    place = output.expanduser()
    result = apply(model, differences, place, force=force, overwrite=overwrite, progress=console)
    console.result(result.to_json(), lambda: _model_table(result))


@command.command("remove", short_help="Take differences off a model.", cls=SectionedCommand)
@click.argument("model")
@click.argument("difference", required=False, type=click.Path(path_type=Path))
@config_options(RemoveOptions, only=("approximate",))
@_output("DIR")
@common_options
def _remove(
    model: str,
    difference: Path | None,
    approximate: bool,
    output: Path,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Take a DIFFERENCE off a MODEL, or all that it carries if none is named; a head stays as it is."""
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    place = output.expanduser()
    result = remove(model, difference, place, approximate=approximate, overwrite=overwrite, progress=console)
    console.result(result.to_json(), lambda: _model_table(result))


@command.command("combine", short_help="Add differences up into one file.", cls=SectionedCommand)
@click.argument("differences", nargs=-1, required=True, metavar="DIFFERENCE...", type=click.Path(path_type=Path))
@_output("FILE")
@common_options
def _combine(
    differences: tuple[Path, ...], output: Path, overwrite: bool, as_json: bool, quiet: bool, verbose: bool
) -> None:
    """Add differences of one base model up into one file."""
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    facts = combine(differences, output.expanduser(), overwrite=overwrite)
    console.result(facts, lambda: _difference_table(facts))


@command.command("info", short_help="Show what a difference changes.", cls=SectionedCommand)
@click.argument("difference", type=click.Path(path_type=Path))
@common_options
def _info(difference: Path, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Show what a DIFFERENCE changes, how densely, and of which model."""
    facts = info(difference)
    Console(as_json=as_json, quiet=quiet, verbose=verbose).result(facts, lambda: _difference_table(facts))


def _model_table(result: SparseResult) -> str:
    rows = [["model", result.model], ["base", result.base]]
    rows += [["carries", f"{part['file']}: {_about(part)}, {part['entries']:,} entries"] for part in result.applied]
    share = f"{result.entries:,} of {result.parameters:,} ({result.entries / result.parameters:.2%})"
    rows.append(["changed weights", share if result.applied else "none" if result.exact else "none, up to rounding"])
    return f"{columns(rows)}\n\nWritten to {result.output} in {result.seconds:.1f} s."


def _difference_table(facts: Mapping[str, Any]) -> str:
    rows = [
        ["file", facts["file"]],
        ["of", _about(facts)],
        ["base", facts["base"]],
        ["entries", f"{facts['entries']:,} of {facts['parameters']:,} ({facts['density']:.2%})"],
        ["size on disk", human_bytes(facts["bytes"])],
    ]
    groups = [["part", "entries", "share of entries", "density there"]]
    groups += [[g["group"], f"{g['entries']:,}", f"{g['share']:.1%}", f"{g['density']:.2%}"] for g in facts["groups"]]
    return f"{columns(rows)}\n\n{columns(groups, right=(1, 2, 3))}"


def _about(facts: Mapping[str, Any]) -> str:
    """Such as `ner (task) in en`."""
    languages = f" in {', '.join(facts['languages'])}" if facts["languages"] else ""
    return (f"{', '.join(facts['tasks'])} ({facts['kind']})" if facts["tasks"] else facts["kind"]) + languages
