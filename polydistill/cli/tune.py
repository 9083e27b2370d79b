"""`polydistill tune`."""

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
    from polydistill.recipes.tune import Tuned

EPILOG = """\b
Examples:
  polydistill tune recipe.toml --minutes 60
  polydistill tune recipe.toml --minutes 60 -o tuned --resume
  polydistill run tuned/recipe.toml -o student
"""


@click.command("tune", cls=SectionedCommand, epilog=EPILOG)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--minutes",
    type=float,
    required=True,
    metavar="N",
    cls=SectionedOption,
    section="Recipe",
    help="Training of all trials together; the stages before them are not counted.",
)
@click.option("--resume", is_flag=True, cls=SectionedOption, section="Output", help="Continue a run that was stopped.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    cls=SectionedOption,
    section="Output",
    help="Folder of the trials and of the new recipe. [default: polydistill-out/ and the recipe's name with -tuned]",
)
@common_options
def command(
    recipe: Path, minutes: float, resume: bool, output: Path | None, as_json: bool, quiet: bool, verbose: bool
) -> None:
    """Try variants of a recipe's stage for a few minutes each, and write the recipe with the best of them.

    In the RECIPE, [tune] names the stage, and each [[tune.variant]] a name and the options that it changes. All are
    trained equally long; the better half goes on with twice the minutes, until one is left. What chooses the stage's
    checkpoint decides, which is dev data of the source language: other languages have no say.
    """
    from polydistill.recipes.recipe import read_recipe
    from polydistill.recipes.tune import tune_recipe

    if not 0 < minutes < 1e6:
        raise UsageError("--minutes must be above 0.", "Give as many as all trials may train together.")
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    place = output or OUTPUTS / f"{recipe.stem}-tuned"
    found = tune_recipe(read_recipe(recipe), place, minutes=minutes, resume=resume, progress=console)
    console.result(found.to_json(), lambda: table(found))


def table(found: Tuned) -> str:
    """All trials, and which variant is the best."""
    rows = [("variant", "round", "minutes", "score", "seconds")]
    rows += [
        (trial.name, str(trial.rung + 1), f"{trial.minutes:.1f}", f"{trial.score:.4f}", f"{trial.seconds:,.0f}")
        for trial in found.trials
    ]
    chosen = f"{found.trials[0].metric} on {found.split} in {', '.join(found.languages)}"
    return (
        f"{columns(rows, right=(1, 2, 3, 4))}\n\n{found.best} is the best by {chosen}, the only data that had a say. "
        f"The recipe with it is {found.recipe}."
    )
