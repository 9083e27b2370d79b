"""What a bilingual distillation works with, once everything is decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from polydistill.catalog import Language, Task
from polydistill.catalog.task import RETRIEVAL
from polydistill.files.inside import inside
from polydistill.files.outputs import RECORD
from polydistill.methods.bistil.data import Labelled
from polydistill.methods.bistil.options import BistilOptions
from polydistill.methods.bistil.presets import General, Tuning
from polydistill.models.source import Source
from polydistill.options.specs import Spec
from polydistill.records.record import RunRecord
from polydistill.texts.sources import TextSource
from polydistill.trimming.plan import TrimPlan

if TYPE_CHECKING:
    from polydistill.distill.objectives.base import LayerPairs


@dataclass(frozen=True)
class GivenTeacher:
    """A tuned model that the user has.

    Attributes:
        source: Its folder.
        weight: Of its logits among those of several.
        aligned: Whether its vocabulary is another one, so that its logits are compared word by word, or
            example by example.
        cut: How it gets the vocabulary of a student that was given, where that was cut from its own.
    """

    source: Source
    weight: float
    aligned: bool
    cut: TrimPlan | None


@dataclass(frozen=True)
class Job:
    """Everything that is decided before a stage begins.

    Attributes:
        languages: Source and target.
        source: The multilingual model, or the student that the run continues with.
        student_given: Whether it is such a student, whose vocabulary and layers stay.
        layers: The teacher's layers that the student begins with, or began with.
        pairs: (student's, teacher's) layers that are compared.
        depth: Layers of the teacher.
        general: Phase 1, None if it is left out.
        tuning: Phase 2, None if it is left out.
        density: Share of the base model that the sparse stage trains.
        scale: What makes terms compare, see `distill.objectives.build`.
        sampler: What says how often phase 1 sees each language.
        task_sampler: What says which labelled examples an epoch of phase 2 uses; None for all.
        augmentations: What changes inputs of phase 2.
        by_loyalty: Whether loyalty to the first teacher chooses phase 2's checkpoints, in place of the task's metric.
        task: What phase 2 is about; for vectors of sentences, the retrieval that scores them.
        teachers: Tuned models; empty to make one.
        past: Teachers beside them that are the student's own past.
        texts: Language -> its text; empty where no phase reads any.
        labelled: None without labels.
        limit: Most labelled examples of a split, None for all.
        dev_limit: Of the dev split.
        lines: Most lines of each text, for vectors.
        language_sft: Language -> folder of a sparse fine-tuning.
        options: Of the command.
    """

    languages: tuple[Language, Language]
    source: Source
    student_given: bool
    layers: tuple[int, ...]
    pairs: LayerPairs
    depth: int
    general: General | None
    tuning: Tuning | None
    density: float
    scale: str
    sampler: Spec
    task_sampler: Spec | None
    augmentations: tuple[Spec, ...]
    by_loyalty: bool
    task: Task | None
    teachers: tuple[GivenTeacher, ...]
    past: tuple[Spec, ...]
    texts: Mapping[str, Sequence[TextSource]]
    labelled: Labelled | None
    limit: int | None
    dev_limit: int | None
    lines: int
    language_sft: Mapping[str, Path]
    options: BistilOptions

    @property
    def vectors(self) -> bool:
        """Whether phase 2 is about vectors of sentences."""
        return self.task is not None and self.task.kind == RETRIEVAL

    @property
    def reads_text(self) -> bool:
        """Whether phase 2 learns from text too, beside labelled data."""
        return self.tuning is not None and self.tuning.text > 0 and not self.vectors

    @property
    def codes(self) -> tuple[str, str]:
        """Codes of both languages."""
        return self.languages[0].code, self.languages[1].code

    @property
    def is_sparse(self) -> bool:
        """Whether phase 2 has a sparse stage."""
        return self.tuning is not None and self.tuning.sparse_epochs > 0 and self.density < 1

    @property
    def makes_teacher(self) -> bool:
        """Whether the task's teacher is made here."""
        return self.tuning is not None and not self.teachers and not self.vectors

    @property
    def base(self) -> Path:
        """What teaches where no teacher is given, before its vocabulary is cut."""
        return own_teacher(self.source)


def is_student(source: Source) -> bool:
    """Whether a model is a student: phase 1 has made it, and maybe taught it a task too."""
    record = RunRecord.load(source.folder)
    return record is not None and record.command == "bistil"


def own_teacher(source: Source) -> Path:
    """What teaches where no teacher is given: the model itself, or that which a student was made of."""
    if not is_student(source):
        return source.folder
    return inside(source.folder, "stages/vocabulary/teacher", source.folder / RECORD)
