"""What a bilingual distillation is to do, with everything that can be checked before it begins."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from polydistill.catalog import Language, Task, language, task
from polydistill.catalog.task import CLASSIFICATION, RETRIEVAL, SPAN_EXTRACTION, TAGGING, WORD_TAGGING
from polydistill.distill.listing import parse_weights
from polydistill.distill.matched import plan_like, same_vocabulary
from polydistill.distill.student import check_masked, chosen_layers, hidden_layers, layer_count, layer_pairs
from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation.heads import AUTO_CLASSES, output_labels
from polydistill.methods.bistil.data import labelled_data, per_language
from polydistill.methods.bistil.job import GivenTeacher, Job, is_student, own_teacher
from polydistill.methods.bistil.options import LOYALTY, BistilOptions
from polydistill.methods.bistil.presets import PRESETS, General, Preset, Tuning
from polydistill.methods.bistil.report import inputs, report, scoring, settings, texts_read
from polydistill.methods.bistil.stages import stages_of
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.folder import is_stack
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.options.settings import MOST
from polydistill.processes import several
from polydistill.progress import Progress
from polydistill.records.record import RunRecord
from polydistill.runs.plan import OUTPUTS, Origin, Plan
from polydistill.texts.sources import TextSource, assign_corpora, text_sources
from polydistill.training.batching import check_parts

WITH_HEAD = (CLASSIFICATION, TAGGING, WORD_TAGGING, SPAN_EXTRACTION)
EMBEDDING, BITEXT = "embedding", "bitext"
LINES = 20_000
HEAD_OBJECTIVES = {"logits", "labels"}  # what a teacher with another vocabulary can be asked for, or none


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
    wanted = _task(options)
    source = Source.open(resolve(ModelRef.parse(options.model), progress=progress.note), options.include_path)
    check_masked(source, "A student of `polydistill bistil`")
    given = is_student(source)
    general, tuning = _phases(options, defaults, wanted)
    dev_limit = options.labelled.dev_limit or options.labelled.limit or defaults.dev_examples
    labelled = None
    if tuning and wanted:
        wanted, labelled = labelled_data(
            options, wanted, languages, examples=defaults.examples, dev_limit=dev_limit, progress=progress
        )
    if given and tuning is None:
        raise UsageError(
            f"{options.model} is a student that phase 1 has made already.",
            "Add `task` for phase 2, or give the model that it was made of.",
        )
    general = None if given else general
    teachers = _teachers(options, source, given, wanted, languages, progress)
    if tuning and teachers and all(t.aligned for t in teachers) and set(tuning.objectives) - HEAD_OBJECTIVES:
        raise PolydistillError(
            "No teacher has the student's vocabulary, so that only logits of words or examples can be compared.",
            "Ask for these alone: `objective=2:logits=1`.",
        )
    layers = _layers(options, source, given)
    alike = [teacher.source for teacher in teachers if not teacher.aligned]
    depth = _depth(source, given, layers, alike, options.include_path)
    if general:
        _check_length(source, general.max_length)
    return Job(
        languages=languages,
        source=source,
        student_given=given,
        layers=layers,
        pairs=layer_pairs(layers, depth),
        general=general,
        tuning=tuning,
        density=options.density if options.density is not None else defaults.density,
        scale=options.scale or defaults.scale,
        relation_layers=_relation_layers(options, len(layers), depth),
        by_loyalty=_by_loyalty(options, wanted, tuning),
        task=wanted if tuning else None,
        teachers=teachers,
        texts=_texts(options, languages, general, tuning, wanted, given, progress),
        labelled=labelled,
        limit=options.labelled.limit or defaults.examples,
        dev_limit=dev_limit,
        lines=options.labelled.limit or defaults.examples or LINES,
        language_sft=per_language(options.student.language_sft, languages, "language_sft", options),
        options=options,
    )


def idle_options(options: BistilOptions, todo: Job) -> tuple[dict[str, str], tuple[str, ...]]:
    """(option -> why it changes nothing in this run, what else does)."""
    tuning, labels = todo.tuning, todo.tuning is not None and not todo.vectors
    asked = {*(todo.general.objectives if todo.general else ()), *(tuning.objectives if tuning else ())}
    groups = {
        "the model is a student already": (
            "init vocab_size min_share allow_unknown" + ("" if todo.texts else " text") if todo.student_given else ""
        ),
        "there is no phase 1 here": ("" if todo.general else "steps batch_size max_length lr warmup language_sft"),
        "there is no phase 2 here": (
            ""
            if tuning
            else "task_epochs task_sparse_epochs task_batch_size task_max_length task_lr task_warmup density "
            "teacher_epochs teacher_lr train_split dev_split test_split dev_limit limit data_dir cache_gb "
            "data dev_data test_data"
        ),
        "vectors of sentences are learnt from text alone": ("train_split dev_split dev_limit" if todo.vectors else ""),
        "the teacher is not made here": ("" if labels and not todo.teachers else "teacher_epochs teacher_lr"),
        "there is no sparse stage here": ("density" if tuning and not tuning.sparse_epochs else ""),
        "logits are not an objective here": ("" if "logits" in asked else "temperature squared_temperature logit_form"),
        "relations are not an objective here": ("" if "relations" in asked else "relation_heads relation_layers"),
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
    if options.phase == "2" or options.teacher:
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
        weights = parse_weights(options.objective, 1) or dict(defaults.general.objectives)
        general = _given(
            defaults.general,
            weights,
            {
                "steps": options.general.steps,
                "batch_size": options.general.batch_size,
                "max_length": options.general.max_length,
                "lr": options.general.lr,
                "warmup": options.general.warmup,
            },
        )
    if wanted and options.phase != "1":
        chosen = defaults.tuning[wanted.kind]
        weights = parse_weights(options.objective, 2) or dict(chosen.objectives)
        tuning = _given(
            chosen,
            weights,
            {
                "epochs": options.tuning.epochs,
                "sparse_epochs": options.tuning.sparse_epochs,
                "max_length": options.tuning.max_length,
                "batch_size": options.tuning.batch_size,
                "lr": options.tuning.lr,
                "warmup": options.tuning.warmup,
                "teacher_epochs": options.made_teacher.epochs,
                "teacher_lr": options.made_teacher.lr,
            },
        )
        headless = sorted(HEAD_OBJECTIVES & set(weights))
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
        return options.labelled.select == LOYALTY if options.labelled.select else "logits" in tuning.objectives
    if options.labelled.select:
        raise UsageError("`select` is about the dev data of phase 2, and there is none here.", "Leave it out.")
    return False


def _given(phase: Any, weights: Mapping[str, float], values: Mapping[str, float | None]) -> Any:
    """A preset's phase with the values that were given."""
    return replace(phase, objectives=weights, **{k: v for k, v in values.items() if v is not None})


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


def _relation_layers(options: BistilOptions, student: int, teacher: int) -> tuple[int, int] | None:
    if options.measuring.relation_layers is None:
        return None
    found = re.fullmatch(r"(\d{1,9}),(\d{1,9})", options.measuring.relation_layers.replace(" ", ""))
    if not found or int(found[1]) >= student or int(found[2]) >= teacher:
        raise UsageError(
            f"`relation_layers={options.measuring.relation_layers}` does not name two layers.",
            f"Write the student's (0 to {student - 1}) and the teacher's (0 to {teacher - 1}), such as "
            f"{student - 1},{teacher - 1}.",
        )
    return int(found[1]), int(found[2])


def _teachers(
    options: BistilOptions,
    source: Source,
    student_given: bool,
    wanted: Task | None,
    languages: Sequence[Language],
    progress: Progress,
) -> tuple[GivenTeacher, ...]:
    vectors = wanted is not None and wanted.kind == RETRIEVAL
    if student_given and wanted and not options.teacher and not own_teacher(source).is_dir():
        raise UsageError(
            f"{options.model} is a student already, and what it was made of does not lie in its stages.",
            "Give a teacher that was tuned from the same model with `teacher`.",
        )
    if vectors and len(options.teacher) > 1:
        raise UsageError("Vectors of sentences have one teacher.", "Give `teacher` once.")
    if several() and wanted and not vectors and options.phase != "1" and not options.teacher:
        raise UsageError(
            "With several processes the task's teacher has to be there already.",
            "Make it with `polydistill finetune`, then give it with `teacher`.",
        )
    found = []
    for given in options.teacher:
        name, weight = _weighted(given)
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
        PolydistillError: It is such a one.
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


def _weighted(given: str) -> tuple[str, float]:
    """FOLDER=WEIGHT, or FOLDER alone."""
    name, equals, number = given.rpartition("=")
    try:
        weight = float(number) if equals else 1.0
    except ValueError:  # a folder with an equals sign in its name
        return given, 1.0
    if not 0 < weight <= MOST:
        raise UsageError(f"`teacher={given}` has a weight that makes no sense.", "Write FOLDER=2.")
    return (name if equals else given), weight


def _texts(
    options: BistilOptions,
    languages: Sequence[Language],
    general: General | None,
    tuning: Tuning | None,
    wanted: Task | None,
    given: bool,
    progress: Progress,
) -> dict[str, list[TextSource]]:
    """The text of both languages, where a phase or the vocabulary needs it."""
    vectors = tuning is not None and wanted is not None and wanted.kind == RETRIEVAL
    if given and general is None and not vectors:
        return {}
    assigned = assign_corpora(languages, options.text, "text")
    texts = {lang.code: text_sources(lang, assigned[lang.code], option="text") for lang in languages}
    for lang in languages:
        if any(text.kind == "wordlist" for text in texts[lang.code]):
            raise PolydistillError(
                f"There is no running text for {lang.name}, and a word list is none.",
                f"Give some with `text={lang.code}=PATH`.",
            )
    return texts


def _default_output(options: BistilOptions, source: Source, languages: Sequence[Language]) -> Path:
    codes = [] if is_student(source) else [lang.code for lang in languages]  # its name has them
    parts = [Path(options.model.partition("@")[0]).name, *codes, *filter(None, [options.task])]
    return OUTPUTS / "-".join(parts)
