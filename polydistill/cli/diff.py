"""`polydistill diff`."""

from __future__ import annotations

import click

from polydistill.cli.options import SectionedCommand, SectionedOption, common_options
from polydistill.cli.output import Console, columns
from polydistill.inspection import DiffReport, diff

EPILOG = """\b
Example:
  polydistill diff intfloat/multilingual-e5-small polydistill-out/multilingual-e5-small-ro --text ro.txt
"""
SHOWN_TOKENS, SHOWN_EXAMPLES = 20, 5


@click.command("diff", cls=SectionedCommand, epilog=EPILOG)
@click.argument("model")
@click.argument("trimmed")
@click.option("--text", "texts", multiple=True, required=True, metavar="PATH", cls=SectionedOption, section="Text",
              help="Text to compare on. Repeat for several.")  # fmt: skip
@common_options
def command(model: str, trimmed: str, texts: tuple[str, ...], as_json: bool, quiet: bool, verbose: bool) -> None:
    """What a trimmed model does differently: tokens lost by frequency, sentences that tokenize differently."""
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    report = diff(model, trimmed, texts, console)
    console.result(report.to_json(), lambda: table(report))


def table(report: DiffReport) -> str:
    """The readable form of the report."""
    share = report.identical / max(report.sentences, 1)
    lost = report.lost / max(report.tokens, 1)
    lines = [
        f"{report.identical:,} of {report.sentences:,} sentences ({share:.1%}) tokenize identically; "
        f"{report.lost:,} of {report.tokens:,} token occurrences ({lost:.3%}) are of {len(report.lost_tokens):,} "
        "lost tokens."
    ]
    if report.lost_tokens:
        rows = [["lost token", "times"]] + [[t, f"{n:,}"] for t, n in list(report.lost_tokens.items())[:SHOWN_TOKENS]]
        lines += ["", columns(rows, right=(1,))]
    for example in report.examples[:SHOWN_EXAMPLES]:
        lines += [
            "",
            example["text"],
            "  before  " + " ".join(example["before"]),
            "  after   " + " ".join(example["after"]),
        ]
    return "\n".join(lines)
