"""`polydistill ls`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from polydistill import catalog, registry
from polydistill.cli.options import SectionedCommand, SectionedOption, common_options
from polydistill.cli.output import Console
from polydistill.options.settings import plain
from polydistill.runs.tables import columns

EPILOG = """\b
Examples:
  polydistill ls languages
  polydistill ls architectures --json
  polydistill ls methods
  polydistill ls objectives
  polydistill ls samplers --json
"""


TABLES = ("languages", "tasks", "architectures", "methods")
SPECS = ("objectives", "samplers", "augmentations", "teachers")


@click.command("ls", cls=SectionedCommand, epilog=EPILOG)
@click.argument("what", type=click.Choice([*TABLES, *SPECS]))
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
    """List what polydistill knows: languages, tasks, architectures, methods; objectives, samplers and the like.

    The options of an objective and the like follow its name, with colons between them, as in
    `--objective logits=1:temperature=4`.
    """
    tables = dict(zip(TABLES, (_languages, _tasks, _architectures, _methods), strict=True))
    rows = tables[what](include_path) if what in tables else _specs(what)
    header = list(rows[0])
    cells = [header] + [[_cell(row[key]) for key in header] for row in rows]
    Console(as_json=as_json, quiet=quiet).result({"command": "ls", what: rows}, lambda: columns(cells))


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "-"
    if isinstance(value, dict):
        return " ".join(_option(name, about["default"]) for name, about in value.items()) or "-"
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value if value is not None else "-")


def _option(name: str, default: Any) -> str:
    """`temperature=2`; `layers=...` where what is used depends on the model."""
    from polydistill.options.specs import written

    return f"{name}={written(default) if default not in (None, [], ()) else '...'}"


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


def _methods(include: tuple[Path, ...]) -> list[dict[str, Any]]:
    """Those of other packages too."""
    return [{"name": name, "summary": entry.summary} for name, entry in registry.entries().items()]


def _specs(what: str) -> list[dict[str, Any]]:
    """The options are shown with their defaults; JSON says what each of them does."""
    from polydistill.distill.listing import AUGMENTATIONS, OBJECTIVES, SAMPLERS, TEACHERS

    listing = dict(zip(SPECS, (OBJECTIVES, SAMPLERS, AUGMENTATIONS, TEACHERS), strict=True))[what]
    return [
        {
            "name": one.name,
            "uses": one.uses,
            "summary": one.summary,
            "options": {k: {"default": plain(s.default), "help": s.asked("help")} for k, s in one.options.items()},
            "source": one.source,
        }
        for one in listing
    ]
