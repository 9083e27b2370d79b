"""`polydistill diff`."""

from __future__ import annotations

from pathlib import Path

import click

from polydistill.cli.options import SectionedCommand, SectionedOption, common_options
from polydistill.cli.output import Console
from polydistill.reports.inspection import DiffReport, diff
from polydistill.runs.tables import columns

EPILOG = """\b
Example:
  polydistill diff intfloat/multilingual-e5-small polydistill-out/multilingual-e5-small-ro --text ro.txt
"""
SHOWN_TOKENS, SHOWN_EXAMPLES, SHOWN_AROUND, SHOWN_WIDTH = 20, 5, 3, 160


@click.command("diff", cls=SectionedCommand, epilog=EPILOG)
@click.argument("model")
@click.argument("trimmed")
@click.option(
    "--text",
    "texts",
    multiple=True,
    required=True,
    metavar="PATH",
    cls=SectionedOption,
    section="Text",
    help="Text to compare on. Repeat for several.",
)
@click.option(
    "--include-path",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    cls=SectionedOption,
    section="Model",
    help="Folder with your own arch/ TOML files.",
)
@common_options
def command(
    model: str,
    trimmed: str,
    texts: tuple[str, ...],
    include_path: tuple[Path, ...],
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Show what a trimmed model does differently: lost tokens by frequency, sentences that tokenize differently."""
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    report = diff(model, trimmed, texts, include_path, console)
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
        before, after = _parts_that_differ(example["before"], example["after"])
        lines += ["", _cut(example["text"]), "  before  " + _cut(before), "  after   " + _cut(after)]
    return "\n".join(lines)


def _parts_that_differ(before: list[str], after: list[str]) -> tuple[str, str]:
    """Both tokenizations without what they begin and end with alike, but for a few tokens."""
    alike = [a == b for a, b in zip(before, after, strict=False)]
    start = max((alike.index(False) if False in alike else len(alike)) - SHOWN_AROUND, 0)
    alike = [a == b for a, b in zip(reversed(before[start:]), reversed(after[start:]), strict=False)]
    end = max((alike.index(False) if False in alike else len(alike)) - SHOWN_AROUND, 0)
    parts = (tokens[start : len(tokens) - end] for tokens in (before, after))
    first, second = (" ".join(["..."] * (start > 0) + part + ["..."] * (end > 0)) for part in parts)
    return first, second


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_WIDTH else text[: SHOWN_WIDTH - 4] + " ..."
