"""Phase 1: a student learns from its teacher on running text of two languages (Ansell et al. 2023, section 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from polydistill.catalog import Arch
from polydistill.distill.batches import GroupBatches
from polydistill.distill.blocks import Blocks, MaskedBlocks, stacked
from polydistill.distill.loss import DistilLoss
from polydistill.distill.objectives.base import Weighted
from polydistill.distill.samplers.base import Losses, Sampler
from polydistill.distill.samplers.even import Even
from polydistill.distill.signals import LOGITS, Batch, Signal, Signals, needs_attention
from polydistill.distill.teachers.base import Teacher
from polydistill.distill.teachers.frozen import load_teacher
from polydistill.models.loading import load_encoder, load_masked_lm, load_tokenizer
from polydistill.progress import Progress
from polydistill.training.facts import TrainingFacts
from polydistill.training.loop import Curves, Schedule, train

HELD_OUT = 0.01  # share of the blocks that validate
MOST_HELD_OUT = 64  # of each language


def even(sizes: Mapping[str, int]) -> Sampler:
    """All languages alike."""
    return Even(sizes)


class LanguageTeachers(Teacher):
    """A teacher for each language: the one of the batch's language answers.

    Args:
        teachers: Language -> teacher.
    """

    def __init__(self, teachers: Mapping[str, Teacher]) -> None:
        self._teachers = teachers
        self.needs = frozenset().union(*(teacher.needs for teacher in teachers.values()))

    def signals(self, batch: Batch) -> Signals:
        """What the teacher of `batch["language"]` says."""
        return self._teachers[batch["language"]].signals(batch)


@dataclass(frozen=True)
class GeneralText:
    """The text of phase 1.

    Args:
        training: Blocks of each language.
        held_out: Those that validate.
    """

    training: tuple[Blocks, ...]
    held_out: tuple[Blocks, ...]

    @classmethod
    def split(cls, blocks: Sequence[Blocks]) -> GeneralText:
        """Holds out one block in a hundred of each language, and no more than 64.

        Raises:
            PolydistillError: A text has only one block.
        """
        parts = [b.split(min(HELD_OUT, MOST_HELD_OUT / len(b))) for b in blocks]
        return cls(tuple(a for a, _ in parts), tuple(b for _, b in parts))


def distil_general(
    student: Path,
    teachers: Mapping[str, Path],
    arch: Arch,
    text: GeneralText,
    objectives: Weighted,
    schedule: Schedule,
    steps: int,
    work: Path,
    progress: Progress,
    include: Sequence[Path] = (),
    sampler: Callable[[Mapping[str, int]], Sampler] = even,
) -> tuple[Any, Curves]:
    """Trains a student on its teacher's signals.

    Args:
        student: Its folder.
        teachers: Language -> the folder of its teacher; usually the same.
        arch: Of both.
        text: Blocks of both languages.
        objectives: What is asked.
        schedule: How fast; `epochs` is 1.
        steps: Optimizer steps.
        work: Folder for checkpoints.
        progress: Where to report.
        include: Folders with the user's own architectures.
        sampler: Language -> number of its blocks, to what says how often it is seen.

    Returns:
        (the student at its least validation loss, without a head, what was seen on the way: the dev score is that
        loss, negative).
    """
    network = student_network(student, objectives, schedule.seed, progress)
    needs, folders = objectives.needs.teacher, sorted(set(teachers.values()))
    loaded = {f: load_teacher(f, needs, autocast=schedule.bf16, include=include) for f in folders} if needs else {}
    teacher = LanguageTeachers({code: loaded[folder] for code, folder in teachers.items()}) if needs else None
    loss = DistilLoss(network, objectives, teacher, arch)
    curves = learn(network, load_tokenizer(student), text, loss, schedule, steps, work, progress, sampler=sampler)
    loss.close()
    return network.base_model, curves


def learn(
    network: Any,
    tokenizer: Any,
    text: GeneralText,
    loss: DistilLoss,
    schedule: Schedule,
    steps: int,
    work: Path,
    progress: Progress,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    sampler: Callable[[Mapping[str, int]], Sampler] = even,
) -> Curves:
    """Trains a network on masked blocks of one language each, and leaves it at its least loss of held-out blocks.

    Args:
        network: The model.
        tokenizer: Its tokenizer, with a mask token.
        text: The blocks.
        loss: Of a batch.
        schedule: How fast; `epochs` is 1.
        steps: Optimizer steps.
        work: Folder for checkpoints.
        progress: Where to report.
        optimizer: AdamW over all parameters if there is none.
        sampler: Language -> number of its blocks, to what says how often it is seen.
    """
    data = MaskedBlocks(text.training, tokenizer, seed=schedule.seed)
    shares = sampler({language: len(places) for language, places in data.groups.items()})
    batches = GroupBatches(
        data.groups, shares, schedule.batch_size, steps, seed=schedule.seed, parts=schedule.accumulate, turns=True
    )
    held = MaskedBlocks(text.held_out, tokenizer, seed=schedule.seed)

    def score(net: Any) -> float:
        if shares.follows:
            shares.update(losses_of(net, loss, held, batches.batch_size))
        return -loss.mean(net, batches_of(held, held.groups, batches.batch_size))

    if shares.follows:
        loss.begin(TrainingFacts(steps, steps, data, schedule.seed))
        shares.update(losses_of(network, loss, held, batches.batch_size))
    return train(
        network,
        tokenizer,
        data,
        score,
        schedule,
        work,
        progress,
        batches=batches,
        collate=stacked,
        step_loss=loss,
        optimizer=optimizer,
    )


def student_network(folder: Path, objectives: Weighted, seed: int, progress: Progress) -> Any:
    """The student of phase 1, with a head for masked tokens where an objective looks at logits.

    Raises:
        PolydistillError: transformers cannot load it, or not with such a head.
    """
    needs = objectives.needs.student
    eager = needs_attention(needs)
    if Signal(LOGITS) not in needs:
        return load_encoder(folder, eager=eager)
    network, new = load_masked_lm(folder, seed=seed, eager=eager)
    if new:
        progress.warn("The student has no head for masked tokens, so a new one learns beside it and is not kept.")
    return network


def losses_of(network: Any, loss: DistilLoss, held: MaskedBlocks, batch_size: int) -> dict[str, Losses]:
    """Language -> what is lost on its held-out blocks; the student's loss is its distance to the teacher."""
    means = {code: loss.mean(network, batches_of(held, [code], batch_size)) for code in held.groups}
    return {code: Losses(mean, 1.0) for code, mean in means.items()}


def batches_of(held: MaskedBlocks, languages: Iterable[str], batch_size: int) -> Iterator[dict[str, Any]]:
    """Held-out blocks, one language at a time."""
    for places in (held.groups[language] for language in languages):
        for start in range(places.start, places.stop, batch_size):
            yield stacked([held[i] for i in range(start, min(start + batch_size, places.stop))])
