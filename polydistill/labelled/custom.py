"""The user's own labels: which they are, and the part of the data that is held out to choose a checkpoint."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from polydistill.catalog import Language
from polydistill.catalog.task import TAGGING, WITH_LABELS, Task
from polydistill.errors import PolydistillError, UsageError
from polydistill.labelled.examples import LabelledSplit, PairExample, TaggedExample
from polydistill.labelled.sources import examples_hash, load_split
from polydistill.progress import SILENT, Progress
from polydistill.wording import counted

HELD_OUT = "held-out"  # name of the split that was taken from the training data
SHARE = 10  # one in this many examples is held out
MOST_LABELS = 1_000
MANY_LABELS = 100  # with more, there must be two rows for each
_SHOWN = 10  # labels in a message
_APART = "\x1f"


@dataclass(frozen=True)
class TrainingData:
    """What a model learns a task from.

    Args:
        task: The task, with the labels of the data if they are the user's own.
        training: Splits to train on.
        dev: Splits that choose the checkpoint.
    """

    task: Task
    training: tuple[LabelledSplit, ...]
    dev: tuple[LabelledSplit, ...]


@dataclass(frozen=True)
class Wanted:
    """Which labelled data to read.

    Args:
        data: A file to train on, None for the splits of a data folder or the Hub.
        dev_data: A file for choosing the checkpoint; None for a tenth of `data`.
        data_dir: As `load_split` takes it.
        train_splits: Names of the splits to train on.
        dev_split: Name of the split for choosing the checkpoint.
        limit: Most examples of a split.
        dev_limit: Most examples for choosing the checkpoint.
        crossed: Whether the questions of every language are asked about the contexts of every language.
    """

    data: Path | None = None
    dev_data: Path | None = None
    data_dir: Path | None = None
    train_splits: tuple[str, ...] = ("train",)
    dev_split: str = "dev"
    limit: int | None = None
    dev_limit: int | None = None
    crossed: bool = False


def with_own_labels(task: Task, data: Path | None) -> Task:
    """The task for a file of the user's own: with whatever labels are in it, if tasks of its kind have labels."""
    return replace(task, own=True) if data is not None and task.kind in WITH_LABELS else task


def training_data(
    task: Task, languages: Sequence[Language], wanted: Wanted, progress: Progress = SILENT
) -> TrainingData:
    """Read what a model learns a task from.

    Args:
        task: The task.
        languages: Those of the data.
        wanted: Which data.
        progress: Where notes and warnings go.

    Raises:
        UsageError: The requests do not go together, or a file is missing.
        PolydistillError: The data are damaged, or nothing can be learnt from them.
    """
    check_request(languages, wanted)
    task = with_own_labels(task, wanted.data)

    def load(task: Task, split: str, data: Path | None, limit: int | None) -> list[LabelledSplit]:
        asked: list[Language | None] = [*languages] if wanted.crossed else [None]
        return [
            load_split(
                task,
                language,
                split,
                data=data,
                data_dir=wanted.data_dir,
                limit=limit,
                question_language=other,
                progress=progress,
            )
            for other in asked
            for language in languages
        ]

    names = ("train",) if wanted.data else wanted.train_splits
    training = [split for name in names for split in load(task, name, wanted.data, wanted.limit)]
    if task.own:
        task = settled(task, training, progress)
    if wanted.data is None or wanted.dev_data is not None:
        dev = load(task, "dev" if wanted.data else wanted.dev_split, wanted.dev_data, wanted.dev_limit)
    else:
        parts = [hold_out(task, split, progress) for split in training]
        training, dev = [kept for kept, _ in parts], [_first(held, wanted.dev_limit) for _, held in parts]
    if task.own:
        _check_dev(task, training, dev, progress)
    return TrainingData(task, tuple(training), tuple(dev))


def check_request(languages: Sequence[Language], wanted: Wanted) -> None:
    """Refuse combinations of files and splits that make no sense together.

    Raises:
        UsageError: They do not.
    """
    if wanted.crossed and (wanted.data is not None or len(languages) < 2):
        raise UsageError(
            "Questions are crossed between the languages of a data folder or the Hub, at least two.",
            "Name another language, or leave `cross_questions` out.",
        )
    if wanted.data is None:
        if wanted.dev_data is not None:
            raise UsageError("Dev data was given as a file, and training data was not.", "Give both as files.")
        return
    if len(languages) > 1:
        raise UsageError("A data file is in one language.", "Name one, or lay the files out as a data folder.")
    if wanted.train_splits != ("train",) or wanted.dev_split != "dev":
        raise UsageError(
            "A split is part of a data folder or of the Hub, but a data file was given.", "Leave one of them out."
        )


# --- which labels


def label_counts(task: Task, splits: Iterable[LabelledSplit]) -> Counter[str]:
    """Label -> on how many examples it is; of entities the types, without B- and I-."""
    return Counter(label for split in splits for example in split.examples for label in labels_of(task, example))


def labels_of(task: Task, example: Any) -> set[str]:
    """The label of an example, the types of its entities, or the classes of its words."""
    if task.kind == TAGGING:
        return {tag[2:] for tag in example.tags if tag != "O"}
    return set(example.tags) if isinstance(example, TaggedExample) else {example.label}


def settled(task: Task, splits: Sequence[LabelledSplit], progress: Progress = SILENT) -> Task:
    """The task with the labels of the training data, and with as many texts per example as that has.

    They keep the task's order if they are the task's, and are sorted otherwise: numbers by value, names by character.

    Raises:
        PolydistillError: There are too many, or only one class.
    """
    counts, where = label_counts(task, splits), " and ".join(dict.fromkeys(split.where for split in splits))
    names = in_order(counts)
    _check_number(task, counts, sum(len(split.examples) for split in splits), where)
    known = task.entity_types if task.kind == TAGGING else task.labels
    if set(known) == set(names):
        names = list(known)
    elif known or task.kind == TAGGING:
        progress.note(f"{where}: the labels are those of the data: {listed(names)}")
    if once := [name for name in names if counts[name] == 1]:
        progress.warn(f"{where}: only one example has {listed(once)}, which a model can hardly learn")
    return replace(task, labels=label_set(task, names), not_scored=(), pairs=_are_pairs(splits, where))


def label_set(task: Task, names: Iterable[str]) -> tuple[str, ...]:
    """The labels of a task's outputs: the classes, or for entity types the tags."""
    return ("O", *(f"{prefix}-{name}" for name in names for prefix in "BI")) if task.kind == TAGGING else tuple(names)


def in_order(names: Iterable[str]) -> list[str]:
    """Labels sorted: numbers by value, then names by their characters."""
    return sorted(names, key=_order)


def _order(name: str) -> tuple[int, int, str]:
    number = name.removeprefix("-")
    return (0, int(name), name) if number.isascii() and number.isdigit() and len(number) < 10 else (1, 0, name)


def _are_pairs(splits: Sequence[LabelledSplit], where: str) -> bool:
    found = {isinstance(example, PairExample) for split in splits for example in split.examples}
    if len(found) > 1:
        raise PolydistillError(f"{where} mix rows of one text with rows of two.", "Give data of one kind.")
    return found == {True}


def _check_number(task: Task, counts: Counter[str], examples: int, where: str) -> None:
    if len(counts) == 1 and task.kind != TAGGING:
        raise PolydistillError(
            f"{where}: all {examples} examples have the label '{next(iter(counts))}', so there is nothing to learn.",
            "Give data with at least two labels.",
        )
    if len(counts) > MOST_LABELS or len(counts) > max(MANY_LABELS, examples / 2):
        raise PolydistillError(
            f"{where} has {len(counts):,} different labels on {counted(examples, 'example')}, such as "
            f"{listed(sorted(counts)[:3])}; at most {MOST_LABELS:,} are supported, with two examples each.",
            "Name the column of classes label; numbers, dates and ids are not classes.",
        )


def listed(names: Sequence[str]) -> str:
    """The first labels for a message, and the number of the others."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def without_types(split: LabelledSplit, types: Collection[str]) -> LabelledSplit:
    """Tagged sentences with the entities of some types turned into O, and how many they were."""
    ignored = Counter(tag[2:] for example in split.examples for tag in example.tags if tag[0] == "B")
    if not (left_out := {name: n for name, n in sorted(ignored.items()) if name in types}):
        return split
    examples = tuple(
        replace(example, tags=tuple("O" if tag[2:] in left_out else tag for tag in example.tags))
        for example in split.examples
    )
    return replace(split, examples=examples, sha256=examples_hash(examples), ignored={**split.ignored, **left_out})


# --- what chooses the checkpoint


def hold_out(task: Task, split: LabelledSplit, progress: Progress = SILENT) -> tuple[LabelledSplit, LabelledSplit]:
    """Divide training data into a part to train on and a tenth to choose the checkpoint by.

    Only their texts decide which examples are held out. Examples with the same text stay together, and every label
    stays in the training part if possible.

    Args:
        task: Its task.
        split: The training data.
        progress: Where to say it.

    Returns:
        The part to train on, and the part that is held out.

    Raises:
        PolydistillError: All examples have the same text.
    """
    groups: dict[str, list[int]] = {}
    for i, example in enumerate(split.examples):
        groups.setdefault(_text_key(example), []).append(i)
    if len(groups) < 2:
        raise PolydistillError(
            f"{split.where} has only one text, so none can be held out to choose the checkpoint.",
            "Give more data, or dev data of its own.",
        )
    size, left = max(1, len(split.examples) // SHARE), label_counts(task, [split])
    held: set[int] = set()
    for group in _drawn(task, split, groups):
        own = Counter(label for i in group for label in labels_of(task, split.examples[i]))
        if (held and len(held) + len(group) > size) or any(left[label] <= n for label, n in own.items()):
            continue
        held.update(group)
        left -= own
        if len(held) >= size:
            break
    held = held or set(_drawn(task, split, groups)[0])
    progress.note(f"{split.where}: {len(held):,} of {len(split.examples):,} examples are held out to choose by")
    return _part(split, split.split, set(range(len(split.examples))) - held), _part(split, HELD_OUT, held)


def _drawn(task: Task, split: LabelledSplit, groups: dict[str, list[int]]) -> list[list[int]]:
    """Groups of examples in a pseudo-random order, with those without entities after the first that has one."""
    order = sorted(groups, key=lambda text: hashlib.sha256(f"{HELD_OUT}{_APART}{text}".encode()).digest())
    found = [groups[text] for text in order]
    first = next((group for group in found if any(labels_of(task, split.examples[i]) for i in group)), None)
    return sorted(found, key=lambda group: group is not first)


def _part(split: LabelledSplit, name: str, places: set[int]) -> LabelledSplit:
    examples = tuple(example for i, example in enumerate(split.examples) if i in places)
    return replace(split, split=name, examples=examples, sha256=examples_hash(examples))


def _first(split: LabelledSplit, limit: int | None) -> LabelledSplit:
    return split if limit is None else _part(split, split.split, set(range(min(limit, len(split.examples)))))


def _text_key(example: Any) -> str:
    """What two examples with the same text have in common."""
    parts = example.tokens if isinstance(example, TaggedExample) else example.texts
    return _APART.join(" ".join(unicodedata.normalize("NFC", part).split()) for part in parts)


def _check_dev(task: Task, training: Sequence[LabelledSplit], dev: Sequence[LabelledSplit], progress: Progress) -> None:
    """Warns about labels and texts that training and dev data share or lack.

    Raises:
        PolydistillError: One has one text per row and the other two.
    """
    where = " and ".join(dict.fromkeys(split.where for split in dev))
    _are_pairs([*training, *dev], f"Training data and {where}")
    known = set(task.entity_types if task.kind == TAGGING else task.labels)
    if strange := sorted(set(label_counts(task, dev)) - known):
        progress.warn(f"{where}: the training data has no {listed(strange)}, which counts as missed")
    seen = {_text_key(example) for split in training for example in split.examples}
    if twice := sum(_text_key(example) in seen for split in dev for example in split.examples):
        progress.warn(f"{where}: {twice:,} of its texts are in the training data, so its score is too high")
