"""What a distillation without target labels reports: its settings, what it read, and its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from polydistill.methods.prokd.job import Job
from polydistill.methods.prokd.stages import numbered
from polydistill.methods.prokd.tagging import PICTURE
from polydistill.methods.prokd.unused import unused
from polydistill.models.copying import copy_model
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.runs.plan import Report, selection
from polydistill.runs.scoring import Beside, Scoring, Test
from polydistill.runs.stages import Done, copy_result

NOT_SETTINGS = ("source", "target", "model", "teacher", "sources", "data_dir", "text", "include_path", "cache_gb")


def settings(job: Job) -> dict[str, Any]:
    """Every value that the run goes by, presets resolved; without those that change nothing here."""
    left_out = {*NOT_SETTINGS, "unlabelled_split", "train_split", "dev_split", "test_split", *unused(job)}
    values = {**job.options.deciding(), "aligned": job.aligning is not None, **asdict(job.preset)}
    asked = [*([job.aligning] if job.aligning else []), *job.student_objectives.values()]
    values |= {
        "teacher_epochs": job.teacher_epochs,
        "layer": job.layer,
        "limit": job.options.data.limit or job.preset.limit,
    }
    values |= {"objective": [str(spec) for spec in asked]}
    return {name: value for name, value in values.items() if name not in left_out}


def inputs(job: Job) -> dict[str, Any]:
    """Hashes of the models, data and labels; of the target's data only its words."""
    sources = [source for source in (job.model, *(given.source for given in job.teachers)) if source is not None]
    return {
        "models": [source.checkpoint.weights_hash for source in sources],
        "labels": [job.task.scored_labels, *(given.source.config.get("id2label") for given in job.teachers)],
        "data": [split.sha256 for splits in (*job.training.values(), job.dev) for split in splits],
        "text": job.plain.sha256 if job.plain else None,
    }


def texts_read(job: Job, done: Mapping[str, Done]) -> Sequence[Mapping[str, Any]]:
    """The labelled data of the sources and the words of the target."""
    labelled = [split for splits in (*job.training.values(), job.dev) for split in splits]
    found: list[Mapping[str, Any]] = [split.facts() for split in labelled]
    if words := job.plain:
        about = {
            "language": words.language,
            "where": words.where,
            "split": "words alone, tags not read",
            "examples": len(words.sentences),
            "sha256": words.sha256,
        }
        found.append(about)
    return found


def placed(job: Job, done: Mapping[str, Done], out: Path) -> None:
    """Writes the student, or with direct transfer the teacher."""
    last = _last(job, done)
    if last is not None:
        copy_result(last, out)
    elif "vocabulary" in done:
        copy_model(_open(job, done["vocabulary"].folder / "teacher-0"), out)
    else:
        copy_model(job.begins, out)


def _last(job: Job, done: Mapping[str, Done]) -> Done | None:
    """The student of the last round, or the teacher that was trained here."""
    return done.get(numbered("student", job.options.training.rounds - 1)) or done.get("teacher")


def _open(job: Job, folder: Path) -> Source:
    return Source.open(resolve(ModelRef.parse(str(folder))), job.options.include_path)


def report(job: Job, done: Mapping[str, Done], out: Path) -> Report:
    """Sizes, prototypes, pseudo-labels and what chose the checkpoint."""
    made, last = _open(job, out), _last(job, done)
    found = done.get(numbered("prototypes", job.options.training.rounds - 1))
    codes = [language.code for language in job.sources]
    sentences = {code: sum(len(s.examples) for s in splits) for code, splits in job.training.items()}
    split = ", ".join(dict.fromkeys(split.split for split in job.dev))
    return Report(
        parameters={"teacher": job.begins.checkpoint.parameters, "student": made.checkpoint.parameters},
        bytes={"teacher": job.begins.nbytes, "student": made.nbytes},
        selection=None if last is None else selection(last, codes, split, job.task.metric),
        facts={
            "teachers": [given.source.resolved.source for given in job.teachers],
            "method": job.options.method,
            "sources": codes,
            "target": job.target.code,
            "sentences": {**sentences, job.target.code: len(job.plain.sentences) if job.plain else 0},
            "prototypes": found.facts["teachers"] if found else [],
            "pseudo_labels": found.facts["pseudo_labels"] if found else None,
            "teacher_weights": found.facts["weights"] if found else [],
            "picture": orjson.loads((found.folder / PICTURE).read_bytes()) if found else None,
        },
    )


def scoring(job: Job, output: Path) -> Scoring:
    """Scores of teacher and student in both languages, and the student's loyalty."""
    options = job.options
    return Scoring(
        output=output,
        task=job.task.name,
        tests=tuple(Test(language.code, split) for language, split in job.tests),
        beside=partial(_teacher, job, output),
        loyalty=not job.transfers,
        data_dir=options.data.data_dir,
        seed=options.computing.seed,
        include_path=options.include_path,
    )


def _teacher(job: Job, output: Path, done: Mapping[str, Done]) -> Beside | None:
    """The teacher: a given one is scored as it is, not with the vocabulary that it taught with."""
    if job.transfers:
        return None  # it is the result
    if job.teachers and not job.teacher_epochs:
        source = job.teachers[0].source
        return Beside(source.folder, source.resolved.source)
    return Beside(done["teacher"].folder, str(output / "stages/teacher"))
