"""A tagger for a language without a label: its inputs, its teacher, what the teacher makes of them, its student.

A reconstruction of ProKD (Ge et al. 2023, arXiv 2301.08855) on the ground of TSL (Wu et al. 2020, arXiv 2004.12440).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from polydistill.catalog import Arch, Task
from polydistill.distill.batches import PairedBatches
from polydistill.distill.listing import OBJECTIVES
from polydistill.distill.loss import DistilLoss
from polydistill.distill.objectives.alignment import NO_TAG, PrototypeAlignment
from polydistill.distill.objectives.base import Objective, Weighted
from polydistill.distill.objectives.build import build
from polydistill.distill.objectives.labels import HardLabels
from polydistill.distill.objectives.pseudo_labels import PseudoLabelsOptions
from polydistill.distill.prototypes import class_means, classes_of, nearness, rectified
from polydistill.distill.signals import HIDDEN, LOGITS, Signal
from polydistill.distill.teachers.base import Teacher
from polydistill.distill.teachers.frozen import FrozenTeacher
from polydistill.distill.teachers.labels import check_labels
from polydistill.evaluation import tagging
from polydistill.evaluation.heads import TaskModel, new_head, open_model
from polydistill.evaluation.reuse import tell
from polydistill.labelled.examples import LabelledSplit, TaggedExample
from polydistill.labelled.plain import PlainSentences
from polydistill.models.folder import is_tagger
from polydistill.options.specs import Spec
from polydistill.progress import SILENT, Progress
from polydistill.training.batching import NOT_TRAINED, Feature, by_length
from polydistill.training.loop import Curves, Schedule, collator, train

OUTSIDE = "O"
OBSERVED_BATCH = 32


@dataclass(frozen=True)
class Prototyped:
    """How classes and features are chosen.

    Args:
        by: `type` or `tag`, see `prototypes.classes_of`.
        layer: Whose hidden states are the features, counted from 1.
        whole_words: Whether all tokens of a word count, or the first alone.
    """

    by: str
    layer: int
    whole_words: bool


# --- inputs


def tagger(folder: Path, task: Task, *, seed: int, length: int, progress: Progress = SILENT) -> TaskModel:
    """A tagger to train, its outputs the task's tags in their order; those of its own tags are matched by name.

    Raises:
        PolydistillError: It cannot have such a head.
    """
    model = new_head(folder, task.kind, task.scored_labels, seed=seed, max_length=length)
    assert model.reused is not None
    tell(progress, model.reused)
    return model


def reader(folder: Path, task: Task, *, seed: int, length: int) -> TaskModel:
    """A tagger as it is, to learn from; with a new head where the folder has none.

    Raises:
        PolydistillError: Its tags are not the task's.
    """
    if not is_tagger(folder):
        return new_head(folder, task.kind, task.scored_labels, seed=seed, max_length=length)
    model = open_model(folder, task.kind, task.labels, not_scored=task.not_scored, max_length=length)
    check_labels(model.labels, task.scored_labels)
    return model


def source_features(
    model: TaskModel, splits: Sequence[LabelledSplit], labels: Sequence[str], whole_words: bool
) -> list[Feature]:
    """The inputs of labelled sentences, tags numbered as in `labels`; `feature_tags` where prototypes are made of."""
    examples = [example for split in splits for example in split.examples]
    numbered = replace(model, labels=tuple(labels))
    return [
        _prepared(feature, i, splits[0].language, _gold(feature, whole_words))
        for i, feature in enumerate(tagging.training_features(numbered, examples))
    ]


def target_features(model: TaskModel, plain: PlainSentences, whole_words: bool, offset: int = 0) -> list[Feature]:
    """The inputs of sentences without tags: they have no labels, and their `feature_tags` are `NO_TAG`."""
    examples = [TaggedExample(str(i), words, (OUTSIDE,) * len(words)) for i, words in enumerate(plain.sentences)]
    found, unread = [], replace(model, labels=(OUTSIDE,))
    for i, feature in enumerate(tagging.training_features(unread, examples)):
        words = feature["token_words" if whole_words else "word_ids"]
        tags = [NOT_TRAINED if word < 0 else NO_TAG for word in words]
        nothing = [NOT_TRAINED] * len(tags)  # the O that it was given says nothing
        found.append(_prepared({**feature, "labels": nothing}, offset + i, plain.language, tags))
    return found


def _gold(feature: Feature, whole_words: bool) -> list[int]:
    tag_of = {word: tag for word, tag in zip(feature["word_ids"], feature["labels"], strict=True) if word >= 0}
    words = feature["token_words" if whole_words else "word_ids"]
    return [tag_of.get(word, NOT_TRAINED) for word in words]


def _prepared(feature: Feature, number: int, language: str, tags: list[int]) -> Feature:
    kept = {key: value for key, value in feature.items() if key != "token_words"}
    return {**kept, "feature_tags": tags, "example_id": number, "language": language}


# --- the teacher


def alignment_of(spec: Spec, labels: Sequence[str], kind: Prototyped, width: int) -> PrototypeAlignment:
    """What aligns the prototypes of a teacher.

    Args:
        spec: Its options.
        labels: (L,) the tags.
        kind: What prototypes are.
        width: H, size of a hidden state.
    """
    names, class_of = classes_of(labels, kind.by)
    known = {"classes": names, "class_of": class_of, "layer": kind.layer, "width": width}
    made: PrototypeAlignment = OBJECTIVES.make(spec, known)
    return made


def tune_teacher(
    model: TaskModel,
    source: Sequence[Feature],
    target: Sequence[Feature],
    dev_score: Callable[[Any], float],
    schedule: Schedule,
    aligning: tuple[PrototypeAlignment, float] | None,
    arch: Arch,
    work: Path,
    progress: Progress,
) -> Curves:
    """Cross-entropy on the source's labels and, if asked for, prototype alignment; in place.

    Args:
        model: The teacher.
        source: Inputs with labels.
        target: Inputs without, whose numbers go on from the source's; only looked at where prototypes are aligned.
        dev_score: Network -> score on the source's dev data.
        schedule: How long and how fast; its batch size is that of each language.
        aligning: What aligns prototypes, and its weight; None for plain fine-tuning.
        arch: The model's architecture.
        work: Folder for checkpoints.
        progress: Where to report.
    """
    asked: dict[str, tuple[Objective, float]] = {"labels": (HardLabels(), 1.0)}
    features, batches = list(source), None
    if aligning is not None:
        features += target
        lengths = [len(f["input_ids"]) for f in features]
        batches = PairedBatches(lengths[: len(source)], lengths[len(source) :], schedule.batch_size, schedule.seed)
        asked["alignment"] = aligning
    loss = DistilLoss(model.network, Weighted(asked), None, arch)
    curves = train(
        model.network, model.tokenizer, features, dev_score, schedule, work, progress, batches=batches, step_loss=loss
    )
    loss.close()
    return curves


# --- what a teacher makes of text


@dataclass(frozen=True)
class Observed:
    """The tokens of text as a model sees them.

    Attributes:
        hidden: (N, H) features.
        logits: (N, L) of tags.
        tags: (N,) the gold tag, `NO_TAG` where there is none.
        first: (N,) whether a word begins there.
    """

    hidden: Tensor
    logits: Tensor
    tags: Tensor
    first: Tensor


@torch.no_grad()
def observe(
    model: TaskModel,
    features: Sequence[Feature],
    labels: Sequence[str],
    layer: int,
    arch: Arch,
    *,
    bf16: bool,
    progress: Progress,
) -> Observed:
    """Runs a model over text and keeps the tokens that prototypes are made of; logits are in the order of `labels`."""
    needs = frozenset({Signal(HIDDEN, layer), Signal(LOGITS)})
    teacher = FrozenTeacher(model.network, needs, arch, autocast=bf16, labels=model.labels, wanted=labels)
    collate = collator(model.tokenizer, about=True)
    parts: list[tuple[Tensor, ...]] = []
    with progress.bar("reading", len(features), "input") as done:
        for places in by_length(features, OBSERVED_BATCH):
            batch = collate([features[i] for i in places])
            found, counted = teacher.signals(batch), batch["feature_tags"] != NOT_TRAINED
            seen = [found[Signal(HIDDEN, layer)], found[Signal(LOGITS)], batch["feature_tags"], batch["word_ids"] >= 0]
            parts.append(tuple(tensor[counted] for tensor in seen))
            done(len(places))
    return Observed(*(torch.cat(column) for column in zip(*parts, strict=True)))


@dataclass(frozen=True)
class Prototypes:
    """Prototypes of both languages, of one teacher's features.

    Attributes:
        names: (K,) classes.
        class_of: (L,) class of each tag.
        source: (K, H); NaN where the labels have no token of the class.
        target: (K, H); the source's where the teacher finds no token of the class.
        counts: Language's role -> (K,) tokens.
    """

    names: tuple[str, ...]
    class_of: tuple[int, ...]
    source: Tensor
    target: Tensor
    counts: Mapping[str, list[int]]

    @classmethod
    def of(cls, source: Observed, target: Observed, labels: Sequence[str], by: str) -> Prototypes:
        """Means over gold tags of the source, and over the teacher's likeliest tags of the target."""
        names, class_of = classes_of(labels, by)
        table, count = torch.tensor(class_of), len(names)
        ours, numbers = class_means(source.hidden, table[source.tags], count)
        theirs, found = class_means(target.hidden, table[target.logits.argmax(-1)], count)
        ours = ours.masked_fill((numbers == 0).unsqueeze(1), torch.nan)
        theirs = torch.where((found > 0).unsqueeze(1), theirs, ours)
        counts = {"source": [int(n) for n in numbers], "target": [int(n) for n in found]}
        return cls(names, class_of, ours, theirs, counts)

    @property
    def absent(self) -> list[str]:
        """Classes of which the teacher finds nothing in the target, though the source has them."""
        pairs = zip(*self.counts.values(), strict=True)
        return [name for name, (ours, theirs) in zip(self.names, pairs, strict=True) if ours and not theirs]

    @property
    def unknown(self) -> list[str]:
        """Classes that the source's labels do not have."""
        return [name for name, n in zip(self.names, self.counts["source"], strict=True) if not n]

    @property
    def similarity(self) -> float:
        """Mean cosine of both languages' prototypes over the source's classes; 0 for one that is not in the target."""
        ours, theirs = (torch.tensor(counts) > 0 for counts in self.counts.values())
        cosines = cosine_similarity(self.target[ours], self.source[ours]) * theirs[ours]
        return float(cosines.mean()) if ours.any() else 0.0


def pseudo_label_facts(
    target: Observed, prototypes: Prototypes, labels: Sequence[str], rectifying: PseudoLabelsOptions | None
) -> dict[str, float | None]:
    """What self-training will be told: the share of words whose label is rectified, and of those in an entity."""
    guessed = target.logits[target.first].softmax(-1)
    wanted = guessed
    if rectifying is not None:
        near = nearness(target.hidden[target.first], prototypes.target, rectifying.temperature, rectifying.distance)
        wanted = rectified(guessed, near, torch.tensor(prototypes.class_of))
    before, after = guessed.argmax(-1), wanted.argmax(-1)
    outside = labels.index(OUTSIDE)
    words = max(1, len(after))
    return {
        "changed": float((before != after).sum()) / words,
        "share_entity": float((after != outside).sum()) / words,
        "share_entity_before": float((before != outside).sum()) / words,
    }


def together(targets: Sequence[Observed], weights: Sequence[float]) -> Observed:
    """What several teachers say of the same tokens together, with the features of the first: weighted probabilities."""
    mean = sum(weight * target.logits.softmax(-1) for weight, target in zip(weights, targets, strict=True))
    assert isinstance(mean, Tensor)
    return replace(targets[0], logits=mean.clamp(min=torch.finfo(mean.dtype).tiny).log())


# --- the student


def student_objectives(
    specs: Mapping[str, Spec], labels: Sequence[str], prototypes: Prototypes | None, layer: int
) -> Weighted:
    """What is asked of a student.

    Args:
        specs: Name -> what is asked for.
        labels: (L,) its tags.
        prototypes: What rectifies its labels; None for labels as the teacher gives them.
        layer: Whose hidden states are the features, counted from 1: the teacher's, or the student's own.
    """
    known: dict[str, Any] = {"outside": list(labels).index(OUTSIDE), "layer": layer, "outputs": len(labels)}
    if prototypes is not None:
        known |= {"prototypes": prototypes.target, "class_of": prototypes.class_of}
    return build(specs, **known)


def tune_student(
    model: TaskModel,
    features: Sequence[Feature],
    teacher: Teacher,
    objectives: Weighted,
    dev_score: Callable[[Any], float],
    schedule: Schedule,
    arch: Arch,
    work: Path,
    progress: Progress,
) -> Curves:
    """Teaches a student on text without tags, in place."""
    loss = DistilLoss(model.network, objectives, teacher, arch)
    plain = [{key: value for key, value in f.items() if key not in ("labels", "feature_tags")} for f in features]
    curves = train(model.network, model.tokenizer, plain, dev_score, schedule, work, progress, step_loss=loss)
    loss.close()
    return curves
