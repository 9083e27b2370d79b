"""The stages of a sparse language fine-tuning.

Everything is trained; then, from the beginning again, the entries that moved furthest; what was added to them goes onto
the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.methods.sparse.method import Given, compose, copy_but_weights
from polydistill.models.source import Source
from polydistill.options.groups import Computing
from polydistill.runs.made import Made
from polydistill.runs.precision import multiplies_in_bfloat16
from polydistill.runs.stages import Work
from polydistill.sparse.files import NAME
from polydistill.sparse.weights import Weights

if TYPE_CHECKING:
    from polydistill.distill.general import GeneralText
    from polydistill.distill.language import LanguageTuning
    from polydistill.training.loop import Curves

CHECKS = 8  # validations and checkpoints of a stage


@dataclass(frozen=True)
class Training:
    """What both trainings have in common.

    Attributes:
        source: The model.
        text: Blocks of the language.
        language: Its code.
        density: Share of the base model's parameters that gets entries.
        steps: Optimizer steps of each.
        lr: Highest learning rate.
        batch_size: Blocks a step.
        max_length: Tokens of a block.
        warmup: Share of the steps in which the learning rate rises.
        computing: Precision, parts of a batch, seed.
    """

    source: Source
    text: GeneralText
    language: str
    density: float
    steps: int
    lr: float
    batch_size: int
    max_length: int
    warmup: float
    computing: Computing

    def settings(self) -> dict[str, Any]:
        """Every value that the run goes by."""
        names = ("density", "steps", "lr", "batch_size", "max_length", "warmup")
        return {**{name: getattr(self, name) for name in names}, "checks": CHECKS, **asdict(self.computing)}

    def tuning(self, work: Work) -> LanguageTuning:
        """The training itself, for one stage."""
        from polydistill.distill.language import LanguageTuning
        from polydistill.training.loop import Schedule

        schedule = Schedule(
            epochs=1,
            lr=self.lr,
            batch_size=self.batch_size,
            warmup=self.warmup,
            checks=CHECKS,
            seed=self.computing.seed,
            bf16=multiplies_in_bfloat16(self.computing.precision, self.source.model, work),
            accumulate=self.computing.accumulate,
            minutes=work.minutes,
        )
        return LanguageTuning(
            self.source.model, self.text, self.language, self.density, schedule, self.steps, work.progress
        )


def full(job: Training, work: Work) -> Made:
    """Everything is trained."""
    curves, save = job.tuning(work).full(work.checkpoints)

    def write(out: Path) -> dict[str, Any]:
        save(out)
        return _seen(curves)

    return Made(write, curves.steps, curves.terms)


def sparse(job: Training, work: Work) -> Made:
    """From the beginning again, the entries that moved furthest."""
    curves, difference = job.tuning(work).chosen(work.folder("full"), work.checkpoints)

    def write(out: Path) -> dict[str, Any]:
        difference.save(out / NAME)
        return _seen(curves)

    return Made(write, curves.steps, curves.terms)


def model(job: Training, work: Work) -> Made:
    """The model with the difference on it."""

    def write(out: Path) -> Mapping[str, Any]:
        given, source = Given.load(work.folder("sparse")), job.source
        # What the base carries already stays part of it.
        weights = replace(Weights.open(source.checkpoint, given.difference.base), undo=None)
        target = copy_but_weights(source, out, work.progress)
        composed = compose(source, weights, [given], target, work.progress).to_json()
        names = ("entries", "parameters", "applied", "exact", "base")
        return {**{n: composed[n] for n in names}, "density": composed["entries"] / composed["parameters"]}

    return Made(write)


def _seen(curves: Curves) -> dict[str, Any]:
    return {
        "validation": [[step, -score] for step, score in curves.dev],
        "best": -curves.best,
        "best_step": curves.best_step,
    }
