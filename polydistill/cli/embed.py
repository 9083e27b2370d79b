"""`polydistill embed`."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polydistill.cli.options import SectionedCommand, build_config, common_options, config_file_option, config_options
from polydistill.cli.output import Console
from polydistill.errors import UsageError
from polydistill.files.outputs import write_beside
from polydistill.methods.embed import EmbedOptions, embed
from polydistill.texts.lines import only_returns, unix_ends
from polydistill.wording import counted

if TYPE_CHECKING:
    import numpy as np

EPILOG = """\b
Examples:
  polydistill embed my-stack < texts > vectors.npy
  polydistill embed my-nllb-stack --lang swh_Latn -o vectors.npy < texts
"""


@click.command("embed", cls=SectionedCommand, epilog=EPILOG)
@click.argument("model", metavar="DIR")
@config_options(EmbedOptions)
@config_file_option
@common_options
@click.pass_context
def command(
    ctx: click.Context, config_file: Path | None, as_json: bool, quiet: bool, verbose: bool, **values: Any
) -> None:
    """Write one vector for each line of standard input, as a NumPy file of n rows.

    DIR is what `polydistill stack` wrote.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    config = build_config(EmbedOptions, ctx, values, config_file)
    if config.output is not None:
        config = replace(config, output=config.output.expanduser())
    if config.output is None and (as_json or sys.stdout.isatty()):
        why = "--json is for standard output" if as_json else "A terminal cannot show vectors"
        raise UsageError(f"{why}.", "Write them to a file: -o vectors.npy")
    vectors = embed(config, _lines(), console)
    if config.output is None:
        sys.stdout.buffer.write(_npy(vectors))
        return
    write_beside(config.output, _npy(vectors), overwrite=config.overwrite)
    facts = {"command": "embed", "output": str(config.output), "texts": len(vectors), "width": vectors.shape[1]}
    console.result(
        facts, lambda: f"{counted(len(vectors), 'vector')} of {vectors.shape[1]} numbers written to {config.output}."
    )


def _lines() -> list[str]:
    """The lines of standard input; an empty one is an empty text, so that rows and lines stay together."""
    try:
        content = sys.stdin.buffer.read()
        text = (unix_ends(content) if only_returns(content) else content).decode("utf-8")
    except UnicodeDecodeError as error:
        hint = "Convert it first, for instance with iconv."
        raise UsageError(f"The text is not UTF-8 (byte {error.start:,}).", hint) from error
    lines = text.split("\n")  # and at no other character that some call the end of a line
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def _npy(vectors: np.ndarray) -> bytes:
    import numpy as np

    content = io.BytesIO()
    np.save(content, vectors, allow_pickle=False)
    return content.getvalue()
