"""`polydistill run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from polydistill.cli.options import SectionedCommand, SectionedOption, common_options
from polydistill.cli.output import Console
from polydistill.errors import UsageError
from polydistill.runs.plan import OUTPUTS
from polydistill.runs.tables import columns

if TYPE_CHECKING:
    from polydistill.recipes.run import RecipeResult

EPILOG = """\b
Examples:
  polydistill run --preset ernie-tiny > recipe.toml
  polydistill run recipe.toml --dry-run
  polydistill run recipe.toml -o student
  polydistill run recipe.toml -o student --resume --until adapted
"""


@click.command("run", cls=SectionedCommand, epilog=EPILOG)
@click.argument("recipe", required=False, type=click.Path(path_type=Path))
@click.option(
    "--preset",
    metavar="NAME",
    cls=SectionedOption,
    section="Recipe",
    help="Print a recipe that comes with polydistill, to change and to run: bistil, ernie-tiny, well-read or alexa.",
)
@click.option(
    "--until", metavar="STAGE", cls=SectionedOption, section="Recipe", help="The last stage to run. [default: all]"
)
@click.option(
    "--dry-run",
    is_flag=True,
    cls=SectionedOption,
    section="Recipe",
    help="Check what can be checked before anything is trained, and print the command of each stage.",
)
@click.option(
    "--check-one-change",
    is_flag=True,
    cls=SectionedOption,
    section="Recipe",
    help="Refuse a stage that changes more than one thing of the stage that it goes on with: teacher, data or losses.",
)
@click.option("--resume", is_flag=True, cls=SectionedOption, section="Output", help="Continue a run that was stopped.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    cls=SectionedOption,
    section="Output",
    help="Folder of all stages. [default: polydistill-out/ and the recipe's name]",
)
@click.option(
    "--overwrite", is_flag=True, cls=SectionedOption, section="Output", help="Begin anew in a recipe's folder."
)
@common_options
def command(
    recipe: Path | None,
    preset: str | None,
    until: str | None,
    dry_run: bool,
    check_one_change: bool,
    resume: bool,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Run the stages of a recipe, one after the other.

    A RECIPE is a TOML file with a [[stage]] for each command: its name, its method (finetune, bistil, evaluate, ...)
    and the method's options, as Python has them. A value such as "@tuned" is what the stage `tuned` has made. What
    stands in [defaults] goes to every stage that has such an option. Stages that are done are not made again with
    --resume.
    """
    from polydistill.recipes.presets import preset_text
    from polydistill.recipes.recipe import read_recipe
    from polydistill.recipes.run import run_recipe

    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    if (recipe is None) == (preset is None):
        raise UsageError("Give a recipe, or the name of one with --preset.", "polydistill run recipe.toml")
    if preset is not None:
        text = preset_text(preset)
        console.result({"command": "run", "preset": preset, "recipe": text}, lambda: text.rstrip())
        return
    assert recipe is not None
    found = read_recipe(recipe)
    result = run_recipe(
        found,
        output or OUTPUTS / recipe.stem,
        resume=resume,
        overwrite=overwrite,
        until=until,
        dry_run=dry_run,
        one_change=check_one_change,
        progress=console,
    )

    console.result(result.to_json(), lambda: table(result, dry_run))


def table(result: RecipeResult, dry_run: bool) -> str:
    """What became of each stage; of a dry run also the commands."""
    rows = [("stage", "method", "seconds", "made")]
    for stage in result.stages:
        seconds = "" if stage.seconds is None else f"{stage.seconds:,.0f}"
        rows.append((stage.name, stage.method, seconds, stage.output if stage.done else "not yet"))
    parts = [columns(rows, right=(2,))]
    if dry_run:
        parts.append("\n".join(stage.command for stage in result.stages))
    if flagged := [f"{name} changes {' and '.join(things)}" for name, things in result.flagged.items()]:
        parts.append(f"More than one thing at once: {'; '.join(flagged)}.")
    if result.result and not dry_run:
        parts.append(f"Written to {result.result}.")
    return "\n\n".join(parts)
