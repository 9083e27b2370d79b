"""What a distillation without target labels works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from polydistill.catalog import Language, Task
from polydistill.labelled.examples import LabelledSplit
from polydistill.labelled.plain import PlainSentences
from polydistill.methods.prokd.options import ProkdOptions
from polydistill.methods.prokd.presets import TEACHER, TRANSFER, Preset
from polydistill.models.source import Source
from polydistill.options.specs import Spec
from polydistill.trimming.plan import TrimPlan

ALIGNMENT, PSEUDO_LABELS = "alignment", "pseudo-labels"


@dataclass(frozen=True)
class GivenTeacher:
    """A tuned model that the user has.

    Attributes:
        source: Its folder.
        cut: How it gets the student's vocabulary, where that was cut from its own.
    """

    source: Source
    cut: TrimPlan | None


@dataclass(frozen=True)
class Job:
    """What a distillation without target labels works with, once everything is decided.

    Attributes:
        sources: Languages with labels, the first one's teacher first.
        target: The language without.
        task: What is tagged.
        training: Code of a source -> its labelled splits.
        dev: Splits of the sources that choose checkpoints.
        plain: The target's sentences; None where nothing is taught with them.
        tests: (language, split) to score.
        model: What the student begins with, and the teacher where none is given; None for the teacher itself.
        teachers: Those given, one a source, or any number for a single source; none if they are to be made.
        preset: With what the command line says of it.
        teacher_epochs: Passes of each teacher; 0 for teachers that stay as they are given.
        layer: Of the teacher, whose hidden states are the features, counted from 1.
        aligning: How prototypes are aligned while a teacher is trained; None where they are not.
        student_objectives: Name -> what the student learns.
        options: Of the command.
    """

    sources: tuple[Language, ...]
    target: Language
    task: Task
    training: Mapping[str, tuple[LabelledSplit, ...]]
    dev: tuple[LabelledSplit, ...]
    plain: PlainSentences | None
    tests: tuple[tuple[Language, str], ...]
    model: Source | None
    teachers: tuple[GivenTeacher, ...]
    preset: Preset
    teacher_epochs: float
    layer: int
    aligning: Spec | None
    student_objectives: Mapping[str, Spec]
    options: ProkdOptions

    @property
    def begins(self) -> Source:
        """What the teachers are tuned from, or the first that is given."""
        if self.teachers:
            return self.teachers[0].source
        assert self.model is not None
        return self.model

    @property
    def origin(self) -> Source:
        """What the student begins with."""
        return self.model or self.begins

    @property
    def from_teacher(self) -> bool:
        """Whether the student begins as the teacher."""
        return self.options.student_from == TEACHER

    def source_of(self, teacher: int) -> int:
        """The number of a teacher's source."""
        return teacher if len(self.sources) > 1 else 0

    @property
    def transfers(self) -> bool:
        """Whether the teacher is the result."""
        return self.options.method == TRANSFER
