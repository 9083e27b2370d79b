"""Models on data with the user's own labels: which labels they share, by name, and reports on the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from polydistill.catalog.task import TAGGING, Task
from polydistill.errors import PolydistillError
from polydistill.evaluation.reuse import NAMELESS
from polydistill.files.jsonfiles import read_json
from polydistill.labelled.checks import label_key
from polydistill.labelled.custom import in_order, label_counts, label_set, listed
from polydistill.labelled.examples import LabelledSplit
from polydistill.labelled.schemes import known_type, parts
from polydistill.models.folder import is_stack, model_folder
from polydistill.progress import SILENT, Progress
from polydistill.stacks.description import Description


def agreed(
    task: Task, splits: Sequence[LabelledSplit], models: Mapping[str, Path], progress: Progress = SILENT
) -> Task:
    """The task with the labels of the data; reports which of them the models lack.

    Types that the task usually leaves out stay left out unless all models know them.

    Args:
        task: A task with the user's own labels.
        splits: The data.
        models: Name -> folder.
        progress: Where it is said.

    Raises:
        PolydistillError: A model has no label of the data, or its labels have no names.
    """
    where = " and ".join(dict.fromkeys(split.where for split in splits))
    found = in_order(label_counts(task, splits))
    known = {name: _classes(own, found, task, name) for name, folder in models.items() if (own := output_names(folder))}
    left_out = [
        label
        for label in task.not_scored
        if label not in found or any(_match(task, label, own) is None for own in known.values())
    ]
    scored = label_set(task, [label for label in found if label not in left_out])
    task = replace(task, labels=scored, not_scored=tuple(left_out))
    for name, labels in known.items():
        _compare(task, name, labels, where, left_out, progress)
    return task


def _match(task: Task, label: str, others: Sequence[str]) -> str | None:
    """The other side's name of a label; among entity types PERSON matches PER. None if there is no match."""
    same = next((other for other in others if label_key(other) == label_key(label)), None)
    return known_type(label, others) if same is None and task.kind == TAGGING else same


def _compare(
    task: Task, model: str, labels: Sequence[str], where: str, left_out: Sequence[str], progress: Progress
) -> None:
    """Reports which labels only the model or only the data has.

    Raises:
        PolydistillError: They share nothing.
    """
    scored = task.entity_types if task.kind == TAGGING else task.labels
    missing = [label for label in scored if _match(task, label, labels) is None]
    if len(missing) == len(scored):
        raise PolydistillError(
            f"{model} and {where} have no label in common: the model predicts {listed(labels) or 'none'}, and the data "
            f"has {listed(scored) or 'none'}.",
            "Tune a model on such data first, or give the labels the same names in both.",
        )
    if missing:
        progress.warn(f"{where} has {listed(missing)}, which {model} cannot predict: counts as missed")
    if more := [label for label in labels if _match(task, label, [*scored, *left_out]) is None]:
        progress.note(f"{where} does not have {listed(more)}, which {model} may predict: counts as wrong")


def own_output_labels(
    names: Sequence[str], kind: str, labels: Sequence[str], not_scored: Collection[str], model: object
) -> tuple[str, ...]:
    """What each output of a model is called: as the data spells it, where the data has it, else as the model does.

    Args:
        names: The model's names.
        kind: Of the task; taggers of entities are read by `schemes.model_tags`.
        labels: Those of the data.
        not_scored: None; only types of entities are left out.
        model: What messages call it.

    Raises:
        PolydistillError: The outputs have no names, or two of them the same.
    """
    spelt = {label_key(label): label for label in labels}
    found = [spelt.get(label_key(name), name) for name in _named(names, labels, model)]
    if twice := next((name for name in found if found.count(name) > 1), None):
        raise PolydistillError(f"{model} has two outputs called {twice}.", "Name them apart in its config.json.")
    return tuple(found)


def _named(names: Sequence[str], labels: Collection[str], model: object) -> list[str]:
    """The names of outputs; of those that have none the numbers, where the data's labels are numbers.

    Raises:
        PolydistillError: They have none, and the data's labels are no numbers of outputs.
    """
    numbers = [match[1] for name in names if (match := NAMELESS.fullmatch(name))]
    keys = {label_key(label) for label in labels}
    if not numbers or {label_key(name) for name in names} >= keys:
        return list(names)
    if len(numbers) == len(names) and set(numbers) >= set(labels):
        return numbers
    raise PolydistillError(
        f"The labels of {model} have no names ({', '.join(names[:3])}), so it is not known which is which of "
        f"{listed(list(labels))}.",
        "Name them in id2label and label2id of its config.json.",
    )


def _classes(names: Sequence[str], found: Sequence[str], task: Task, model: str) -> list[str]:
    """The labels that a model can predict; of entities the types."""
    named = _named(names, found, model)
    return list(dict.fromkeys(filter(None, (parts(name)[1] for name in named)))) if task.kind == TAGGING else named


def output_names(folder: Path) -> list[str]:
    """What a model's folder calls its outputs."""
    if is_stack(folder):
        return list(Description.read(folder).labels)
    named = read_json(model_folder(folder) / "config.json").get("id2label") or {}
    return [str(named[number]) for number in sorted(named, key=int)]
