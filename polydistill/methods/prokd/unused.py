"""Which options change nothing in a run."""

from __future__ import annotations

from polydistill.methods.prokd.job import Job
from polydistill.methods.prokd.presets import TRANSFER


def unused(todo: Job) -> dict[str, str]:
    """Name of an option that changes nothing in this run -> why."""
    options = todo.options
    trains, transfers = todo.teacher_epochs > 0, options.method == TRANSFER
    groups = {
        "there are no prototypes here": ("classes layer tokens" if transfers else ""),
        "no teacher is trained here": ("" if trains else "teacher_lr"),
        "there is one source": ("" if options.sources else "weigh weigh_temperature"),
        "weights do not go by similarity": ("" if options.several.weigh == "similarity" else "weigh_temperature"),
        "no student is trained here": ("objective epochs lr dev_tolerance cache_gb" if transfers else ""),
        "no sentence of the target is read here": ("text unlabelled_split" if transfers else ""),
        "nothing is trained here": (
            "freeze_embeddings freeze_layers batch_size precision max_minutes train_split dev_split"
            if transfers and not trains
            else ""
        ),
    }
    return {name: why for why, names in groups.items() for name in names.split()}
