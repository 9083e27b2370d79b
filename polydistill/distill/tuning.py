"""Phase 2: a student learns a task from a tuned teacher, with sparse fine-tuning (Ansell et al. 2023, section 3.2).

Everything is trained for some epochs, theta0 -> theta1; the K entries that moved furthest are chosen; all is put back
to theta0, the head too, and trained again with those entries and the head alone (LT-SFT, Ansell et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polydistill.catalog import Arch, Task
from polydistill.catalog import language as find_language
from polydistill.distill.augmentation.base import Augmentation, Augmenting
from polydistill.distill.inputs import Inputs
from polydistill.distill.kept import kept_on_disk
from polydistill.distill.listing import AUGMENTATIONS, SAMPLERS
from polydistill.distill.loss import DistilLoss
from polydistill.distill.objectives.base import Weighted
from polydistill.distill.samplers.examples import ExampleSampler
from polydistill.distill.signals import needs_attention
from polydistill.distill.task_teachers import TaskInputs, task_teacher
from polydistill.distill.teachers.base import Teacher
from polydistill.distill.teachers.frozen import load_teacher
from polydistill.distill.teachers.labels import check_labels, rows_of
from polydistill.distill.told import told_of
from polydistill.evaluation.heads import ANSWER, TaskModel, new_head, open_model
from polydistill.evaluation.kinds import dev_predictions, dev_score, finest_loyalty, metric_of
from polydistill.evaluation.reuse import output_parameters
from polydistill.labelled.examples import LabelledSplit
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.loading import load_encoder, load_tokenizer, longest_input
from polydistill.progress import SILENT, Progress
from polydistill.records.record import text_hash
from polydistill.sparse.training import training_only
from polydistill.training.batching import Feature
from polydistill.training.loop import Curves, Schedule, collator, train
from polydistill.training.trainer import DevScore

FILL_BATCH = 32
HELD_OUT, HELD_BATCH = 100, 32  # of the lines of a text one in a hundred chooses the checkpoint


@dataclass(frozen=True)
class TaskStudent:
    """A student with a head.

    Args:
        model: The network, its tokenizer and labels.
        base: Parameter of the base model -> its name in the student's folder; those of the head are absent.
    """

    model: TaskModel
    base: dict[str, str]

    @property
    def head(self) -> frozenset[str]:
        """The parameters that stay dense."""
        return frozenset(name for name, _ in self.model.network.named_parameters()) - self.base.keys()

    def chosen_count(self, density: float) -> int:
        """K: that share of the base model's parameters, tied ones once."""
        own = dict(self.model.network.named_parameters())
        return max(1, round(density * sum(own[name].numel() for name in self.base)))


def task_student(
    folder: Path,
    task: Task,
    teacher: TaskModel | None,
    *,
    seed: int,
    length: int,
    eager: bool = False,
    progress: Progress = SILENT,
) -> TaskStudent:
    """Puts the teacher's head on a student, or a new one; where it does not fit, the student's own stays.

    Args:
        folder: The student that phase 1 made.
        task: What it is to learn.
        teacher: Whose head it gets; None for a new one from the seed.
        seed: Of a head that does not fit.
        length: Most tokens of an input.
        eager: Whether attention is computed without fused kernels (eager).
        progress: Where to report.

    Raises:
        PolydistillError: It cannot have such a head, or the teacher predicts other labels than the task scores.
    """
    labels = task.scored_labels
    model = new_head(folder, task.kind, labels, seed=seed, max_length=length, eager=eager)
    stored = Checkpoint.open(folder).tensors
    prefix = f"{model.network.base_model_prefix}."
    inside = [name for name, _ in model.network.named_parameters() if name.startswith(prefix)]
    # A folder that phase 1 has not written may be one of a model with another head, whose names have the prefix.
    base = {own: name for own in inside for name in (own.removeprefix(prefix), own) if name in stored}
    if teacher is None:
        return TaskStudent(model, base)
    check_labels(teacher.labels, labels)
    given = _head_of(teacher, labels)
    fits = {
        n: t
        for n, t in model.network.state_dict().items()
        if n not in base and n in given and given[n].shape == t.shape
    }
    with torch.no_grad():
        for name, tensor in fits.items():
            tensor.copy_(given[name])
    assert model.reused is not None
    if not output_parameters(model.network, len(labels) or len(ANSWER)) <= fits.keys():
        progress.note(f"The teacher's head does not fit the student. {model.reused.sentence}".strip())
    return TaskStudent(model, base)


def _head_of(teacher: TaskModel, labels: Sequence[str]) -> dict[str, Tensor]:
    """A teacher's tensors, its outputs in the order of the task's labels."""
    found = dict(teacher.network.state_dict())
    if rows := rows_of(teacher, labels):
        outputs = output_parameters(teacher.network, len(teacher.labels))
        found |= {name: found[name][rows] for name in outputs & found.keys()}
    return found


@dataclass(frozen=True)
class Job:
    """A student and all that it is trained with.

    Args:
        student: The student, at theta0.
        features: Its inputs.
        teacher: Gives what the objectives need.
        objectives: What is asked.
        arch: The student's architecture.
        metric: What chooses the checkpoint.
        dev_score: Network -> that, on source-language dev data; with loyalty the task's own metric too.
        untrained: Examples that give no input.
        batches: What says which inputs come together; None for those of like length.
        augmentations: Of which some batches get one.
        augmented: Share of the batches that do.
    """

    student: TaskStudent
    features: Sequence[Feature]
    teacher: Teacher | None
    objectives: Weighted
    arch: Arch
    metric: str
    dev_score: Callable[[Any], DevScore]
    untrained: int = 0
    batches: Callable[[Schedule], Any] | None = None
    augmentations: Sequence[Augmentation] = ()
    augmented: float = 0.0

    def tune(
        self, schedule: Schedule, work: Path, progress: Progress, entries: dict[str, Tensor] | None = None
    ) -> Curves:
        """Trains the student in place, and keeps its best dev score.

        Args:
            schedule: How long and how fast.
            work: Folder for checkpoints.
            progress: Where to report.
            entries: Parameter of the base -> flat indices that are trained, beside the head; everything without.
        """
        network, dense = self.student.model.network, self.student.head
        loss = DistilLoss(network, self.objectives, self.teacher, self.arch)
        batches: Any = self.batches(schedule) if self.batches else None
        collate = None
        if self.augmentations:
            plain = collator(self.student.model.tokenizer, about=True)
            collate = Augmenting(plain, self.augmentations, self.augmented, batches.epoch, schedule.seed)
        with training_only(
            network, entries, dense=dense, lr=schedule.lr, weight_decay=schedule.weight_decay
        ) as optimizer:
            curves = train(
                network,
                self.student.model.tokenizer,
                self.features,
                self.dev_score,
                schedule,
                work,
                progress,
                step_loss=loss,
                batches=batches,
                collate=collate,
                optimizer=optimizer,
            )
        loss.close()
        return curves


def task_job(
    inputs: TaskInputs,
    training: Sequence[LabelledSplit],
    dev: Sequence[LabelledSplit],
    objectives: Weighted,
    plain: Sequence[LabelledSplit] = (),
    share: float = 0.0,
) -> Job:
    """Phase 2 on labelled data of the source language, and on text without labels.

    Args:
        inputs: What it works with.
        training: Labelled splits.
        dev: Those that choose the checkpoint.
        objectives: What is asked.
        plain: Text of each language, from `plain_split`.
        share: Of the batches, those of text.

    Raises:
        PolydistillError: A teacher lacks its head, or its labels are not the task's.
    """
    task = inputs.task
    assert task is not None
    source = find_language(inputs.language, inputs.include)
    models = [
        open_model(
            t.folder, task.kind, task.labels, not_scored=task.not_scored, max_length=inputs.length, language=source
        )
        for t in inputs.teachers
    ]
    student = task_student(
        inputs.student,
        task,
        None if inputs.new_head else models[0],
        seed=inputs.seed,
        length=inputs.length,
        eager=needs_attention(objectives.needs.student),
        progress=inputs.progress,
    )
    read = Inputs.of(student.model, task, training, plain, share, inputs.progress)
    teacher = task_teacher(inputs, models, objectives.needs.teacher, student.model, read)
    metric, score = _choosing(task, student.model, models[0] if inputs.by_loyalty else None, dev)
    batches: Callable[[Schedule], Any] | None = None
    if plain or inputs.sampler is not None or inputs.augmentations:
        batches = partial(read.batches, chosen=_chosen(inputs, student, teacher, read))
    augmentations = [AUGMENTATIONS.make(s, {"tokenizer": student.model.tokenizer}) for s in inputs.augmentations]
    return Job(
        student,
        read.features,
        teacher,
        objectives,
        inputs.arch,
        metric,
        score,
        read.untrained,
        batches,
        augmentations,
        inputs.augmented,
    )


def _choosing(
    task: Task, student: TaskModel, teacher: TaskModel | None, dev: Sequence[LabelledSplit]
) -> tuple[str, Callable[[Any], DevScore]]:
    """(metric, network -> what chooses the checkpoint): loyalty to a teacher, or without one the task's own metric."""
    if teacher is None:
        return task.metric, lambda network: dev_score(task, student, dev)
    wanted = dev_predictions(task, teacher, dev)

    def score(network: Any) -> DevScore:
        found = dev_predictions(task, student, dev)
        return finest_loyalty(task, wanted, found, dev)[1], metric_of(task, found, dev)

    return finest_loyalty(task, wanted, wanted, dev)[0], score


def _chosen(inputs: TaskInputs, student: TaskStudent, teacher: Teacher | None, read: Inputs) -> ExampleSampler | None:
    """What says which of the labelled inputs an epoch uses, told what it asks for."""
    if inputs.sampler is None:
        return None
    labelled = read.features[: read.labelled_count]
    made: ExampleSampler = SAMPLERS.make(inputs.sampler, {"size": len(labelled), "seed": inputs.seed})
    if made.asks:
        collate = collator(student.model.tokenizer, about=True)
        made.told(told_of(student.model.network, teacher, labelled, collate, inputs.progress))
    return made


def vector_job(inputs: TaskInputs, lines: Mapping[str, Sequence[str]], objectives: Weighted) -> Job:
    """Phase 2 for vectors of sentences: lines of both languages, and the base model as the teacher.

    Args:
        inputs: What it works with.
        lines: Language -> its lines; a hundredth of them chooses the checkpoint.
        objectives: What is asked.
    """
    eager = needs_attention(objectives.needs.student)
    network, tokenizer = load_encoder(inputs.student, eager=eager), load_tokenizer(inputs.student)
    length = longest_input(tokenizer, network.config, inputs.length)
    student = TaskStudent(
        TaskModel(network, tokenizer, (), length), {name: name for name, _ in network.named_parameters()}
    )
    features: list[Feature] = []
    for code, texts in lines.items():
        encoded = tokenizer(list(texts), truncation=True, max_length=length, verbose=False)
        features += [
            {**{k: encoded[k][i] for k in encoded}, "example_id": len(features) + i, "example": i, "language": code}
            for i in range(len(texts))
        ]
    needs = objectives.needs.teacher
    teacher: Teacher = load_teacher(inputs.teachers[0].folder, needs, autocast=inputs.bf16, include=inputs.include)
    facts = {
        "teachers": [Checkpoint.open(inputs.teachers[0].folder).weights_hash],
        "bf16": inputs.bf16,
        "data": {code: text_hash(list(texts)) for code, texts in lines.items()},
    }
    teacher = kept_on_disk(
        teacher, facts, features, tokenizer, max_bytes=inputs.cache_bytes, note=inputs.note, progress=inputs.progress
    )
    held, collate = features[::HELD_OUT], collator(tokenizer, about=True)
    loss = DistilLoss(network, objectives, teacher, inputs.arch)

    def score(net: Any) -> float:
        return -loss.mean(net, (collate(held[i : i + HELD_BATCH]) for i in range(0, len(held), HELD_BATCH)))

    training = [f for i, f in enumerate(features) if i % HELD_OUT]
    return Job(student, training, teacher, objectives, inputs.arch, "loss", score)
