"""Which options change nothing in a run."""

from __future__ import annotations

from polydistill.distill.combining import PARTITION
from polydistill.methods.bistil.job import Job
from polydistill.methods.bistil.options import BistilOptions


def idle_options(options: BistilOptions, todo: Job) -> tuple[dict[str, str], tuple[str, ...]]:
    """(option -> why it changes nothing in this run, what else does)."""
    tuning, labels = todo.tuning, todo.tuning is not None and not todo.vectors
    groups = {
        "the model is a student already": (
            "init vocab_size min_share allow_unknown" + ("" if todo.texts else " text") if todo.student_given else ""
        ),
        "there is no phase 1 here": (
            "" if todo.general else "steps batch_size max_length lr warmup weight_decay language_sft sampler"
        ),
        "there is no phase 2 here": (
            ""
            if tuning
            else "task_epochs task_sparse_epochs task_batch_size task_max_length task_lr task_warmup "
            "task_weight_decay task_head task_text task_sampler task_augment task_augment_share density combine "
            "teacher_epochs teacher_lr train_split dev_split test_split dev_limit limit data_dir cache_gb "
            "data dev_data test_data"
        ),
        "vectors of sentences are learnt from text alone": (
            "train_split dev_split dev_limit task_text task_head task_sampler" if todo.vectors else ""
        ),
        "there is one teacher": ("combine" if len(todo.teachers) < 2 and options.combined.combine != PARTITION else ""),
        "the teacher is not made here": ("" if labels and not todo.teachers else "teacher_epochs teacher_lr"),
        "no batch is changed": ("" if options.tuning.augment else "task_augment_share"),
        "there is no sparse stage here": ("density" if tuning and not tuning.sparse_epochs else ""),
        "`vocab_size` says how many tokens are kept": ("min_share" if options.student.vocab_size else ""),
    }
    why_not: dict[str, str] = {}
    for why, names in groups.items():
        for name in names.split():
            why_not.setdefault(name, why)
    found = []
    for number, phase in ((1, todo.general), (2, tuning)):
        if phase is None and any(given.replace(" ", "").startswith(f"{number}:") for given in options.objective):
            found.append(f"`objective={number}:...` changes nothing: there is no phase {number} here.")
    return why_not, tuple(found)
