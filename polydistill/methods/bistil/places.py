"""Where the models of a bilingual distillation lie, and what its phases ask of the student."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from polydistill.methods.bistil.job import Job
from polydistill.methods.bistil.presets import General, Tuning
from polydistill.runs.stages import Work

if TYPE_CHECKING:
    from polydistill.distill.objectives.base import Weighted


def base_of(job: Job, work: Mapping[str, Path]) -> Path:
    """The teacher with all its layers, with the student's vocabulary."""
    return job.base if job.student_given else work["vocabulary"] / "teacher"


def student_of(job: Job, work: Mapping[str, Path]) -> Path:
    """The student so far."""
    if "general" in work:
        return work["general"]
    return job.source.folder if job.student_given else work["vocabulary"] / "student"


def teachers_of(job: Job, work: Mapping[str, Path]) -> tuple[Path, ...]:
    """The teachers of phase 2."""
    if not job.teachers:
        return (base_of(job, work) if job.vectors else work["teacher"],)
    cut = [t.cut is not None if job.student_given else not t.aligned for t in job.teachers]
    return tuple(
        work["vocabulary"] / f"tuned-{i}" if cut[i] else given.source.folder for i, given in enumerate(job.teachers)
    )


def folders_of(work: Work) -> dict[str, Path]:
    """Name of a stage that is done -> its folder."""
    return {name: done.folder for name, done in work.done.items()}


def asked_of(job: Job, phase: General | Tuning) -> Weighted:
    """What a phase asks of the student."""
    from polydistill.distill.objectives.build import build
    from polydistill.models.loading import load_config

    outputs = len(job.task.scored_labels) if job.task and not job.vectors else 0
    width = load_config(job.source.model).hidden_size
    return build(
        phase.asked,
        scale=job.scale,
        pairs=job.pairs,
        depths=(len(job.layers), job.depth),
        outputs=outputs,
        widths=(width, width),
    )
