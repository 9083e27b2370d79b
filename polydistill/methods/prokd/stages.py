"""The stages of a distillation without target labels: what each of them trains or measures, and what it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.distill.combining import PARTITION
from polydistill.distill.objectives.pseudo_labels import TEACHER
from polydistill.methods.prokd.job import Job
from polydistill.methods.prokd.tagging import PICTURE, PROTOTYPES, Tagging
from polydistill.models.checkpoint import Checkpoint
from polydistill.runs.made import Made, chosen_facts, cut_models, save_network
from polydistill.runs.stages import Stage, Work, in_order
from polydistill.training.deciding import SIGNALS

if TYPE_CHECKING:
    from polydistill.distill.signals import Signal
    from polydistill.distill.teachers.base import Teacher
    from polydistill.distill.unlabelled import Observed, Prototypes
    from polydistill.evaluation.heads import TaskModel
    from polydistill.training.batching import Feature

SHOWN = 40  # tokens of a class and language in the picture


def stages_of(job: Job) -> tuple[Stage, ...]:
    """The stages of a run; its trainings share the minutes by their epochs."""
    made: list[tuple[str, Callable[[Job, Work], Made], float]] = []
    if any(given.cut for given in job.teachers):
        made.append(("vocabulary", vocabulary, 0))
    if job.teacher_epochs:
        made += [(name, partial(_teacher, i), job.teacher_epochs) for i, name in enumerate(teacher_names(job))]
    for turn in () if job.transfers else range(job.options.training.rounds):
        made.append((numbered("prototypes", turn), partial(_prototypes, turn), 0))
        made.append((numbered("student", turn), partial(_student, turn), job.preset.epochs))
    return in_order(job, made)


def numbered(stage: str, turn: int) -> str:
    """The name of a stage of a round, or of a teacher among several; both are counted from 0."""
    return f"{stage}-{turn + 1}" if turn else stage


def teacher_names(job: Job) -> list[str]:
    """The stages that train the teachers, in the order of the sources."""
    if len(job.sources) == 1:
        return [numbered("teacher", i) for i in range(max(1, len(job.teachers)))]
    return ["teacher", *(f"teacher-{language.code}" for language in job.sources[1:])]


def begins_of(job: Job, work: Work) -> list[Path]:
    """What the teacher of each source is tuned from, or that teacher as it was given."""
    if not job.teachers:
        return [job.begins.folder] * len(job.sources)
    return [
        work.folder("vocabulary") / f"teacher-{i}" if given.cut else given.source.folder
        for i, given in enumerate(job.teachers)
    ]


def teachers_of(job: Job, work: Work, turn: int) -> list[Path]:
    """The teachers of a round: those of the sources, or the student of the round before."""
    if turn:
        return [work.folder(numbered("student", turn - 1))]
    if not job.teacher_epochs:
        return begins_of(job, work)
    return [work.folder(name) for name in teacher_names(job)]


def _teacher(index: int, job: Job, work: Work) -> Made:
    return teacher(job, index, work)


def _prototypes(turn: int, job: Job, work: Work) -> Made:
    return prototypes(job, turn, work)


def _student(turn: int, job: Job, work: Work) -> Made:
    return student(job, turn, work)


def vocabulary(job: Job, work: Work) -> Made:
    """Teachers with the vocabulary of a student that was given."""
    cuts = {f"teacher-{i}": teacher.cut for i, teacher in enumerate(job.teachers) if teacher.cut}
    return cut_models(cuts, work.progress)


def teacher(job: Job, index: int, work: Work) -> Made:
    """The teacher of a source language."""
    from polydistill.distill.freezing import freeze
    from polydistill.distill.unlabelled import source_features, target_features, tune_teacher

    here, begins = Tagging(job, work), begins_of(job, work)[index]
    model = here.tagger(begins)
    of_source = job.source_of(index)
    code = job.sources[of_source].code
    source = source_features(model, job.training[code], here.labels, here.kind.whole_words)
    target = []
    if job.aligning is not None:
        target = target_features(model, here.text, here.kind.whole_words, offset=len(source))
    freeze(model.network, job.begins.arch, **here.frozen)
    curves = tune_teacher(
        model,
        source,
        target,
        here.dev_score(model, of_source),
        here.schedule(job.teacher_epochs, True),
        here.aligning(model),
        job.begins.arch,
        work.checkpoints,
        work.progress,
    )

    def write(out: Path) -> dict[str, Any]:
        save_network(model.network, begins, out, job.options.include_path, work.progress)
        return {
            "language": code,
            **chosen_facts(curves),
            "aligned": job.aligning is not None,
            "head": head_facts(model),
        }

    return Made(write, curves.steps, curves.terms)


def prototypes(job: Job, turn: int, work: Work) -> Made:
    """Prototypes of both languages for each teacher of a round, what they make of its labels, and a picture."""
    import torch
    from safetensors.torch import save_file

    from polydistill.distill.projection import picture
    from polydistill.distill.unlabelled import Prototypes, pseudo_label_facts, together

    here, teachers = Tagging(job, work), teachers_of(job, work, turn)
    before = begins_of(job, work)[0] if job.teacher_epochs and not turn else None
    labels = here.labels
    similarities: list[float] = []
    targets: list[Observed] = []
    facts: list[dict[str, Any]] = []
    tensors: dict[str, torch.Tensor] = {}
    seen: tuple[Observed, Observed] | None = None
    first_found: Prototypes | None = None
    for i, folder in enumerate(teachers):
        source, target = here.observed(folder, job.source_of(i))
        found = Prototypes.of(source, target, labels, here.kind.by)
        here.warn_of(found, target, job.sources[job.source_of(i)].name)
        tensors |= {f"source_{i}": found.source, f"target_{i}": found.target}
        similarities.append(found.similarity)
        facts.append({"classes": found.names, "counts": found.counts, "similarity": found.similarity})
        targets.append(target)
        seen, first_found = seen or (source, target), first_found or found
    assert seen is not None and first_found is not None
    weights = here.weights(similarities)
    by_teacher = (
        here.rectifying is not None and here.rectifying.features == TEACHER
    )  # the student's change as it learns
    told = pseudo_label_facts(together(targets, weights), first_found, labels, here.rectifying if by_teacher else None)
    if not by_teacher:
        told["changed"] = None
    pictures = {"after": picture(*seen, labels, here.kind.by, SHOWN)}
    if before is not None:
        # The same tokens in the classes that the teacher finds, as the model that it began with sees them.
        first = here.observed(before, 0)
        there = (replace(first[0], logits=seen[0].logits), replace(first[1], logits=seen[1].logits))
        pictures["before"] = picture(*there, labels, here.kind.by, SHOWN)

    def write(out: Path) -> dict[str, Any]:
        import orjson

        save_file({name: torch.clone(tensor).contiguous() for name, tensor in tensors.items()}, out / PROTOTYPES)
        (out / PICTURE).write_bytes(orjson.dumps(pictures))
        return {"teachers": facts, "weights": weights, "pseudo_labels": told}

    return Made(write)


def student(job: Job, turn: int, work: Work) -> Made:
    """The student of a round, on the target's sentences alone."""
    from polydistill.distill.freezing import freeze
    from polydistill.distill.unlabelled import student_objectives, target_features, tune_student

    here, teachers = Tagging(job, work), teachers_of(job, work, turn)
    found = work.done[numbered("prototypes", turn)]
    begins = teachers[0] if job.from_teacher or job.model is None else job.model.folder
    weights = found.facts["weights"]
    model = here.tagger(begins)
    source = here.open(begins)
    features = target_features(model, here.text, False)
    schedule = here.schedule(job.preset.epochs, False)
    objectives = student_objectives(
        job.student_objectives,
        model.labels,
        here.first_prototypes(found.folder, model) if here.rectifying else None,
        here.feature_layer(source),
    )
    teacher = _read(here, teachers, weights, model, features, objectives.needs.teacher, schedule.bf16)
    freeze(model.network, source.arch, **here.frozen)
    curves = tune_student(
        model,
        features,
        teacher,
        objectives,
        here.dev_score(model),
        schedule,
        source.arch,
        work.checkpoints,
        work.progress,
    )

    def write(out: Path) -> dict[str, Any]:
        save_network(model.network, begins, out, job.options.include_path, work.progress)
        return {**chosen_facts(curves), "head": head_facts(model)}

    return Made(write, curves.steps, curves.terms)


def _read(
    here: Tagging,
    teachers: Sequence[Path],
    weights: Sequence[float],
    model: TaskModel,
    features: Sequence[Feature],
    needs: frozenset[Signal],
    bf16: bool,
) -> Teacher:
    """The teachers as one, with what each says of the target's sentences on disk; features are the first one's."""
    from copy import deepcopy

    from polydistill.distill.cached import CachedTeacher
    from polydistill.distill.kept import kept_on_disk
    from polydistill.distill.signals import LOGITS, Signal
    from polydistill.distill.teachers.frozen import FrozenTeacher
    from polydistill.distill.teachers.several import as_one

    arch, logits, combine = here.job.begins.arch, frozenset({Signal(LOGITS)}), here.job.options.several.combine
    room, note, found = int(here.job.options.cache_gb * 1e9), here.work.note(SIGNALS), []
    for i, (folder, weight) in enumerate(zip(teachers, weights, strict=True)):
        one, asked = here.reader(folder), needs & logits if i else needs
        teacher = FrozenTeacher(one.network, asked, arch, autocast=bf16, labels=one.labels, wanted=model.labels)
        kept = kept_on_disk(
            teacher,
            {
                "teacher": Checkpoint.open(folder).weights_hash,
                "data": here.text.sha256,
                "bf16": bf16,
                "labels": [model.labels, one.labels],
            },
            features,
            model.tokenizer,
            max_bytes=room,
            note=note.with_name(f"{note.stem}-{i}{note.suffix}"),
            progress=here.work.progress,
        )
        room -= kept.nbytes if isinstance(kept, CachedTeacher) else 0
        found.append((kept, weight))
    start = FrozenTeacher(deepcopy(model.network), logits, arch, autocast=bf16) if combine == PARTITION else None
    return as_one(found, combine, start)


def head_facts(model: TaskModel) -> dict[str, Any] | None:
    """Where the outputs of a model that was trained come from."""
    return model.reused.to_json() if model.reused else None
