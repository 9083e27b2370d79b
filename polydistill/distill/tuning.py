"""Phase 2: a student learns a task from a tuned teacher, with sparse fine-tuning (Ansell et al. 2023, section 3.2).

Everything is trained for some epochs, theta0 -> theta1; the K entries that moved furthest are chosen; all is put back
to theta0, the head too, and trained again with those entries and the head alone (LT-SFT, Ansell et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polydistill.catalog import Arch, Task
from polydistill.catalog import language as find_language
from polydistill.catalog.task import TAGGING, WORD_TAGGING
from polydistill.distill.cached import CachedTeacher, cached
from polydistill.distill.listing import TEACHERS
from polydistill.distill.loss import DistilLoss
from polydistill.distill.objectives.base import Weighted
from polydistill.distill.signals import LOGITS, Signal, needs_attention
from polydistill.distill.teachers.aligned import ExampleAligned, WordAligned
from polydistill.distill.teachers.base import Teacher
from polydistill.distill.teachers.ensemble import Ensemble
from polydistill.distill.teachers.frozen import FrozenTeacher, load_teacher
from polydistill.distill.teachers.labels import check_labels, rows_of
from polydistill.errors import PolydistillError
from polydistill.evaluation.heads import ANSWER, TaskModel, new_head, open_model
from polydistill.evaluation.kinds import dev_predictions, dev_score, finest_loyalty, training_inputs
from polydistill.evaluation.reuse import output_parameters
from polydistill.labelled.examples import LabelledSplit
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.loading import load_encoder, load_tokenizer, longest_input
from polydistill.options.specs import Spec
from polydistill.processes import is_main, wait
from polydistill.progress import SILENT, Progress
from polydistill.records.record import text_hash
from polydistill.sparse.training import training_only
from polydistill.training.batching import Feature, by_length
from polydistill.training.deciding import ANEW, decided
from polydistill.training.loop import Curves, Schedule, collator, train

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
    teacher: TaskModel,
    *,
    seed: int,
    length: int,
    eager: bool = False,
    progress: Progress = SILENT,
) -> TaskStudent:
    """Puts the teacher's head on a student; where it does not fit, the student's own or one from the seed stays.

    Args:
        folder: The student that phase 1 made.
        task: What it is to learn.
        teacher: Whose head it gets.
        seed: Of a head that does not fit.
        length: Most tokens of an input.
        eager: Whether attention is computed without fused kernels (eager).
        progress: Where to report.

    Raises:
        PolydistillError: It cannot have such a head, or the teacher predicts other labels than the task scores.
    """
    labels = task.scored_labels
    check_labels(teacher.labels, labels)
    model = new_head(folder, task.kind, labels, seed=seed, max_length=length, eager=eager)
    stored = Checkpoint.open(folder).tensors
    prefix = f"{model.network.base_model_prefix}."
    inside = [name for name, _ in model.network.named_parameters() if name.startswith(prefix)]
    # A folder that phase 1 has not written may be one of a model with another head, whose names have the prefix.
    base = {own: name for own in inside for name in (own.removeprefix(prefix), own) if name in stored}
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
class TeacherFolder:
    """A tuned teacher.

    Args:
        folder: Where it is.
        weight: Of its logits among those of several teachers.
        aligned: Whether it has another vocabulary, so that its logits of words or of whole examples are compared.
    """

    folder: Path
    weight: float = 1.0
    aligned: bool = False


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
        dev_score: Network -> that, on source-language dev data.
        untrained: Examples that give no input.
    """

    student: TaskStudent
    features: Sequence[Feature]
    teacher: Teacher | None
    objectives: Weighted
    arch: Arch
    metric: str
    dev_score: Callable[[Any], float]
    untrained: int = 0

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
                optimizer=optimizer,
            )
        loss.close()
        return curves


def labelled_features(
    student: TaskModel, task: Task, splits: Sequence[LabelledSplit], language: str, progress: Progress
) -> list[Feature]:
    """The inputs of labelled splits, numbered by `example_id`; `example` counts on from split to split."""
    examples = 0
    found: list[Feature] = []
    for split in splits:
        for feature in training_inputs(task, student, split, progress)[0]:
            numbers = {"example_id": len(found), "example": examples + feature["example"], "language": language}
            found.append({**feature, **numbers})
        examples += len(split.examples)
    return found


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
        note: File that says whether they are there, once that was decided.
        progress: Where to report.
        include: Folders with the user's own architectures.
        own: Teachers that are the student's own past, whose logits count beside those of `teachers`.
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


def task_job(
    inputs: TaskInputs, training: Sequence[LabelledSplit], dev: Sequence[LabelledSplit], objectives: Weighted
) -> Job:
    """Phase 2 on labelled data of the source language.

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
    eager = needs_attention(objectives.needs.student)
    student = task_student(
        inputs.student, task, models[0], seed=inputs.seed, length=inputs.length, eager=eager, progress=inputs.progress
    )
    features = labelled_features(student.model, task, training, inputs.language, inputs.progress)
    teacher = _task_teacher(inputs, models, objectives.needs.teacher, student, training, features)
    wanted = dev_predictions(task, models[0], dev) if inputs.by_loyalty else None

    def score(network: Any) -> float:
        if wanted is None:
            return dev_score(task, student.model, dev)
        return finest_loyalty(task, wanted, dev_predictions(task, student.model, dev), dev)[1]

    metric = task.metric if wanted is None else finest_loyalty(task, wanted, wanted, dev)[0]
    untrained = sum(len(split.examples) for split in training) - len({f["example"] for f in features})
    return Job(student, features, teacher, objectives, inputs.arch, metric, score, untrained)


def _task_teacher(
    inputs: TaskInputs,
    models: Sequence[TaskModel],
    needs: frozenset[Signal],
    student: TaskStudent,
    training: Sequence[LabelledSplit],
    features: Sequence[Feature],
) -> Teacher | None:
    """The teachers as one; what they say of the labelled inputs is kept on disk where it fits."""
    if not needs:
        return None
    wanted, logits = student.model.labels, needs & {Signal(LOGITS)}
    found: list[tuple[Teacher, float]] = []
    whole = needs  # only one teacher gives hidden states and the like
    for place, model in zip(inputs.teachers, models, strict=True):
        if place.aligned:
            examples = [e for split in training for e in split.examples]
            kind: Any = WordAligned if inputs.task and inputs.task.kind in (TAGGING, WORD_TAGGING) else ExampleAligned
            found.append((kind(model, examples, wanted, autocast=inputs.bf16), place.weight))
        elif whole:
            if needs_attention(whole):
                model.network.set_attn_implementation("eager")
            one = FrozenTeacher(
                model.network, whole, inputs.arch, autocast=inputs.bf16, labels=model.labels, wanted=wanted
            )
            found.append((one, place.weight))
            whole = logits
    teacher = found[0][0] if len(found) == 1 else Ensemble(found)
    weight = sum(weight for _, weight in found)
    facts = {
        "teachers": [[Checkpoint.open(t.folder).weights_hash, t.weight, t.aligned] for t in inputs.teachers],
        "data": [split.sha256 for split in training],
        "bf16": inputs.bf16,
        "labels": [wanted, *(model.labels for model in models)],
    }
    kept = kept_on_disk(
        teacher,
        facts,
        features,
        student.model.tokenizer,
        max_bytes=inputs.cache_bytes,
        note=inputs.note,
        progress=inputs.progress,
    )
    past = own_past(inputs.own, student.model.network, logits, inputs.arch, autocast=inputs.bf16)
    return Ensemble([(kept, weight), *past]) if past else kept


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
    known = {"student": network, "needs": needs, "arch": arch, "autocast": autocast}
    return [(TEACHERS.make(spec, known), spec.weight) for spec in specs if spec.weight]


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


def kept_on_disk(
    teacher: Teacher,
    facts: Mapping[str, Any],
    features: Sequence[Feature],
    tokenizer: Any,
    *,
    max_bytes: int,
    note: Path,
    progress: Progress,
) -> Teacher:
    """A teacher with its signals on disk, all of them written now, or the teacher itself where they take too much.

    What a batch says of an example depends on the others in it, in the last bit: written in batches that are always
    the same, a run that goes on after a kill reads what an unbroken one does. So it is decided once a run.

    Args:
        teacher: The teacher.
        facts: What its signals depend on; see `cached`.
        features: All inputs, numbered by `example_id`.
        tokenizer: What pads them.
        max_bytes: More is not kept, by a run that has not decided yet.
        note: File of the decision.
        progress: Where to report.

    Raises:
        PolydistillError: They were on disk before this run was stopped, and cannot be any more.
    """
    lengths = [len(f["input_ids"]) for f in features]

    def fill(most: int | None) -> bool:
        kept = cached(teacher, facts, lengths, max_bytes=most, progress=progress)
        return isinstance(kept, CachedTeacher) and _filled(kept, features, tokenizer, progress)

    begun = note.is_file()
    if not decided(note, lambda: fill(max_bytes)):
        return teacher
    if begun and is_main() and not fill(None):
        raise PolydistillError(
            "The run began with its teacher's signals on disk, and there is no room for them any more.",
            f"Make room in POLYDISTILL_CACHE. {ANEW}",
        )
    wait()
    return cached(teacher, facts, lengths, max_bytes=None, writes=False, progress=progress)


def _filled(kept: CachedTeacher, features: Sequence[Feature], tokenizer: Any, progress: Progress) -> bool:
    """Writes what is not there yet; whether all of it is there then."""
    collate = collator(tokenizer, about=True)
    with progress.bar("teacher", len(features), "input") as done:
        for places in by_length(features, FILL_BATCH):
            kept.signals(collate([features[i] for i in places]))
            done(len(places))
    kept.close()
    return kept.is_full
