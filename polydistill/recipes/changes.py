"""Whether a stage changes one thing at a time: the teacher, the data, or the losses (ERNIE-Tiny, Su et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from polydistill.recipes.recipe import RecipeStage

# What a stage can change -> the options that say it.
THINGS = {
    "teacher": ("teacher", "combine"),
    "data": (
        "data",
        "data_dir",
        "text",
        "task",
        "task_text",
        "parallel",
        "train_split",
        "unlabelled_split",
        "languages",
        "limit",
    ),
    "losses": ("objective", "scale"),
}


def changes(stages: Sequence[RecipeStage]) -> dict[str, list[str]]:
    """Stage -> what it changes of its predecessor, which is the stage whose result it goes on with.

    A stage that goes on with no other, or with one of another method, has none.

    Args:
        stages: Of a recipe, in order.
    """
    by_name, found = {stage.name: stage for stage in stages}, {}
    for stage in stages:
        model = stage.values.get("model")
        before = by_name.get(model.removeprefix("@")) if isinstance(model, str) and model.startswith("@") else None
        if before is not None and before.method == stage.method:
            found[stage.name] = [
                thing
                for thing, options in THINGS.items()
                if any(stage.values.get(option) != before.values.get(option) for option in options)
            ]
    return found
