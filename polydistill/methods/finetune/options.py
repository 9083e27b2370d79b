"""The options of `polydistill finetune`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from polydistill.models.default import DEFAULT_MODEL
from polydistill.options.groups import Computing, Labelled, Placed, TrainingPlace
from polydistill.options.settings import MOST_BATCH, Options, group, include_setting, setting


@dataclass(frozen=True)
class Frozen(Options):
    """What is not trained."""

    freeze_embeddings: bool = setting(
        False, "Do not train the word embeddings: faster, and takes far less memory.", "Model"
    )
    freeze_layers: int = setting(
        0,
        "Do not train the lowest N layers, nor the word embeddings; other languages often keep more of the task.",
        "Model",
        metavar="N",
        least=0,
    )


@dataclass(frozen=True)
class FinetuneOptions(Placed):
    """The options of a fine-tuning."""

    model: str = setting(DEFAULT_MODEL, "Folder, org/name or org/name@revision.", "Model", metavar="M")
    frozen: Frozen = group(Frozen)
    include_path: tuple[Path, ...] = include_setting("Model")
    task: str = setting("", "What to tune for; `polydistill ls tasks` lists the tasks.", "Data", metavar="TASK")
    languages: tuple[str, ...] = setting(
        (), "Language of the training and dev data. Repeat for several.", "Data", metavar="LANG"
    )
    labelled: Labelled = group(Labelled)
    cross_questions: bool = setting(
        False,
        "Ask the questions of every language about the contexts of every language; the data have to be translations "
        "with the same ids, such as XQuAD.",
        "Data",
    )
    objective: tuple[str, ...] = setting(
        (),
        "What the model learns: NAME=WEIGHT, with options NAME=WEIGHT:KEY=VALUE; `polydistill ls objectives` lists "
        "them. [default: labels=1]",
        "Training",
        metavar="SPEC",
    )
    teacher: tuple[str, ...] = setting(
        (),
        "The model's own past as a teacher whose logits are an objective: past or average; see "
        "`polydistill ls teachers`.",
        "Training",
        metavar="SPEC",
        reads=False,
    )
    epochs: float | None = setting(
        None, "Passes over the training data. [default: 3]", "Training", metavar="N", above=0
    )
    lr: float | None = setting(None, "Highest learning rate. [default: 5e-5]", "Training", metavar="X", above=0)
    batch_size: int | None = setting(
        None,
        "Examples a step. [default: 32 for classification, otherwise 16]",
        "Training",
        metavar="N",
        least=1,
        most=MOST_BATCH,
    )
    max_length: int | None = setting(
        None,
        "Most tokens of an input; longer inputs are windowed, texts to classify are cut. "
        "[default: 128 for classification, 256 for tagging, 384 for questions]",
        "Training",
        metavar="N",
        least=16,
    )
    warmup: float = setting(
        0.06, "Share of the steps in which the learning rate rises.", "Training", metavar="SHARE", least=0, most=1
    )
    weight_decay: float = setting(0.01, "Weight decay of AdamW.", "Training", metavar="X", least=0)
    checks: int = setting(2, "Dev scores and checkpoints an epoch.", "Training", metavar="N", least=1)
    patience: int = setting(
        4,
        "Stop after this many checks without a better dev score; 0 never stops early.",
        "Training",
        metavar="N",
        least=0,
    )
    computing: Computing = group(Computing)
    place: TrainingPlace = group(TrainingPlace)
