"""`polydistill compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from polydistill.cli.messages import with_flags
from polydistill.cli.options import SectionedCommand, SectionedOption, common_options
from polydistill.cli.output import Console
from polydistill.errors import UsageError
from polydistill.reports.rows import Comparison
from polydistill.runs.tables import columns

EPILOG = """\b
Examples:
  polydistill evaluate --model teacher --model student --task ner --lang en --lang sw -o ner.json
  polydistill compare ner.json
  polydistill compare teacher.json student.json --markdown
  polydistill compare teacher.json student.json polydistill-out/trimmed --html report.html
  polydistill compare plain-0,plain-1,plain-2 text-0,text-1,text-2
"""


@click.command("compare", cls=SectionedCommand, epilog=EPILOG)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--markdown", "as_markdown", is_flag=True, cls=SectionedOption, section="Output", help="Print Markdown to paste."
)
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    metavar="FILE",
    cls=SectionedOption,
    section="Output",
    help="Write one page with plots that needs no network.",
)
@click.option("--overwrite", is_flag=True, cls=SectionedOption, section="Output", help="Replace the page if it exists.")
@common_options
def command(
    runs: tuple[str, ...],
    as_markdown: bool,
    html: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Compare models with the first one: differences on the same data, with intervals, and what was retained.

    A RUN is a file that `evaluate -o FILE` wrote, or a model folder with scores; one file may hold several models.
    Differences and averages have intervals if the predictions are in the cache of this machine. Averages resample an
    item together with its translations. p is adjusted for the number of languages of a model in a table (Holm).

    Runs of one method with several seeds are joined by commas, as many of each method and in one order. They count as
    one, with means over the seeds and intervals of items and seeds together.
    """
    from polydistill.reports.tables import markdown

    if as_markdown + as_json + (html is not None) > 1:
        raise UsageError("--markdown, --html and --json exclude each other.", "Leave all but one out.")
    if overwrite and html is None:
        raise UsageError("--overwrite is for the page, and no page was asked for.", "Add --html FILE.")
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    groups = [seeds_of(run) for run in runs]
    if html is None:
        comparison = compared(groups, console)
        console.result(comparison.to_json(), lambda: (markdown if as_markdown else table)(comparison))
        return
    from polydistill.reports.page import check_page, write_page

    check_page(html, overwrite=overwrite, reads=[path for group in groups for path in group])
    comparison = compared(groups, console)
    write_page(comparison, html, overwrite=overwrite)
    console.result({}, lambda: f"{len(comparison.models)} models compared. Written to {html}.")


def seeds_of(run: str) -> list[Path]:
    """The runs of an argument: several where they are joined by commas, unless one of that name is there."""
    return [Path(run)] if Path(run).exists() else [Path(part) for part in run.split(",") if part]


def compared(groups: Sequence[Sequence[Path]], console: Console) -> Comparison:
    """Models side by side, or methods where there are several seeds of one."""
    if all(len(group) == 1 for group in groups):
        from polydistill.reports.compare import compare

        return compare([path for group in groups for path in group], console)
    from polydistill.reports.seeds import compare_seeds

    return compare_seeds(groups, console)


def table(comparison: Comparison) -> str:
    """The readable form of a comparison."""
    from polydistill.reports.tables import RIGHT, explanation, tables

    parts = []
    for heading, rows in tables(comparison):
        lines = columns(rows, right=[i for i, name in enumerate(rows[0]) if name in RIGHT])
        parts.append(f"{heading}\n{lines}" if heading else lines)
    return "\n\n".join([*parts, "\n".join([explanation(comparison), *map(with_flags, comparison.notes)])])
