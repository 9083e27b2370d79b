"""`polydistill card`."""

from __future__ import annotations

from pathlib import Path

import click

from polydistill.card import folder_card
from polydistill.cli.options import SectionedCommand, SectionedOption, common_options
from polydistill.cli.output import Console
from polydistill.files.outputs import check_file, write_beside

EPILOG = """\b
Examples:
  polydistill card polydistill-out/multilingual-e5-small-ro
  polydistill card polydistill-out/multilingual-e5-small-ro -o README.md
"""


@click.command("card", cls=SectionedCommand, epilog=EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    cls=SectionedOption,
    section="Output",
    help="Write the card to this file instead of printing it.",
)
@click.option("--overwrite", is_flag=True, cls=SectionedOption, section="Output", help="Replace the file if it exists.")
@common_options
def command(folder: Path, output: Path | None, overwrite: bool, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Make the model card of DIR from its record, with the scores that `evaluate` has added since.

    Everything in the card comes from polydistill.json; of the model only its class is read, to say how to load it.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    if output is not None:
        check_file(output.expanduser(), overwrite=overwrite, reads=[folder])
    text = folder_card(folder.expanduser())
    if output is not None:
        write_beside(output.expanduser(), text.encode(), overwrite=overwrite)
    place = None if output is None else str(output)
    shown = text.rstrip("\n") if output is None else f"Written to {output}."
    console.result({"command": "card", "card": text, "output": place}, lambda: shown)
