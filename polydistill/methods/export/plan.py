"""`polydistill export`: its configuration, and everything that is checked before a network is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from polydistill.card.facts import Facts
from polydistill.catalog import Language, language
from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation.scoring import Cell
from polydistill.evaluation.subjects import Subject
from polydistill.files.outputs import check_output
from polydistill.methods.evaluate import EvaluateConfig, check_options, read_cells, settings_of, with_labels_of
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.options.settings import (
    Options,
    data_dir_setting,
    include_setting,
    output_setting,
    seed_setting,
    setting,
)
from polydistill.progress import Progress
from polydistill.records.record import RunRecord

if TYPE_CHECKING:
    from polydistill.exporting.networks import Head
    from polydistill.exporting.sample import Sample

OUTPUTS = Path("polydistill-out")
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
OF_SCORES = ("lang", "data_dir", "data", "limit", "max_length", "prompt")


@dataclass(frozen=True)
class ExportConfig(Options):
    """The configuration of an export; each field but `model` is an option of the command line."""

    model: str
    onnx: bool = setting(False, "Write ONNX, the one format there is.", "Files")
    int8: bool = setting(False, "Write a second file with weights of 8 bits.", "Files")
    output: Path | None = output_setting("polydistill-out/NAME-onnx", "Files")
    overwrite: bool = setting(False, "Replace that folder if it exists.", "Files")
    text: tuple[str, ...] = setting(
        (),
        "Text to compare the files with torch on. Repeat for several. [default: the task's data, else sentences of "
        "the package]",
        "Checks",
        metavar="PATH",
    )
    task: str = setting("", "Score torch and the files on a task.", "Scores", metavar="TASK")
    lang: tuple[str, ...] = setting((), "Language of the task's data. Repeat for several.", "Scores", metavar="LANG")
    split: str = setting("test", "Which part of the data.", "Scores", metavar="NAME")
    data_dir: Path | None = data_dir_setting("Scores")
    data: Path | None = setting(None, "A file of your own, as `evaluate` reads it.", "Scores", metavar="FILE")
    limit: int | None = setting(
        None,
        "Score only the first examples of each language; such scores are not among the record's.",
        "Scores",
        metavar="N",
        least=1,
    )
    max_length: int | None = setting(
        None, "Most tokens of an input that is scored. [default: as `evaluate` has it]", "Scores", metavar="N", least=16
    )
    prompt: str | None = setting(
        None,
        "Text put before every sentence (retrieval and similarity). [default: the model's own]",
        "Scores",
        metavar="TEXT",
    )
    seed: int = seed_setting("Of the bootstrap intervals.", "Checks")
    include_path: tuple[Path, ...] = include_setting("Files")


@dataclass(frozen=True)
class ScoredTask:
    """What is to be scored: the model as torch has it, and the data."""

    subject: Subject
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Job:
    """Everything that is known before a network is loaded."""

    source: Source
    head: Head
    output: Path
    languages: tuple[Language, ...]
    task: ScoredTask | None
    sample: Sample


def prepare(config: ExportConfig, progress: Progress) -> Job:
    """Checks everything that can be checked before a network is loaded.

    Args:
        config: What to do.
        progress: Where to report.

    Raises:
        PolydistillError: Something is missing, makes no sense, or cannot be exported.
    """
    if not config.onnx:
        raise UsageError("No format was given.", "Add `onnx`.")
    config.check()
    if given := [name for name in OF_SCORES if not config.task and getattr(config, name)]:
        raise UsageError(
            f"`{given[0]}` is for scores, but no task was given.", f"Add `task`, or leave `{given[0]}` out."
        )
    check_packages()
    output = (config.output or OUTPUTS / f"{Path(config.model.partition('@')[0]).name}-onnx").expanduser()
    check_output(output, overwrite=config.overwrite, reads=[config.model, *config.reads()])
    resolved = resolve(ModelRef.parse(config.model), progress=progress.note)
    source = Source.open(resolved, config.include_path)
    from polydistill.exporting.graph import check_size
    from polydistill.exporting.networks import head_of
    from polydistill.exporting.sample import sample_of

    head = head_of(source)
    check_size(source.checkpoint.parameters, config.model)
    task = _task(config, head, source, progress) if config.task else None
    languages = _made_for(source, config.include_path)
    splits = [cell.split for cell in task.cells] if task else []
    sample = sample_of(config.text, splits, languages, pairs=_reads_pairs(source, head, task))
    return Job(source, head, output, languages, task, sample)


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


def _task(config: ExportConfig, head: Head, source: Source, progress: Progress) -> ScoredTask:
    """What is to be scored, its data read.

    Raises:
        PolydistillError: The data cannot be read, or the model has another head.
    """
    from polydistill.exporting.networks import OF_KIND

    asked = EvaluateConfig(
        model=(config.model,),
        task=config.task,
        lang=config.lang,
        split=config.split,
        data_dir=config.data_dir,
        data=config.data,
        limit=config.limit,
        max_length=config.max_length,
        prompt=config.prompt,
        seed=config.seed,
        include_path=config.include_path,
    )
    wanted = check_options(asked)
    if OF_KIND[wanted.kind] != head.name:
        raise PolydistillError(
            f"{config.model} has no head for {wanted.name}: it is a model for {head.name}.",
            "Leave `task` out, choose a task that fits, or tune the model first: `polydistill finetune`.",
        )
    cells = read_cells(asked, wanted, progress)
    wanted, cells = with_labels_of({config.model: source.resolved}, wanted, cells, progress)
    return ScoredTask(Subject(config.model, source.resolved, wanted, settings_of(asked)), tuple(cells))


def _made_for(source: Source, include: Sequence[Path]) -> tuple[Language, ...]:
    """The languages that a model was made for, as its card says; those that are not known here are left out."""
    record, found = RunRecord.load(source.folder), []
    for code in Facts.of(record, None).languages if record else ():
        with suppress(PolydistillError):
            found.append(language(code, tuple(include)))
    return tuple(found)
