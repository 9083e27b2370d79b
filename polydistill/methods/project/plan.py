"""What an annotation projection is to do, with everything that can be checked before it begins."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from polydistill.catalog import Language, Task, language, task
from polydistill.catalog.task import TAGGING
from polydistill.distill.listing import PROJECTED, objectives
from polydistill.distill.matched import same_vocabulary
from polydistill.distill.student import hidden_layers
from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation.heads import output_labels
from polydistill.labelled.examples import LabelledSplit
from polydistill.labelled.parallel import Parallel, read_parallel
from polydistill.labelled.plain import PlainSentences, check_plain, read_plain
from polydistill.labelled.sources import load_split
from polydistill.methods.project.options import TEACHER, ProjectOptions
from polydistill.methods.project.stages import Job, report, scoring, stages_of, texts_read
from polydistill.methods.prokd.plan import check_tests, check_unlabelled, tests_of
from polydistill.models.default import DEFAULT_MODEL
from polydistill.models.folder import is_tagger
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.progress import Progress
from polydistill.runs.plan import OUTPUTS, Origin, Plan

USUAL = ("labels=1", "probabilities=1")


@dataclass(frozen=True)
class _Models:
    teacher: Source
    student: Source
    aligner: Source


def prepare(options: ProjectOptions, progress: Progress) -> Plan:
    """Looks at every option, file and folder that a run will need.

    Raises:
        PolydistillError: Something is missing or does not fit.
    """
    job = _job(options, progress)
    named = [Path(ref.partition("@")[0]).name for ref in (options.model or options.teacher,)]
    output = options.place.output or OUTPUTS / "-".join([*named, job.source.code, job.target.code, "project"])
    others = {source.folder: source for source in (job.teacher, job.aligner) if source.folder != job.begins.folder}
    return Plan(
        output=output.expanduser(),
        origin=Origin(job.begins.resolved, job.begins.checkpoint),
        stages=stages_of(job),
        report=partial(report, job),
        languages=(job.source.code, job.target.code),
        task=job.task.name,
        settings=_settings(job),
        inputs=_inputs(job),
        texts=partial(texts_read, job),
        others=tuple(
            Origin(s.resolved, s.checkpoint, "teacher" if s is job.teacher else "aligner") for s in others.values()
        ),
        scoring=scoring(job, output),
    )


def _job(options: ProjectOptions, progress: Progress) -> Job:
    source, target = (language(name, options.include_path) for name in (options.source, options.target))
    if source.code == target.code:
        raise UsageError(f"Source and target are the same language, {source.name}.", "Name two languages.")
    wanted = task(options.task, options.include_path)
    if wanted.kind != TAGGING or wanted.own:
        raise UsageError(
            f"Tags of entities are projected, and {wanted.name} has none.", "Choose a task such as `task=ner`."
        )
    if options.parallel is None:
        raise UsageError(
            "There are no translations.", f"Give a file of them with `parallel={source.code}-{target.code}.tsv`."
        )
    if not options.teacher:
        raise UsageError(
            "There is no teacher.", "Tune one with `polydistill finetune task=ner`, and give it with `teacher`."
        )
    asked = objectives(options.objective or USUAL, PROJECTED)
    if not any(spec.weight for spec in asked.values()):
        raise UsageError("No objective has a weight above 0.", "Add one, for instance `objective=labels=1`.")
    check_plain(wanted, (source, target))
    found = _models(options, wanted, target, progress)
    data, limit = options.data, options.data.limit
    tests = tests_of(data.test_split, (source, target), options.include_path)
    check_tests(wanted, tests, data.data_dir)
    dev = load_split(wanted, source, data.dev_split, data_dir=data.data_dir, limit=limit, progress=progress)
    return Job(
        options=options,
        source=source,
        target=target,
        task=wanted,
        parallel=read_parallel(options.parallel, leave_out=data.leave_out, limit=limit),
        plain=_plain(options, target),
        dev=dev,
        tests=tests,
        teacher=found.teacher,
        begins=found.student,
        aligner=found.aligner,
        layer=_layer(options, found.aligner),
        objectives=asked,
    )


def _models(options: ProjectOptions, wanted: Task, target: Language, progress: Progress) -> _Models:
    """Teacher, student and aligner.

    Raises:
        PolydistillError: One is no such model, or the vocabularies of teacher and student differ.
    """

    def opened(name: str) -> Source:
        return Source.open(resolve(ModelRef.parse(name), progress=progress.note), options.include_path)

    teacher = opened(options.teacher)
    if not is_tagger(teacher.folder):
        raise PolydistillError(
            f"{options.teacher} has no head for tags, so it is no teacher.",
            f"Tune one with `polydistill finetune task={wanted.name}`.",
        )
    labels = teacher.config.get("id2label") or {}
    output_labels(
        [labels[i] for i in sorted(labels, key=int)], TAGGING, wanted.labels, wanted.not_scored, options.teacher
    )
    if options.student_from == TEACHER and options.model:
        raise UsageError("`model` and `student_from` both say what the student begins with.", "Leave one of them out.")
    student = teacher if options.student_from == TEACHER else opened(options.model or DEFAULT_MODEL)
    if not same_vocabulary(teacher.folder, student.folder):
        raise PolydistillError(
            f"The vocabularies of {student.resolved.ref} and the teacher {options.teacher} differ, so that their "
            "outputs cannot be compared.",
            "Give `model`, that which the teacher was tuned from, or `student_from=teacher` for a copy of the teacher.",
        )
    aligner = opened(options.alignment.aligner) if options.alignment.aligner else student
    for source in (teacher, student):
        check_unlabelled(source, target)
    return _Models(teacher, student, aligner)


def _layer(options: ProjectOptions, aligner: Source) -> int:
    layers = hidden_layers(aligner)
    layer = options.alignment.layer or max(1, round(2 * layers / 3))
    if layer > layers:
        raise UsageError(f"`layer={layer}` is too high.", f"The aligner has layers 1 to {layers}.")
    return layer


def _plain(options: ProjectOptions, target: Language) -> PlainSentences | None:
    return read_plain(target, options.data.text, limit=options.data.limit) if options.data.text else None


def _settings(job: Job) -> dict[str, Any]:
    options = job.options
    return {
        **asdict(options.training),
        **asdict(options.computing),
        "student_from": options.student_from,
        "layer": job.layer,
        "confidence": options.alignment.confidence,
        "leave_out": list(options.data.leave_out),
        "objective": [str(spec) for spec in job.objectives.values()],
        "limit": options.data.limit,
    }


def _inputs(job: Job) -> dict[str, Any]:
    def hashes(split: LabelledSplit | Parallel | PlainSentences | None) -> str | None:
        return split.sha256 if split else None

    return {
        "models": [source.checkpoint.weights_hash for source in (job.teacher, job.begins, job.aligner)],
        "labels": job.task.scored_labels,
        "data": [hashes(part) for part in (job.parallel, job.plain, job.dev)],
    }
