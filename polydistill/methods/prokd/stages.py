"""The stages of `polydistill prokd`: what each of them trains or measures, and what it writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.methods.prokd.plan import PROKD, TSL, Prepared, unused
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.progress import Progress
from polydistill.runs.made import Made, cut_models, save_network
from polydistill.training.deciding import SIGNALS

if TYPE_CHECKING:
    from polydistill.distill.unlabelled import Aligning, Observed, Prototyped, Prototypes, SelfTraining
    from polydistill.evaluation.heads import TaskModel
    from polydistill.labelled.plain import PlainSentences
    from polydistill.methods.prokd.method import ProkdConfig
    from polydistill.training.loop import Schedule

CHECKS = 2  # dev scores an epoch
PROTOTYPES, PICTURE = "prototypes.safetensors", "picture.json"
LEAST_WEIGHT = 1e-6  # of a teacher among several
OBSERVED = 20_000  # most sentences of a language that prototypes are means over: their features are in memory
SHOWN = 40  # tokens of a class and language in the picture


@dataclass(frozen=True)
class Run:
    """What all stages share.

    Args:
        config: Of the command.
        todo: What it comes to.
        progress: Where to report.
    """

    config: ProkdConfig
    todo: Prepared
    progress: Progress

    # --- stages

    def vocabulary(self, checkpoints: Path) -> Made:
        """Teachers with the vocabulary of a student that was given."""
        cuts = {f"teacher-{i}": teacher.cut for i, teacher in enumerate(self.todo.teachers) if teacher.cut}
        return cut_models(cuts, self.progress)

    def teacher(self, index: int, begins: Path, checkpoints: Path) -> Made:
        """The teacher of a source language."""
        from polydistill.distill.freezing import freeze
        from polydistill.distill.unlabelled import source_features, target_features, tune_teacher

        model = self.tagger(begins)
        code = self.todo.sources[index].code
        source = source_features(model, self.todo.training[code], self.labels, self.kind.whole_words)
        target = []
        if self.aligning is not None:
            target = target_features(model, self.text, self.kind.whole_words, offset=len(source))
        freeze(model.network, self.todo.begins.arch, **self.frozen)
        curves = tune_teacher(
            model,
            source,
            target,
            self.dev_score(model, index),
            self.schedule(self.todo.teacher_epochs, True),
            self.kind,
            self.aligning,
            self.todo.begins.arch,
            checkpoints,
            self.progress,
        )

        def write(out: Path) -> dict[str, Any]:
            save_network(model.network, begins, out, self.config.include_path, self.progress)
            return {
                "language": code,
                "dev": curves.dev,
                "best": curves.best,
                "best_step": curves.best_step,
                "aligned": self.aligning is not None,
                "head": head_facts(model),
            }

        return Made(write, curves.steps, curves.terms)

    def prototypes(self, teachers: Sequence[Path], before: Path | None, checkpoints: Path) -> Made:
        """Prototypes of both languages for each teacher, what they make of its labels, and a picture.

        Args:
            teachers: Their folders.
            before: What the first one was tuned from here, for the picture; None if it is as it was given.
            checkpoints: Not needed.
        """
        import torch
        from safetensors.torch import save_file

        from polydistill.distill.projection import picture
        from polydistill.distill.unlabelled import Prototypes, pseudo_label_facts, together

        labels = self.labels
        similarities: list[float] = []
        targets: list[Observed] = []
        facts: list[dict[str, Any]] = []
        tensors: dict[str, torch.Tensor] = {}
        seen: tuple[Observed, Observed] | None = None
        first_found: Prototypes | None = None
        for i, folder in enumerate(teachers):
            source, target = self.observed(folder, i)
            found = Prototypes.of(source, target, labels, self.kind.by)
            self.warn_of(found, target, self.todo.sources[i].name)
            tensors |= {f"source_{i}": found.source, f"target_{i}": found.target}
            similarities.append(found.similarity)
            facts.append({"classes": found.names, "counts": found.counts, "similarity": found.similarity})
            targets.append(target)
            seen, first_found = seen or (source, target), first_found or found
        assert seen is not None and first_found is not None
        weights = self.weights(similarities)
        told = pseudo_label_facts(
            together(targets, weights),
            first_found,
            labels,
            self.self_training,
            rectify=self.rectifies and self.config.features == "teacher",
        )
        if not self.rectifies or self.config.features == "student":  # by features that change while it learns
            told["changed"] = None
        pictures = {"after": picture(*seen, labels, self.kind.by, SHOWN)}
        if before is not None:
            # The same tokens in the classes that the teacher finds, as the model that it began with sees them.
            first = self.observed(before, 0)
            there = (replace(first[0], logits=seen[0].logits), replace(first[1], logits=seen[1].logits))
            pictures["before"] = picture(*there, labels, self.kind.by, SHOWN)

        def write(out: Path) -> dict[str, Any]:
            import orjson

            save_file({name: torch.clone(tensor).contiguous() for name, tensor in tensors.items()}, out / PROTOTYPES)
            (out / PICTURE).write_bytes(orjson.dumps(pictures))
            return {"teachers": facts, "weights": weights, "pseudo_labels": told}

        return Made(write)

    def student(
        self, teachers: Sequence[Path], begins: Path, prototypes: Path, weights: Sequence[float], checkpoints: Path
    ) -> Made:
        """The student, on the target's sentences alone."""
        from polydistill.distill.freezing import freeze
        from polydistill.distill.tuning import kept_on_disk
        from polydistill.distill.unlabelled import student_objectives, target_features, teachers_as_one, tune_student

        models, model = [self.reader(folder) for folder in teachers], self.tagger(begins)
        source = self.open(begins)
        features = target_features(model, self.text, False)
        schedule = self.schedule(self.todo.preset.epochs, False)
        steps = math.ceil(len(features) / schedule.batch_size) * schedule.epochs
        objectives = student_objectives(
            model.labels,
            self.kind,
            loss=self.config.loss,
            temperature=self.config.temperature,
            how=None if self.config.method == TSL else self.self_training,
            prototypes=self.first_prototypes(prototypes, model) if self.rectifies else None,
            layer=self.feature_layer(source),
            steps=round(steps),
        )
        teacher = teachers_as_one(
            models, weights, objectives.needs.teacher, model.labels, self.todo.begins.arch, bf16=schedule.bf16
        )
        hashes = [Checkpoint.open(folder).weights_hash for folder in teachers]
        facts = {
            "teachers": hashes,
            "weights": list(weights),
            "data": self.text.sha256,
            "bf16": schedule.bf16,
            "labels": [found.labels for found in (model, *models)],
        }
        teacher = kept_on_disk(
            teacher,
            facts,
            features,
            model.tokenizer,
            max_bytes=int(self.config.cache_gb * 1e9),
            note=checkpoints.with_name(SIGNALS),
            progress=self.progress,
        )
        freeze(model.network, source.arch, **self.frozen)
        curves = tune_student(
            model,
            features,
            teacher,
            objectives,
            self.dev_score(model),
            schedule,
            source.arch,
            checkpoints,
            self.progress,
        )

        def write(out: Path) -> dict[str, Any]:
            save_network(model.network, begins, out, self.config.include_path, self.progress)
            return {"dev": curves.dev, "best": curves.best, "best_step": curves.best_step, "head": head_facts(model)}

        return Made(write, curves.steps, curves.terms)

    # --- what they are told

    @property
    def kind(self) -> Prototyped:
        """Classes and features."""
        from polydistill.distill.unlabelled import Prototyped

        return Prototyped(self.config.classes, self.todo.layer, self.config.tokens == "all")

    @property
    def aligning(self) -> Aligning | None:
        """How prototypes are aligned, if they are."""
        from polydistill.distill.unlabelled import Aligning

        config = self.config
        if config.method != PROKD or not config.align_weight:
            return None
        return Aligning(
            config.align_weight,
            config.align_temperature,
            config.momentum,
            config.align_symmetric,
            config.align_confidence,
            config.align_warmup,
        )

    @property
    def self_training(self) -> SelfTraining:
        """How the student learns pseudo-labels."""
        from polydistill.distill.unlabelled import SelfTraining

        config = self.config
        return SelfTraining(
            config.self_weight,
            config.pseudo_labels,
            config.self_ramp,
            config.rectify_temperature,
            config.distance,
            config.features == "student",
            config.momentum,
        )

    @property
    def rectifies(self) -> bool:
        """Whether pseudo-labels are rectified by prototypes."""
        return self.config.method == PROKD and self.config.rectify

    @property
    def frozen(self) -> dict[str, Any]:
        """What `freeze` takes."""
        layers = self.todo.preset.freeze_layers
        return {"embeddings": self.config.freeze_embeddings, "layers": layers}

    def schedule(self, epochs: float, teacher: bool) -> Schedule:
        """How long and how fast the teacher or the student is trained."""
        from polydistill.training.loop import Schedule

        preset = self.todo.preset
        return Schedule(
            epochs=epochs,
            lr=preset.teacher_lr if teacher else preset.lr,
            batch_size=preset.batch_size,
            warmup=preset.warmup,
            checks=CHECKS,
            seed=self.config.seed,
            bf16=self.config.bf16,
            tolerance=0.0 if teacher else self.config.dev_tolerance,
        )

    def weights(self, similarities: Sequence[float]) -> list[float]:
        """Of the teachers: alike, or softmax of their prototypes' similarity at the temperature of the alignment."""
        if self.config.weigh == "equal":
            return [1 / len(similarities)] * len(similarities)
        raised = [math.exp((s - max(similarities)) / self.config.align_temperature) for s in similarities]
        return [max(value / sum(raised), LEAST_WEIGHT) for value in raised]

    # --- models and data

    def tagger(self, folder: Path) -> TaskModel:
        """A model with the task's tags."""
        from polydistill.distill.unlabelled import tagger

        length = self.todo.preset.length
        return tagger(folder, self.todo.task, seed=self.config.seed, length=length, progress=self.progress)

    def reader(self, folder: Path) -> TaskModel:
        """A teacher as it is."""
        from polydistill.distill.unlabelled import reader

        return reader(folder, self.todo.task, seed=self.config.seed, length=self.todo.preset.length)

    @property
    def labels(self) -> list[str]:
        """The task's tags, in the order that all numbers of tags follow."""
        return list(self.todo.task.scored_labels)

    @property
    def text(self) -> PlainSentences:
        """The target's sentences."""
        assert self.todo.plain is not None
        return self.todo.plain

    def dev_score(self, model: TaskModel, index: int | None = None) -> Callable[[Any], float]:
        """Network -> score on the dev data of one source, or of all."""
        from polydistill.evaluation.kinds import dev_score

        splits = self.todo.dev if index is None else self.todo.dev[index : index + 1]
        return lambda network: dev_score(self.todo.task, model, splits)

    def observed(self, folder: Path, index: int) -> tuple[Observed, Observed]:
        """A source's labelled tokens and the target's, as a model sees them: those of `OBSERVED` inputs at most."""
        from polydistill.distill.unlabelled import observe, source_features, target_features

        model, whole = self.reader(folder), self.kind.whole_words
        source = source_features(model, self.todo.training[self.todo.sources[index].code], self.labels, whole)
        target = target_features(model, self.text, whole)
        arch = self.todo.begins.arch
        first, second = (
            observe(
                model,
                part[:: max(1, -(-len(part) // OBSERVED))],
                self.labels,
                self.todo.layer,
                arch,
                bf16=self.config.bf16,
                progress=self.progress,
            )
            for part in (source, target)
        )
        return first, second

    def warn_of(self, found: Prototypes, target: Observed, source: str) -> None:
        """Says what makes prototypes worthless."""
        if found.unknown:
            self.progress.warn(
                f"The {source} labels have no {' and no '.join(found.unknown)}: nothing can be learnt of it."
            )
        if found.absent and (self.rectifies or self.aligning is not None):
            stands_in = self.rectifies and not self.is_other_student
            comes_of_it = "the prototype of the source language stands in" if stands_in else "it has no prototype there"
            self.progress.warn(
                f"The teacher finds no {' and no '.join(found.absent)} in the {self.todo.target.name} text: "
                f"{comes_of_it}."
            )
        outside = self.labels.index("O")
        if bool((target.logits.argmax(-1) == outside).all()):
            self.progress.warn(
                f"The teacher finds no entity at all in the {self.todo.target.name} text: there is nothing to learn. "
                "Train it longer, or check that the text is the right one."
            )

    def feature_layer(self, student: Source) -> int:
        """Whose hidden states are compared with prototypes: the teacher's layer, or the last of another student."""
        from polydistill.distill.student import hidden_layers

        return hidden_layers(student) if self.is_other_student else self.todo.layer

    @property
    def is_other_student(self) -> bool:
        """Whether features are those of a student that did not begin as the teacher."""
        return self.config.features == "student" and bool(self.todo.teachers) and self.todo.model is not None

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
        names, class_of = classes_of(self.todo.task.scored_labels, self.kind.by)
        return Prototypes(names, class_of, tensors["source_0"], tensors["target_0"], {})

    def open(self, folder: Path) -> Source:
        """A model folder."""
        return Source.open(resolve(ModelRef.parse(str(folder))), self.config.include_path)


def head_facts(model: TaskModel) -> dict[str, Any] | None:
    """Where the outputs of a model that was trained come from."""
    return model.reused.to_json() if model.reused else None


def settings(config: ProkdConfig, todo: Prepared) -> dict[str, Any]:
    """Every value that the run went by, presets resolved."""
    chosen = (
        "method",
        "task",
        "align_weight",
        "align_temperature",
        "align_symmetric",
        "align_confidence",
        "align_warmup",
        "momentum",
        "classes",
        "tokens",
        "loss",
        "temperature",
        "self_weight",
        "self_ramp",
        "pseudo_labels",
        "rectify",
        "rectify_temperature",
        "distance",
        "features",
        "weigh",
        "dev_tolerance",
        "freeze_embeddings",
        "bf16",
        "seed",
        "limit",
    )
    values = {name: getattr(config, name) for name in chosen}
    aligned = config.method == PROKD and bool(config.align_weight) and todo.teacher_epochs > 0
    found = {
        **values,
        "aligned": aligned,
        "preset": config.preset,
        **asdict(todo.preset),
        "teacher_epochs": todo.teacher_epochs,
        "layer": todo.layer,
    }
    idle = unused(config, todo)
    return {name: value for name, value in found.items() if name not in idle}


def identity(config: ProkdConfig, todo: Prepared) -> dict[str, Any]:
    """What has to be the same for a run to go on: all but where it goes. Of the target's data only its words."""
    passing = ("output", "overwrite", "resume", "cache_gb", "data_dir")
    options = {k: v for k, v in config.to_json().items() if k not in passing}
    models = [s.checkpoint.weights_hash for s in (todo.model, *(t.source for t in todo.teachers)) if s is not None]
    labelled = [s.sha256 for splits in (*todo.training.values(), todo.dev) for s in splits]
    names = [todo.task.scored_labels, *(t.source.config.get("id2label") for t in todo.teachers)]
    return {
        **options,
        "settings": settings(config, todo),
        "models": models,
        "labels": names,
        "data": labelled,
        "text": todo.plain.sha256 if todo.plain else None,
    }
