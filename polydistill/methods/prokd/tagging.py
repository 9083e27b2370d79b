"""The models, data and settings of the stages of a distillation without target labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from polydistill.distill.objectives.pseudo_labels import STUDENT, PseudoLabelsOptions
from polydistill.distill.student import hidden_layers
from polydistill.methods.prokd.job import PSEUDO_LABELS, Job
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.runs.precision import multiplies_in_bfloat16
from polydistill.runs.stages import Work

if TYPE_CHECKING:
    from polydistill.distill.objectives.alignment import PrototypeAlignment
    from polydistill.distill.unlabelled import Observed, Prototyped, Prototypes
    from polydistill.evaluation.heads import TaskModel
    from polydistill.labelled.plain import PlainSentences
    from polydistill.training.loop import Schedule

CHECKS = 2  # dev scores an epoch
PROTOTYPES, PICTURE = "prototypes.safetensors", "picture.json"
LEAST_WEIGHT = 1e-6  # of a teacher among several
OBSERVED = 20_000  # most sentences of a language that prototypes are means over: their features are in memory


@dataclass(frozen=True)
class Tagging:
    """The models and data of one stage.

    Attributes:
        job: What is done.
        work: Of the stage.
    """

    job: Job
    work: Work

    @property
    def bf16(self) -> bool:
        """Whether matrices are multiplied in bfloat16."""
        return multiplies_in_bfloat16(self.job.options.computing.precision, self.job.begins.model, self.work)

    @property
    def kind(self) -> Prototyped:
        """Classes and features."""
        from polydistill.distill.unlabelled import Prototyped

        return Prototyped(
            self.job.options.prototypes.classes, self.job.layer, self.job.options.prototypes.tokens == "all"
        )

    @property
    def self_training(self) -> PseudoLabelsOptions | None:
        """How the student learns pseudo-labels, if it does."""
        spec = self.job.student_objectives.get(PSEUDO_LABELS)
        return cast("PseudoLabelsOptions", spec.options) if spec and spec.weight else None

    @property
    def rectifying(self) -> PseudoLabelsOptions | None:
        """How pseudo-labels are rectified by prototypes, if they are."""
        return self.self_training if self.self_training and self.self_training.rectify else None

    def aligning(self, model: TaskModel) -> tuple[PrototypeAlignment, float] | None:
        """What aligns a teacher's prototypes and its weight, if they are aligned."""
        from polydistill.distill.unlabelled import alignment_of

        spec = self.job.aligning
        if spec is None:
            return None
        return alignment_of(spec, model.labels, self.kind, model.network.config.hidden_size), spec.weight

    @property
    def frozen(self) -> dict[str, Any]:
        """What `freeze` takes."""
        layers = self.job.preset.freeze_layers
        return {"embeddings": self.job.options.freeze_embeddings, "layers": layers}

    def schedule(self, epochs: float, teacher: bool) -> Schedule:
        """How long and how fast the teacher or the student is trained."""
        from polydistill.training.loop import Schedule

        preset = self.job.preset
        return Schedule(
            epochs=epochs,
            lr=preset.teacher_lr if teacher else preset.lr,
            batch_size=preset.batch_size,
            warmup=preset.warmup,
            checks=CHECKS,
            seed=self.job.options.computing.seed,
            bf16=self.bf16,
            minutes=self.work.minutes,
            tolerance=0.0 if teacher else self.job.options.training.dev_tolerance,
        )

    def weights(self, similarities: Sequence[float]) -> list[float]:
        """Of the teachers: alike, or softmax of their prototypes' similarity at a temperature."""
        asked = self.job.options.several
        if asked.weigh == "equal":
            return [1 / len(similarities)] * len(similarities)
        raised = [math.exp((s - max(similarities)) / asked.weigh_temperature) for s in similarities]
        return [max(value / sum(raised), LEAST_WEIGHT) for value in raised]

    # --- models and data

    def tagger(self, folder: Path) -> TaskModel:
        """A model with the task's tags."""
        from polydistill.distill.unlabelled import tagger

        length = self.job.preset.max_length
        return tagger(
            folder, self.job.task, seed=self.job.options.computing.seed, length=length, progress=self.work.progress
        )

    def reader(self, folder: Path) -> TaskModel:
        """A teacher as it is."""
        from polydistill.distill.unlabelled import reader

        return reader(folder, self.job.task, seed=self.job.options.computing.seed, length=self.job.preset.max_length)

    @property
    def labels(self) -> list[str]:
        """The task's tags, in the order that all numbers of tags follow."""
        return list(self.job.task.scored_labels)

    @property
    def text(self) -> PlainSentences:
        """The target's sentences."""
        assert self.job.plain is not None
        return self.job.plain

    def dev_score(self, model: TaskModel, index: int | None = None) -> Callable[[Any], float]:
        """Network -> score on the dev data of one source, or of all."""
        from polydistill.evaluation.kinds import dev_score

        splits = self.job.dev if index is None else self.job.dev[index : index + 1]
        return lambda network: dev_score(self.job.task, model, splits)

    def observed(self, folder: Path, index: int) -> tuple[Observed, Observed]:
        """A source's labelled tokens and the target's, as a model sees them: those of `OBSERVED` inputs at most."""
        from polydistill.distill.unlabelled import observe, source_features, target_features

        model, whole = self.reader(folder), self.kind.whole_words
        source = source_features(model, self.job.training[self.job.sources[index].code], self.labels, whole)
        target = target_features(model, self.text, whole)
        arch = self.job.begins.arch
        first, second = (
            observe(
                model,
                part[:: max(1, -(-len(part) // OBSERVED))],
                self.labels,
                self.job.options.prototypes.layer or hidden_layers(self.open(folder)),
                arch,
                bf16=self.bf16,
                progress=self.work.progress,
            )
            for part in (source, target)
        )
        return first, second

    def warn_of(self, found: Prototypes, target: Observed, source: str) -> None:
        """Says what makes prototypes worthless."""
        if found.unknown:
            self.work.progress.warn(
                f"The {source} labels have no {' and no '.join(found.unknown)}: nothing can be learnt of it."
            )
        if found.absent and (self.rectifying or self.job.aligning):
            stands_in = self.rectifying and not self.is_other_student
            comes_of_it = "the prototype of the source language stands in" if stands_in else "it has no prototype there"
            self.work.progress.warn(
                f"The teacher finds no {' and no '.join(found.absent)} in the {self.job.target.name} text: "
                f"{comes_of_it}."
            )
        outside = self.labels.index("O")
        if bool((target.logits.argmax(-1) == outside).all()):
            self.work.progress.warn(
                f"The teacher finds no entity at all in the {self.job.target.name} text: there is nothing to learn. "
                "Train it longer, or check that the text is the right one."
            )

    def feature_layer(self, student: Source) -> int:
        """Whose hidden states are compared with prototypes: the teacher's layer, or the last of another student."""
        return hidden_layers(student) if self.is_other_student else self.job.layer

    @property
    def is_other_student(self) -> bool:
        """Whether features are those of a student that did not begin as the teacher."""
        how = self.rectifying
        return how is not None and how.features == STUDENT and not self.job.from_teacher

    def first_prototypes(self, folder: Path, student: TaskModel) -> Prototypes:
        """The first teacher's prototypes; none yet for features that are not of its kind."""
        import torch

        found = self.loaded(folder)
        if not self.is_other_student:
            return found
        width = student.network.config.hidden_size
        return replace(found, target=torch.full((len(found.names), width), torch.nan))

    def loaded(self, folder: Path) -> Prototypes:
        """The first teacher's prototypes."""
        from safetensors.torch import load_file

        from polydistill.distill.prototypes import classes_of
        from polydistill.distill.unlabelled import Prototypes

        tensors = load_file(folder / PROTOTYPES)
        names, class_of = classes_of(self.job.task.scored_labels, self.kind.by)
        return Prototypes(names, class_of, tensors["source_0"], tensors["target_0"], {})

    def open(self, folder: Path) -> Source:
        """A model folder."""
        return Source.open(resolve(ModelRef.parse(str(folder))), self.job.options.include_path)
