"""`polydistill evaluate`: models scored on a task in many languages, the same way whatever made them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from polydistill.catalog import Language, Task, resolve_languages, task
from polydistill.checkpoint import Checkpoint, file_sha256
from polydistill.errors import UsageError
from polydistill.evaluation import cache
from polydistill.evaluation.heads import VECTOR_KINDS, TaskModel, open_model
from polydistill.evaluation.kinds import Kind, kind_of
from polydistill.evaluation.summaries import averages, loyalty_rows, retention_rows
from polydistill.inspection import lineage_line
from polydistill.labelled.examples import LabelledSplit
from polydistill.labelled.sources import load_split
from polydistill.metrics.items import Measured
from polydistill.metrics.paired import interval
from polydistill.modelfolder import tokenizer_files
from polydistill.outputs import check_file, write_beside
from polydistill.progress import SILENT, Progress
from polydistill.record import NAME as RECORD
from polydistill.record import RunRecord, Score
from polydistill.refs import ModelRef, ResolvedModel, resolve
from polydistill.settings import plain, setting
from polydistill.stacks.description import Description, is_stack, sizes
from polydistill.surgery import embedding_parameters
from polydistill.task import SPAN_EXTRACTION
from polydistill.trimming import Source


@dataclass(frozen=True)
class EvaluateConfig:
    """The configuration of an evaluation; each field is an option of the command line."""

    model: tuple[str, ...] = setting(
        (), "Folder, org/name or org/name@revision. Repeat for several.", "Model", metavar="M"
    )
    teacher: str | None = setting(
        None, "Model that the others descend from: scored too, and their loyalty to it is measured.", "Model",
        metavar="M",
    )  # fmt: skip
    task: str = setting("", "What to score; `polydistill ls tasks` lists them.", "Data", metavar="TASK")
    lang: tuple[str, ...] = setting((), "Language of the data. Repeat for several.", "Data", metavar="LANG")
    split: str = setting("test", "Which part of the data.", "Data", metavar="NAME")
    data_dir: Path | None = setting(
        None, "Folder of local data, laid out as the task says. [default: $POLYDISTILL_DATA, else the Hub]", "Data",
        metavar="DIR",
    )  # fmt: skip
    data: Path | None = setting(None, "A file of your own in the format of the task's kind.", "Data", metavar="FILE")
    limit: int | None = setting(
        None, "Score only the first examples of each language; such scores do not go into records.", "Data",
        metavar="N",
    )  # fmt: skip
    g_xlt: bool = setting(
        False, "Ask each language's questions about every language's paragraphs (questions and answers).", "Data",
        flags=("--g-xlt",),
    )  # fmt: skip
    batch_size: int = setting(32, "Inputs at once; the scores do not depend on it.", "Speed", metavar="N")
    max_length: int | None = setting(
        None, "Most tokens of an input; longer sentences and paragraphs are windowed. "
        "[default: 512, for questions 384, or the model's own limit]", "Speed", metavar="N",
    )  # fmt: skip
    bf16: bool = setting(False, "Multiply in bfloat16. Faster on some machines, slower on others.", "Speed")
    latency: bool = setting(
        False, "Measure time and memory as well, the models taking turns.", "Speed", flags=("--latency",)
    )
    prompt: str | None = setting(
        None, "Text put before every sentence (retrieval and similarity), e.g. 'query: '. [default: the model's own]",
        "Model", metavar="TEXT",
    )  # fmt: skip
    seed: int = setting(0, "Of the bootstrap intervals.", "Output", metavar="N")
    fresh: bool = setting(False, "Predict again what was predicted before.", "Output")
    output: Path | None = setting(
        None, "Write the scores to this file too, for `polydistill compare`.", "Output", metavar="RUN.json",
        flags=("-o", "--output"),
    )  # fmt: skip
    overwrite: bool = setting(False, "Replace that file if it exists.", "Output")
    include_path: tuple[Path, ...] = setting(
        (), "Folder with your own languages/, tasks/ and arch/ TOML files.", "Model", metavar="DIR"
    )


@dataclass(frozen=True)
class Evaluation:
    """Scores of one or more models; `to_json` is the object of `--json` and the content of a run's file."""

    scores: tuple[Score, ...]
    averages: tuple[dict[str, Any], ...]
    models: tuple[dict[str, Any], ...]
    data: tuple[dict[str, Any], ...]
    latency: dict[str, Any] | None = None
    loyalty: dict[str, Any] | None = None
    command: str = field(default="evaluate", init=False)

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "command": self.command,
            "scores": [plain_score(score) for score in self.scores],
            "averages": list(self.averages),
            "latency": self.latency,
            "loyalty": self.loyalty,
            "models": list(self.models),
            "data": list(self.data),
        }


def plain_score(score: Score) -> dict[str, Any]:
    """A score as JSON has it."""
    return {name: plain(value) for name, value in asdict(score).items()}


@dataclass(frozen=True)
class Cell:
    """A language to score: the data, and what it is called.

    Args:
        split: The data.
        language: Its language; of a question about a paragraph, the paragraph's.
        question_language: The question's, where it is another one.
    """

    split: LabelledSplit
    language: Language
    question_language: Language | None


@dataclass
class Subject:
    """A model to score, loaded when it is first needed.

    Args:
        name: What its scores call it.
        resolved: Where it is.
        wanted: The task.
        config: How to score it.
    """

    name: str
    resolved: ResolvedModel
    wanted: Task
    config: EvaluateConfig

    @cached_property
    def is_stack(self) -> bool:
        """Whether it is an encoder on a language model, and no model of transformers."""
        return is_stack(self.resolved.folder)

    def check(self) -> None:
        """Looks at the folder without loading weights.

        Raises:
            PolydistillError: Something in it is missing, broken, or of an unknown kind.
        """
        if self.is_stack:
            Description.read(self.resolved.folder)
        else:
            _ = self.source

    @cached_property
    def source(self) -> Source:
        """The folder, without its weights."""
        return Source.open(self.resolved, self.config.include_path)

    @cached_property
    def weights_hash(self) -> str:
        """Hash of its weights; of a stack, of what it added and of the models that it stands on."""
        if not self.is_stack:
            return self.source.checkpoint.weights_hash
        parts = (part.weights_hash for part in Description.read(self.resolved.folder).parts.values())
        own = Checkpoint.open(self.resolved.folder).weights_hash
        return hashlib.sha256("".join([own, *parts]).encode()).hexdigest()

    @cached_property
    def files_hash(self) -> str:
        """Hash of all files that decide the predictions, but for the weights."""
        folder = self.resolved.folder if self.is_stack else self.source.model
        files = [folder / "config.json", *tokenizer_files(folder)]
        if self.wanted.kind in VECTOR_KINDS:
            # What a sentence-transformers folder has beside the encoder: pooling, prompts, layers with weights.
            beside = (f for end in ("json", "safetensors") for f in self.resolved.folder.glob(f"**/*.{end}"))
            files += sorted(f for f in beside if f.name != RECORD and (f.parent != folder or f.suffix == ".json"))
        return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()

    @cached_property
    def record(self) -> RunRecord | None:
        """The record of its folder."""
        return RunRecord.load(self.resolved.folder)

    @cached_property
    def loaded(self) -> TaskModel:
        """The model with the head of the task's kind."""
        kind = kind_of(self.wanted)
        return open_model(
            self.resolved.folder, self.wanted.kind, self.wanted.labels, not_scored=self.wanted.not_scored,
            max_length=self.config.max_length or kind.MAX_LENGTH, prompt=self.config.prompt,
        )  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """What a run's file says of the model."""
        if self.is_stack:
            embedding = 0  # not told apart
            parameters, nbytes = sizes(self.resolved.folder)
        else:
            embedding = embedding_parameters(self.source.checkpoint, self.source.arch)
            parameters, nbytes = self.source.checkpoint.parameters, self.source.nbytes
        return {
            "model": self.name,
            "source": self.resolved.source,
            "weights_hash": self.weights_hash,
            "parameters": {"embedding": embedding, "rest": parameters - embedding},
            "bytes": nbytes,
            "lineage": [lineage_line(step) for step in self.record.lineage()] if self.record else [],
            "languages": list(self.record.result.get("languages", ())) if self.record else [],
        }


def evaluate(config: EvaluateConfig, progress: Progress = SILENT) -> Evaluation:
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
    cells = read_cells(config, wanted, progress)
    subjects = [
        Subject(name, resolve(ModelRef.parse(name), progress=progress.note), wanted, config)
        for name in dict.fromkeys([*([config.teacher] if config.teacher else []), *config.model])
    ]
    for subject in subjects:
        subject.check()  # before anything is predicted
    scores: list[Score] = []
    predictions: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for subject in subjects:
        own, found = score(subject, cells, progress)
        predictions.update({(subject.name, i): predicted for i, predicted in enumerate(found)})
        _add_scores(subject, own, progress)
        scores += own
    result = Evaluation(
        tuple(scores),
        tuple(averages(scores)),
        tuple(subject.facts() for subject in subjects),
        tuple(_data_facts(cell) for cell in cells),
        latency=_latency(subjects, cells[0], progress) if config.latency else None,
        loyalty=_loyalty(config, wanted, cells, predictions, scores) if config.teacher else None,
    )
    if config.output:
        content = orjson.dumps(result.to_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n"
        write_beside(config.output.expanduser(), content)
    return result


def check_options(config: EvaluateConfig) -> Task:
    """The task, after a look at the options.

    Raises:
        UsageError: One is missing or makes no sense, or there is no predict loop for the task.
    """
    if not config.model:
        raise UsageError("No model was given.", "Add --model, for instance --model polydistill-out/my-model.")
    if not config.task:
        raise UsageError("No task was given.", "Add --task, for instance --task ner.")
    for name, value in (("batch-size", config.batch_size), ("max-length", config.max_length), ("limit", config.limit)):
        if value is not None and value < (16 if name == "max-length" else 1):
            raise UsageError(f"--{name} {value} makes no sense.", "See --help for what it takes.")
    if config.seed < 0:
        raise UsageError(f"--seed must be at least 0, not {config.seed}.", "Try 0.")
    wanted = task(config.task, config.include_path)
    kind_of(wanted)
    if config.data is not None and len(config.lang) > 1:
        raise UsageError("--data is a file of one language.", "Give one --lang, or lay the files out for --data-dir.")
    if config.g_xlt and (wanted.kind != SPAN_EXTRACTION or len(config.lang) < 2):
        raise UsageError(
            "--g-xlt needs a task of questions and at least two languages.", "Add --lang, or leave it out."
        )
    if config.output:
        check_file(config.output.expanduser(), overwrite=config.overwrite)
    return wanted


def read_cells(config: EvaluateConfig, wanted: Task, progress: Progress) -> list[Cell]:
    """All data, read before any model is loaded, so that what is wrong with it is said at once."""
    languages = resolve_languages(config.lang, config.include_path)
    pairs: Iterator[tuple[Language, Language | None]] = (
        (context, question if question.code != context.code else None)
        for context in languages
        for question in (languages if config.g_xlt else (context,))
    )
    found = []
    for context, question in pairs:
        split = load_split(
            wanted, context, config.split, data=config.data, data_dir=config.data_dir, limit=config.limit,
            question_language=question, progress=progress,
        )  # fmt: skip
        for label, n in split.ignored.items():
            progress.note(f"{context.code}: {n:,} entities of the type {label} are not scored and count as O.")
        found.append(Cell(split, context, question))
    return found


def score(
    subject: Subject, cells: Sequence[Cell], progress: Progress = SILENT
) -> tuple[list[Score], list[list[dict[str, Any]]]]:
    """Scores a model; what was predicted before is read from the cache.

    Args:
        subject: The model.
        cells: The languages to score.
        progress: Where to report.

    Returns:
        The scores, and the predictions of each language.
    """
    scores: list[Score] = []
    predictions = []
    for cell in cells:
        key, found, measured = _predictions(subject, cell, kind_of(subject.wanted), progress)
        predictions.append(found)
        scores += _scores(subject, cell, measured, key)
    return scores, predictions


def _predictions(
    subject: Subject, cell: Cell, kind: Kind, progress: Progress
) -> tuple[str, list[dict[str, Any]], list[Measured]]:
    """(key, predictions, metrics); the predictions are from the cache if they are there."""
    config, split = subject.config, cell.split
    settings = {
        "max_length": config.max_length or kind.MAX_LENGTH, "bf16": config.bf16, "prompt": config.prompt,
    }  # fmt: skip
    facts = {
        "task": split.task, "task_version": task_version(subject.wanted), "language": cell.language.code,
        "question_language": cell.question_language.code if cell.question_language else None, "split": split.split,
        "data_hash": split.sha256, "weights_hash": subject.weights_hash, "settings": settings,
        "files_hash": subject.files_hash,
    }  # fmt: skip
    key = cache.key_of(facts)
    stored = None if config.fresh else cache.load(key)
    if stored is not None and len(stored["predictions"]) == len(split.examples):
        known = stored["predictions"]
        return key, known, kind.measure(split.examples, known, cell.language.code)
    what = f"{Path(subject.name).name} {_name(cell)}"
    if subject.loaded.read_language is not None:
        subject.loaded.read_language(cell.language)
    with progress.bar(what, len(split.examples), "input") as done:
        found = kind.predict(subject.loaded, split.examples, batch_size=config.batch_size, bf16=config.bf16, done=done)
    measured = kind.measure(split.examples, found, cell.language.code)
    cache.save(key, {**facts, "n": len(found)}, found, measured)
    return key, found, measured


def _name(cell: Cell) -> str:
    asked = f", asked in {cell.question_language.code}" if cell.question_language else ""
    return f"{cell.language.code}{asked}"


def task_version(wanted: Task) -> str:
    """Hash of what decides a task's predictions and scores: its kind, labels and what is not scored."""
    decides = [wanted.name, wanted.kind, list(wanted.labels), sorted(wanted.not_scored)]
    return hashlib.sha256(orjson.dumps(decides)).hexdigest()[:16]


def _scores(subject: Subject, cell: Cell, measured: Sequence[Measured], key: str) -> list[Score]:
    chosen = _selection(subject.record)
    return [
        Score(
            model=subject.name,
            task=cell.split.task,
            language=cell.language.code,
            split=cell.split.split,
            metric=m.metric,
            value=m.value,
            interval=interval(m, seed=subject.config.seed),
            n=len(m.items),
            normalisation=m.normalisation,
            data_hash=cell.split.sha256,
            weights_hash=subject.weights_hash,
            task_version=task_version(subject.wanted),
            question_language=cell.question_language.code if cell.question_language else None,
            selection=chosen,
            seed=subject.config.seed,
            predictions=key,
        )
        for m in measured
    ]


def _selection(record: RunRecord | None) -> tuple[str, ...]:
    """Languages whose dev data chose a checkpoint, in the newest run that chose one."""
    for step in record.lineage() if record else ():
        if chosen := step["result"].get("selection"):
            return tuple(chosen["languages"])
    return ()


def _add_scores(subject: Subject, scores: Sequence[Score], progress: Progress) -> None:
    """Writes scores of whole splits into the record of a model's folder, in place of older ones of the same thing."""
    if subject.config.limit is None:
        new = {_identity(score) for score in scores}
        _change_record(
            subject, lambda was: replace(was, scores=[*(s for s in was.scores if _identity(s) not in new), *scores]),
            progress,
        )  # fmt: skip


def _add_cost(subject: Subject, cost: dict[str, Any], progress: Progress) -> None:
    """Writes time and memory into the record of a model's folder, in place of those beside the same model."""

    def identity(of: dict[str, Any]) -> tuple[Any, Any]:
        return of.get("beside"), of.get("task")

    _change_record(
        subject, lambda was: replace(was, costs=[*(c for c in was.costs if identity(c) != identity(cost)), cost]),
        progress,
    )  # fmt: skip


def _change_record(subject: Subject, change: Callable[[RunRecord], RunRecord], progress: Progress) -> None:
    folder = subject.resolved.folder
    record = RunRecord.load(folder) if subject.resolved.ref.path else None  # again: it may have changed since
    if record is None:
        return
    try:
        change(record).save(folder)
    except OSError as error:
        progress.warn(f"What was measured could not be added to {folder / RECORD} ({error.strerror}).")


def _identity(score: Score) -> tuple[Any, ...]:
    return (
        score.task, score.language, score.question_language, score.split, score.data_hash, score.metric,
        score.normalisation,
    )  # fmt: skip


def _data_facts(cell: Cell) -> dict[str, Any]:
    split = cell.split
    return {
        "language": cell.language.code,
        "question_language": cell.question_language.code if cell.question_language else None,
        "split": split.split,
        "where": split.where,
        "n": len(split.examples),
        "sha256": split.sha256,
        "not_scored": dict(split.ignored),
        "skipped": dict(split.skipped),
    }


def _latency(subjects: Sequence[Subject], cell: Cell, progress: Progress) -> dict[str, Any]:
    """Time and memory on one language's data, which the records of all models but the first get as well."""
    from polydistill.evaluation.cost import measure_cost

    wanted, config = subjects[0].wanted, subjects[0].config
    measured = measure_cost(
        {subject.name: subject.resolved.folder for subject in subjects},
        wanted,
        cell.split.examples,
        max_length=config.max_length or kind_of(wanted).MAX_LENGTH,
        prompt=config.prompt,
        language=cell.language.code,
        seed=config.seed,
        progress=progress,
    )
    how = {"language": cell.language.code, **{key: value for key, value in measured.items() if key != "models"}}
    for subject, row in zip(subjects[1:], measured["models"][1:], strict=True):
        own = {key: value for key, value in row.items() if key != "model"}
        memory = {"memory_ratio": {"value": row["peak_memory_bytes"] / measured["models"][0]["peak_memory_bytes"]}}
        _add_cost(subject, {"beside": subjects[0].name, "task": wanted.name, **own, **memory, **how}, progress)
    return {**how, "models": measured["models"]}


def _loyalty(
    config: EvaluateConfig,
    wanted: Task,
    cells: Sequence[Cell],
    predictions: Mapping[tuple[str, int], list[dict[str, Any]]],
    scores: Sequence[Score],
) -> dict[str, Any]:
    """Every student beside the teacher."""
    assert config.teacher
    rows = []
    for student in dict.fromkeys(name for name, _ in predictions if name != config.teacher):
        for i, cell in enumerate(cells):
            asked = cell.question_language.code if cell.question_language else None
            reference, own = predictions[config.teacher, i], predictions[student, i]
            measured = kind_of(wanted).loyalty(reference, own, cell.language.code)
            rows += loyalty_rows(student, cell.language.code, asked, measured, config.seed)
    return {"teacher": config.teacher, "scores": rows + retention_rows(config.teacher, scores)}
