"""`polydistill stack`: a multilingual encoder in front of an English LLM (MT-LLM, Schmidt et al. 2024).

Stage 1 distils the LLM into the stack on plain English text: their vectors of the same text shall be the same. Stage 2
does so with the vectors of the LLM that has learnt a task, whose head is then copied. What the encoder knows of other
languages is never trained away, so the stack has them too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from polydistill.card import write_card
from polydistill.errors import UsageError
from polydistill.evaluation.evaluate import EvaluateConfig, evaluate
from polydistill.files.outputs import check_output, new_folder
from polydistill.methods.stack.plan import LEAST_SQUARES, LINEAR, PRESETS, RANDOM, idle_options, prepare
from polydistill.methods.stack.stages import Run, identity, peak_gpu_bytes, settings
from polydistill.models.checkpoint import Checkpoint, copy_file
from polydistill.models.folder import model_folder
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
from polydistill.stacks.description import POOLINGS, Description, sizes


@dataclass(frozen=True)
class StackConfig(Options):
    """The configuration of a stacking; its fields are options of the command line."""

    encoder: str
    llm: str
    stage: str = setting(
        "all",
        "1 (plain text), 2 (a task) or all; without --task the first alone.",
        "Method",
        metavar="1|2|all",
        choices=("1", "2", "all"),
    )
    init: str = setting(
        LEAST_SQUARES,
        "What the projection begins as: least-squares, from the encoder's mean states to the LLM's mean "
        "input embeddings, or random.",
        "Method",
        metavar="HOW",
        choices=(LEAST_SQUARES, RANDOM),
    )
    lora_r: int = setting(16, "Rank of the LLM's low-rank updates.", "Method", metavar="N", least=1, most=4096)
    lora_alpha: int = setting(32, "They count alpha / r times.", "Method", metavar="N", least=1)
    lora_dropout: float = setting(0.05, "Dropout before them.", "Method", metavar="SHARE", least=0, most=0.99)
    pooling: str = setting(
        "mean", "How the LLM's states become a vector: mean, first or last.", "Method", metavar="HOW", choices=POOLINGS
    )
    baseline: str | None = setting(
        None,
        "linear: no stack but the best linear map from the encoder's vectors to the LLM's, to compare with.",
        "Method",
        metavar="KIND",
        choices=(LINEAR,),
    )
    stack: str | None = setting(
        None, "Go on from this stack of stage 1, with the same two models.", "Method", metavar="DIR"
    )
    text: tuple[str, ...] = setting(
        (),
        "English text of stage 1, a sentence a line: file, folder, glob or org/name on the Hub, with #COLUMN for "
        "tables. Repeat for several. [default: the Hub's]",
        "Data",
        metavar="PATH",
    )
    task: str = setting("", "What stage 2 learns: a task of pairs of texts, such as nli.", "Data", metavar="TASK")
    teacher: str | None = setting(
        None,
        "The LLM that has learnt the task: stages/teacher of an earlier run. [default: made here]",
        "Data",
        metavar="DIR",
    )
    data_dir: Path | None = data_dir_setting("Data")
    train_split: tuple[str, ...] = setting(
        (), "English split to train on. Repeat to join several. [default: train]", "Data", metavar="NAME"
    )
    dev_split: str = setting("dev", "English split that chooses checkpoints.", "Data", metavar="NAME")
    test_split: str = setting("test", "Split to score.", "Data", metavar="NAME")
    lang: tuple[str, ...] = setting(
        (), "Language to score in. Repeat for several. [default: en]", "Data", metavar="LANG"
    )
    limit: int | None = setting(
        None,
        "Use at most this many English examples of each split to train on and to choose by.",
        "Data",
        metavar="N",
        least=1,
    )
    preset: str = setting(
        "small",
        "smoke (a first try), small (for a CPU) or paper: the defaults of what follows.",
        "Training",
        metavar="NAME",
        choices=tuple(PRESETS),
    )
    steps: int | None = setting(None, "Steps of stage 1.", "Training", metavar="N", least=1)
    batch_size: int | None = setting(
        None, "Texts a step of stage 1.", "Training", metavar="N", least=1, most=MOST_BATCH
    )
    length: int | None = setting(None, "Most tokens of a text in stage 1.", "Training", metavar="N", least=8)
    lr: float | None = setting(None, "Highest learning rate of stage 1.", "Training", metavar="X", above=0)
    fit_lines: int | None = setting(None, "Texts that the projection is fitted on.", "Training", metavar="N", least=2)
    teacher_epochs: float | None = setting(
        None, "Passes in which the LLM learns the task.", "Training", metavar="N", above=0
    )
    teacher_lr: float | None = setting(None, "Its highest learning rate.", "Training", metavar="X", above=0)
    task_epochs: float | None = setting(None, "Passes of stage 2.", "Training", metavar="N", above=0)
    task_lr: float | None = setting(None, "Its highest learning rate.", "Training", metavar="X", above=0)
    task_batch: int | None = setting(
        None, "Examples a step of both.", "Training", metavar="N", least=1, most=MOST_BATCH
    )
    task_length: int | None = setting(None, "Most tokens of a pair of texts.", "Training", metavar="N", least=16)
    frozen: str = setting(
        "float32",
        "Precision of the weights that are not trained: float32, bfloat16 or int8 (needs polydistill[int8]).",
        "Training",
        metavar="TYPE",
        choices=("float32", "bfloat16", "int8"),
    )
    checkpointing: bool = setting(
        False, "Compute the LLM's activations again in the backward pass: less memory, more time.", "Training"
    )
    bf16: bool = setting(False, "Multiply in bfloat16. Faster on some machines, slower on others.", "Training")
    max_minutes: float | None = setting(
        None, "Stop each training after so long, with what was learnt by then.", "Training", metavar="N", above=0
    )
    seed: int = seed_setting("Of the order of the text, dropout and what is random at first.", "Training")
    include_path: tuple[Path, ...] = include_setting("Data")
    whole: bool = setting(
        False,
        "Write both models into the folder, LoRA merged and the LLM without its embedding matrix; otherwise the "
        "folder refers to them.",
        "Output",
    )
    resume: bool = setting(False, "Go on with a run that was stopped.", "Output")
    output: Path | None = output_setting("polydistill-out/<encoder>-<llm>[-<task>][-linear]", "Output")
    overwrite: bool = setting(False, "Replace the output folder if it exists.", "Output")


@dataclass(frozen=True)
class StackResult(Outcome):
    """What a stacking did; `to_json` is the object of `--json`."""

    model: str
    llm: str
    output: Path
    kind: str
    task: str | None
    languages: tuple[str, ...]
    stages: tuple[dict[str, Any], ...]
    unexplained_variance: dict[str, float] | None
    parameters: dict[str, int]
    bytes: dict[str, int]
    separator: str
    settings: dict[str, Any]
    selection: dict[str, Any] | None
    scores: tuple[dict[str, Any], ...]
    seconds: float
    peak_memory_bytes: int
    peak_gpu_bytes: int
    language_code: str | None
    command: str = field(default="stack", init=False)


def stack(config: StackConfig, progress: Progress = SILENT) -> StackResult:
    """Puts a multilingual encoder in front of an LLM, and teaches the two to work together.

    Args:
        config: What to do.
        progress: Where to report.

    Returns:
        Stages with their losses, the share of the LLM's variance that stays unexplained (of held-out text; of the
        task's dev examples where stage 1 was not run), and scores; they also stand in the output's polydistill.json
        and README.md.

    Raises:
        PolydistillError: Data or a model are missing or do not fit; what was done until then stays for `--resume`.
    """
    started = time.perf_counter()
    if several():
        raise UsageError("`stack` runs in one process.", "Start it without `torchrun` or `accelerate launch`.")
    todo = prepare(config, progress)
    check_output(todo.output, overwrite=config.overwrite, reads=[config.encoder, config.llm, *config.reads()])
    for note in idle_options(config, todo):
        progress.warn(note)
    run = Run(config, todo, progress)
    with work_folder(
        todo.output, identity(run), resume=config.resume, overwrite=config.overwrite, progress=progress
    ) as work:
        stages = Stages(work, progress)
        final = _trained(run, stages)
        return _finish(run, stages, final, started)


def _trained(run: Run, stages: Stages) -> Path:
    """Runs the stages; the folder of the last one's result."""
    todo, linear = run.todo, run.config.baseline == LINEAR
    final = todo.begin
    if linear and 1 in todo.stages:
        final = stages.run("projection", run.linear).folder
    elif final is None and not linear:
        final = stages.run("projection", run.projection).folder
        if 1 in todo.stages:
            final = stages.run("self", partial(run.self_distilled, final)).folder
    if 2 in todo.stages:
        teacher = todo.teacher or stages.run("teacher", run.teacher).folder
        make = partial(run.linear_task, teacher) if linear else partial(run.task_distilled, final, teacher)
        final = stages.run("task", make).folder
    assert final is not None
    return final


def _finish(run: Run, stages: Stages, final: Path, started: float) -> StackResult:
    """Puts the finished stack in its place, with scores, record and card, and the stages below it."""
    config, todo = run.config, run.todo
    with new_folder(todo.output, overwrite=config.overwrite) as out:
        if config.whole:
            from polydistill.stacks.folder import load_stack, save_stack

            dtype = "bfloat16" if config.frozen == "bfloat16" else "float32"  # 8 bits are for training alone
            save_stack(load_stack(final, dtype=dtype), out, whole=True)
        else:
            for file in final.iterdir():
                if file.is_file() and file.name not in STAGE:
                    copy_file(file, out / file.name)
        teacher = todo.teacher or next((s.folder for s in stages.done if s.name == "teacher"), None)
        scores = _scores(run, out, teacher) if todo.task else []
        result = _result(run, stages.done, out, final, scores)
        seconds = round(time.perf_counter() - started, 1)
        result = replace(result, seconds=seconds, peak_memory_bytes=peak_memory_bytes())
        record = replace(_record(run, result), scores=[score for score in scores if score.model == str(todo.output)])
        record.save(out)
        write_card(record, out)
        stages.link_into(out / "stages")
    return result


def _result(run: Run, done: list[Stage], out: Path, final: Path, scores: list[Score]) -> StackResult:
    from polydistill.stacks.folder import load_reader

    todo, own, reader = run.todo, Description.read(out), load_reader(out)
    parameters, nbytes = sizes(out)
    by_name = {stage.name: stage for stage in done}
    chosen = by_name.get("task") or by_name.get("self")
    measured = next((stage.facts for stage in done if "unexplained" in stage.facts), None)
    llm = Checkpoint.open(model_folder(todo.llm.folder))
    return StackResult(
        model=todo.encoder.source,
        llm=todo.llm.source,
        output=todo.output,
        kind="linear" if own.llm is None else "stack",
        task=todo.task.name if todo.task else None,
        languages=(todo.english.code,),
        stages=tuple(stage.to_json(todo.output / "stages") for stage in done),
        unexplained_variance=measured
        and {"first": measured["unexplained"][0][1], "last": measured["unexplained_at_best"]},
        parameters={"teacher": llm.parameters, "student": parameters, "trained": Checkpoint.open(final).parameters},
        bytes={"teacher": llm.nbytes, "student": nbytes},
        separator=reader.separator,
        settings=settings(run),
        selection=None
        if chosen is None or "best" not in chosen.facts
        else {
            "languages": [todo.english.code],
            "split": chosen.facts["split"],
            "metric": chosen.facts["metric"],
            "value": chosen.facts["best"],
            "step": chosen.facts["best_step"],
        },
        scores=tuple(score.to_json() for score in scores),
        seconds=0.0,
        peak_memory_bytes=0,
        peak_gpu_bytes=peak_gpu_bytes(),
        language_code=reader.read_language(todo.english, run.config.include_path),
    )


def _record(run: Run, result: StackResult) -> RunRecord:
    todo = run.todo
    labelled = [*todo.training, *([todo.dev] if todo.dev else [])]
    texts = [split.facts() for split in labelled]
    if todo.texts:
        lines = run.lines
        where, count = " and ".join(text.where for text in todo.texts), len(lines.training) + len(lines.dev)
        texts.append(
            {"language": todo.english.code, "where": where, "split": "text", "examples": count, "sha256": lines.sha256}
        )
    return RunRecord(
        command="stack",
        config=run.config.to_json(),
        source=source_facts(todo.encoder, Checkpoint.open(model_folder(todo.encoder.folder))),
        texts=texts,
        result=result.to_json(),
        parent=parent_of(todo.begin or todo.encoder.folder),
        others=[other_model("llm", todo.llm, Checkpoint.open(model_folder(todo.llm.folder)))],
    )


def _scores(run: Run, out: Path, teacher: Path | None) -> list[Score]:
    """Scores of the stack in every language, and of the LLM alone; the names are what they will be."""
    config, todo = run.config, run.todo
    assert todo.task is not None
    named = {str(out): str(todo.output)}
    if teacher is not None:
        named[str(teacher)] = config.teacher or str(todo.output / "stages/teacher")
    found = evaluate(
        EvaluateConfig(
            model=tuple(named),
            task=todo.task.name,
            lang=tuple(lang.code for lang in todo.tests),
            split=config.test_split,
            data_dir=config.data_dir,
            seed=config.seed,
            include_path=config.include_path,
        ),
        run.progress,
    )
    return [replace(score, model=named[score.model]) for score in found.scores]
