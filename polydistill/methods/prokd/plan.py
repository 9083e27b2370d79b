"""What a distillation without target labels is to do, with everything that can be checked before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from polydistill.card.facts import Facts
from polydistill.catalog import Language, Task, language, task
from polydistill.catalog.task import TAGGING
from polydistill.distill.listing import ALIGNED, UNLABELLED, objectives
from polydistill.distill.matched import plan_like, same_vocabulary
from polydistill.distill.objectives.pseudo_labels import STUDENT, PseudoLabelsOptions
from polydistill.distill.student import hidden_layers
from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation.heads import output_labels
from polydistill.labelled.examples import LabelledSplit
from polydistill.labelled.plain import PlainSentences, joined, load_plain, read_plain
from polydistill.labelled.sources import load_split
from polydistill.methods.prokd.job import ALIGNMENT, PSEUDO_LABELS, GivenTeacher, Job
from polydistill.methods.prokd.options import ProkdOptions
from polydistill.methods.prokd.presets import ENCODER, OBJECTIVES, PRESETS, PROKD, SELFTRAIN, TEACHER, TRANSFER, Preset
from polydistill.methods.prokd.report import inputs, placed, report, scoring, settings, texts_read
from polydistill.methods.prokd.stages import stages_of
from polydistill.methods.prokd.unused import unused
from polydistill.models.default import DEFAULT_MODEL
from polydistill.models.folder import is_tagger
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.options.specs import Spec
from polydistill.progress import Progress
from polydistill.records.record import RunRecord
from polydistill.runs.plan import OUTPUTS, Origin, Plan

NO_SCORE = "none"


def prepare(options: ProkdOptions, progress: Progress) -> Plan:
    """Looks at every option, file and folder that a run will need, and says which stages it has.

    Raises:
        PolydistillError: Something is missing or does not fit.
    """
    job = job_of(options, progress)
    output = (options.place.output or _default_output(options, job.sources, job.target)).expanduser()
    others = [teacher.source for teacher in job.teachers if teacher.source is not job.origin]
    return Plan(
        output=output,
        origin=Origin(job.origin.resolved, job.origin.checkpoint),
        stages=stages_of(job),
        report=partial(report, job),
        languages=(*(language.code for language in job.sources), job.target.code),
        task=job.task.name,
        settings=settings(job),
        inputs=inputs(job),
        texts=partial(texts_read, job),
        others=tuple(Origin(source.resolved, source.checkpoint, "teacher") for source in others),
        idle=unused(job),
        warnings=_warnings(job),
        scoring=scoring(job, output),
        place=partial(placed, job),
    )


def job_of(options: ProkdOptions, progress: Progress) -> Job:
    """Looks at every option, file and folder that a run will need.

    Raises:
        PolydistillError: Something is missing or does not fit.
    """
    _check(options)
    chosen = _preset(options)
    sources, target = _languages(options)
    wanted = task(options.task, options.include_path)
    if wanted.kind != TAGGING or wanted.own:
        raise UsageError(
            f"Prototypes are of the classes of tags, and {wanted.name} has none.", "Choose a task such as `task=ner`."
        )
    model, teachers = _models(options, wanted, sources, target, progress)
    aligning, student_objectives = _objectives(options)
    teacher_epochs = 0 if teachers and options.made_teacher.epochs is None else chosen.teacher_epochs
    opened = [source for source in (*(t.source for t in teachers), model) if source]
    layers = hidden_layers(opened[0])
    if options.prototypes.layer is not None and options.prototypes.layer > layers:
        raise UsageError(f"`layer={options.prototypes.layer}` is too high.", f"The teacher has layers 1 to {layers}.")

    def load(lang: Language, split: str, limit: int | None) -> LabelledSplit:
        return load_split(wanted, lang, split, data_dir=options.data.data_dir, limit=limit, progress=progress)

    fewest = min(map(hidden_layers, opened))
    if chosen.freeze_layers > fewest:
        raise UsageError(f"`freeze_layers={chosen.freeze_layers}` is too many.", f"A model here has {fewest} layers.")
    limit, splits = options.data.limit or chosen.limit, _splits(options, "train_split", "train", sources)
    training = {lang.code: tuple(load(lang, split, limit) for split in splits[lang.code]) for lang in sources}
    chosen_by, dev_limit = _splits(options, "dev_split", "dev", sources), options.data.limit or chosen.dev_limit
    tests = tests_of(options.data.test_split, (sources[0], target), options.include_path)
    check_tests(wanted, tests, options.data.data_dir)
    return Job(
        sources=sources,
        target=target,
        task=wanted,
        training=training,
        dev=tuple(load(lang, split, dev_limit) for lang in sources for split in chosen_by[lang.code][:1]),
        plain=None if options.method == TRANSFER else _plain(options, wanted, target, limit, progress),
        tests=tests,
        model=model,
        teachers=teachers,
        preset=chosen,
        teacher_epochs=teacher_epochs,
        layer=options.prototypes.layer or layers,
        aligning=aligning if teacher_epochs else None,
        student_objectives=student_objectives,
        options=options,
    )


def _check(options: ProkdOptions) -> None:
    if options.method == TRANSFER and options.sources:
        raise UsageError("Direct transfer has one teacher.", "Leave `sources` out.")
    if options.made_teacher.epochs == 0 and not options.teacher:
        raise UsageError("A teacher that is made here needs `teacher_epochs` above 0.", "Give it, or `teacher`.")
    if options.method == TRANSFER and options.teacher and options.model:
        raise UsageError("Direct transfer keeps the teacher as it is.", "Leave `model` out.")
    if options.teacher and options.model and options.student_from == TEACHER:
        raise UsageError("`model` and `student_from` both say what the student begins with.", "Leave one of them out.")


def _objectives(options: ProkdOptions) -> tuple[Spec | None, dict[str, Spec]]:
    """(what aligns prototypes of a teacher that is trained, what the student learns).

    Raises:
        UsageError: An objective does not belong to the method, or nothing is left to learn.
    """
    usual, has_student = OBJECTIVES[options.method], options.method != TRANSFER
    teacher = objectives(options.objective, ALIGNED) or objectives(usual, ALIGNED)
    student = objectives(options.objective, UNLABELLED) or objectives(usual, UNLABELLED)
    for name, methods in ((ALIGNMENT, (PROKD,)), (PSEUDO_LABELS, (PROKD, SELFTRAIN))):
        if name in {**teacher, **student} and options.method not in methods:
            raise UsageError(
                f"`method={options.method}` has no objective `{name}`.",
                f"Choose `method={methods[0]}`, or leave it out.",
            )
    if options.method == TRANSFER and student:
        raise UsageError("Direct transfer trains no student.", "Leave `objective` out, or choose another method.")
    if has_student and not any(spec.weight for spec in student.values()):
        raise UsageError(
            "No objective of the student has a weight above 0.", "Add one, for instance `objective=probabilities=1`."
        )
    if (labels := student.get(PSEUDO_LABELS)) and isinstance(labels.options, PseudoLabelsOptions):
        rectify = labels.options.rectify and options.method == PROKD
        student[PSEUDO_LABELS] = replace(labels, options=replace(labels.options, rectify=rectify))
        later = labels.options.features == STUDENT or options.training.rounds > 1
        if later and options.prototypes.layer and options.teacher and options.model:
            raise UsageError("`layer` is the teacher's, and the student is another model.", "Leave `layer` out.")
    aligning = teacher.get(ALIGNMENT)
    return (aligning if aligning and aligning.weight else None), student


def _warnings(job: Job) -> tuple[str, ...]:
    """What is said before the run begins."""
    if job.options.method == PROKD and job.options.teacher and not job.teacher_epochs:
        return ("The teacher stays as it is given, so its prototypes are not aligned; `teacher_epochs` trains it.",)
    return ()


def _preset(options: ProkdOptions) -> Preset:
    names = ("teacher_epochs", "epochs", "batch_size", "max_length", "teacher_lr", "lr", "freeze_layers")
    values = options.values()
    given = {name: values[name] for name in names if values[name] is not None}
    return replace(PRESETS[options.preset], **given)


def _languages(options: ProkdOptions) -> tuple[tuple[Language, ...], Language]:
    sources = tuple(language(name, options.include_path) for name in (options.source, *options.sources))
    target = language(options.target, options.include_path)
    codes = [lang.code for lang in (*sources, target)]
    twice = next((lang for lang in (*sources, target) if codes.count(lang.code) > 1), None)
    if twice is not None:
        raise UsageError(
            f"{twice.name} is named twice among the sources and the target.",
            "Name each language once: labels are taken from the sources alone.",
        )
    return sources, target


def _models(
    options: ProkdOptions, wanted: Task, sources: Sequence[Language], target: Language, progress: Progress
) -> tuple[Source | None, tuple[GivenTeacher, ...]]:
    """(what the student begins with, teachers that are given)."""

    def open_source(name: str) -> Source:
        return Source.open(resolve(ModelRef.parse(name), progress=progress.note), options.include_path)

    if options.teacher and len(sources) > 1 and len(options.teacher) != len(sources):
        raise UsageError(
            f"There are {len(sources)} source languages and {len(options.teacher)} teachers.",
            "Give `teacher` once for each source, in their order, or not at all.",
        )
    given = [open_source(name) for name in options.teacher]
    for teacher in given:
        _check_teacher(options, wanted, teacher, given[0])
    taught = options.student_from == ENCODER and options.method != TRANSFER
    model = open_source(options.model or DEFAULT_MODEL) if options.model or taught or not given else None
    if given and model and not options.model and not same_vocabulary(given[0].folder, model.folder):
        raise UsageError(
            f"The teacher {given[0].resolved.ref} was not tuned from {DEFAULT_MODEL} as it is, and nothing says what "
            "the student begins with.",
            "Give `model`, that which the teacher was tuned from, or `student_from=teacher` for a copy of the teacher.",
        )
    for source in (*given, *([model] if model else [])):
        check_unlabelled(source, target)
    like = model or given[0]
    found = []
    for teacher in given:
        alike = same_vocabulary(teacher.folder, like.folder)
        cut = None if alike else plan_like(teacher, like, (*sources, target))
        if not alike and cut is None:
            raise PolydistillError(
                f"The vocabularies of {like.resolved.ref} and the teacher {teacher.resolved.ref} differ, so that their "
                "outputs cannot be compared.",
                "Give a teacher that was tuned from the same model, with the same vocabulary or a larger one.",
            )
        found.append(GivenTeacher(teacher, cut))
    return model, tuple(found)


def check_unlabelled(source: Source, target: Language) -> None:
    """Refuses a model in whose making labels of the target were read.

    Raises:
        PolydistillError: It is one of these.
    """
    record = RunRecord.load(source.folder)
    if record is not None and target.code in Facts.of(record, None).label_languages:
        raise PolydistillError(
            f"{source.resolved.ref} was tuned on labels of {target.name}, which is to have none here.",
            "Give one that knows labels of the sources alone; `polydistill finetune` learns from the target's.",
        )


def _check_teacher(options: ProkdOptions, wanted: Task, teacher: Source, first: Source) -> None:
    """Refuses a teacher that knows no tags, or other ones, or is not built as the first one is.

    Raises:
        PolydistillError: It is one of these.
    """
    name = teacher.resolved.ref
    if is_tagger(teacher.folder):
        labels = teacher.config.get("id2label") or {}
        output_labels([labels[i] for i in sorted(labels, key=int)], TAGGING, wanted.labels, wanted.not_scored, name)
    elif not options.made_teacher.epochs:
        raise PolydistillError(
            f"{name} has no head for tags, so it is no teacher yet.",
            "Give `model` in place of `teacher`, or `teacher_epochs` to train it here.",
        )
    if (teacher.arch.model_type, hidden_layers(teacher)) != (first.arch.model_type, hidden_layers(first)):
        raise PolydistillError(
            f"The teachers {first.resolved.ref} and {name} are not built alike.",
            "Give teachers that were tuned from one model.",
        )


def _plain(
    options: ProkdOptions, wanted: Task, target: Language, limit: int | None, progress: Progress
) -> PlainSentences:
    text, split = options.data.text, options.data.unlabelled_split
    found = [read_plain(target, text, limit=limit)] if text else []
    if split or not text:
        data_dir = options.data.data_dir
        found.append(load_plain(wanted, target, split or "train", data_dir=data_dir, limit=limit, progress=progress))
    return joined(found)


def _splits(options: ProkdOptions, option: str, usual: str, sources: Sequence[Language]) -> dict[str, tuple[str, ...]]:
    """Code of a source -> the splits that are named for it, else those named for all of them.

    Raises:
        UsageError: A split is for a language that is not a source, or there are several to choose by.
    """
    found: dict[str, list[str]] = {lang.code: [] for lang in sources}
    everywhere = [given for given in getattr(options.data, option) if "=" not in given]
    for given in getattr(options.data, option):
        code, equals, split = given.partition("=")
        if equals:
            code = language(code, options.include_path).code
            if code not in found or not split:
                raise UsageError(
                    f"`{option}={given}` is for none of the sources.",
                    f"Write {sources[0].code}=NAME, or NAME alone for all of them.",
                )
            found[code].append(split)
    chosen = {code: tuple(splits or everywhere or [usual]) for code, splits in found.items()}
    if option == "dev_split" and any(len(splits) > 1 for splits in chosen.values()):
        raise UsageError("Checkpoints are chosen by one dev split of each source.", "Give `dev_split` once for each.")
    return chosen


def check_tests(wanted: Task, tests: Sequence[tuple[Language, str]], data_dir: Path | None) -> None:
    """Says what is missing before anything is trained.

    Raises:
        UsageError: A split that is to be scored is not there.
    """
    for lang, split in tests:
        try:
            load_split(wanted, lang, split, data_dir=data_dir, limit=1)
        except UsageError as error:
            way_out = f"Without a test set: `test_split={lang.code}={NO_SCORE}`."
            raise UsageError(str(error.message), f"{error.hint or ''} {way_out}".strip()) from error


def tests_of(
    given: Sequence[str], languages: Sequence[Language], include: Sequence[Path]
) -> tuple[tuple[Language, str], ...]:
    """(language, split) to score.

    Args:
        given: LANG=NAME; `none` for no score.
        languages: Source and target, whose `test` splits are scored if nothing is said.
        include: Folders with the user's own languages.

    Raises:
        UsageError: A split is for neither of them.
    """
    names = {lang.code: "test" for lang in languages}
    for text in given:
        code, equals, split = text.partition("=")
        code = language(code, include).code if equals and split else ""
        if code not in names:
            raise UsageError(
                f"`test_split={text}` is for neither {' nor '.join(names)}.",
                f"Write `test_split={languages[-1].code}=test`.",
            )
        names[code] = split
    return tuple((lang, names[lang.code]) for lang in languages if names[lang.code] != NO_SCORE)


def _default_output(options: ProkdOptions, sources: Sequence[Language], target: Language) -> Path:
    name = Path((options.model or (options.teacher or (DEFAULT_MODEL,))[0]).partition("@")[0]).name
    return OUTPUTS / "-".join([name, *(lang.code for lang in sources), target.code, options.task, options.method])
