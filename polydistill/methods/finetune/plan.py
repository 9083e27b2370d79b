"""What a fine-tuning is to do, with everything that can be checked before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from polydistill.catalog import Language, Task, resolve_languages, task
from polydistill.catalog.task import CLASSIFICATION, SPAN_EXTRACTION, TAGGING, WORD_TAGGING
from polydistill.distill.listing import IMITATE, TUNING, objectives, teachers
from polydistill.distill.objectives.build import build
from polydistill.errors import UsageError
from polydistill.evaluation.kinds import trainable_kind_of
from polydistill.files.hashing import file_sha256
from polydistill.files.outputs import check_output
from polydistill.labelled.custom import Wanted, check_request, training_data
from polydistill.methods.finetune.options import FinetuneOptions
from polydistill.methods.finetune.stages import Tuning, tuned
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.folder import model_folder
from polydistill.models.refs import ModelRef, resolve
from polydistill.options.specs import Spec
from polydistill.progress import Progress
from polydistill.runs.plan import OUTPUTS, Origin, Plan, Report, selection
from polydistill.runs.stages import Done, Stage
from polydistill.training.batching import check_parts

# Epochs, learning rate, batch size and most tokens of a kind of task, for encoders of 20 to 300 million parameters.
DEFAULTS: dict[str, tuple[float, float, int, int]] = {
    CLASSIFICATION: (3, 5e-5, 32, 128),
    TAGGING: (3, 5e-5, 16, 256),
    WORD_TAGGING: (3, 5e-5, 16, 256),
    SPAN_EXTRACTION: (3, 5e-5, 16, 384),
}


def prepare(options: FinetuneOptions, progress: Progress) -> Plan:
    """Reads the data, and looks at the model.

    Raises:
        PolydistillError: Data or model are missing or do not fit.
    """
    if not options.task:
        raise UsageError("No task was given.", "Name one, for instance `task=ner`.")
    wanted = task(options.task, options.include_path)
    languages = resolve_languages(options.languages, options.include_path)
    trainable_kind_of(wanted)
    if options.cross_questions and wanted.kind != SPAN_EXTRACTION:
        raise UsageError(f"{wanted.name} has no questions.", "Leave `cross_questions` out.")
    request = _request(options)
    check_request(languages, request)
    output = (options.place.output or _default_output(options, wanted, languages)).expanduser()
    check_output(output, overwrite=options.place.overwrite, reads=options.reads())  # before the data is read
    job = _tuning(options, wanted)
    found = training_data(wanted, languages, request, progress)
    resolved = resolve(ModelRef.parse(options.model), progress=progress.note)
    folder = model_folder(resolved.folder)
    job = replace(job, folder=resolved.folder, task=found.task, training=found.training, dev=found.dev)
    checkpoint = Checkpoint.open(folder)
    return Plan(
        output=output,
        origin=Origin(resolved, checkpoint),
        stages=(Stage("tuned", partial(tuned, job), share=1, keep=False),),
        report=partial(_report, job, languages),
        languages=tuple(lang.code for lang in languages),
        task=found.task.name,
        settings=_settings(options, job),
        inputs={
            "weights": checkpoint.weights_hash,
            "configuration": file_sha256(folder / "config.json"),
            "labels": list(found.task.scored_labels),
            "data": [split.sha256 for split in (*found.training, *found.dev)],
        },
        texts=lambda done: done["tuned"].facts["texts"],
    )


def _request(options: FinetuneOptions) -> Wanted:
    given = options.labelled
    return Wanted(
        data=given.data,
        dev_data=given.dev_data,
        data_dir=given.data_dir,
        train_splits=given.train_split or ("train",),
        dev_split=given.dev_split,
        limit=given.limit,
        dev_limit=given.limit,
        crossed=options.cross_questions,
    )


def _tuning(options: FinetuneOptions, wanted: Task) -> Tuning:
    """How long and how fast, with the defaults of the kind of task."""
    epochs, lr, batch_size, max_length = DEFAULTS[wanted.kind]
    asked, past = _objectives(options)
    job = Tuning(
        folder=Path(),
        task=wanted,
        epochs=epochs if options.epochs is None else options.epochs,
        lr=lr if options.lr is None else options.lr,
        batch_size=batch_size if options.batch_size is None else options.batch_size,
        max_length=max_length if options.max_length is None else options.max_length,
        warmup=options.warmup,
        weight_decay=options.weight_decay,
        checks=options.checks,
        patience=options.patience,
        frozen=options.frozen,
        computing=options.computing,
        include_path=options.include_path,
        objectives=asked,
        teachers=tuple(past),
    )
    check_parts(job.batch_size, job.computing.accumulate)
    return job


def _objectives(options: FinetuneOptions) -> tuple[dict[str, Spec], list[Spec]]:
    """(what is learnt, the model's own past as a teacher).

    Raises:
        UsageError: They do not go together, or a teacher is another model.
    """
    folders, own = teachers(options.teacher, TUNING)
    if folders:
        raise UsageError(
            f"{folders[0][0]} is not the model's own past.",
            "Give `teacher=past` or `teacher=average`; `polydistill bistil` learns from other models.",
        )
    asked = objectives(options.objective, TUNING)
    needs = [name for name, spec in asked.items() if spec.weight and name in IMITATE]
    if asked:
        build(asked, outputs=1)
    if needs and not own:
        raise UsageError(f"The objective `{needs[0]}` needs a teacher.", "Add one, such as `teacher=past`.")
    if own and not needs:
        raise UsageError(
            f"The teacher `{own[0].name}` gives logits, and no objective looks at them.",
            "Add one, such as `objective=labels=1` with `objective=logits=1`.",
        )
    return asked, own


def _settings(options: FinetuneOptions, job: Tuning) -> dict[str, Any]:
    names = ("epochs", "lr", "batch_size", "max_length", "warmup", "weight_decay", "checks", "patience")
    values = {name: getattr(job, name) for name in names}
    if job.objectives:
        values["objective"] = [str(spec) for spec in job.objectives.values()]
        values["teacher"] = [str(spec) for spec in job.teachers]
    return {**values, **asdict(job.frozen), **asdict(job.computing), "labelled": job.task.facts()}


def _report(job: Tuning, languages: Sequence[Language], done: Mapping[str, Done], out: Path) -> Report:
    stage = done["tuned"]
    codes = [lang.code for lang in languages]
    facts = {name: stage.facts[name] for name in ("examples", "head", "curves")}
    return Report(
        parameters=stage.facts["parameters"],
        selection=selection(stage, codes, job.dev[0].split, job.task.metric),
        facts={**facts, "steps": stage.steps},
    )


def _default_output(options: FinetuneOptions, wanted: Task, languages: Sequence[Language]) -> Path:
    name = Path(options.model.partition("@")[0]).name
    return OUTPUTS / f"{name}-{wanted.name}-{'-'.join(lang.code for lang in languages)}"
