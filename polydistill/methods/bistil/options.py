"""The options of `polydistill bistil`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from polydistill.devices import AUTO, PRECISIONS
from polydistill.distill.combining import Combined
from polydistill.distill.scales import SCALES
from polydistill.methods.bistil.presets import HEADS, PRESETS
from polydistill.models.default import DEFAULT_MODEL
from polydistill.options.groups import Computing, Labelled, Placed, TrainingPlace
from polydistill.options.settings import MOST_BATCH, Options, group, include_setting, setting

SELECT = LOYALTY, SCORE = "loyalty", "score"  # what can choose a checkpoint of phase 2


@dataclass(frozen=True)
class Student(Options):
    """How the student is made of the teacher."""

    layers: int | None = setting(None, "Layers of the student. [default: half of the teacher's]", "Model", metavar="N")
    reduction: int | None = setting(None, "Layer reduction factor, in place of `layers`.", "Model", metavar="R")
    init: str = setting(
        "alternate",
        "Layers of the teacher that the student starts from: alternate, bottom, top, or a list such as 1,5,9; "
        "random starts from random weights.",
        "Model",
        metavar="HOW",
    )
    vocab_size: int | None = setting(
        None,
        "Keep exactly this many tokens. [default: those with a share of at least `min_share`]",
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
    allow_unknown: bool = setting(False, "Accept a language that the tokenizer cannot write well.", "Model")
    language_sft: tuple[str, ...] = setting(
        (),
        "Sparse language fine-tuning for the teacher of phase 1, LANG=FOLDER; not used in phase 2.",
        "Model",
        metavar="LANG=DIR",
    )


@dataclass(frozen=True)
class Phase1(Options):
    """Phase 1, on text."""

    steps: int | None = setting(None, "Steps of phase 1.", "Training", metavar="N", least=1)
    batch_size: int | None = setting(
        None, "Blocks a step of phase 1.", "Training", metavar="N", least=1, most=MOST_BATCH
    )
    max_length: int | None = setting(None, "Tokens of a block of phase 1.", "Training", metavar="N", least=8)
    lr: float | None = setting(None, "Highest learning rate of phase 1.", "Training", metavar="X", above=0)
    warmup: float | None = setting(
        None, "Share of phase 1's steps in which the learning rate rises.", "Training", metavar="SHARE", least=0, most=1
    )
    weight_decay: float | None = setting(
        None, "Weight decay of AdamW in phase 1.", "Training", metavar="X", least=0, most=1
    )


@dataclass(frozen=True)
class Phase2(Options):
    """Phase 2, on labelled data."""

    epochs: float | None = setting(
        None, "Epochs of phase 2 that train all parameters.", "Training", metavar="N", above=0
    )
    sparse_epochs: float | None = setting(
        None,
        "Epochs of phase 2 that train only the chosen entries; 0 skips this stage.",
        "Training",
        metavar="N",
        least=0,
    )
    batch_size: int | None = setting(
        None, "Examples a step of phase 2.", "Training", metavar="N", least=1, most=MOST_BATCH
    )
    max_length: int | None = setting(None, "Most tokens of an input of phase 2.", "Training", metavar="N", least=16)
    text: float | None = setting(
        None,
        "Share of phase 2's batches that are sentences of both languages' text, without labels: the student learns "
        "what the teacher makes of them. An epoch still goes once through the labelled data. 0 for none.",
        "Training",
        metavar="SHARE",
        least=0,
        most=0.95,
    )
    lr: float | None = setting(None, "Highest learning rate of phase 2.", "Training", metavar="X", above=0)
    warmup: float | None = setting(
        None,
        "Share of each stage's steps in which the learning rate rises.",
        "Training",
        metavar="SHARE",
        least=0,
        most=1,
    )
    weight_decay: float | None = setting(
        None, "Weight decay of AdamW in phase 2.", "Training", metavar="X", least=0, most=1
    )
    sampler: str = setting(
        "",
        "Which of the labelled examples each epoch of phase 2 uses: NAME, or NAME:KEY=VALUE; `polydistill ls samplers` "
        "lists them. [default: all]",
        "Training",
        metavar="SPEC",
    )
    augment: tuple[str, ...] = setting(
        (),
        "Change some batches of phase 2 and ask the teacher about what comes out: NAME, or NAME:KEY=VALUE; "
        "`polydistill ls augmentations` lists them. Repeat for several.",
        "Training",
        metavar="SPEC",
    )
    augment_share: float = setting(
        0.5, "Share of the batches that are changed.", "Training", metavar="SHARE", above=0, most=1
    )
    head: str | None = setting(
        None,
        "The student's head at first: teacher, a copy of the teacher's, or new, as in BiStil.",
        "Training",
        metavar="WHICH",
        choices=HEADS,
    )


@dataclass(frozen=True)
class MadeTeacher(Options):
    """The task's teacher, where it is made here."""

    epochs: float | None = setting(
        None, "Epochs of the task's teacher, if it is made here.", "Training", metavar="N", above=0
    )
    lr: float | None = setting(None, "Highest learning rate of the task's teacher.", "Training", metavar="X", above=0)


@dataclass(frozen=True)
class Data(Labelled):
    """The labelled data of phase 2, and what is scored."""

    data: Path | None = setting(
        None,
        "Your own file in SOURCE to train on; its labels become the model's.",
        "Data",
        metavar="FILE",
        decides=False,
        objects=True,
    )
    limit: int | None = setting(
        None, "Use at most this many labelled examples, or lines of a text for vectors.", "Data", metavar="N", least=1
    )
    dev_limit: int | None = setting(
        None,
        "Choose the checkpoint by at most this many dev examples. [default: `limit`, or the preset's]",
        "Data",
        metavar="N",
        least=1,
    )
    select: str | None = setting(
        None,
        "What chooses the checkpoint of phase 2: score (the task's own metric) or loyalty (how near the predictions "
        "are to the first teacher's, which tells checkpoints apart with fewer examples). [default: loyalty if the "
        "teacher's logits are an objective, else score]",
        "Data",
        metavar="HOW",
        choices=SELECT,
    )
    test_data: tuple[str, ...] = setting((), "Your own file to score in a language.", "Data", metavar="LANG=FILE")
    test_split: tuple[str, ...] = setting(
        (), "Split to score in a language, LANG=NAME; `none` for no score. [default: test]", "Data", metavar="LANG=NAME"
    )


@dataclass(frozen=True)
class AutoComputing(Computing):
    """How it computes; what is faster here is measured."""

    precision: str = setting(
        AUTO,
        "Precision of matrix products: float32, bfloat16, or auto for the faster one, measured in a few steps.",
        "Training",
        metavar="TYPE",
        choices=(AUTO, *PRECISIONS),
    )


@dataclass(frozen=True)
class BistilOptions(Placed):
    """The options of a bilingual distillation."""

    source: str
    target: str
    model: str = setting(
        DEFAULT_MODEL,
        "The multilingual teacher: folder, org/name or org/name@revision; or a student "
        "from phase 1, to continue with phase 2.",
        "Model",
        metavar="M",
    )
    student: Student = group(Student)
    include_path: tuple[Path, ...] = include_setting("Model")
    text: tuple[str, ...] = setting(
        (),
        "Text of a language, LANG=PATH: as `polydistill trim` takes it. [default: the language's corpus on the Hub]",
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
        "Model tuned for the task, FOLDER or FOLDER=WEIGHT; repeat for several, such as one of each seed. The "
        "student's own past can be one (`polydistill ls teachers`). [default: made by `finetune`]",
        "Data",
        metavar="SPEC",
        reads=True,
    )
    combined: Combined = group(Combined)
    labelled: Data = group(Data)
    preset: str = setting(
        "small",
        "Defaults of all options that follow: smoke (minutes), small (one to two hours) or paper.",
        "Training",
        metavar="NAME",
        choices=tuple(PRESETS),
    )
    phase: str = setting("all", "Phases to run: 1, 2 or all.", "Training", metavar="WHICH", choices=("1", "2", "all"))
    objective: tuple[str, ...] = setting(
        (),
        "What the student learns: NAME=WEIGHT, with options NAME=WEIGHT:KEY=VALUE, and 1:NAME=WEIGHT or "
        "2:NAME=WEIGHT for one phase; `polydistill ls objectives` lists them. They replace the preset's.",
        "Training",
        metavar="SPEC",
    )
    sampler: str = setting(
        "even",
        "How often phase 1 sees each language: NAME, or NAME:KEY=VALUE; `polydistill ls samplers` lists them.",
        "Training",
        metavar="SPEC",
    )
    scale: str | None = setting(
        None,
        "How terms of the loss are scaled: none, first (each divided by its first value) or teacher (each layer's "
        "error divided by the teacher's mean square).",
        "Training",
        metavar="HOW",
        choices=SCALES,
    )
    general: Phase1 = group(Phase1)
    tuning: Phase2 = group(Phase2, prefix="task")
    made_teacher: MadeTeacher = group(MadeTeacher, prefix="teacher")
    density: float | None = setting(
        None,
        "Share of the base model's parameters that the sparse stage trains.",
        "Training",
        metavar="SHARE",
        above=0,
        most=1,
    )
    cache_gb: float = setting(
        4.0,
        "Keep the teacher's signals of labelled data on disk if they take at most this much; signals "
        "unused for a day make room. 0 keeps none.",
        "Training",
        metavar="GB",
        least=0,
        decides=False,
    )
    computing: AutoComputing = group(AutoComputing)
    place: TrainingPlace = group(TrainingPlace)
