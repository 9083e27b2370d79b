"""What a bilingual distillation is to do, with everything that can be checked before it begins."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from polydistill.catalog import Language, Task, language, task
from polydistill.catalog.task import CLASSIFICATION, RETRIEVAL, SPAN_EXTRACTION, TAGGING, WORD_TAGGING
from polydistill.distill.listing import (
    AUGMENTATIONS,
    BISTIL,
    IMITATE,
    SAMPLERS,
    TASK,
    TEXT,
    objectives,
    sampler,
    teachers,
)
from polydistill.distill.objectives.build import build
from polydistill.distill.scales import TEACHER
from polydistill.distill.student import check_masked, chosen_layers, hidden_layers, layer_count, layer_pairs
from polydistill.errors import PolydistillError, UsageError
from polydistill.labelled.plain import check_plain
from polydistill.methods.bistil.data import labelled_data, per_language, texts_of
from polydistill.methods.bistil.job import GivenTeacher, Job, is_student, own_teacher
from polydistill.methods.bistil.options import LOYALTY, BistilOptions
from polydistill.methods.bistil.presets import PRESETS, General, Preset, Tuning
from polydistill.methods.bistil.report import inputs, report, scoring, settings, texts_read
from polydistill.methods.bistil.stages import stages_of
from polydistill.methods.bistil.teachers import given_teachers
from polydistill.methods.bistil.unused import idle_options
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.options.specs import Spec
from polydistill.processes import several
from polydistill.progress import Progress
from polydistill.records.record import RunRecord
from polydistill.runs.plan import OUTPUTS, Origin, Plan
from polydistill.training.batching import check_parts

WITH_HEAD = (CLASSIFICATION, TAGGING, WORD_TAGGING, SPAN_EXTRACTION)
EMBEDDING, BITEXT = "embedding", "bitext"
LINES = 20_000
HEAD_OBJECTIVES = {
    "logits",
    "taid",
    "answers",
    "labels",
    "ps-kd",
}  # a teacher with another vocabulary can be asked, or none is


def prepare(options: BistilOptions, progress: Progress) -> Plan:
    """Looks at every option, file and folder that a run will need, and says which stages it has.

    Raises:
        PolydistillError: Something is missing or does not fit.
    """
    job = job_of(options, progress)
    output = (options.place.output or _default_output(options, job.source, job.languages)).expanduser()
    idle, warnings = idle_options(options, job)
    return Plan(
        output=output,
        origin=Origin(job.source.resolved, job.source.checkpoint),
        stages=stages_of(job),
        report=partial(report, job),
        languages=job.codes,
        task=options.task if job.tuning else None,
        settings=settings(job),
        inputs=inputs(job),
        texts=partial(texts_read, job),
        others=tuple(Origin(t.source.resolved, t.source.checkpoint, "teacher") for t in job.teachers),
        idle=idle,
        warnings=warnings,
        scoring=scoring(job, output),
    )


def job_of(options: BistilOptions, progress: Progress) -> Job:
    """Looks at every option, file and folder that a run will need.

    Raises:
        PolydistillError: Something is missing or does not fit.
    """
    languages = both_languages(options.source, options.target, options.include_path)
    defaults = PRESETS[options.preset]
    wanted, scale = _task(options), options.scale or defaults.scale
    source = Source.open(resolve(ModelRef.parse(options.model), progress=progress.note), options.include_path)
    check_masked(source, "A student of `polydistill bistil`")
    given = is_student(source)
    general, tuning = _phases(options, defaults, wanted)
    _check_request(options, given, tuning, wanted, languages)
    dev_limit = options.labelled.dev_limit or options.labelled.limit or defaults.dev_examples
    labelled = None
    if tuning and wanted:
        wanted, labelled = labelled_data(
            options, wanted, languages, examples=defaults.examples, dev_limit=dev_limit, progress=progress
        )
    if given and not _again(options):
        general = None
    folders, past = teachers(options.teacher, TASK)
    found = given_teachers(options, folders, source, given, wanted, languages, progress)
    _check_aligned(tuning, found)
    layers = _layers(options, source, given)
    alike = [teacher.source for teacher in found if not teacher.aligned]
    depth = _depth(source, given, layers, alike, options.include_path)
    pairs = layer_pairs(layers, depth)
    _check_objectives(general, tuning, past, pairs=pairs, depths=(len(layers), depth))
    if general:
        _check_length(source, general.max_length)
    return Job(
        languages=languages,
        source=source,
        student_given=given,
        layers=layers,
        pairs=pairs,
        depth=depth,
        general=general,
        tuning=tuning,
        density=options.density if options.density is not None else defaults.density,
        scale=scale,
        sampler=_sampler(options, general, scale),
        task_sampler=sampler(options.tuning.sampler, TASK) if options.tuning.sampler else None,
        augmentations=_augmentations(options, tuning, wanted, found),
        by_loyalty=_by_loyalty(options, wanted, tuning),
        task=wanted if tuning else None,
        teachers=found,
        past=tuple(past),
        texts=texts_of(options, languages, general, tuning, wanted, given, progress),
        labelled=labelled,
        limit=options.labelled.limit or defaults.examples,
        dev_limit=dev_limit,
        lines=options.labelled.limit or defaults.examples or LINES,
        language_sft=per_language(options.student.language_sft, languages, "language_sft", options),
        options=options,
    )


def both_languages(source: str, target: str, include: Sequence[Path]) -> tuple[Language, Language]:
    """Source and target.

    Raises:
        UsageError: One is unknown, or they are the same.
    """
    found = language(source, include), language(target, include)
    if found[0].code == found[1].code:
        raise UsageError(
            f"Source and target are the same language, {found[0].name}.",
            f"Name two languages, or trim the model to one: `polydistill trim languages={found[0].code}`.",
        )
    return found


def _task(options: BistilOptions) -> Task | None:
    if options.task:
        return task_of(options.task, options.include_path)
    if options.phase == "2" or (options.teacher and options.phase != "1"):
        raise UsageError("Phase 2 needs a task.", "Add `task`, for instance `task=ner`.")
    return None


def task_of(name: str, include: Sequence[Path]) -> Task:
    """What `task` asks for; for vectors of sentences, the retrieval that scores them.

    Raises:
        UsageError: It is unknown, or has no labels to distil.
    """
    wanted = task(BITEXT if name == EMBEDDING else name, include)
    if wanted.kind not in WITH_HEAD and name != EMBEDDING:
        raise UsageError(
            f"Tasks of the kind {wanted.kind}, such as {wanted.name}, have no labels to distil.",
            "Choose ner, nli, qa, or `task=embedding` for vectors of sentences.",
        )
    return wanted


def _check_request(
    options: BistilOptions, given: bool, tuning: Tuning | None, wanted: Task | None, languages: Sequence[Language]
) -> None:
    """Refuses a student that nothing is left to do for, and text that a task cannot read.

    Raises:
        UsageError: It is one of these.
    """
    if given and tuning is None and not _again(options):
        raise UsageError(
            f"{options.model} is a student that phase 1 has made already.",
            "Add `task` for phase 2, or `phase=1` and `teacher` for another phase 1, or give the model it was made of.",
        )
    if tuning and tuning.text and wanted and wanted.kind != RETRIEVAL:
        check_plain(wanted, languages)


def _again(options: BistilOptions) -> bool:
    """Whether a student that was given is to learn from another teacher on text (ERNIE-Tiny's second stage)."""
    return options.phase == "1" and len(options.teacher) == 1


def _depth(
    source: Source, given: bool, layers: Sequence[int], teachers: Sequence[Source], include: Sequence[Path]
) -> int:
    """The layers of the teachers whose hidden states are compared with the student's.

    Raises:
        PolydistillError: They have different numbers of them, or fewer than the student was made of.
    """
    if given:
        own = own_teacher(source)
        whole = [Source.open(resolve(ModelRef.parse(str(own))), include)] if own.is_dir() else []
        depth = hidden_layers([*whole, *teachers][0]) if whole or teachers else max(layers) + 1
    else:
        depth = layer_count(source)
    for teacher in teachers:
        if hidden_layers(teacher) != depth or depth <= max(layers):
            raise PolydistillError(
                f"The teacher {teacher.resolved.ref} has {hidden_layers(teacher)} layers, and the model that the "
                f"student was made of has {max(depth, max(layers) + 1)}.",
                "Give a teacher that was tuned from that model.",
            )
    return depth


def _check_length(source: Source, length: int) -> None:
    """Refuses blocks that are longer than the model's inputs.

    Raises:
        UsageError: They are.
    """
    from polydistill.models.loading import load_config, positions_of

    longest = positions_of(load_config(source.model))
    if length > longest:
        raise UsageError(f"The model takes {longest} tokens at most.", f"Give `max_length={longest}` or less.")


def _phases(options: BistilOptions, defaults: Preset, wanted: Task | None) -> tuple[General | None, Tuning | None]:
    """Both phases with what the command line says of them."""
    general = tuning = None
    if options.phase != "2":
        general = _given(
            defaults.general,
            objectives(options.objective, TEXT, BISTIL),
            {
                "steps": options.general.steps,
                "batch_size": options.general.batch_size,
                "max_length": options.general.max_length,
                "lr": options.general.lr,
                "warmup": options.general.warmup,
                "weight_decay": options.general.weight_decay,
            },
        )
    if wanted and options.phase != "1":
        chosen = defaults.tuning[wanted.kind]
        tuning = _given(
            chosen,
            objectives(options.objective, TASK, BISTIL),
            {
                "epochs": options.tuning.epochs,
                "sparse_epochs": options.tuning.sparse_epochs,
                "max_length": options.tuning.max_length,
                "batch_size": options.tuning.batch_size,
                "lr": options.tuning.lr,
                "warmup": options.tuning.warmup,
                "weight_decay": options.tuning.weight_decay,
                "head": options.tuning.head,
                "teacher_epochs": options.made_teacher.epochs,
                "teacher_lr": options.made_teacher.lr,
                "text": options.tuning.text,
            },
        )
        headless = sorted(HEAD_OBJECTIVES & set(tuning.asked))
        if wanted.kind == RETRIEVAL and headless:
            raise UsageError(
                f"The objective {headless[0]} needs a head, and vectors of sentences have none.",
                "Choose others, such as `objective=2:pooled=1`.",
            )
    for phase in (general, tuning):
        if phase:
            check_parts(phase.batch_size, options.computing.accumulate * int(os.environ.get("WORLD_SIZE", "1")))
    return general, tuning


def _by_loyalty(options: BistilOptions, wanted: Task | None, tuning: Tuning | None) -> bool:
    if tuning and wanted and wanted.kind != RETRIEVAL:
        return options.labelled.select == LOYALTY if options.labelled.select else bool(IMITATE & set(tuning.asked))
    if options.labelled.select:
        raise UsageError("`select` is about the dev data of phase 2, and there is none here.", "Leave it out.")
    return False


def _given(phase: Any, asked: Mapping[str, Spec], values: Mapping[str, float | str | None]) -> Any:
    """A preset's phase with the values that were given."""
    specs = tuple(map(str, asked.values())) or phase.objectives
    return replace(phase, objectives=specs, **{k: v for k, v in values.items() if v is not None})


def _check_objectives(general: General | None, tuning: Tuning | None, past: Sequence[Spec], **known: Any) -> None:
    """Builds all objectives once, before anything is trained.

    Raises:
        UsageError: One has options that make no sense for these models, or nothing is asked for.
    """
    for phase in (general, tuning):
        if phase:
            build(phase.asked, outputs=1, widths=(1, 1), **known)
    if past and not (tuning and IMITATE & set(tuning.asked)):
        raise UsageError(
            f"The teacher `{past[0].name}` gives logits, and no objective looks at them.",
            "Add one, such as `objective=2:logits=1`.",
        )


def _check_aligned(tuning: Tuning | None, found: Sequence[GivenTeacher]) -> None:
    """Refuses objectives that look inside of teachers with another vocabulary.

    Raises:
        PolydistillError: There is one, and no teacher has the student's.
    """
    if tuning and found and all(teacher.aligned for teacher in found) and set(tuning.asked) - HEAD_OBJECTIVES:
        raise PolydistillError(
            "No teacher has the student's vocabulary, so that only logits of words or examples can be compared.",
            "Ask for these alone: `objective=2:logits=1`.",
        )


def _augmentations(
    options: BistilOptions, tuning: Tuning | None, wanted: Task | None, teachers: Sequence[GivenTeacher]
) -> tuple[Spec, ...]:
    """What changes inputs of phase 2.

    Raises:
        UsageError: One is unknown, does not fit the task, or the teacher cannot be asked about what comes out.
    """
    found = tuple(AUGMENTATIONS.parse(given) for given in options.tuning.augment)
    if not found or tuning is None or wanted is None:
        return found
    if several():
        raise UsageError("Batches are changed in one process alone.", "Start one, or leave `task_augment` out.")
    if wanted.kind in (RETRIEVAL, SPAN_EXTRACTION):
        raise UsageError(f"Inputs of {wanted.name} are not changed.", "Leave `task_augment` out.")
    for spec in found:
        if wanted.kind != CLASSIFICATION and not AUGMENTATIONS.find(spec.name).load().for_words:
            raise UsageError(
                f"The augmentation `{spec.name}` keeps track of no words, so their tags cannot be learnt.",
                "Choose `words`.",
            )
        if spec.name == "hard" and options.computing.accumulate > 1:
            raise UsageError("`hard` looks at whole batches.", "Leave `accumulate` out.")
    if any(teacher.aligned for teacher in teachers) or not IMITATE & set(tuning.asked):
        raise UsageError(
            "What is changed has no gold labels, and no teacher with the student's vocabulary is asked for its logits.",
            "Add an objective such as `objective=2:logits=1`, or leave `task_augment` out.",
        )
    return found


def _sampler(options: BistilOptions, general: General | None, scale: str) -> Spec:
    """What says how often phase 1 sees each language.

    Raises:
        UsageError: There is no such sampler, or what it follows cannot be compared.
    """
    spec = sampler(options.sampler, TEXT)
    if general and SAMPLERS.find(spec.name).load().follows and scale != TEACHER:
        raise UsageError(
            f"The sampler `{spec.name}` compares the errors of languages, which have to be relative for that.",
            f"Add `scale={TEACHER}`.",
        )
    return spec


def _layers(options: BistilOptions, source: Source, given: bool) -> tuple[int, ...]:
    total = layer_count(source)
    if not given:
        return chosen_layers(
            total, layers=options.student.layers, reduction=options.student.reduction, init=options.student.init
        )
    if options.student.layers not in (None, total) or options.student.reduction is not None:
        raise UsageError(
            f"{options.model} is a student with {total} layers already.", "Leave `layers` and `reduction` out."
        )
    record = RunRecord.load(source.folder)
    assert record is not None
    return tuple(record.result["layers"])


def _default_output(options: BistilOptions, source: Source, languages: Sequence[Language]) -> Path:
    codes = [] if is_student(source) else [lang.code for lang in languages]  # its name has them
    parts = [Path(options.model.partition("@")[0]).name, *codes, *filter(None, [options.task])]
    return OUTPUTS / "-".join(parts)
