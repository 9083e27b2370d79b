"""The one stage of a fine-tuning; other methods make their teachers with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.catalog import Task, arch
from polydistill.catalog.task import SPAN_EXTRACTION
from polydistill.devices import precision_name
from polydistill.labelled.examples import LabelledSplit
from polydistill.methods.finetune.options import FinetuneOptions, Frozen
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.copying import copy_beside
from polydistill.models.folder import model_folder, model_type
from polydistill.models.refs import ModelRef, resolve
from polydistill.options.groups import Computing
from polydistill.options.specs import Spec
from polydistill.records.record import RunRecord, parent_of, source_facts
from polydistill.runs.made import Made, chosen_facts
from polydistill.runs.precision import multiplies_in_bfloat16
from polydistill.runs.stages import Work

if TYPE_CHECKING:
    from polydistill.catalog import Arch
    from polydistill.distill.loss import DistilLoss
    from polydistill.evaluation.heads import TaskModel
    from polydistill.training.loop import Curves, Schedule


@dataclass(frozen=True)
class Tuning:
    """A model, a task and a training.

    Attributes:
        folder: The model's folder.
        task: What it learns, with the labels of the data.
        epochs: Passes over the training data.
        lr: Highest learning rate.
        batch_size: Examples a step.
        max_length: Most tokens of an input; fewer where the model takes fewer.
        training: Splits to train on.
        dev: Splits that choose the checkpoint.
        warmup: Share of the steps in which the learning rate rises.
        weight_decay: Weight decay of AdamW.
        checks: Dev scores and checkpoints an epoch.
        patience: Checks without a better dev score after which it stops; 0 for never.
        frozen: What is not trained.
        computing: Precision, parts of a batch, seed.
        include_path: Folders with the user's own architectures.
        objectives: Name -> what is learnt; gold labels if there is nothing else.
        teachers: The model's own past, where it is an objective.
    """

    folder: Path
    task: Task
    epochs: float
    lr: float
    batch_size: int
    max_length: int
    training: tuple[LabelledSplit, ...] = ()
    dev: tuple[LabelledSplit, ...] = ()
    warmup: float = 0.06
    weight_decay: float = 0.01
    checks: int = 2
    patience: int = 4
    frozen: Frozen = Frozen()
    computing: Computing = Computing()
    include_path: tuple[Path, ...] = ()
    objectives: Mapping[str, Spec] = field(default_factory=dict)
    teachers: tuple[Spec, ...] = ()


def tuned(job: Tuning, work: Work) -> Made:
    """Trains a model for a task, and keeps the checkpoint with the best dev score.

    Args:
        job: What to train, on what.
        work: Where to.

    Raises:
        PolydistillError: The model cannot have a head for the task, or its training fails.
    """
    from polydistill.distill.freezing import freeze
    from polydistill.evaluation.heads import new_head, refuse_stack
    from polydistill.evaluation.kinds import dev_score, training_inputs
    from polydistill.evaluation.reuse import tell
    from polydistill.models.loading import quiet_transformers
    from polydistill.training.loop import train

    folder, task = model_folder(job.folder), job.task
    refuse_stack(folder)
    architecture = arch(model_type(folder), job.include_path)
    model = new_head(folder, task.kind, task.scored_labels, seed=job.computing.seed, max_length=job.max_length)
    head = model.reused
    assert head is not None
    tell(work.progress, head)
    freeze(model.network, architecture, embeddings=job.frozen.freeze_embeddings, layers=job.frozen.freeze_layers)
    inputs = [training_inputs(task, model, split, work.progress) for split in job.training]
    found = [feature for features, _ in inputs for feature in features]
    schedule = _schedule(job, folder, work)
    loss = _loss(job, model, architecture, schedule.bf16)
    curves = train(
        model.network,
        model.tokenizer,
        [{**feature, "example_id": i} for i, feature in enumerate(found)],
        lambda network: dev_score(task, model, job.dev),
        schedule,
        work.checkpoints,
        work.progress,
        step_loss=loss,
    )
    loss.close()

    def write(out: Path) -> Mapping[str, Any]:
        with quiet_transformers():
            model.network.save_pretrained(out)
        for note in copy_beside(job.folder, Checkpoint.open(folder), out):
            work.progress.note(note)
        return {
            **chosen_facts(curves),
            "precision": precision_name(schedule.bf16),
            **_facts(job, model, [split for _, split in inputs], curves),
        }

    return Made(write, curves.steps, curves.terms)


def _loss(job: Tuning, model: TaskModel, architecture: Arch, bf16: bool) -> DistilLoss:
    """Cross-entropy with gold labels, or what was asked for."""
    from polydistill.distill.loss import DistilLoss, label_loss
    from polydistill.distill.objectives.build import build
    from polydistill.distill.task_teachers import own_past
    from polydistill.distill.teachers.ensemble import Ensemble

    if not job.objectives:
        return label_loss(model.network, answers=job.task.kind == SPAN_EXTRACTION)
    asked = build(job.objectives, outputs=len(model.labels))
    needs = asked.needs.teacher
    past = own_past(job.teachers, model.network, needs, architecture, autocast=bf16) if needs else []
    return DistilLoss(model.network, asked, Ensemble(past) if past else None, architecture)


def record_of(job: Tuning, facts: Mapping[str, Any], steps: int, languages: Sequence[str]) -> RunRecord:
    """The record of a model that was tuned as a part of another method's run.

    Args:
        job: What was trained.
        facts: What `tuned` says of it.
        steps: Optimizer steps.
        languages: Codes of the languages of its labels.
    """
    resolved = resolve(ModelRef.parse(str(job.folder)))
    names = ("epochs", "lr", "batch_size", "max_length", "warmup", "weight_decay", "checks", "patience")
    values = {name: getattr(job, name) for name in names}
    given = {**values, **asdict(job.frozen), **asdict(job.computing), "include_path": job.include_path}
    options = FinetuneOptions.of(str(job.folder), task=job.task.name, languages=tuple(languages), **given)
    about = ("head", "curves", "parameters", "examples")
    result: dict[str, Any] = {
        "command": "finetune",
        "model": resolved.source,
        "task": job.task.name,
        "languages": list(languages),
    }
    result |= {"settings": {**values, "labelled": job.task.facts()}, "steps": steps}
    return RunRecord(
        command="finetune",
        config=options.to_json(),
        source=source_facts(resolved, Checkpoint.open(model_folder(resolved.folder))),
        texts=[dict(text) for text in facts["texts"]],
        result={**result, **{name: facts[name] for name in about}},
        parent=parent_of(resolved.folder),
    )


def _schedule(job: Tuning, folder: Path, work: Work) -> Schedule:
    from polydistill.training.loop import Schedule

    return Schedule(
        epochs=job.epochs,
        lr=job.lr,
        batch_size=job.batch_size,
        warmup=job.warmup,
        weight_decay=job.weight_decay,
        checks=job.checks,
        patience=job.patience,
        seed=job.computing.seed,
        bf16=multiplies_in_bfloat16(job.computing.precision, folder, work),
        accumulate=job.computing.accumulate,
        minutes=work.minutes,
    )


def _facts(job: Tuning, model: TaskModel, training: Sequence[LabelledSplit], curves: Curves) -> dict[str, Any]:
    """What a training says of its head, losses, sizes and data; `training` is what was trained on."""
    return {
        "head": model.reused.to_json() if model.reused else None,
        "curves": {"loss": curves.loss, "dev": curves.dev},
        "parameters": _parameters(model.network),
        "texts": [split.facts() for split in (*training, *job.dev)],
        "examples": {
            "train": sum(len(split.examples) for split in training),
            "dev": sum(len(split.examples) for split in job.dev),
        },
    }


def _parameters(network: Any) -> dict[str, int]:
    counted = [(p.numel(), p.requires_grad) for p in network.parameters()]
    return {"total": sum(n for n, _ in counted), "trained": sum(n for n, trained in counted if trained)}
