"""What a bilingual distillation reports: its settings, what it read, and its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from polydistill.files.hashing import file_sha256
from polydistill.methods.bistil.job import Job
from polydistill.methods.bistil.places import base_of
from polydistill.methods.bistil.presets import General, Tuning
from polydistill.methods.sparse.method import Given
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.records.record import RunRecord
from polydistill.runs.plan import Report, selection
from polydistill.runs.scoring import Beside, Scoring, Test
from polydistill.runs.stages import Done


def settings(job: Job) -> dict[str, Any]:
    """Every value that the run goes by, presets resolved."""
    options = job.options
    return {
        "preset": options.preset,
        "phase_1": _phase(job.general),
        "phase_2": _phase(job.tuning),
        "density": job.density,
        "scale": job.scale,
        "sampler": str(job.sampler),
        "task_augment": [str(spec) for spec in job.augmentations],
        "task_augment_share": options.tuning.augment_share if job.augmentations else None,
        "task_sampler": str(job.task_sampler) if job.task_sampler else None,
        "past": [str(spec) for spec in job.past],
        **options.combined.to_json(),
        "layers": list(job.layers),
        "examples": job.limit,
        "by_loyalty": job.by_loyalty,
        "dev_examples": job.dev_limit,
        "pairs": [list(p) for p in job.pairs],
        **asdict(options.computing),
        "labelled": job.task.facts() if job.task else None,
    }


def _phase(phase: General | Tuning | None) -> dict[str, Any] | None:
    """A phase with the weights of its objectives, and beside them their options where they have some."""
    if phase is None:
        return None
    weights = {name: spec.weight for name, spec in phase.asked.items()}
    options = {name: spec.known for name, spec in phase.asked.items() if spec.known}
    return {**asdict(phase), "objectives": weights, "objective_options": options}


def inputs(job: Job) -> dict[str, Any]:
    """Hashes of the models, texts and labels, which have to be the same for a run to go on."""
    data = [s.sha256 for s in job.labelled.training + job.labelled.dev] if job.labelled else []
    sources = [given.source for given in job.teachers]
    return {
        "model": job.source.checkpoint.weights_hash,
        "teachers": [[s.checkpoint.weights_hash, file_sha256(s.model / "config.json")] for s in sources],
        "labels": job.task.scored_labels if job.task else None,
        "data": data,
        "languages": list(job.codes),
        "texts": {code: [source.facts() for source in sources] for code, sources in job.texts.items()},
        "language_sft": {code: Given.load(folder).sha256 for code, folder in job.language_sft.items()},
    }


def texts_read(job: Job, done: Mapping[str, Done]) -> Sequence[Mapping[str, Any]]:
    """The text of the vocabulary and of phase 2, and the labelled data."""
    read = [text for name in ("vocabulary", "full") if name in done for text in done[name].facts.get("texts", [])]
    labelled = job.labelled.training + job.labelled.dev if job.labelled else ()
    return [*read, *(split.facts() for split in labelled)]


def report(job: Job, done: Mapping[str, Done], out: Path) -> Report:
    """Sizes, layers and what chose the checkpoint."""
    options, before = job.options, job.source
    made = Source.open(resolve(ModelRef.parse(str(out))), options.include_path)
    record = RunRecord.load(before.folder) if job.student_given else None
    sizes = {"parameters": {"teacher": before.checkpoint.parameters}, "bytes": {"teacher": before.nbytes}}
    teacher = record.result if record else sizes
    cut = done.get("vocabulary")
    chosen = None
    if job.task is not None and not job.vectors:
        last = list(done.values())[-1]
        split = job.labelled.dev[0].split if job.labelled else options.labelled.dev_split
        chosen = selection(last, job.codes[:1], split, last.facts["metric"])
    return Report(
        parameters={"teacher": teacher["parameters"]["teacher"], "student": made.checkpoint.parameters},
        bytes={"teacher": teacher["bytes"]["teacher"], "student": made.nbytes},
        selection=chosen,
        facts={
            "vocabulary": cut.facts["vocabulary"] if cut and not record else {"before": made.rows, "after": made.rows},
            "verification": {"letters": cut.facts["letters"]} if cut and "letters" in cut.facts else None,
            "layers": list(job.layers),
        },
    )


def scoring(job: Job, output: Path) -> Scoring | None:
    """Scores of teacher and student in both languages, and the student's loyalty."""
    if job.task is None or job.labelled is None or not job.labelled.tests:
        return None
    options = job.options
    return Scoring(
        output=output,
        task=job.task.name,
        tests=tuple(Test(test.language.code, test.split, test.data) for test in job.labelled.tests),
        beside=partial(_teacher, job, output),
        data_dir=options.labelled.data_dir,
        seed=options.computing.seed,
        include_path=options.include_path,
    )


def _teacher(job: Job, output: Path, done: Mapping[str, Done]) -> Beside:
    """The teacher: a given one is scored as it is, not with the vocabulary that it taught with."""
    if job.teachers:
        source = job.teachers[0].source
        return Beside(source.folder, source.resolved.source)
    folders = {name: stage.folder for name, stage in done.items()}
    if job.vectors:
        return Beside(base_of(job, folders), str(output / "stages/vocabulary/teacher"))
    return Beside(folders["teacher"], str(output / "stages/teacher"))
