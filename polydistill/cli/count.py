"""`polydistill count`."""

from __future__ import annotations

from pathlib import Path

import click

from polydistill.card import human_bytes
from polydistill.catalog import user_files
from polydistill.cli.options import SectionedCommand, SectionedOption, common_options, config_options
from polydistill.cli.output import Console
from polydistill.files.outputs import check_file
from polydistill.methods.trim.options import TrimOptions
from polydistill.runs.tables import columns
from polydistill.trimming.counting import save_counts

EPILOG = """\b
Examples:
  polydistill count --lang ro --text shard-0.txt -o shard-0.json
  polydistill trim --lang ro --counts shard-0.json --counts shard-1.json
"""
SHARED = ("model", "languages", "text", "limit", "seed", "include_path")


@click.command("count", cls=SectionedCommand, epilog=EPILOG)
@config_options(TrimOptions, only=SHARED)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    cls=SectionedOption,
    section="Output",
    help="The counts, as JSON.",
)
@click.option("--overwrite", is_flag=True, cls=SectionedOption, section="Output", help="Replace the file if it exists.")
@common_options
def command(
    model: str,
    languages: tuple[str, ...],
    text: tuple[str, ...],
    limit: int | None,
    seed: int,
    include_path: tuple[Path, ...],
    output: Path,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Count the tokens of one shard of text; `trim --counts` adds shards up."""
    from polydistill.api import count

    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    check_file(output, overwrite=overwrite, reads=[model, *text, *user_files(include_path)])
    counts = count(
        model, languages=languages, text=text, limit=limit, seed=seed, include_path=include_path, progress=console
    )
    save_counts(counts, output, overwrite=overwrite, option="output")
    facts = {
        code: {
            "tokens": int(next(iter(found.spaces.values())).sum()),
            "types": int((next(iter(found.spaces.values())) > 0).sum()),
            "lines": sum(t.lines for t in found.texts),
            "bytes": sum(t.bytes for t in found.texts),
        }
        for code, found in counts.languages.items()
    }
    rows = [["language", "lines", "text", "tokens", "different"]]
    rows += [
        [code, f"{f['lines']:,}", human_bytes(f["bytes"]), f"{f['tokens']:,}", f"{f['types']:,}"]
        for code, f in facts.items()
    ]
    console.result(
        {"command": "count", "model": model, "output": str(output), "languages": facts},
        lambda: columns(rows, right=(1, 2, 3, 4)) + f"\nWritten to {output}.",
    )
