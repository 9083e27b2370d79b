"""How long and how fast a stack is trained: for a first try, on a CPU, and as in the paper."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_SQUARES, RANDOM, LINEAR = "least-squares", "random", "linear"


@dataclass(frozen=True)
class Preset:
    """How long and how fast a stack is trained.

    Attributes:
        steps: Of phase 1.
        batch_size: Texts a step of phase 1.
        max_length: Most tokens of a text.
        lr: Highest learning rate of phase 1.
        warmup: Share of its steps in which it rises; more where that is less than `LEAST_WARMUP` steps.
        checks: Looks at held-out text in phase 1.
        dev_lines: Texts held out.
        fit_lines: Texts that the projection is fitted on before phase 1.
        teacher_epochs: Passes over the task's examples in which the LLM learns it.
        task_epochs: Passes over them in phase 2.
        task_batch_size: Examples a step of both.
        task_max_length: Most tokens of a pair of texts.
        teacher_lr: Highest learning rate of the LLM on the task.
        task_lr: Highest learning rate of phase 2.
        task_warmup: Share of the steps of both in which it rises.
        examples: Most labelled examples; None for all.
        dev_examples: Most dev examples; None for all.
    """

    steps: int
    batch_size: int
    max_length: int
    lr: float
    warmup: float
    checks: int
    dev_lines: int
    fit_lines: int
    teacher_epochs: float
    task_epochs: float
    task_batch_size: int
    task_max_length: int
    teacher_lr: float
    task_lr: float
    task_warmup: float = 0.1
    examples: int | None = None
    dev_examples: int | None = None


PRESETS = {
    "smoke": Preset(60, 16, 64, 1e-3, 0.03, 2, 200, 1_000, 1, 1, 16, 64, 5e-4, 1e-3, examples=640, dev_examples=200),
    "small": Preset(1_500, 32, 64, 2e-3, 0.03, 4, 1_000, 12_000, 2, 2, 16, 128, 5e-4, 3e-4, dev_examples=1_000),
    # Schmidt et al. 2024, arXiv 2406.12739; the projection is not fitted there.
    "paper": Preset(10_000, 256, 512, 2e-4, 0.01, 10, 2_000, 20_000, 3, 3, 32, 256, 1e-4, 2e-4),
}
PRESET_OPTIONS = (
    "steps",
    "batch_size",
    "max_length",
    "lr",
    "fit_lines",
    "teacher_epochs",
    "task_epochs",
    "task_batch_size",
    "task_max_length",
    "teacher_lr",
    "task_lr",
)
