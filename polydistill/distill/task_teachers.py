"""The teachers of phase 2 as one, with what they say of the training data on disk where it fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polydistill.catalog import Arch, Task
from polydistill.catalog.task import TAGGING, WORD_TAGGING
from polydistill.distill.cached import CachedTeacher
from polydistill.distill.combining import PARTITION, PROBABILITIES
from polydistill.distill.inputs import Inputs
from polydistill.distill.kept import kept_on_disk
from polydistill.distill.listing import TEACHERS
from polydistill.distill.signals import LOGITS, Signal, needs_attention
from polydistill.distill.teachers.aligned import ExampleAligned, WordAligned
from polydistill.distill.teachers.base import Teacher
from polydistill.distill.teachers.ensemble import Ensemble
from polydistill.distill.teachers.frozen import FrozenTeacher
from polydistill.distill.teachers.parts import InParts
from polydistill.distill.teachers.several import as_one
from polydistill.evaluation.heads import TaskModel
from polydistill.labelled.examples import LabelledSplit
from polydistill.models.checkpoint import Checkpoint
from polydistill.options.specs import Spec
from polydistill.progress import Progress
from polydistill.training.batching import Feature

_LOGITS = frozenset({Signal(LOGITS)})


@dataclass(frozen=True)
class TeacherFolder:
    """A tuned teacher.

    Args:
        folder: Where it is.
        weight: How much it counts among several teachers.
        aligned: Whether it has another vocabulary, so that its logits of words or of whole examples are compared.
    """

    folder: Path
    weight: float = 1.0
    aligned: bool = False


@dataclass(frozen=True)
class TaskInputs:
    """What phase 2 works with.

    Args:
        student: Folder of the student that phase 1 made.
        teachers: Tuned models, or for vectors the base model; the first one gives more than logits.
        arch: The student's architecture.
        task: What is learnt; None for vectors of sentences.
        language: Code of the source language.
        length: Most tokens of an input.
        seed: Of a new head.
        by_loyalty: Whether loyalty to the first teacher chooses the checkpoint, in place of the task's own metric.
        bf16: Whether the teachers multiply in bfloat16.
        cache_bytes: Most that their signals may take on disk.
        note: File that says whether they are there, once that was decided; those beside it have a number in their name.
        progress: Where to report.
        include: Folders with the user's own architectures.
        own: Teachers that are the student's own past, whose logits count beside those of `teachers`.
        combine: How the logits of several teachers become one, see `teachers.several`.
        sampler: What says which of the labelled inputs an epoch uses; None for all of them.
        augmentations: What changes inputs.
        augmented: Share of the batches that are changed.
        new_head: Whether the student begins with a new head, in place of the teacher's.
    """

    student: Path
    teachers: tuple[TeacherFolder, ...]
    arch: Arch
    task: Task | None
    language: str
    length: int
    seed: int
    by_loyalty: bool
    bf16: bool
    cache_bytes: int
    note: Path
    progress: Progress
    include: tuple[Path, ...] = ()
    own: tuple[Spec, ...] = ()
    combine: str = PROBABILITIES
    sampler: Spec | None = None
    augmentations: tuple[Spec, ...] = ()
    augmented: float = 0.0
    new_head: bool = False


def task_teacher(
    inputs: TaskInputs, models: Sequence[TaskModel], needs: frozenset[Signal], student: TaskModel, read: Inputs
) -> Teacher | None:
    """The teachers as one. Each runs once over the training data where what it says of them fits on disk.

    Args:
        inputs: What phase 2 works with.
        models: The teachers, opened.
        needs: What objectives ask for; only one teacher gives hidden states and the like.
        student: The student, at theta0.
        read: What it is trained on.
    """
    if not needs:
        return None
    found: list[tuple[Teacher, float]] = []
    whole, room = needs, inputs.cache_bytes
    for i, (place, model) in enumerate(zip(inputs.teachers, models, strict=True)):
        if not place.aligned and not whole:
            continue
        teacher = _opened(inputs, place, model, whole, student, read)
        if not place.aligned:
            whole = needs & _LOGITS
        kept, taken = _kept(inputs, i, teacher, model, student, read, room)
        room -= taken
        found.append((kept, place.weight))
    past = own_past(inputs.own, student.network, needs & _LOGITS, inputs.arch, autocast=inputs.bf16)
    start = None
    if inputs.combine == PARTITION:
        start = FrozenTeacher(deepcopy(student.network), _LOGITS, inputs.arch, autocast=inputs.bf16)
    given = as_one(found, inputs.combine, start)
    return Ensemble([(given, sum(weight for _, weight in found)), *past]) if past else given


def _opened(
    inputs: TaskInputs,
    place: TeacherFolder,
    model: TaskModel,
    needs: frozenset[Signal],
    student: TaskModel,
    read: Inputs,
) -> Teacher:
    if place.aligned:
        kind: Any = WordAligned if inputs.task and inputs.task.kind in (TAGGING, WORD_TAGGING) else ExampleAligned
        aligned: Teacher = kind(model, read.examples, student.labels, autocast=inputs.bf16)
        return aligned
    if needs_attention(needs):
        model.network.set_attn_implementation("eager")
    return FrozenTeacher(
        model.network, needs, inputs.arch, autocast=inputs.bf16, labels=model.labels, wanted=student.labels
    )


def _kept(
    inputs: TaskInputs, number: int, teacher: Teacher, model: TaskModel, student: TaskModel, read: Inputs, room: int
) -> tuple[Teacher, int]:
    """(a teacher with its signals on disk where they fit, the bytes that they take); labelled data and text apart."""
    place, count = inputs.teachers[number], read.labelled_count
    facts = {
        "teacher": [Checkpoint.open(place.folder).weights_hash, place.aligned],
        "bf16": inputs.bf16,
        "labels": [student.labels, model.labels],
    }

    def keep(name: str, splits: Sequence[LabelledSplit], features: Sequence[Feature], room: int) -> tuple[Teacher, int]:
        kept = kept_on_disk(
            teacher,
            {**facts, "data": [split.sha256 for split in splits]},
            [{**feature, "example_id": i} for i, feature in enumerate(features)],
            student.tokenizer,
            max_bytes=room,
            note=inputs.note.with_name(f"{inputs.note.stem}-{name}{inputs.note.suffix}"),
            progress=inputs.progress,
        )
        return kept, kept.nbytes if isinstance(kept, CachedTeacher) else 0

    first, taken = keep(f"{number}", read.labelled, read.features[:count], room)
    if not read.plain:
        return first, taken
    second, more = keep(f"{number}-text", read.plain, read.features[count:], room - taken)
    return InParts(first, second, count), taken + more


def own_past(
    specs: Sequence[Spec], network: Any, needs: frozenset[Signal], arch: Arch, *, autocast: bool
) -> list[tuple[Teacher, float]]:
    """Teachers that are copies of the student, with their weights.

    Args:
        specs: Those that are asked for.
        network: The student, before anything observes it.
        needs: What they are asked for.
        arch: The student's architecture.
        autocast: Whether matrices are multiplied in bfloat16.
    """
    known: Mapping[str, Any] = {"student": network, "needs": needs, "arch": arch, "autocast": autocast}
    return [(TEACHERS.make(spec, known), spec.weight) for spec in specs if spec.weight]
