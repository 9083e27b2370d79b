"""`polydistill prokd`: a tagger for a language without a single label (reconstruction of ProKD, Ge et al. 2023).

A teacher is tuned on the source's labels while its prototypes of both languages are aligned; a student then learns from
it on the target's sentences without tags, with pseudo-labels that prototypes rectify. TSL (Wu et al. 2020), TSL with
plain self-training and direct transfer run from the same command.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from polydistill.card import write_card
from polydistill.errors import UsageError
from polydistill.evaluation.evaluate import EvaluateConfig, evaluate
from polydistill.files.outputs import check_output, new_folder
from polydistill.methods.prokd.plan import METHODS, PRESETS, PROKD, TRANSFER, by_preset, idle_options, prepare
from polydistill.methods.prokd.stages import PICTURE, Run, identity, settings
from polydistill.models.copying import copy_model
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.options.settings import (
    MOST_BATCH,
    Options,
    Outcome,
    data_dir_setting,
    include_setting,
    output_setting,
    seed_setting,
    setting,
)
from polydistill.processes import several
from polydistill.progress import SILENT, Progress
from polydistill.records.record import RunRecord, Score, other_model, parent_of, peak_memory_bytes, source_facts
from polydistill.runs.folder import work_folder
from polydistill.runs.stages import ABOUT as STAGE
from polydistill.runs.stages import Stage, Stages


@dataclass(frozen=True)
class ProkdConfig(Options):
    """The configuration of a distillation without target labels; its fields are options of the command line."""

    source: str
    target: str
    model: str | None = setting(
        None,
        "What the teacher is tuned from, or what the student begins with if a teacher is given: folder, org/name "
        "or org/name@revision. [default: intfloat/multilingual-e5-small]",
        "Model",
        metavar="M",
    )
    teacher: tuple[str, ...] = setting(
        (),
        "Model tuned on a source's labels; once for each source. It stays as it is unless --teacher-epochs is "
        "given. [default: made here]",
        "Model",
        metavar="DIR",
    )
    freeze_embeddings: bool = setting(False, "Do not train word embeddings: faster, in far less memory.", "Model")
    freeze_layers: int | None = setting(
        None,
        f"Do not train the lowest N layers, nor word embeddings. {by_preset('freeze_layers')}",
        "Model",
        metavar="N",
        least=0,
    )
    include_path: tuple[Path, ...] = include_setting("Model")
    task: str = setting("ner", "A task with tags; see `polydistill ls tasks`.", "Data", metavar="TASK")
    sources: tuple[str, ...] = setting((), "Another language with labels. Repeat for several.", "Data", metavar="LANG")
    data_dir: Path | None = data_dir_setting("Data")
    text: tuple[str, ...] = setting(
        (), "Text of the target language, one sentence a line, in place of its training split.", "Data", metavar="PATH"
    )
    unlabelled_split: str | None = setting(
        None,
        "Split of the target whose sentences are used, without their tags. [default: train]",
        "Data",
        metavar="NAME",
    )
    train_split: tuple[str, ...] = setting(
        (),
        "Split of the sources to train on, or LANG=NAME for one of them. Repeat to join several. [default: train]",
        "Data",
        metavar="[LANG=]NAME",
    )
    dev_split: tuple[str, ...] = setting(
        (),
        "Split of the sources that chooses checkpoints, or LANG=NAME for one of them. [default: dev]",
        "Data",
        metavar="[LANG=]NAME",
    )
    test_split: tuple[str, ...] = setting(
        (), "Split to score in a language, LANG=NAME; `none` for no score. [default: test]", "Data", metavar="LANG=NAME"
    )
    limit: int | None = setting(None, "Use at most this many sentences of each split.", "Data", metavar="N", least=1)
    method: str = setting(
        PROKD,
        "prokd; tsl (the student learns the teacher's probabilities alone), selftrain (and its labels, without "
        "prototypes), or transfer (the teacher as it is).",
        "Method",
        metavar="METHOD",
        choices=METHODS,
    )
    align_weight: float = setting(
        1.0, "Weight of the alignment of prototypes; 0 for none.", "Method", metavar="X", least=0
    )
    align_temperature: float = setting(
        0.1, "Temperature of the alignment, and of weights by similarity.", "Method", metavar="T", least=1e-6
    )
    align_symmetric: bool = setting(False, "Let prototypes of both languages be anchors.", "Method")
    align_confidence: float = setting(
        0.0,
        "A target token counts if the teacher's tag has at least this probability.",
        "Method",
        metavar="P",
        least=0,
        most=1,
    )
    align_warmup: float = setting(
        0.1, "Share of the teacher's steps before target tokens count.", "Method", metavar="SHARE", least=0, most=1
    )
    momentum: float = setting(
        0.9, "Of the moving averages that prototypes are.", "Method", metavar="M", least=0, most=0.9999999
    )
    classes: str = setting(
        "type",
        "A prototype for each entity type, or for each BIO tag.",
        "Method",
        metavar="KIND",
        choices=("type", "tag"),
    )
    layer: int | None = setting(
        None, "Whose hidden states are features, counted from 1. [default: the last]", "Method", metavar="N", least=1
    )
    tokens: str = setting(
        "first",
        "Tokens of a word that make the teacher's prototypes: first or all.",
        "Method",
        metavar="WHICH",
        choices=("first", "all"),
    )
    loss: str = setting(
        "mse", "Of the student: mse of probabilities (TSL), or kl.", "Method", metavar="LOSS", choices=("mse", "kl")
    )
    temperature: float = setting(1.0, "Temperature of that loss.", "Method", metavar="T", least=1e-6)
    self_weight: float = setting(1.0, "Weight of the pseudo-labels beside it.", "Method", metavar="X", least=0)
    self_ramp: float = setting(
        0.5,
        "Share of the student's steps in which that weight grows from 0.",
        "Method",
        metavar="SHARE",
        least=0,
        most=1,
    )
    pseudo_labels: str = setting(
        "soft",
        "soft (rectified probabilities) or hard (the likeliest tag of them).",
        "Method",
        metavar="FORM",
        choices=("soft", "hard"),
    )
    rectify: bool = setting(True, "Whether prototypes rectify them.", "Method", flags=("--rectify/--no-rectify",))
    rectify_temperature: float = setting(1.0, "Temperature of the rectification.", "Method", metavar="T", least=1e-6)
    distance: str = setting(
        "unit",
        "Distance to a prototype: euclidean, or unit for vectors scaled to length 1.",
        "Method",
        metavar="KIND",
        choices=("euclidean", "unit"),
    )
    features: str = setting(
        "teacher",
        "Whose features are compared: teacher or student.",
        "Method",
        metavar="WHOSE",
        choices=("teacher", "student"),
    )
    weigh: str = setting(
        "equal",
        "Weights of several teachers: equal, or similarity of their prototypes.",
        "Method",
        metavar="HOW",
        choices=("equal", "similarity"),
    )
    dev_tolerance: float = setting(
        0.01,
        "Of the student's checkpoints, the last one is kept whose dev score is at most this much below the best: "
        "dev data of a source can tell that its tags get lost, and not which of two students knows the target better. "
        "0 keeps the best.",
        "Training",
        metavar="X",
        least=0,
        most=1,
    )
    preset: str = setting(
        "small",
        "smoke (a first try), small (for a CPU) or paper (as TSL): the defaults of what follows.",
        "Training",
        metavar="NAME",
        choices=tuple(PRESETS),
    )
    teacher_epochs: float | None = setting(
        None, f"Passes over the sources' sentences. {by_preset('teacher_epochs')}", "Training", metavar="N", least=0
    )
    epochs: float | None = setting(
        None, f"Passes over the target's sentences. {by_preset('epochs')}", "Training", metavar="N", above=0
    )
    batch_size: int | None = setting(
        None,
        f"Sentences a step; of each language where prototypes are aligned. {by_preset('batch_size')}",
        "Training",
        metavar="N",
        least=1,
        most=MOST_BATCH,
    )
    length: int | None = setting(
        None, f"Most tokens of an input. {by_preset('length')}", "Training", metavar="N", least=16
    )
    teacher_lr: float | None = setting(
        None, f"Highest learning rate of the teacher. {by_preset('teacher_lr')}", "Training", metavar="X", above=0
    )
    lr: float | None = setting(
        None, f"Highest learning rate of the student. {by_preset('lr')}", "Training", metavar="X", above=0
    )
    bf16: bool = setting(False, "Multiply in bfloat16. Faster on some machines, slower on others.", "Training")
    cache_gb: float = setting(
        4.0,
        "Keep what the teacher says of the target's sentences on disk if it takes at most this much.",
        "Training",
        metavar="GB",
        least=0,
    )
    seed: int = seed_setting("Of the new head, the order of the data and dropout.", "Training")
    resume: bool = setting(False, "Go on with a run that was stopped.", "Output")
    output: Path | None = output_setting("polydistill-out/<model>-<source>-<target>-<task>-<method>", "Output")
    overwrite: bool = setting(False, "Replace the output folder if it exists.", "Output")


@dataclass(frozen=True)
class ProkdResult(Outcome):
    """What a distillation without target labels did; `to_json` is the object of `--json`."""

    model: str
    teachers: tuple[str, ...]
    output: Path
    method: str
    task: str
    languages: tuple[str, ...]
    sources: tuple[str, ...]
    target: str
    sentences: dict[str, int]
    stages: tuple[dict[str, Any], ...]
    prototypes: tuple[dict[str, Any], ...]
    pseudo_labels: dict[str, float | None] | None
    teacher_weights: tuple[float, ...]
    picture: dict[str, Any] | None
    parameters: dict[str, int]
    bytes: dict[str, int]
    settings: dict[str, Any]
    selection: dict[str, Any] | None
    scores: tuple[dict[str, Any], ...]
    loyalty: dict[str, Any] | None
    seconds: float
    peak_memory_bytes: int
    command: str = field(default="prokd", init=False)


def prokd(config: ProkdConfig, progress: Progress = SILENT) -> ProkdResult:
    """Makes a tagger for a language without labels.

    Args:
        config: What to do.
        progress: Where to report.

    Returns:
        Stages with their losses, what became of pseudo-labels, and scores; they also stand in the output's
        polydistill.json and README.md.

    Raises:
        PolydistillError: Data or a model are missing or do not fit; what was done until then stays for `--resume`.
    """
    started = time.perf_counter()
    if several():
        raise UsageError("`prokd` runs in one process.", "Start it without `torchrun` or `accelerate launch`.")
    todo = prepare(config, progress)
    check_output(todo.output, overwrite=config.overwrite, reads=config.reads())
    for note in idle_options(config, todo):
        progress.warn(note)
    with work_folder(
        todo.output, identity(config, todo), resume=config.resume, overwrite=config.overwrite, progress=progress
    ) as work:
        stages, run = Stages(work, progress), Run(config, todo, progress)
        teachers, before = _teachers(run, stages)
        final = teachers[0]
        if config.method != TRANSFER:
            found = stages.run("prototypes", partial(run.prototypes, teachers, before))
            begins = todo.model.folder if todo.model and todo.teachers else teachers[0]
            learn = partial(run.student, teachers, begins, found.folder, found.facts["weights"])
            final = stages.run("student", learn).folder
        return _finish(run, stages, final, teachers, started)


def _teachers(run: Run, stages: Stages) -> tuple[list[Path], Path | None]:
    """(the teacher of each source, what the first one was tuned from here)."""
    todo = run.todo
    folders = [teacher.source.folder for teacher in todo.teachers]
    if any(teacher.cut for teacher in todo.teachers):
        cut = stages.run("vocabulary", run.vocabulary).folder
        folders = [cut / f"teacher-{i}" if t.cut else t.source.folder for i, t in enumerate(todo.teachers)]
    if not todo.teacher_epochs:
        return folders, None
    begins = folders or [todo.begins.folder] * len(todo.sources)
    names = ["teacher", *(f"teacher-{language.code}" for language in todo.sources[1:])]
    made = [
        stages.run(name, partial(run.teacher, i, folder)).folder
        for i, (name, folder) in enumerate(zip(names, begins, strict=True))
    ]
    return made, begins[0]


def _finish(run: Run, stages: Stages, final: Path, teachers: Sequence[Path], started: float) -> ProkdResult:
    """Puts the finished model in its place, with scores, record and card, and the stages below it."""
    config, todo = run.config, run.todo
    result = _result(run, stages.done, final)
    with new_folder(todo.output, overwrite=config.overwrite) as out:
        copy_model(run.open(final), out)
        for name in STAGE:
            (out / name).unlink(missing_ok=True)
        scores, loyalty = _scores(run, out, teachers[0])
        result = replace(result, scores=tuple(score.to_json() for score in scores), loyalty=loyalty)
        seconds = round(time.perf_counter() - started, 1)
        result = replace(result, seconds=seconds, peak_memory_bytes=peak_memory_bytes())
        record = replace(_record(run, result), scores=[score for score in scores if score.model == str(todo.output)])
        record.save(out)
        write_card(record, out)
        stages.link_into(out / "stages")
    return result


def _result(run: Run, done: Sequence[Stage], final: Path) -> ProkdResult:
    config, todo = run.config, run.todo
    by_name = {stage.name: stage for stage in done}
    found = by_name.get("prototypes")
    last = by_name.get("student") or by_name.get("teacher")
    own = Source.open(resolve(ModelRef.parse(str(final))), config.include_path)
    codes = tuple(language.code for language in todo.sources)
    chosen = (
        None
        if last is None
        else {
            "languages": list(codes),
            "split": ", ".join(dict.fromkeys(split.split for split in todo.dev)),
            "metric": todo.task.metric,
            "value": last.facts["best"],
            "step": last.facts["best_step"],
        }
    )
    teachers = found.facts["teachers"] if found else []
    return ProkdResult(
        model=(todo.model or todo.begins).resolved.source,
        teachers=tuple(teacher.source.resolved.source for teacher in todo.teachers),
        output=todo.output,
        method=config.method,
        task=todo.task.name,
        languages=(*codes, todo.target.code),
        sources=codes,
        target=todo.target.code,
        sentences={
            **{c: sum(len(s.examples) for s in splits) for c, splits in todo.training.items()},
            todo.target.code: len(todo.plain.sentences) if todo.plain else 0,
        },
        stages=tuple(stage.to_json(todo.output / "stages") for stage in done),
        prototypes=tuple(teachers),
        pseudo_labels=found.facts["pseudo_labels"] if found else None,
        teacher_weights=tuple(found.facts["weights"]) if found else (),
        picture=orjson.loads((found.folder / PICTURE).read_bytes()) if found else None,
        parameters={"teacher": todo.begins.checkpoint.parameters, "student": own.checkpoint.parameters},
        bytes={"teacher": todo.begins.nbytes, "student": own.nbytes},
        settings=settings(config, todo),
        selection=chosen,
        scores=(),
        loyalty=None,
        seconds=0.0,
        peak_memory_bytes=0,
    )


def _record(run: Run, result: ProkdResult) -> RunRecord:
    todo = run.todo
    origin = todo.model or todo.begins  # what the student began with
    labelled = [split for splits in (*todo.training.values(), todo.dev) for split in splits]
    texts = [split.facts() for split in labelled]
    if words := todo.plain:
        texts.append(
            {
                "language": words.language,
                "where": words.where,
                "split": "words alone, tags not read",
                "examples": len(words.sentences),
                "sha256": words.sha256,
            }
        )
    return RunRecord(
        command="prokd",
        config=run.config.to_json(),
        source=source_facts(origin.resolved, origin.checkpoint),
        texts=texts,
        result=result.to_json(),
        parent=parent_of(origin.folder),
        others=[
            other_model("teacher", teacher.source.resolved, teacher.source.checkpoint)
            for teacher in todo.teachers
            if teacher.source is not origin
        ],
    )


def _scores(run: Run, out: Path, teacher: Path) -> tuple[list[Score], dict[str, Any] | None]:
    """Scores of teacher and student in both languages, and the student's loyalty; the names are what they will be."""
    config, todo = run.config, run.todo
    own = config.method == TRANSFER  # the teacher is the result
    given = todo.teachers and not todo.teacher_epochs
    if given:  # it is scored as it is, not with the vocabulary that it taught with
        teacher = todo.teachers[0].source.folder
    named = {
        str(out): str(todo.output),
        str(teacher): todo.teachers[0].source.resolved.source if given else str(todo.output / "stages/teacher"),
    }
    scores: list[Score] = []
    rows: list[dict[str, Any]] = []
    for language, split in todo.tests:
        found = evaluate(
            EvaluateConfig(
                model=(str(out),),
                teacher=None if own else str(teacher),
                task=todo.task.name,
                lang=(language.code,),
                split=split,
                data_dir=config.data_dir,
                seed=config.seed,
                include_path=config.include_path,
            ),
            run.progress,
        )
        scores += [replace(score, model=named[score.model]) for score in found.scores]
        if found.loyalty is not None:
            rows += [{**row, "model": named[row["model"]]} for row in found.loyalty["scores"]]
    return scores, {"teacher": named[str(teacher)], "scores": rows} if rows else None
