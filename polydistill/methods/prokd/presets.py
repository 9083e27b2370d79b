"""How long and how fast teacher and student are trained: for a first try, on a CPU, and as in the paper."""

from __future__ import annotations

from dataclasses import dataclass

PROKD, TSL, SELFTRAIN, TRANSFER = "prokd", "tsl", "selftrain", "transfer"
METHODS = (PROKD, TSL, SELFTRAIN, TRANSFER)
ENCODER, TEACHER = "encoder", "teacher"  # what a student begins with
# What the student learns, and with ProKD what the teacher learns beside labels.
OBJECTIVES: dict[str, tuple[str, ...]] = {
    PROKD: ("alignment=1", "probabilities=1", "pseudo-labels=1"),
    TSL: ("probabilities=1",),
    SELFTRAIN: ("probabilities=1", "pseudo-labels=1:rectify=false"),
    TRANSFER: (),
}


@dataclass(frozen=True)
class Preset:
    """How long and how fast teacher and student are trained.

    Attributes:
        teacher_epochs: Passes over the source's labelled sentences.
        epochs: Passes over the target's sentences.
        batch_size: Sentences a step; of each language where prototypes are aligned.
        max_length: Most tokens of an input.
        teacher_lr: Highest learning rate of the teacher.
        lr: Highest learning rate of the student.
        warmup: Share of the steps in which it rises.
        freeze_layers: Lowest layers that are not trained, word embeddings with them.
        limit: Most labelled sentences and most sentences without labels; None for all.
        dev_limit: Most dev sentences; None for all.
    """

    teacher_epochs: float
    epochs: float
    batch_size: int
    max_length: int
    teacher_lr: float
    lr: float
    warmup: float
    freeze_layers: int = 0
    limit: int | None = None
    dev_limit: int | None = None


PRESETS = {
    "smoke": Preset(1, 1, 16, 128, 2e-4, 1e-4, 0.1, limit=640, dev_limit=200),
    "small": Preset(2, 3, 16, 128, 2e-4, 1e-4, 0.1, dev_limit=1_000),
    # Wu et al. 2020, arXiv 2004.12440, section 4.2.
    "paper": Preset(3, 3, 32, 128, 5e-5, 1e-4, 0.1, freeze_layers=3),
}


def by_preset(name: str) -> str:
    """What a help text says of a default that presets differ in."""
    first, *others = dict.fromkeys(("small", *PRESETS))
    usual = getattr(PRESETS[first], name)
    different = [
        f"{other} {getattr(PRESETS[other], name):g}" for other in others if getattr(PRESETS[other], name) != usual
    ]
    return f"[default: {'; '.join([f'{usual:g}', *different])}]"
