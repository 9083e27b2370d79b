"""The tuned models that teach phase 2, where the user has some."""

from __future__ import annotations

from collections.abc import Sequence

from polydistill.catalog import Language, Task
from polydistill.catalog.task import CLASSIFICATION, RETRIEVAL, TAGGING, WORD_TAGGING
from polydistill.distill.matched import plan_like, same_vocabulary
from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation.heads import AUTO_CLASSES, output_labels
from polydistill.methods.bistil.job import GivenTeacher, own_teacher
from polydistill.methods.bistil.options import BistilOptions
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.folder import is_stack
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.processes import several
from polydistill.progress import Progress


def given_teachers(
    options: BistilOptions,
    folders: Sequence[tuple[str, float]],
    source: Source,
    student_given: bool,
    wanted: Task | None,
    languages: Sequence[Language],
    progress: Progress,
) -> tuple[GivenTeacher, ...]:
    """Opens the tuned models that the user has.

    Args:
        options: Of the command.
        folders: (folder, weight) of each.
        source: What the student is made of.
        student_given: Whether that is a student of phase 1 already.
        wanted: The task, if there is one.
        languages: Source and target.
        progress: Where to report.

    Raises:
        PolydistillError: One is missing, has no head for the task, or cannot be compared with the student.
    """
    vectors = wanted is not None and wanted.kind == RETRIEVAL
    if student_given and wanted and not folders and not own_teacher(source).is_dir():
        raise UsageError(
            f"{options.model} is a student already, and what it was made of does not lie in its stages.",
            "Give a teacher that was tuned from the same model with `teacher`.",
        )
    if vectors and len(folders) > 1:
        raise UsageError("Vectors of sentences have one teacher.", "Give `teacher` once.")
    if several() and wanted and not vectors and options.phase != "1" and not folders:
        raise UsageError(
            "With several processes the task's teacher has to be there already.",
            "Make it with `polydistill finetune`, then give it with `teacher`.",
        )
    found = []
    for name, weight in folders:
        resolved = resolve(ModelRef.parse(name), progress=progress.note)
        stacked = is_stack(resolved.folder)
        if stacked:  # what it says of a text is read; nothing else of it is looked at
            teacher = Source(resolved, resolved.folder, resolved.folder, source.arch, Checkpoint.open(resolved.folder))
            alike = False
        else:
            teacher = Source.open(resolved, options.include_path)
            alike = same_vocabulary(source.folder, teacher.folder)
            if wanted is not None and not vectors:
                check_head(teacher, wanted)
        cut = plan_like(teacher, source, languages) if student_given and not alike and not stacked else None
        aligned = not alike and cut is None
        if aligned and (wanted is None or wanted.kind not in (TAGGING, WORD_TAGGING, CLASSIFICATION)):
            raise PolydistillError(
                f"The vocabularies of {options.model} and the teacher {name} differ, so that their outputs cannot be "
                "compared.",
                "Give a teacher that was tuned from the same model; for tags and classes another one will do.",
            )
        found.append(GivenTeacher(teacher, weight, aligned, cut))
    return tuple(found)


def check_head(teacher: Source, wanted: Task) -> None:
    """Refuses a teacher without the task's head, or whose labels are not the task's.

    Raises:
        PolydistillError: It is one of these.
    """
    name, labels = teacher.resolved.ref, teacher.config.get("id2label") or {}
    classes = teacher.config.get("architectures") or []
    if not any(found.endswith(AUTO_CLASSES[wanted.kind].removeprefix("AutoModel")) for found in classes):
        raise PolydistillError(
            f"{name} has no head for {wanted.name}, so it is no teacher.",
            f"Tune it with `polydistill finetune task={wanted.name}`, or leave `teacher` out.",
        )
    if wanted.labels:
        output_labels([labels[i] for i in sorted(labels, key=int)], wanted.kind, wanted.labels, wanted.not_scored, name)
