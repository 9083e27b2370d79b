"""`polydistill prokd`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from polydistill.card import human_bytes
from polydistill.cli.bistil import score_rows, stage_rows
from polydistill.cli.options import SectionedCommand, build_config, common_options, config_file_option, config_options
from polydistill.cli.output import Console, columns
from polydistill.methods.prokd.method import ProkdConfig, ProkdResult, prokd

EPILOG = """\b
Examples:
  polydistill prokd en sw --data-dir DATA
  polydistill prokd en sw --teacher my-ner-teacher --data-dir DATA --method tsl
  polydistill prokd en sw --sources es --weigh similarity --data-dir DATA --preset smoke
  polydistill prokd en sw --teacher my-ner-teacher --model my-bistil-student --data-dir DATA --text sw.txt
"""


@click.command("prokd", cls=SectionedCommand, epilog=EPILOG)
@click.argument("source")
@click.argument("target")
@config_options(ProkdConfig)
@config_file_option
@common_options
@click.pass_context
def command(
    ctx: click.Context, config_file: Path | None, as_json: bool, quiet: bool, verbose: bool, **values: Any
) -> None:
    """Make a tagger for a language without a single label (reconstruction of ProKD).

    A teacher is tuned on labels of the SOURCE language while the classes' prototypes in both languages are aligned. A
    student then learns from it on sentences of the TARGET language, whose tags are never read: the teacher's
    probabilities, and its labels after prototypes rectified them. The paper's code is not public; every choice that it
    leaves open is an option. Every stage goes on with --resume.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    result = prokd(build_config(ProkdConfig, ctx, values, config_file), console)
    console.result(result.to_json(), lambda: table(result))


def table(result: ProkdResult) -> str:
    """The readable form of the result."""
    parts = []
    if result.stages:
        parts.append(columns(stage_rows(result.stages), right=(1, 2, 4, 5)))
    if result.pseudo_labels:
        told = result.pseudo_labels
        similar = f"mean cosine {result.prototypes[0]['similarity']:.3f}"
        share, changed = told["share_entity"], told["changed"]
        rectified = "" if changed is None else f"; prototypes changed {100 * changed:.2f} % of its tags"
        parts.append(
            f"Prototypes of {result.target} and {result.sources[0]}: {similar}. Of the words of {result.target}, the "
            f"teacher tags {100 * (share or 0):.1f} % as part of an entity{rectified}."
        )
    if result.scores:
        parts.append(columns(score_rows(result.scores), right=(4, 5)))
    place = f"Written to {result.output} in {result.seconds:.0f} s"
    parts.append(f"{place}, peak memory {human_bytes(result.peak_memory_bytes)}.")
    return "\n\n".join(parts)
