"""The stages of a stacking: what each of them fits or trains, and what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.methods.stack.material import Material
from polydistill.methods.stack.networks import Networks, Unexplained
from polydistill.methods.stack.presets import LEAST_SQUARES, LINEAR
from polydistill.runs.made import Made
from polydistill.runs.stages import Stage, Work, in_order

if TYPE_CHECKING:
    import numpy as np

    from polydistill.distill.stacking import LinearMap
    from polydistill.stacks.folder import LoadedStack
    from polydistill.training.batching import Feature

UNEXPLAINED = "unexplained variance"
TEXT_SPLIT = "held-out text"
NOTHING_LEARNT = 0.98  # unexplained variance above which vectors are hardly better than the mean of all


def stages_of(material: Material) -> tuple[Stage, ...]:
    """The stages of a run; those that train share its minutes alike."""
    job, is_linear = material.job, material.options.baseline == LINEAR
    made = []
    if is_linear and 1 in job.phases:
        made.append(("projection", linear, 0))
    elif job.begin is None and not is_linear:
        made.append(("projection", projection, 0))
        if 1 in job.phases:
            made.append(("self", self_distilled, 1))
    if 2 in job.phases:
        if job.teacher is None:
            made.append(("teacher", teacher, 1))
        made.append(("task", linear_task, 0) if is_linear else ("task", task_distilled, 1))
    return in_order(material, made)


def begin_of(material: Material, work: Work) -> Path:
    """The stack that phase 2 goes on from."""
    if material.job.begin is not None:
        return material.job.begin
    return work.folder("self" if "self" in work.done else "projection")


def teacher_of(material: Material, work: Work) -> Path:
    """The LLM that has learnt the task."""
    return material.job.teacher or work.folder("teacher")


def projection(material: Material, work: Work) -> Made:
    """A stack that has learnt nothing: the projection fitted or random, LoRA without effect."""
    import torch

    from polydistill.distill.stacking import input_means, least_squares, text_features

    net = Networks(material, work)

    lines = (material.lines.training[: material.job.preset.fit_lines], material.lines.dev)
    fits, wanted = material.options.init == LEAST_SQUARES, []
    if fits:
        llm = net.alone()
        wanted = [input_means(llm.network.llm, text_features(llm, part)) for part in lines]
        del llm  # one LLM in memory is enough
    torch.manual_seed(material.options.computing.seed)
    loaded = net.new_stack(material.job.preset.max_length)
    facts: dict[str, Any] = {}
    if fits:
        states = net.encoded(loaded, [text_features(loaded, part) for part in lines])
        fitted = least_squares(states[0], wanted[0], states[1], wanted[1])
        loaded.network.begin_with(fitted.weight, fitted.bias)
        facts = {"texts": len(lines[0]), "penalty": fitted.penalty, "unexplained_inputs": fitted.unexplained}
    return net.made(loaded, facts)


def linear(material: Material, work: Work) -> Made:
    """The baseline: the best linear map from the encoder's vectors to the LLM's."""
    from polydistill.distill.stacking import text_features

    net = Networks(material, work)

    parts = (material.training_lines, material.lines.dev)
    wanted = net.wanted(parts)
    loaded = net.new_stack(material.job.preset.max_length, wanted[0].shape[1])
    features = [text_features(loaded, part) for part in parts]
    fitted = _fit(net, loaded, features, wanted)
    return net.made(
        loaded,
        {
            "penalty": fitted.penalty,
            "unexplained": [(0, 1.0)],
            "unexplained_at_best": fitted.unexplained,
            "texts": len(features[0]),
            "metric": UNEXPLAINED,
            "split": TEXT_SPLIT,
            "best": fitted.unexplained,
            "best_step": 0,
        },
    )


def self_distilled(material: Material, work: Work) -> Made:
    """Phase 1: the stack's vectors of plain English text become the LLM's."""
    from polydistill.distill.stacking import text_features, train_stack, vector_loss

    net = Networks(material, work)
    begins = work.folder("projection")

    wanted, held = net.wanted((material.training_lines, material.lines.dev))
    loaded = net.open(begins, material.job.preset.max_length)
    seen = Unexplained(net, loaded, text_features(loaded, material.lines.dev), held)
    first = -seen(loaded.network)
    curves = train_stack(
        loaded,
        text_features(loaded, material.training_lines),
        vector_loss(loaded, wanted),
        seen,
        net.text_schedule(),
        work.checkpoints,
        work.progress,
    )
    best, best_step = -curves.best, curves.best_step
    if best > first:
        work.progress.warn(
            f"Phase 1 made it worse: {best:.3f} of the variance is unexplained, {first:.3f} was at first. The "
            "beginning is kept; try a lower `lr` or more `steps`."
        )
        loaded, best, best_step = net.open(begins, material.job.preset.max_length), first, 0
    elif best > NOTHING_LEARNT:
        work.progress.warn(
            f"The stack's vectors say next to nothing of a text: {100 * best:.0f} % of variance is unexplained. "
            "Try a lower `lr` or more `steps`."
        )
    facts = {
        "unexplained": [(0, first), *((step, -score) for step, score in curves.dev)],
        "unexplained_at_best": best,
        "texts": len(material.training_lines),
        "metric": UNEXPLAINED,
        "split": TEXT_SPLIT,
        "best": best,
        "best_step": best_step,
    }
    return net.made(loaded, facts, curves)


def teacher(material: Material, work: Work) -> Made:
    """The LLM alone learns the task: LoRA and a head of its own."""
    import torch

    from polydistill.distill.loss import label_loss
    from polydistill.distill.stacking import train_stack
    from polydistill.stacks.folder import build

    net = Networks(material, work)

    assert material.job.task is not None
    torch.manual_seed(material.options.computing.seed)
    about = replace(material.description(), encoder=None, labels=material.labels, task=material.job.task.name)
    loaded = build(about, None, material.job.llm.folder, material.job.preset.task_max_length)
    net.prepare_to_train(loaded)
    model = net.task_model(loaded)
    curves = train_stack(
        loaded,
        net.pairs(model, material.job.training),
        label_loss(loaded.network),
        net.accuracy(model),
        net.task_schedule(material.job.preset.teacher_epochs, material.job.preset.teacher_lr),
        work.checkpoints,
        work.progress,
    )
    return net.made(loaded, net.chosen_by_task(curves), curves)


def task_distilled(material: Material, work: Work) -> Made:
    """Phase 2: the stack's vectors of the task's examples become those of the tuned LLM, whose head it gets."""
    from polydistill.distill.stacking import train_stack, vector_loss

    net = Networks(material, work)
    begins, teacher = begin_of(material, work), teacher_of(material, work)

    assert material.job.task is not None and material.job.dev is not None
    wanted, held = net.taught(teacher)
    loaded = net.with_head_of(net.open(begins, material.job.preset.task_max_length), teacher)
    model = net.task_model(loaded)
    seen = Unexplained(net, loaded, net.pairs(model, (material.job.dev,)), held)
    first = -seen(loaded.network)
    curves = train_stack(
        loaded,
        net.pairs(model, material.job.training),
        vector_loss(loaded, wanted),
        net.accuracy(model),
        net.task_schedule(material.job.preset.task_epochs, material.job.preset.task_lr),
        work.checkpoints,
        work.progress,
    )
    last = -seen(loaded.network)
    facts = {"unexplained": [(0, first), (curves.best_step, last)], "unexplained_at_best": last}
    return net.made(loaded, {**net.chosen_by_task(curves), **facts}, curves)


def linear_task(material: Material, work: Work) -> Made:
    """The baseline's phase 2: a linear map to the tuned LLM's vectors, and its head."""
    from polydistill.stacks.parts import on_device

    net = Networks(material, work)
    teacher = teacher_of(material, work)

    assert material.job.task is not None and material.job.dev is not None
    wanted, apart = net.taught(teacher)
    new = net.new_stack(material.job.preset.task_max_length, wanted.shape[1])
    loaded = net.with_head_of(new, teacher)
    model = net.task_model(loaded)
    features = net.pairs(model, material.job.training)
    held = max(2, len(features) // 20)  # of the training examples: the penalty is no matter of the dev split
    fitted = _fit(net, loaded, (features[held:], features[:held]), (wanted[held:], wanted[:held]))
    left = -Unexplained(net, loaded, net.pairs(model, (material.job.dev,)), apart)(loaded.network)
    return net.made(
        loaded,
        {
            "penalty": fitted.penalty,
            "unexplained": [(0, 1.0)],
            "unexplained_at_best": left,
            "texts": len(features) - held,
            "metric": material.job.task.metric,
            "split": material.options.labelled.dev_split,
            "best": net.accuracy(model)(on_device(loaded.network)),
            "best_step": 0,
        },
    )


def _fit(
    net: Networks, loaded: LoadedStack, features: Sequence[Sequence[Feature]], wanted: Sequence[np.ndarray]
) -> LinearMap:
    """Fits a stack's projection on the first of two parts; the second chooses the penalty."""
    from polydistill.distill.stacking import PENALTIES, least_squares

    fitted = least_squares(*(pair[i] for i in (0, 1) for pair in (net.encoded(loaded, features), wanted)))
    loaded.network.begin_with(fitted.weight, fitted.bias)
    if fitted.penalty in (PENALTIES[0], PENALTIES[-1]):
        net.work.progress.note(f"The best penalty, {fitted.penalty:g}, is the last one that was tried.")
    return fitted
