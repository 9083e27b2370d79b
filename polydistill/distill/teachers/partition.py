"""Several teachers, each for what it knows better than the student did."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from polydistill.distill.objectives.common import NOT_TRAINED, is_answer
from polydistill.distill.signals import LOGITS, NEVER, Batch, Signal, Signals
from polydistill.distill.teachers.base import Teacher

ENDS = ("start_positions", "end_positions")
_LOGITS = Signal(LOGITS)


class Partition(Teacher):
    """Each row of logits is that of one teacher, or of the student as it began (Avram et al. 2022, arXiv 2112.12650).

    A row (of a text, a word, or one end of an answer) follows the teacher that holds the gold label likeliest, and
    without a label the one that is surest of its own; where no teacher exceeds the student as it began, the row is that
    student's. Other signals are those of the teachers that give them.

    Args:
        teachers: The teachers.
        start: The student as it was when training began; it gives logits.
    """

    def __init__(self, teachers: Sequence[Teacher], start: Teacher) -> None:
        self._teachers, self._start = tuple(teachers), start
        self.needs = frozenset().union(*(teacher.needs for teacher in teachers))

    def signals(self, batch: Batch) -> Signals:
        """The signals of a batch."""
        found: dict[Signal, Tensor] = {}
        said: list[Tensor] = []
        for teacher in self._teachers:
            for signal, tensor in teacher.signals(batch).items():
                if signal == _LOGITS:
                    said.append(tensor)
                else:
                    found[signal] = tensor
        if said:
            found[_LOGITS] = chosen(said, self._start.signals(batch)[_LOGITS], batch)
        return found


def chosen(said: Sequence[Tensor], start: Tensor, batch: Batch) -> Tensor:
    """The rows of logits that are followed.

    Args:
        said: (B, L), (B, N, L) or, for answers, (B, 2, N) of each teacher.
        start: The same of the student as it began.
        batch: `attention_mask` (B, N), and labels where there are some: `labels` (B,) or (B, N), or for answers
            `start_positions` and `end_positions` (B,).
    """
    every = torch.stack([start, *said])  # the student first: of equals the first is taken
    mask = batch["attention_mask"].bool()
    if is_answer(start, mask):
        every = every.masked_fill(~mask[None, :, None], NEVER)
        gold = torch.stack([batch[end] for end in ENDS], -1) if ENDS[0] in batch else None
    else:
        gold = batch.get("labels")
    shares = every.softmax(-1)
    sure = shares.amax(-1)
    if gold is not None:
        known = gold != NOT_TRAINED
        likely = shares.gather(-1, gold.clamp(min=0).expand(sure.shape).unsqueeze(-1)).squeeze(-1)
        sure = torch.where(known, likely, sure)
    best = sure.argmax(0)
    return every.gather(0, best[None, ..., None].expand(1, *start.shape))[0]
