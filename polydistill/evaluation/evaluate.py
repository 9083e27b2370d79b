"""`polydistill evaluate`: models scored on a task in many languages, the same way whatever made them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from polydistill.catalog import Language, Task, resolve_languages, task, user_files
from polydistill.catalog.task import SPAN_EXTRACTION
from polydistill.devices import AUTO, CPU, FLOAT32, PRECISIONS, current, multiplies_in_bfloat16, precision_name, using
from polydistill.errors import UsageError
from polydistill.evaluation.cache import Items
from polydistill.evaluation.custom_labels import agreed
from polydistill.evaluation.keeping import add_cost, add_scores
from polydistill.evaluation.kinds import kind_of
from polydistill.evaluation.scoring import Cell, loyalty, score
from polydistill.evaluation.subjects import Settings, Subject
from polydistill.evaluation.summaries import averages, few_notes, loyalty_averages, loyalty_rows, retention_rows
from polydistill.files.outputs import check_file, write_beside
from polydistill.labelled.custom import with_own_labels, without_types
from polydistill.labelled.examples import units_of
from polydistill.labelled.sources import load_split
from polydistill.models.refs import ModelRef, ResolvedModel, resolve
from polydistill.options.settings import (
    MOST_BATCH,
    Options,
    data_dir_setting,
    device_setting,
    include_setting,
    seed_setting,
    setting,
)
from polydistill.progress import SILENT, Progress
from polydistill.records.record import Score


@dataclass(frozen=True)
class EvaluateOptions(Options):
    """The configuration of an evaluation; each field is an option of the command line."""

    model: tuple[str, ...] = setting(
        (), "Folder, org/name or org/name@revision. Repeat for several.", "Model", metavar="M"
    )
    teacher: str | None = setting(
        None,
        "Model that the others descend from: scored too, and their loyalty to it is measured.",
        "Model",
        metavar="M",
    )
    task: str = setting("", "What to score; `polydistill ls tasks` lists them.", "Data", metavar="TASK")
    languages: tuple[str, ...] = setting((), "Language of the data. Repeat for several.", "Data", metavar="LANG")
    split: str = setting("test", "Which part of the data.", "Data", metavar="NAME")
    data_dir: Path | None = data_dir_setting("Data")
    data: Path | None = setting(
        None,
        "Your own file, with your own labels: words and tags, or texts and labels.",
        "Data",
        metavar="FILE",
        objects=True,
    )
    limit: int | None = setting(
        None,
        "Score only the first examples of each language; such scores do not go into records.",
        "Data",
        metavar="N",
        least=1,
    )
    g_xlt: bool = setting(
        False, "Ask each language's questions about every language's paragraphs (questions and answers).", "Data"
    )
    batch_size: int = setting(
        32, "Inputs at once; the scores do not depend on it.", "Speed", metavar="N", least=1, most=MOST_BATCH
    )
    max_length: int | None = setting(
        None,
        "Most tokens of an input; longer sentences and paragraphs are windowed. "
        "[default: 512, for questions 384, or the model's own limit]",
        "Speed",
        metavar="N",
        least=16,
    )
    precision: str = setting(
        FLOAT32,
        "Precision of matrix products: float32, bfloat16, or auto for the faster one, measured on one product.",
        "Speed",
        metavar="TYPE",
        choices=(AUTO, *PRECISIONS),
    )
    device: str = device_setting("Speed")
    latency: bool = setting(
        False, "Measure time and memory as well, in fresh processes in which the models take turns.", "Speed"
    )
    prompt: str | None = setting(
        None,
        "Text put before every sentence (retrieval and similarity), e.g. 'query: '. [default: the model's own]",
        "Model",
        metavar="TEXT",
    )
    seed: int = seed_setting("Of the bootstrap intervals.", "Output")
    fresh: bool = setting(False, "Predict again what was predicted before.", "Output")
    output: Path | None = setting(
        None, "Write the scores to this file too, for `polydistill compare`.", "Output", metavar="RUN.json"
    )
    overwrite: bool = setting(False, "Replace that file if it exists.", "Output")
    include_path: tuple[Path, ...] = include_setting("Model")


@dataclass(frozen=True)
class Evaluation:
    """Scores of one or more models; `to_json` is what the command prints as JSON and what a run's file holds."""

    scores: tuple[Score, ...]
    averages: tuple[dict[str, Any], ...]
    models: tuple[dict[str, Any], ...]
    data: tuple[dict[str, Any], ...]
    latency: dict[str, Any] | None = None
    loyalty: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    precision: str = FLOAT32
    device: str = CPU
    command: str = field(default="evaluate", init=False)

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "command": self.command,
            "scores": [score.to_json() for score in self.scores],
            "averages": list(self.averages),
            "latency": self.latency,
            "loyalty": self.loyalty,
            "models": list(self.models),
            "data": list(self.data),
            "precision": self.precision,
            "device": self.device,
            "notes": list(self.notes),
        }


def evaluate(config: EvaluateOptions, progress: Progress = SILENT) -> Evaluation:
    """Scores models on a task; what was predicted before is read from the cache.

    The scores, and what was measured of time and memory, are added to the record of each model that is a folder with
    one.

    Args:
        config: What to score.
        progress: Where to report.

    Raises:
        PolydistillError: Data or model are missing or do not fit each other.
    """
    wanted = check_options(config)
    with using(config.device):
        return _evaluated(config, wanted, progress)


def _evaluated(config: EvaluateOptions, wanted: Task, progress: Progress) -> Evaluation:
    cells = read_cells(config, wanted, progress)
    _check_output(config, [cell.split.where for cell in cells])
    settings = settings_of(config)
    models = {
        name: resolve(ModelRef.parse(name), progress=progress.note)
        for name in dict.fromkeys([*([config.teacher] if config.teacher else []), *config.model])
    }
    wanted, cells = with_labels_of(models, wanted, cells, progress)
    subjects = [Subject(name, resolved, wanted, settings) for name, resolved in models.items()]
    for subject in subjects:
        subject.check()  # before anything is predicted
    scores: list[Score] = []
    predictions: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for subject in subjects:
        own, found = score(subject, cells, progress)
        predictions.update({(subject.name, i): predicted for i, predicted in enumerate(found)})
        add_scores(subject, own, progress)
        scores += own
    items = Items()
    result = Evaluation(
        tuple(scores),
        tuple(averages(scores, items, seed=config.seed)),
        tuple(subject.facts() for subject in subjects),
        tuple(_data_facts(cell, wanted) for cell in cells),
        latency=_latency(subjects, cells[0], progress) if config.latency else None,
        loyalty=_loyalty(config, wanted, cells, predictions, scores, items) if config.teacher else None,
        notes=tuple(few_notes((_name(cell), len(set(units_of(cell.split.examples)))) for cell in cells)),
        precision=precision_name(settings.bf16),
        device=current(),
    )
    if config.output:
        content = orjson.dumps(result.to_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n"
        write_beside(config.output.expanduser(), content, overwrite=config.overwrite)
    return result


def settings_of(config: EvaluateOptions) -> Settings:
    """The part of a configuration that scoring one model needs."""
    return Settings(
        batch_size=config.batch_size,
        max_length=config.max_length,
        bf16=multiplies_in_bfloat16(config.precision),  # decided now, since it is part of what predictions are kept by
        prompt=config.prompt,
        seed=config.seed,
        whole=config.limit is None,
        fresh=config.fresh,
        include_path=config.include_path,
    )


def check_options(config: EvaluateOptions) -> Task:
    """The task, after a look at the options.

    Raises:
        UsageError: One is missing or invalid, or there is no predict loop for the task.
    """
    if not config.model:
        raise UsageError("No model was given.", "Add one, for instance `model=polydistill-out/my-model`.")
    if not config.task:
        raise UsageError("No task was given.", "Add one, for instance `task=ner`.")
    config.check()
    wanted = with_own_labels(task(config.task, config.include_path), config.data)
    kind_of(wanted)
    if config.data is not None and len(config.languages) > 1:
        raise UsageError(
            "`data` is a file of one language.", "Give one of `languages`, or lay the files out for `data_dir`."
        )
    if config.g_xlt and (wanted.kind != SPAN_EXTRACTION or len(config.languages) < 2):
        raise UsageError(
            "`g_xlt` needs a task of questions and at least two languages.", "Add to `languages`, or leave `g_xlt` out."
        )
    _check_output(config, [*config.model, config.teacher, config.data, *user_files(config.include_path)])
    return wanted


def _check_output(config: EvaluateOptions, reads: Sequence[Path | str | None]) -> None:
    if config.output:
        check_file(config.output.expanduser(), overwrite=config.overwrite, reads=reads)


def read_cells(config: EvaluateOptions, wanted: Task, progress: Progress) -> list[Cell]:
    """All data, read before any model is loaded, so that what is wrong with it is said at once."""
    languages = resolve_languages(config.languages, config.include_path)
    pairs: Iterator[tuple[Language, Language | None]] = (
        (context, question if question.code != context.code else None)
        for context in languages
        for question in (languages if config.g_xlt else (context,))
    )
    found = []
    for context, question in pairs:
        split = load_split(
            wanted,
            context,
            config.split,
            data=config.data,
            data_dir=config.data_dir,
            limit=config.limit,
            question_language=question,
            progress=progress,
        )
        found.append(Cell(split, context, question))
    _say_ignored(found, progress)
    return found


def with_labels_of(
    models: Mapping[str, ResolvedModel], wanted: Task, cells: Sequence[Cell], progress: Progress
) -> tuple[Task, list[Cell]]:
    """The task and the data with the user's own labels, once the models are known; others stay as they are.

    Raises:
        PolydistillError: A model shares no label with the data.
    """
    if not wanted.own:
        return wanted, list(cells)
    wanted = agreed(wanted, [c.split for c in cells], {name: found.folder for name, found in models.items()}, progress)
    if not wanted.not_scored:
        return wanted, list(cells)
    found = [replace(cell, split=without_types(cell.split, wanted.not_scored)) for cell in cells]
    _say_ignored(found, progress)
    return wanted, found


def _say_ignored(cells: Sequence[Cell], progress: Progress) -> None:
    for cell in cells:
        for label, n in cell.split.ignored.items():
            progress.note(f"{cell.language.code}: {n:,} entities of the type {label} are not scored and count as O.")


def _name(cell: Cell) -> str:
    return f"{cell.asked}>{cell.language.code}" if cell.asked else cell.language.code


def _data_facts(cell: Cell, wanted: Task) -> dict[str, Any]:
    split = cell.split
    return {
        "language": cell.language.code,
        "question_language": cell.asked,
        "split": split.split,
        "where": split.where,
        "n": len(split.examples),
        "labels": list(wanted.scored_labels),
        "sha256": split.sha256,
        "not_scored": dict(split.ignored),
        "skipped": dict(split.skipped),
        "mended": dict(split.mended),
    }


def _latency(subjects: Sequence[Subject], cell: Cell, progress: Progress) -> dict[str, Any]:
    """Time and memory on one language's data, which the records of all models but the first get as well."""
    from polydistill.evaluation.cost import measure_cost

    wanted, settings = subjects[0].wanted, subjects[0].settings
    measured = measure_cost(
        {subject.name: subject.resolved.folder for subject in subjects},
        wanted,
        cell.split.examples,
        max_length=settings.max_length or kind_of(wanted).MAX_LENGTH,
        prompt=settings.prompt,
        language=cell.language.code,
        progress=progress,
    )
    how = {"language": cell.language.code, **{key: value for key, value in measured.items() if key != "models"}}
    for subject, row in zip(subjects[1:], measured["models"][1:], strict=True):
        own = {key: value for key, value in row.items() if key != "model"}
        memory = {"memory_ratio": {"value": row["peak_memory_bytes"] / measured["models"][0]["peak_memory_bytes"]}}
        add_cost(subject, {"beside": subjects[0].name, "task": wanted.name, **own, **memory, **how}, progress)
    return {**how, "models": measured["models"]}


def _loyalty(
    config: EvaluateOptions,
    wanted: Task,
    cells: Sequence[Cell],
    predictions: Mapping[tuple[str, int], list[dict[str, Any]]],
    scores: Sequence[Score],
    items: Items,
) -> dict[str, Any]:
    """Every student compared with the teacher."""
    assert config.teacher
    rows, means = [], []
    for student in dict.fromkeys(name for name, _ in predictions if name != config.teacher):
        found = [
            loyalty(wanted, cell, predictions[config.teacher, i], predictions[student, i])
            for i, cell in enumerate(cells)
        ]
        for cell, measured in zip(cells, found, strict=True):
            rows += loyalty_rows(student, cell, measured, config.seed)
        means += loyalty_averages(student, cells, found, config.seed)
    kept, kept_means = retention_rows(config.teacher, scores, items, seed=config.seed)
    return {"teacher": config.teacher, "scores": rows + kept, "averages": means + kept_means}
