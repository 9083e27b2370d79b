"""Which options change nothing in a run."""

from __future__ import annotations

from polydistill.methods.prokd.job import Job
from polydistill.methods.prokd.presets import PROKD, SELFTRAIN, TRANSFER


def unused(todo: Job) -> dict[str, str]:
    """Name of an option that changes nothing in this run -> why."""
    options = todo.options
    trains, transfers = todo.teacher_epochs > 0, options.method == TRANSFER
    aligns = options.method == PROKD and trains and options.alignment.weight > 0
    labels = options.method in (PROKD, SELFTRAIN) and options.teaching.self_weight > 0
    rectifies = options.method == PROKD and options.teaching.rectify and labels
    groups = {
        "no teacher is aligned here": (
            ""
            if aligns
            else "align_symmetric align_confidence align_warmup"
            + ("" if options.method == PROKD and trains else " align_weight")  # 0 is what switches it off
        ),
        "neither labels nor weights go by a temperature of the alignment here": (
            "" if aligns or options.teaching.weigh == "similarity" else "align_temperature"
        ),
        "no prototype is a moving average here": (
            "" if aligns or (rectifies and options.teaching.features == "student") else "momentum"
        ),
        "no label is rectified here": ("" if rectifies else "rectify_temperature distance features"),
        "there are no pseudo-labels here": (
            ""
            if labels
            else "self_ramp pseudo_labels rectify" + ("" if options.method in (PROKD, SELFTRAIN) else " self_weight")
        ),
        "prototypes are not used here": ("rectify" if options.method == SELFTRAIN else ""),
        "there are no prototypes here": ("classes layer tokens" if transfers else ""),
        "no teacher is trained here": ("" if trains else "teacher_lr"),
        "there is one source": ("" if options.sources else "weigh"),
        "no student is trained here": ("epochs lr loss temperature dev_tolerance cache_gb" if transfers else ""),
        "no sentence of the target is read here": ("text unlabelled_split" if transfers else ""),
        "nothing is trained here": (
            "freeze_embeddings freeze_layers batch_size precision max_minutes train_split dev_split"
            if transfers and not trains
            else ""
        ),
    }
    return {name: why for why, names in groups.items() for name in names.split()}
