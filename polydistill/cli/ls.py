"""`polydistill ls`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from polydistill import catalog
from polydistill.cli.options import SectionedCommand, SectionedOption, common_options
from polydistill.cli.output import Console
from polydistill.distill.listing import LISTED
from polydistill.runs.tables import columns

EPILOG = """\b
Examples:
  polydistill ls languages
  polydistill ls architectures --json
  polydistill ls objectives
"""


@click.command("ls", cls=SectionedCommand, epilog=EPILOG)
@click.argument("what", type=click.Choice(["languages", "tasks", "architectures", "objectives"]))
@click.option(
    "--include-path",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    cls=SectionedOption,
    section="General",
    help="Folder with your own TOML files.",
)
@common_options
def command(what: str, include_path: tuple[Path, ...], as_json: bool, quiet: bool, verbose: bool) -> None:
    """List what polydistill knows: languages, tasks, architectures, or objectives of distillation."""
    kinds = {"languages": _languages, "tasks": _tasks, "architectures": _architectures, "objectives": _objectives}
    rows = kinds[what](include_path)
    header = list(rows[0])
    cells = [header] + [[_cell(row[key]) for key in header] for row in rows]
    Console(as_json=as_json, quiet=quiet).result({"command": "ls", what: rows}, lambda: columns(cells))


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "-"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value if value is not None else "-")


def _languages(include: tuple[Path, ...]) -> list[dict[str, Any]]:
    return [
        {
            "code": lang.code,
            "name": lang.name,
            "native": lang.native_name,
            "scripts": lang.every_script,
            "iso639_3": lang.iso639_3,
            "flores": lang.flores,
            "wordfreq": lang.wordfreq,
        }
        for lang in catalog.languages(include)
    ]


def _tasks(include: tuple[Path, ...]) -> list[dict[str, Any]]:
    return [
        {
            "name": t.name,
            "kind": t.kind,
            "metric": t.metric,
            "dataset": t.hub.dataset if t.hub else None,
            "languages": t.languages,
        }
        for t in catalog.tasks(include)
    ]


def _architectures(include: tuple[Path, ...]) -> list[dict[str, Any]]:
    return [
        {"model_type": a.model_type, "name": a.name, **{c: c in a.supports for c in catalog.CAPABILITIES}}
        for a in catalog.architectures(include)
    ]


def _objectives(include: tuple[Path, ...]) -> list[dict[str, Any]]:
    return [{"name": o.name, "phases": o.phases, "summary": o.summary, "source": o.source} for o in LISTED]
