"""The options of `polydistill project`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from polydistill.options.groups import Placed, Precise, TrainingPlace
from polydistill.options.settings import MOST_BATCH, Options, data_dir_setting, group, include_setting, setting

ENCODER, TEACHER = "encoder", "teacher"


@dataclass(frozen=True)
class Data(Options):
    """The translations, more text, and what chooses and scores."""

    leave_out: tuple[str, ...] = setting(
        (), "Origin of rows of `parallel` that are not read. Repeat for several.", "Data", metavar="ORIGIN"
    )
    text: tuple[str, ...] = setting(
        (),
        "More text of the target language, one sentence a line, from which the student learns the teacher's "
        "probabilities.",
        "Data",
        metavar="PATH",
    )
    data_dir: Path | None = data_dir_setting("Data")
    dev_split: str = setting("dev", "Split of the source that chooses checkpoints.", "Data", metavar="NAME")
    test_split: tuple[str, ...] = setting(
        (), "Split to score in a language, LANG=NAME; `none` for no score. [default: test]", "Data", metavar="LANG=NAME"
    )
    limit: int | None = setting(
        None, "Use at most this many pairs, lines of text and dev sentences.", "Data", metavar="N", least=1
    )


@dataclass(frozen=True)
class Alignment(Options):
    """How words are aligned, and which sentences are kept."""

    aligner: str | None = setting(
        None, "Encoder whose hidden states align words. [default: `model`]", "Method", metavar="M"
    )
    layer: int | None = setting(
        None, "Its layer, counted from 1. [default: two thirds of the way up]", "Method", metavar="N", least=1
    )
    confidence: float = setting(
        0.5,
        "Keep a sentence only if the teacher gives every word of its entities at least this probability.",
        "Method",
        metavar="P",
        least=0,
        most=1,
    )


@dataclass(frozen=True)
class StudentTraining(Options):
    """The training of the student."""

    epochs: float = setting(3.0, "Passes over the sentences.", "Training", metavar="N", above=0)
    batch_size: int = setting(16, "Sentences a step.", "Training", metavar="N", least=1, most=MOST_BATCH)
    max_length: int = setting(128, "Most tokens of an input.", "Training", metavar="N", least=16)
    lr: float = setting(1e-4, "Highest learning rate.", "Training", metavar="X", above=0)
    freeze_embeddings: bool = setting(
        False, "Do not train the word embeddings: faster, and takes far less memory.", "Training"
    )
    freeze_layers: int = setting(
        0, "Do not train the lowest N layers, nor word embeddings.", "Training", metavar="N", least=0
    )
    dev_tolerance: float = setting(
        0.01,
        "The last checkpoint is kept whose dev score is at most this much below the best; 0 keeps the best.",
        "Training",
        metavar="X",
        least=0,
        most=1,
    )


@dataclass(frozen=True)
class ProjectOptions(Placed):
    """The options of an annotation projection."""

    source: str
    target: str
    parallel: Path | None = setting(
        None,
        "Needed: sentences and their translations, a pair a line: source, tab, target and, if you like, tab, origin.",
        "Data",
        metavar="FILE",
    )
    teacher: str = setting("", "Needed: a model tuned on the source's labels.", "Model", metavar="DIR")
    model: str | None = setting(
        None,
        "What the student begins with: folder, org/name or org/name@revision, with the teacher's vocabulary. "
        "[default: intfloat/multilingual-e5-small]",
        "Model",
        metavar="M",
    )
    student_from: str = setting(
        ENCODER,
        "What the student begins with: encoder, which is `model`; or teacher, a copy of the teacher.",
        "Model",
        metavar="WHAT",
        choices=(ENCODER, TEACHER),
    )
    include_path: tuple[Path, ...] = include_setting("Model")
    task: str = setting("ner", "A task with tags; see `polydistill ls tasks`.", "Data", metavar="TASK")
    data: Data = group(Data)
    objective: tuple[str, ...] = setting(
        (),
        "What the student learns: NAME=WEIGHT; `polydistill ls objectives` lists them. [default: labels=1 and "
        "probabilities=1]",
        "Method",
        metavar="SPEC",
    )
    alignment: Alignment = group(Alignment)
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
