"""`polydistill info`."""

from __future__ import annotations

from pathlib import Path

import click

from polydistill.card import human_bytes
from polydistill.cli.options import SectionedCommand, SectionedOption, common_options
from polydistill.cli.output import Console
from polydistill.reports.inspection import InfoReport, info
from polydistill.runs.tables import columns

EPILOG = """\b
Examples:
  polydistill info intfloat/multilingual-e5-small
  polydistill info polydistill-out/multilingual-e5-small-ro --text ro.txt --json
"""
SHOWN_TOKENS = 12


@click.command("info", cls=SectionedCommand, epilog=EPILOG)
@click.argument("model", metavar="DIR_OR_MODEL")
@click.option(
    "--text",
    "texts",
    multiple=True,
    metavar="PATH",
    cls=SectionedOption,
    section="Text",
    help="Measure the tokenizer on this text. Repeat for several.",
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
    model: str, texts: tuple[str, ...], include_path: tuple[Path, ...], as_json: bool, quiet: bool, verbose: bool
) -> None:
    """Show the sizes, share of embeddings and lineage of a model.

    With --text also the fertility, the rate of unknown tokens and the vocabulary in use of each text.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    report = info(model, texts, include_path, console)
    console.result(report.to_json(), lambda: table(report))


def table(report: InfoReport) -> str:
    """The readable form of the report."""
    rows = [
        ["model", report.model],
        ["architecture", report.architecture],
        ["tokens", f"{report.vocabulary:,}"],
        ["embedding rows", f"{report.rows:,}"],
        ["parameters", f"{report.parameters:,} ({report.embedding_share:.1%} in embeddings and heads)"],
        ["size on disk", human_bytes(report.bytes)],
        ["added tokens", _some(report.added_tokens)],
    ]
    rows += [["made by" if i == 0 else "from", line] for i, line in enumerate(report.lineage)]
    parts = [columns(rows)]
    if report.texts:
        header = ["text", "words", "tokens", "tokens per word", "unknown", "vocabulary in use"]
        parts.append(
            columns(
                [header]
                + [
                    [
                        text,
                        f"{m['words']:,}",
                        f"{m['tokens']:,}",
                        f"{m['fertility']:.3f}",
                        f"{m['unknown_rate']:.3%}",
                        f"{m['vocabulary_in_use']:.1%}",
                    ]
                    for text, m in report.texts.items()
                ],
                right=(1, 2, 3, 4, 5),
            )
        )
    return "\n\n".join(parts)


def _some(tokens: tuple[str, ...]) -> str:
    shown = " ".join(tokens[:SHOWN_TOKENS])
    return f"{len(tokens):,}: {shown}" + (" ..." if len(tokens) > SHOWN_TOKENS else "")
