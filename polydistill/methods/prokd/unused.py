"""Which options change nothing in a run."""

from __future__ import annotations

from polydistill.distill.combining import PARTITION
from polydistill.methods.prokd.job import Job
from polydistill.methods.prokd.presets import TRANSFER


def unused(todo: Job) -> dict[str, str]:
    """Name of an option that changes nothing in this run -> why."""
    options = todo.options
    alone = max(len(todo.teachers), len(todo.sources)) == 1
    trains, transfers = todo.teacher_epochs > 0, options.method == TRANSFER
    groups = {
        "there are no prototypes here": ("classes layer tokens" if transfers else ""),
        "no teacher is trained here": ("" if trains else "teacher_lr"),
        "there is one teacher": (
            f"weigh weigh_temperature {'' if options.several.combine == PARTITION else 'combine'}" if alone else ""
        ),
        "weights do not go by similarity": ("" if options.several.weigh == "similarity" else "weigh_temperature"),
        "no student is trained here": (
            "objective epochs lr dev_tolerance cache_gb student_from rounds" if transfers else ""
        ),
        "no sentence of the target is read here": ("text unlabelled_split" if transfers else ""),
        "nothing is trained here": (
            "freeze_embeddings freeze_layers batch_size precision max_minutes train_split dev_split"
            if transfers and not trains
            else ""
        ),
    }
    return {name: why for why, names in groups.items() for name in names.split()}
