"""`polydistill publish`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from polydistill.card import human_bytes
from polydistill.card.text import printable
from polydistill.cli.options import SectionedCommand, SectionedOption, build_config, common_options, config_options
from polydistill.cli.output import Console
from polydistill.errors import UsageError
from polydistill.hub.publish import Plan, Published, PublishOptions, publish
from polydistill.runs.tables import columns

EPILOG = """\b
Examples:
  polydistill publish polydistill-out/multilingual-e5-small-ro me/e5-small-ro --dry-run
  polydistill publish polydistill-out/multilingual-e5-small-ro me/e5-small-ro --private
  polydistill publish my-tagger me/my-tagger --onnx --int8
"""


@click.command("publish", cls=SectionedCommand, epilog=EPILOG)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("repository", metavar="ORG/NAME")
@config_options(PublishOptions)
@click.option("--yes", is_flag=True, cls=SectionedOption, section="Checks", help="Do not ask before sending.")
@common_options
@click.pass_context
def command(ctx: click.Context, yes: bool, as_json: bool, quiet: bool, verbose: bool, **values: Any) -> None:
    """Publish the model in DIR on the Hub, with a card made from its record.

    Everything goes in one commit, whole or not at all; if the answer to it is lost, the Hub is asked whether it
    arrived. Files that the Hub already has are not sent again; parts of an older model that DIR no longer has are
    removed. What is not part of the model is left out: weights that it does not read (GGUF too), pickles, scripts,
    logs, data, archives, checkpoints, `stages/`, hidden files (`hf upload` can add them). Paths of this machine are
    taken out, and a file that holds a secret stops the command. DIR itself stays as it is.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    config = build_config(PublishOptions, ctx, values, None)
    if not (yes or config.dry_run or sys.stdin.isatty()):
        raise UsageError("There is no terminal to ask on.", "Add --yes to publish, or --dry-run to look first.")
    result = publish(config, console, lambda plan: yes or _asked(plan, config))
    console.result(result.to_json(), lambda: table(result))


def _asked(plan: Plan, config: PublishOptions) -> bool:
    """Whether the user wants it."""
    new = f"a new {'private' if config.private else 'public'} repository" if plan.new else "a repository that exists"
    rows = [["send", printable(item.path), human_bytes(item.bytes)] for item in plan.send]
    click.echo(columns([*rows, *(["remove", printable(path), ""] for path in plan.remove)], right=(2,)), err=True)
    return click.confirm(f"Publish this to {plan.repository} ({config.revision}), {new}?", err=True)


def table(result: Published) -> str:
    """The readable form of the result."""
    publication = result.publication
    rows = [[printable(item.path), human_bytes(item.bytes), _state(result, item.path)] for item in publication.files]
    rows += [[printable(path), "", f"left out: {why}"] for path, why in publication.left_out.items()]
    rows += [[printable(path), "", "removed"] for path in result.removed]
    parts = [columns(rows, right=(1,))]
    if result.commit is None:
        total = human_bytes(sum(item.bytes for item in publication.files))
        return "\n\n".join(
            [*parts, publication.card.rstrip("\n"), f"{total} would go to {result.repository}; nothing was sent."]
        )
    if not result.sent and not result.removed:
        said = f"{result.repository} has all of this already; nothing was sent."
    else:
        said = f"Published as {result.url}."
    return "\n\n".join([*parts, said])


def _state(result: Published, path: str) -> str:
    if result.commit is None:
        return ""
    return "sent" if path in result.sent else "there already"
