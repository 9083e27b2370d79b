"""`polydistill bistil`: a small bilingual model out of a multilingual one (BiStil, Ansell et al. 2023).

vocabulary of both languages -> student with some of the teacher's layers -> phase 1 on text of both languages -> task
teacher -> phase 2 on labelled source-language data with sparse fine-tuning -> scores in both languages.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from polydistill.card import write_card
from polydistill.distill.listing import SCALES
from polydistill.evaluation.evaluate import EvaluateConfig, evaluate
from polydistill.files.outputs import check_output, new_folder
from polydistill.methods.bistil import stages as made_of
from polydistill.methods.bistil.plan import SELECT, Prepared, idle_options, own_teacher, prepare
from polydistill.methods.bistil.presets import PRESETS
from polydistill.models.checkpoint import copy_file
from polydistill.models.refs import DEFAULT_MODEL, ModelRef, resolve
from polydistill.models.source import Source
from polydistill.options.settings import (
    MOST_BATCH,
    Options,
    Outcome,
    data_dir_setting,
    dev_data_setting,
    include_setting,
    output_setting,
    seed_setting,
    setting,
)
from polydistill.processes import is_main
from polydistill.progress import SILENT, Progress
from polydistill.records.record import RunRecord, Score, other_model, parent_of, peak_memory_bytes, source_facts
from polydistill.runs.folder import work_folder
from polydistill.runs.stages import ABOUT as STAGE
from polydistill.runs.stages import Stage, Stages


@dataclass(frozen=True)
class BistilConfig(Options):
    """The configuration of a bilingual distillation; each field is an argument or an option of the command line."""

    source: str
    target: str
    model: str = setting(
        DEFAULT_MODEL,
        "The multilingual teacher: folder, org/name or org/name@revision; or a student that phase 1 has "
        "made, to go on with phase 2.",
        "Model",
        metavar="M",
    )
    layers: int | None = setting(None, "Layers of the student. [default: half of the teacher's]", "Model", metavar="N")
    reduction: int | None = setting(None, "Layer reduction factor, in place of --layers.", "Model", metavar="R")
    init: str = setting(
        "alternate",
        "Which of the teacher's layers it begins with: alternate, bottom, top, a list such as 1,5,9; or "
        "random, for layers that know nothing.",
        "Model",
        metavar="HOW",
    )
    vocab_size: int | None = setting(
        None,
        "Keep exactly this many tokens. [default: those with a share of at least --min-share]",
        "Model",
        metavar="N",
        least=1,
    )
    min_share: float = setting(
        1e-6,
        "Keep a token that makes up at least this share of either language's text.",
        "Model",
        metavar="X",
        above=0,
        most=1,
    )
    allow_unknown: bool = setting(
        False, "Go on with a language that the tokenizer cannot write well.", "Model", flags=("--allow-unknown",)
    )
    language_sft: tuple[str, ...] = setting(
        (),
        "Sparse language fine-tuning that the teacher carries in phase 1, and no teacher in phase 2, LANG=FOLDER.",
        "Model",
        metavar="LANG=DIR",
    )
    text: tuple[str, ...] = setting(
        (),
        "Text of a language, LANG=PATH: as --corpus of `trim`. [default: the language's corpus on the Hub]",
        "Data",
        metavar="LANG=PATH",
    )
    task: str = setting(
        "",
        "Distil this task too: ner, nli, qa, ... (see `polydistill ls tasks`), or `embedding` for vectors of "
        "sentences. [default: phase 1 alone]",
        "Data",
        metavar="TASK",
    )
    teacher: tuple[str, ...] = setting(
        (),
        "Model tuned for the task, FOLDER or FOLDER=WEIGHT; repeat for several, whose logits are averaged. "
        "[default: made by `finetune`]",
        "Data",
        metavar="DIR",
    )
    data_dir: Path | None = data_dir_setting("Data")
    train_split: tuple[str, ...] = setting(
        (), "Split to train on. Repeat to join several. [default: train]", "Data", metavar="NAME"
    )
    dev_split: str = setting("dev", "Split that chooses the best checkpoint.", "Data", metavar="NAME")
    data: Path | None = setting(
        None, "Your own file in SOURCE to train on; its labels are the model's.", "Data", metavar="FILE"
    )
    dev_data: Path | None = dev_data_setting("Data")
    test_data: tuple[str, ...] = setting((), "Your own file to score in a language.", "Data", metavar="LANG=FILE")
    select: str | None = setting(
        None,
        "What makes a checkpoint of phase 2 the best: score, the task's own metric, or loyalty, how near "
        "predictions are the first teacher's, which tells neighbours apart on fewer examples. [default: loyalty where "
        "the teacher's logits are an objective, else score]",
        "Data",
        metavar="HOW",
        choices=SELECT,
    )
    test_split: tuple[str, ...] = setting(
        (), "Split to score in a language, LANG=NAME; `none` for no score. [default: test]", "Data", metavar="LANG=NAME"
    )
    limit: int | None = setting(
        None, "Use at most this many labelled examples, or lines of a text for vectors.", "Data", metavar="N", least=1
    )
    dev_limit: int | None = setting(
        None,
        "Choose the checkpoint by at most this many dev examples. [default: --limit, else by the preset]",
        "Data",
        metavar="N",
        least=1,
    )
    preset: str = setting(
        "small",
        "smoke (minutes), small (one to two hours) or paper: the defaults of all that follows.",
        "Training",
        metavar="NAME",
        choices=tuple(PRESETS),
    )
    phase: str = setting("all", "1, 2 or all.", "Training", metavar="WHICH", choices=("1", "2", "all"))
    objective: tuple[str, ...] = setting(
        (),
        "Weight of an objective, NAME=WEIGHT, or PHASE:NAME=WEIGHT for one phase; `ls objectives` lists "
        "them. What is given replaces the preset's.",
        "Training",
        metavar="NAME=W",
    )
    scale: str | None = setting(
        None,
        "What makes terms compare: none, first (each divided by its first value) or teacher (each layer's error "
        "divided by the teacher's mean square).",
        "Training",
        metavar="HOW",
        choices=SCALES,
    )
    temperature: float = setting(2.0, "T of the logits.", "Training", metavar="T", least=1e-6)
    squared_temperature: bool = setting(
        True,
        "Whether the term of the logits is multiplied with T^2.",
        "Training",
        flags=("--squared-temperature/--plain-temperature",),
    )
    logit_form: str = setting(
        "cross-entropy",
        "cross-entropy or kl: the same gradients, another value.",
        "Training",
        metavar="FORM",
        choices=("cross-entropy", "kl"),
    )
    relation_heads: int | None = setting(None, "Heads of `relations`.", "Training", metavar="N", least=1)
    relation_layers: str | None = setting(
        None,
        "Student's and teacher's layer of `relations`, counted from 0. [default: the last ones]",
        "Training",
        metavar="S,T",
    )
    steps: int | None = setting(None, "Steps of phase 1.", "Training", metavar="N", least=1)
    batch_size: int | None = setting(
        None, "Blocks a step of phase 1.", "Training", metavar="N", least=1, most=MOST_BATCH
    )
    length: int | None = setting(None, "Tokens of a block of phase 1.", "Training", metavar="N", least=8)
    lr: float | None = setting(None, "Highest learning rate of phase 1.", "Training", metavar="X", above=0)
    warmup: float | None = setting(
        None, "Share of phase 1's steps in which the learning rate rises.", "Training", metavar="SHARE", least=0, most=1
    )
    task_epochs: float | None = setting(
        None, "Epochs in which everything is trained.", "Training", metavar="N", above=0
    )
    task_sparse_epochs: float | None = setting(
        None,
        "Epochs in which the chosen entries are trained; 0 leaves this stage out.",
        "Training",
        metavar="N",
        least=0,
    )
    task_batch_size: int | None = setting(
        None, "Examples a step of phase 2.", "Training", metavar="N", least=1, most=MOST_BATCH
    )
    task_length: int | None = setting(None, "Most tokens of an input of phase 2.", "Training", metavar="N", least=16)
    task_lr: float | None = setting(None, "Highest learning rate of phase 2.", "Training", metavar="X", above=0)
    task_warmup: float | None = setting(
        None, "Share of each stage's steps in which it rises.", "Training", metavar="SHARE", least=0, most=1
    )
    teacher_epochs: float | None = setting(
        None, "Epochs of the task's teacher, where it is made here.", "Training", metavar="N", above=0
    )
    teacher_lr: float | None = setting(None, "Its highest learning rate.", "Training", metavar="X", above=0)
    density: float | None = setting(
        None,
        "Share of the base model's parameters that the sparse stage trains.",
        "Training",
        metavar="SHARE",
        above=0,
        most=1,
    )
    accumulate: int = setting(
        1, "Split each step's batch into this many parts: less memory.", "Training", metavar="N", least=1
    )
    precision: str = setting(
        "auto",
        "float32, bfloat16, or auto: what is faster here, measured in a few steps.",
        "Training",
        metavar="TYPE",
        choices=("auto", "float32", "bfloat16"),
    )
    max_minutes: float | None = setting(
        None,
        "Stop training after so long, shared between the stages, and finish with what was learnt.",
        "Training",
        metavar="N",
        above=0,
    )
    cache_gb: float = setting(
        4.0,
        "Keep the teacher's signals of labelled data on disk if they take at most this much; those that no run "
        "has used for a day make room. 0 keeps none.",
        "Training",
        metavar="GB",
        least=0,
    )
    seed: int = seed_setting("Of order, masks, dropout and the new head.", "Training")
    resume: bool = setting(False, "Go on with a run that was stopped.", "Output")
    output: Path | None = output_setting("polydistill-out/<model>-<source>-<target>[-<task>]", "Output")
    overwrite: bool = setting(False, "Replace the output folder if it exists.", "Output")
    include_path: tuple[Path, ...] = include_setting("Model")


@dataclass(frozen=True)
class BistilResult(Outcome):
    """What a bilingual distillation did; `to_json` is the object of `--json`."""

    model: str
    output: Path
    languages: tuple[str, ...]
    task: str | None
    stages: tuple[dict[str, Any], ...]
    parameters: dict[str, int]
    bytes: dict[str, int]
    vocabulary: dict[str, int]
    verification: dict[str, Any] | None
    layers: tuple[int, ...]
    settings: dict[str, Any]
    selection: dict[str, Any] | None
    scores: tuple[dict[str, Any], ...]
    loyalty: dict[str, Any] | None
    seconds: float
    peak_memory_bytes: int
    command: str = field(default="bistil", init=False)


def bistil(config: BistilConfig, progress: Progress = SILENT) -> BistilResult:
    """Makes a small bilingual model out of a multilingual one.

    Args:
        config: What to do.
        progress: Where to report.

    Returns:
        Stages with their losses, sizes and scores; they also stand in the output's polydistill.json and README.md.

    Raises:
        PolydistillError: Data or a model are missing or do not fit; what was done until then stays for `--resume`.
    """
    started = time.perf_counter()
    todo = prepare(config, progress)
    check_output(todo.output, overwrite=config.overwrite, reads=config.reads())
    for note in idle_options(config, todo):
        progress.warn(note)
    with work_folder(
        todo.output, made_of.identity(config, todo), resume=config.resume, overwrite=config.overwrite, progress=progress
    ) as work:
        stages = Stages(work, progress)
        clock = made_of.Clock(config.max_minutes, todo)
        base, student = own_teacher(todo.source), todo.source.folder
        teachers = [teacher.source.folder for teacher in todo.teachers]
        if not todo.student_given:
            cut = stages.run("vocabulary", partial(made_of.vocabulary, config, todo, progress)).folder
            base, student = cut / "teacher", cut / "student"
            pairs = zip(todo.teachers, teachers, strict=True)
            teachers = [f if t.aligned else cut / f"tuned-{i}" for i, (t, f) in enumerate(pairs)]
        elif any(teacher.cut for teacher in todo.teachers):
            cut = stages.run("vocabulary", partial(made_of.teachers_cut, todo, progress)).folder
            teachers = [cut / f"tuned-{i}" if t.cut else t.source.folder for i, t in enumerate(todo.teachers)]
        if todo.general:
            student = stages.run("general", partial(made_of.general, config, todo, student, clock, progress)).folder
        if todo.vectors:
            teachers = teachers or [base]
        elif todo.tuning and not teachers:
            make = partial(made_of.made_teacher, config, todo, base, student, clock, progress)
            teachers = [stages.run("teacher", make).folder / "tuned-0"]
        if todo.tuning:
            job = made_of.Phase2(config, todo, student, tuple(teachers), clock, progress)
            tuned = stages.run("full", job.full).folder
            student = stages.run("sparse", partial(job.sparse, tuned)).folder if job.is_sparse else tuned
        return _finish(config, todo, stages, student, teachers, started, progress)


def _finish(
    config: BistilConfig,
    todo: Prepared,
    stages: Stages,
    student: Path,
    teachers: Sequence[Path],
    started: float,
    progress: Progress,
) -> BistilResult:
    """Puts the finished model in its place, with scores, record and card, and the stages below it."""
    result = _result(config, todo, stages.done, student)
    if not is_main():
        return result
    with new_folder(todo.output, overwrite=config.overwrite) as out:
        for path in student.rglob("*"):
            if path.is_file() and path.name not in STAGE:
                (out / path.relative_to(student)).parent.mkdir(parents=True, exist_ok=True)
                copy_file(path, out / path.relative_to(student))
        own: list[Score] = []
        if todo.labelled and todo.labelled.tests:
            scores, loyalty = _scores(config, todo, out, teachers, progress)
            result = replace(result, scores=tuple(score.to_json() for score in scores), loyalty=loyalty)
            own = [score for score in scores if score.model == str(todo.output)]
        seconds = round(time.perf_counter() - started, 1)
        result = replace(result, seconds=seconds, peak_memory_bytes=peak_memory_bytes())
        record = replace(_record(config, todo, stages.done, result), scores=own)
        record.save(out)
        write_card(record, out)
        stages.link_into(out / "stages")
    return result


def _result(config: BistilConfig, todo: Prepared, done: Sequence[Stage], student: Path) -> BistilResult:
    cut, tuned = (next((s for s in done if s.name == name), None) for name in ("vocabulary", "full"))
    own, before = Source.open(resolve(ModelRef.parse(str(student))), config.include_path), todo.source
    record = RunRecord.load(before.folder) if todo.student_given else None
    teacher = (
        record.result
        if record
        else {"parameters": {"teacher": before.checkpoint.parameters}, "bytes": {"teacher": before.nbytes}}
    )
    last = done[-1] if tuned else None
    return BistilResult(
        model=before.resolved.source,
        output=todo.output,
        languages=todo.codes,
        task=config.task if todo.tuning else None,
        stages=tuple(stage.to_json(todo.output / "stages") for stage in done),
        parameters={"teacher": teacher["parameters"]["teacher"], "student": own.checkpoint.parameters},
        bytes={"teacher": teacher["bytes"]["teacher"], "student": own.nbytes},
        vocabulary=cut.facts["vocabulary"] if cut and not record else {"before": own.rows, "after": own.rows},
        verification={"letters": cut.facts["letters"]} if cut and "letters" in cut.facts else None,
        layers=todo.layers,
        settings=made_of.settings(config, todo),
        selection=_selection(config, todo, last),
        scores=(),
        loyalty=None,
        seconds=0.0,
        peak_memory_bytes=0,
    )


def _selection(config: BistilConfig, todo: Prepared, last: Stage | None) -> dict[str, Any] | None:
    """What chose the checkpoint of phase 2: source-language dev data alone."""
    if last is None or todo.task is None or todo.vectors:
        return None
    split = todo.labelled.dev[0].split if todo.labelled else config.dev_split
    return {
        "languages": [todo.codes[0]],
        "split": split,
        "metric": last.facts["metric"],
        "value": last.facts["best"],
        "step": last.facts["best_step"],
    }


def _record(config: BistilConfig, todo: Prepared, done: Sequence[Stage], result: BistilResult) -> RunRecord:
    read: list[dict[str, Any]] = next((s.facts["texts"] for s in done if "texts" in s.facts), [])
    labelled = todo.labelled.training + todo.labelled.dev if todo.labelled else ()
    data = [split.facts() for split in labelled]
    return RunRecord(
        command="bistil",
        config=config.to_json(),
        source=source_facts(todo.source.resolved, todo.source.checkpoint),
        texts=[*read, *data],
        result=result.to_json(),
        parent=parent_of(todo.source.folder),
        others=[other_model("teacher", t.source.resolved, t.source.checkpoint) for t in todo.teachers],
    )


def _scores(
    config: BistilConfig, todo: Prepared, out: Path, teachers: Sequence[Path], progress: Progress
) -> tuple[list[Score], dict[str, Any] | None]:
    """Scores of teacher and student in both languages, and the student's loyalty; the names are what they will be."""
    assert todo.task is not None and todo.labelled is not None
    # A teacher that was given is scored as it is, not with the vocabulary that it taught with.
    teacher = str(todo.teachers[0].source.folder if todo.teachers else teachers[0])
    named = {str(out): str(todo.output), teacher: _teacher_name(todo)}
    scores: list[Score] = []
    loyalty: dict[str, Any] | None = None
    for test in todo.labelled.tests:
        found = evaluate(
            EvaluateConfig(
                model=(str(out),),
                teacher=teacher,
                task=todo.task.name,
                lang=(test.language.code,),
                split=test.split,
                data=test.data,
                data_dir=config.data_dir,
                seed=config.seed,
                include_path=config.include_path,
            ),
            progress,
        )
        scores += [replace(score, model=named[score.model]) for score in found.scores]
        assert found.loyalty is not None
        rows = [{**row, "model": named[row["model"]]} for row in found.loyalty["scores"]]
        loyalty = {"teacher": _teacher_name(todo), "scores": [*(loyalty["scores"] if loyalty else []), *rows]}
    return scores, loyalty


def _teacher_name(todo: Prepared) -> str:
    """What the scores call the teacher: the user's, or the folder of the stage that made it."""
    if todo.teachers:
        return todo.teachers[0].source.resolved.source
    return str(todo.output / "stages" / ("vocabulary/teacher" if todo.vectors else "teacher/tuned-0"))
