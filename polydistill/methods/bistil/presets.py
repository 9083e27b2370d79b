"""How long and how fast a student is trained: in minutes, in one to two hours of a CPU, and as in the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from polydistill.catalog.task import CLASSIFICATION, RETRIEVAL, SPAN_EXTRACTION, TAGGING, WORD_TAGGING
from polydistill.distill.listing import TASK, TEXT, objectives
from polydistill.options.specs import Spec

HEADS = TEACHER_HEAD, NEW_HEAD = "teacher", "new"


@dataclass(frozen=True)
class General:
    """Phase 1, on two texts.

    Attributes:
        steps: Optimizer steps.
        batch_size: Blocks a step.
        max_length: Tokens of a block.
        lr: Highest learning rate.
        warmup: Share of the steps in which it rises.
        objectives: Specs of what is asked of the student.
        weight_decay: Of AdamW.
    """

    steps: int
    batch_size: int
    max_length: int
    lr: float
    warmup: float
    objectives: tuple[str, ...]
    weight_decay: float = 0.01

    @property
    def asked(self) -> dict[str, Spec]:
        """Name -> what is asked of the student."""
        return objectives(self.objectives, TEXT)

    @property
    def tokens(self) -> int:
        """Tokens seen."""
        return self.steps * self.batch_size * self.max_length


@dataclass(frozen=True)
class Tuning:
    """Phase 2, on labelled data of the source language (for vectors: on the lines of both texts).

    Attributes:
        epochs: Passes of the first stage, in which everything is trained.
        sparse_epochs: Passes of the second stage, in which the chosen entries are.
        batch_size: Examples a step.
        max_length: Most tokens of an input.
        lr: Highest learning rate of both stages.
        warmup: Share of each stage's steps in which it rises.
        objectives: Specs of what is asked of the student.
        teacher_epochs: Passes in which the task's teacher is tuned, where none is given.
        teacher_lr: Its highest learning rate.
        text: Share of the batches that are text without labels.
        weight_decay: Of AdamW, in both stages.
        head: What the student's head is at first, one of `HEADS`.
    """

    epochs: float
    sparse_epochs: float
    batch_size: int
    max_length: int
    lr: float
    warmup: float
    objectives: tuple[str, ...]
    teacher_epochs: float = 1
    teacher_lr: float = 5e-5
    text: float = 0.0
    weight_decay: float = 0.01
    head: str = TEACHER_HEAD

    @property
    def asked(self) -> dict[str, Spec]:
        """Name -> what is asked of the student."""
        return objectives(self.objectives, TASK)


@dataclass(frozen=True)
class Preset:
    """A set of defaults; every value can be given on the command line.

    Attributes:
        general: Phase 1.
        tuning: Kind of task -> phase 2; `RETRIEVAL` stands for vectors of sentences.
        density: Share of the base model's parameters that the sparse stage trains.
        scale: What the terms of the loss are divided by, see `distill.objectives.build`.
        examples: Most labelled examples to train on, or lines of a text for vectors; None for all.
        dev_examples: Most examples of the dev split that chooses; None for all.
    """

    general: General
    tuning: Mapping[str, Tuning] = field(hash=False)
    density: float
    scale: str
    examples: int | None = None
    dev_examples: int | None = None


HIDDEN = ("hidden=1",)
SOFT = ("hidden=1", "logits=1")
PAPER, PAPER_SOFT = ("attention=1", "hidden=1"), ("attention=1", "hidden=1", "logits=1")
VECTORS = ("hidden=1", "pooled=1")

ANSELL: dict[str, Any] = {"weight_decay": 0.0, "head": NEW_HEAD}

PRESETS: dict[str, Preset] = {
    "smoke": Preset(
        General(120, 4, 64, 1e-3, 0.1, HIDDEN),
        {
            TAGGING: Tuning(1, 1, 16, 128, 2e-4, 0.1, SOFT, teacher_lr=2e-4),
            WORD_TAGGING: Tuning(1, 1, 16, 128, 2e-4, 0.1, SOFT, teacher_lr=2e-4),
            CLASSIFICATION: Tuning(1, 1, 32, 128, 1e-4, 0.1, SOFT),
            SPAN_EXTRACTION: Tuning(1, 1, 8, 256, 1e-4, 0.1, SOFT),
            RETRIEVAL: Tuning(1, 0, 32, 96, 2e-4, 0.1, VECTORS),
        },
        density=0.08,
        scale="teacher",
        examples=640,
        dev_examples=200,
    ),
    "small": Preset(
        General(1_500, 16, 96, 1e-3, 0.1, HIDDEN),
        {
            TAGGING: Tuning(2, 4, 16, 128, 2e-4, 0.1, SOFT, teacher_epochs=2, teacher_lr=2e-4),
            WORD_TAGGING: Tuning(2, 4, 16, 128, 2e-4, 0.1, SOFT, teacher_epochs=2, teacher_lr=2e-4),
            CLASSIFICATION: Tuning(1, 1, 32, 128, 1e-4, 0.1, SOFT, teacher_epochs=2),
            SPAN_EXTRACTION: Tuning(1, 2, 8, 384, 1e-4, 0.1, SOFT, teacher_epochs=2, teacher_lr=1e-4),
            RETRIEVAL: Tuning(1, 0, 32, 96, 2e-4, 0.1, VECTORS),
        },
        density=0.08,
        scale="teacher",
        dev_examples=1_000,
    ),
    # Ansell et al. 2023, arXiv 2306.01709, section 4; vectors are not in the paper.
    "paper": Preset(
        General(200_000, 8, 256, 1e-4, 0.0, PAPER, weight_decay=0.0),
        {
            TAGGING: Tuning(3, 10, 8, 128, 5e-5, 0.0, PAPER_SOFT, teacher_epochs=3, **ANSELL),
            WORD_TAGGING: Tuning(3, 10, 8, 128, 5e-5, 0.0, PAPER_SOFT, teacher_epochs=3, **ANSELL),
            CLASSIFICATION: Tuning(5, 5, 32, 128, 2e-5, 0.0, PAPER_SOFT, teacher_epochs=3, **ANSELL),
            SPAN_EXTRACTION: Tuning(5, 5, 8, 384, 5e-5, 0.0, PAPER_SOFT, teacher_epochs=3, **ANSELL),
            RETRIEVAL: Tuning(3, 0, 32, 128, 5e-5, 0.0, VECTORS),
        },
        density=0.08,
        scale="none",
    ),
}
