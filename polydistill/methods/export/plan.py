"""What an export is to do, with everything that can be checked before a network is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from polydistill.card.facts import Facts
from polydistill.catalog import Language, language
from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation.evaluate import EvaluateOptions, check_options, read_cells, settings_of, with_labels_of
from polydistill.evaluation.subjects import Subject
from polydistill.files.hashing import file_sha256
from polydistill.files.outputs import check_output
from polydistill.methods.export.options import ExportOptions
from polydistill.methods.export.scores import FileScoring
from polydistill.methods.export.stages import Job, ScoredTask, written
from polydistill.models.copying import CONFIG
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.progress import Progress
from polydistill.records.record import RunRecord
from polydistill.runs.plan import OUTPUTS, Origin, Plan, Report
from polydistill.runs.stages import Stage

if TYPE_CHECKING:
    from polydistill.exporting.networks import Head

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
OF_SCORES = ("languages", "data_dir", "data", "limit", "max_length", "prompt")


def prepare(options: ExportOptions, progress: Progress) -> Plan:
    """Reads the texts and the task's data, and looks at the model.

    Raises:
        PolydistillError: Something is missing, makes no sense, or cannot be exported.
    """
    if given := [name for name in OF_SCORES if not options.task and getattr(options, name)]:
        raise UsageError(
            f"`{given[0]}` is for scores, but no task was given.", f"Add `task`, or leave `{given[0]}` out."
        )
    check_packages()
    name = f"{Path(options.model.partition('@')[0]).name}-onnx"
    output = (options.place.output or OUTPUTS / name).expanduser()
    reads = [options.model, *options.reads()]
    check_output(output, overwrite=options.place.overwrite, reads=reads)  # before the model is looked at
    resolved = resolve(ModelRef.parse(options.model), progress=progress.note)
    source = Source.open(resolved, options.include_path)
    from polydistill.exporting.graph import check_size
    from polydistill.exporting.networks import head_of
    from polydistill.exporting.sample import sample_of

    head = head_of(source)
    check_size(source.checkpoint.parameters, options.model)
    task = _task(options, head, source, progress) if options.task else None
    languages = _made_for(source, options.include_path)
    splits = [cell.split for cell in task.cells] if task else []
    sample = sample_of(options.text, splits, languages, pairs=_reads_pairs(source, head, task))
    job = Job(source, head, options.int8, sample, task)
    return Plan(
        output=output,
        origin=Origin(source.resolved, source.checkpoint),
        stages=(Stage("files", partial(written, job), keep=False),),
        report=lambda done, out: Report({}, facts=done["files"].facts),
        languages=tuple(language.code for language in languages),
        task=task.subject.wanted.name if task else None,
        inputs={
            "weights": source.checkpoint.weights_hash,
            "configuration": file_sha256(source.model / CONFIG),
            "texts": sample.facts,
        },
        texts=lambda done: sample.facts,
        scoring=FileScoring(job, output, recorded=options.limit is None) if task else None,
        packages=PACKAGES,
    )


def _reads_pairs(source: Source, head: Head, task: ScoredTask | None) -> bool:
    """Whether a model reads two texts together: as the task's data says, or the model's record."""
    if head.name != "text-classification":
        return head.name == "question-answering"
    if task is not None:
        return any(len(example.texts) == 2 for cell in task.cells for example in cell.split.examples)
    record = RunRecord.load(source.folder)
    return record is not None and Facts.of(record, None).pairs


def check_packages() -> None:
    """Refuses to go on without the packages of the extra `export`.

    Raises:
        PolydistillError: One is not installed.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise PolydistillError(
            f"ONNX export needs {', '.join(missing)}, which is not installed.",
            "Install it with: pip install 'polydistill[export]'.",
        )


def _task(options: ExportOptions, head: Head, source: Source, progress: Progress) -> ScoredTask:
    """What is to be scored, its data read.

    Raises:
        PolydistillError: The data cannot be read, or the model has another head.
    """
    from polydistill.exporting.networks import OF_KIND

    asked = EvaluateOptions(
        model=(options.model,),
        task=options.task,
        languages=options.languages,
        split=options.split,
        data_dir=options.data_dir,
        data=options.data,
        limit=options.limit,
        max_length=options.max_length,
        prompt=options.prompt,
        seed=options.seed,
        include_path=options.include_path,
    )
    wanted = check_options(asked)
    if OF_KIND[wanted.kind] != head.name:
        raise PolydistillError(
            f"{options.model} has no head for {wanted.name}: it is a model for {head.name}.",
            "Leave `task` out, choose a task that fits, or tune the model first: `polydistill finetune`.",
        )
    cells = read_cells(asked, wanted, progress)
    wanted, cells = with_labels_of({options.model: source.resolved}, wanted, cells, progress)
    return ScoredTask(Subject(options.model, source.resolved, wanted, settings_of(asked)), tuple(cells))


def _made_for(source: Source, include: Sequence[Path]) -> tuple[Language, ...]:
    """The languages that a model was made for, as its card says; those that are not known here are left out."""
    record, found = RunRecord.load(source.folder), []
    for code in Facts.of(record, None).languages if record else ():
        with suppress(PolydistillError):
            found.append(language(code, tuple(include)))
    return tuple(found)
