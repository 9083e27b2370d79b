"""The options of `polydistill prokd`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from polydistill.distill.combining import Combined
from polydistill.methods.prokd.presets import ENCODER, METHODS, PRESETS, PROKD, TEACHER, by_preset
from polydistill.options.groups import Placed, Precise, TrainingPlace
from polydistill.options.settings import MOST_BATCH, Options, data_dir_setting, group, include_setting, setting


@dataclass(frozen=True)
class Data(Options):
    """The labels of the sources, the text of the target, and what is scored."""

    data_dir: Path | None = data_dir_setting("Data")
    text: tuple[str, ...] = setting(
        (),
        "Text of the target language, one sentence a line, in place of its training split, or beside "
        "`unlabelled_split`.",
        "Data",
        metavar="PATH",
    )
    unlabelled_split: str | None = setting(
        None,
        "Split of the target whose sentences are used, without their tags. [default: train, unless there is `text`]",
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


@dataclass(frozen=True)
class Prototypes(Options):
    """What prototypes are made of."""

    classes: str = setting(
        "type",
        "One prototype for each entity type, or for each BIO tag.",
        "Method",
        metavar="KIND",
        choices=("type", "tag"),
    )
    layer: int | None = setting(
        None,
        "Layer whose hidden states are the features, counted from 1. [default: the last]",
        "Method",
        metavar="N",
        least=1,
    )
    tokens: str = setting(
        "first",
        "Tokens of a word that count for the teacher's prototypes: first or all.",
        "Method",
        metavar="WHICH",
        choices=("first", "all"),
    )


@dataclass(frozen=True)
class Several(Combined):
    """How several teachers count."""

    weigh: str = setting(
        "equal",
        "Weights of several teachers: equal, or similarity of their prototypes.",
        "Method",
        metavar="HOW",
        choices=("equal", "similarity"),
    )
    weigh_temperature: float = setting(0.1, "Temperature of weights by similarity.", "Method", metavar="T", least=1e-6)


@dataclass(frozen=True)
class MadeTeacher(Options):
    """The training of the teacher."""

    epochs: float | None = setting(
        None, f"Passes over the sources' sentences. {by_preset('teacher_epochs')}", "Training", metavar="N", least=0
    )
    lr: float | None = setting(
        None, f"Highest learning rate of the teacher. {by_preset('teacher_lr')}", "Training", metavar="X", above=0
    )


@dataclass(frozen=True)
class StudentTraining(Options):
    """The training of the student."""

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
    max_length: int | None = setting(
        None, f"Most tokens of an input. {by_preset('max_length')}", "Training", metavar="N", least=16
    )
    lr: float | None = setting(
        None, f"Highest learning rate of the student. {by_preset('lr')}", "Training", metavar="X", above=0
    )
    rounds: int = setting(
        1,
        "Students that are made one after the other; each after the first learns from the one before.",
        "Training",
        metavar="N",
        least=1,
        most=99,
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


@dataclass(frozen=True)
class ProkdOptions(Placed):
    """The options of a distillation without target labels."""

    source: str
    target: str
    model: str | None = setting(
        None,
        "What the teacher is tuned from, and what the student begins with: folder, org/name or org/name@revision. "
        "[default: intfloat/multilingual-e5-small]",
        "Model",
        metavar="M",
    )
    teacher: tuple[str, ...] = setting(
        (),
        "Model tuned on a source's labels; once for each source, or several for a single source, such as one of each "
        "seed. It stays as it is unless `teacher_epochs` is given. [default: made here]",
        "Model",
        metavar="DIR",
    )
    student_from: str = setting(
        ENCODER,
        "What the student begins with: encoder, which is `model`, as in TSL; or teacher, a copy of the teacher, which "
        "is self-distillation.",
        "Model",
        metavar="WHAT",
        choices=(ENCODER, TEACHER),
    )
    freeze_embeddings: bool = setting(
        False, "Do not train the word embeddings: faster, and takes far less memory.", "Model"
    )
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
    data: Data = group(Data)
    method: str = setting(
        PROKD,
        "prokd; tsl (the student learns the teacher's probabilities alone), selftrain (and its labels, without "
        "prototypes), or transfer (the teacher as it is).",
        "Method",
        metavar="METHOD",
        choices=METHODS,
    )
    objective: tuple[str, ...] = setting(
        (),
        "What teacher or student learns: NAME=WEIGHT, with options NAME=WEIGHT:KEY=VALUE; `polydistill ls objectives` "
        "lists them. Those of the student replace the method's.",
        "Method",
        metavar="SPEC",
    )
    prototypes: Prototypes = group(Prototypes)
    several: Several = group(Several)
    preset: str = setting(
        "small",
        "Defaults of the options that follow: smoke (a first try), small (for a CPU) or paper (as TSL).",
        "Training",
        metavar="NAME",
        choices=tuple(PRESETS),
    )
    made_teacher: MadeTeacher = group(MadeTeacher, prefix="teacher")
    training: StudentTraining = group(StudentTraining)
    cache_gb: float = setting(
        4.0,
        "Keep the teacher's outputs for the target's sentences on disk if they take at most this much.",
        "Training",
        metavar="GB",
        least=0,
        decides=False,
    )
    computing: Precise = group(Precise)
    place: TrainingPlace = group(TrainingPlace)
