"""The options of `polydistill stack`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from polydistill.methods.stack.presets import LEAST_SQUARES, LINEAR, PRESETS, RANDOM
from polydistill.options.groups import Placed, Precise, TrainingPlace
from polydistill.options.settings import MOST_BATCH, Options, data_dir_setting, group, include_setting, setting
from polydistill.stacks.description import POOLINGS


@dataclass(frozen=True)
class Lora(Options):
    """Low-rank updates of the LLM."""

    r: int = setting(16, "Rank of the LLM's low-rank updates.", "Method", metavar="N", least=1, most=4096)
    alpha: int = setting(
        32, "Scale of the low-rank updates: they are multiplied by alpha / r.", "Method", metavar="N", least=1
    )
    dropout: float = setting(
        0.05, "Dropout before the low-rank updates.", "Method", metavar="SHARE", least=0, most=0.99
    )


@dataclass(frozen=True)
class TaskData(Options):
    """The labelled data of phase 2, and what is scored."""

    data_dir: Path | None = data_dir_setting("Data")
    train_split: tuple[str, ...] = setting(
        (), "English split to train on. Repeat to join several. [default: train]", "Data", metavar="NAME"
    )
    dev_split: str = setting("dev", "English split that chooses checkpoints.", "Data", metavar="NAME")
    test_split: str = setting("test", "Split to score.", "Data", metavar="NAME", decides=False)
    languages: tuple[str, ...] = setting(
        (), "Language to score in. Repeat for several. [default: en]", "Data", metavar="LANG", decides=False
    )
    limit: int | None = setting(
        None,
        "Use at most this many English examples of each split to train on and to choose by.",
        "Data",
        metavar="N",
        least=1,
    )


@dataclass(frozen=True)
class Phase1(Options):
    """Phase 1, on plain text."""

    steps: int | None = setting(None, "Steps of phase 1.", "Training", metavar="N", least=1)
    batch_size: int | None = setting(
        None, "Texts a step of phase 1.", "Training", metavar="N", least=1, most=MOST_BATCH
    )
    max_length: int | None = setting(None, "Most tokens of a text in phase 1.", "Training", metavar="N", least=8)
    lr: float | None = setting(None, "Highest learning rate of phase 1.", "Training", metavar="X", above=0)
    fit_lines: int | None = setting(None, "Texts that the projection is fitted on.", "Training", metavar="N", least=2)


@dataclass(frozen=True)
class MadeTeacher(Options):
    """The LLM that learns the task."""

    epochs: float | None = setting(None, "Epochs in which the LLM learns the task.", "Training", metavar="N", above=0)
    lr: float | None = setting(None, "Highest learning rate of the LLM on the task.", "Training", metavar="X", above=0)


@dataclass(frozen=True)
class Phase2(Options):
    """Phase 2, on the task."""

    epochs: float | None = setting(None, "Epochs of phase 2.", "Training", metavar="N", above=0)
    lr: float | None = setting(None, "Highest learning rate of phase 2.", "Training", metavar="X", above=0)
    batch_size: int | None = setting(
        None,
        "Examples a step of phase 2 and of the LLM's training on the task.",
        "Training",
        metavar="N",
        least=1,
        most=MOST_BATCH,
    )
    max_length: int | None = setting(None, "Most tokens of a pair of texts.", "Training", metavar="N", least=16)


@dataclass(frozen=True)
class StackOptions(Placed):
    """The options of a stacking."""

    encoder: str
    llm: str
    phase: str = setting(
        "all",
        "Phases to run: 1 (plain text), 2 (a task) or all; without `task`, phase 1 alone.",
        "Method",
        metavar="WHICH",
        choices=("1", "2", "all"),
    )
    init: str = setting(
        LEAST_SQUARES,
        "How the projection starts: least-squares, from the encoder's mean states to the LLM's mean input "
        "embeddings, or random.",
        "Method",
        metavar="HOW",
        choices=(LEAST_SQUARES, RANDOM),
    )
    lora: Lora = group(Lora, prefix="lora")
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
        None, "Continue from this stack of phase 1, with the same two models.", "Method", metavar="DIR"
    )
    text: tuple[str, ...] = setting(
        (),
        "English text of phase 1, a sentence a line: file, folder, glob or org/name on the Hub, with #COLUMN for "
        "tables. Repeat for several. [default: the Hub's]",
        "Data",
        metavar="PATH",
        decides=False,
    )
    task: str = setting("", "What phase 2 learns: a task of pairs of texts, such as nli.", "Data", metavar="TASK")
    teacher: str | None = setting(
        None,
        "The LLM that has learnt the task: stages/teacher of an earlier run. [default: made here]",
        "Data",
        metavar="DIR",
    )
    labelled: TaskData = group(TaskData)
    preset: str = setting(
        "small",
        "Defaults of the options that follow: smoke (a first try), small (for a CPU) or paper.",
        "Training",
        metavar="NAME",
        choices=tuple(PRESETS),
    )
    text_phase: Phase1 = group(Phase1)
    made_teacher: MadeTeacher = group(MadeTeacher, prefix="teacher")
    task_phase: Phase2 = group(Phase2, prefix="task")
    frozen: str = setting(
        "float32",
        "Precision of the weights that are not trained: float32, bfloat16 or int8 (needs polydistill[int8]).",
        "Training",
        metavar="TYPE",
        choices=("float32", "bfloat16", "int8"),
    )
    checkpointing: bool = setting(
        False,
        "Compute the LLM's activations again in the backward pass: less memory, more time.",
        "Training",
        decides=False,
    )
    computing: Precise = group(Precise)
    include_path: tuple[Path, ...] = include_setting("Data", decides=False)
    whole: bool = setting(
        False,
        "Write both models into the folder, LoRA merged and the LLM without its embedding matrix; otherwise the "
        "folder refers to them.",
        "Output",
        decides=False,
    )
    place: TrainingPlace = group(TrainingPlace)
