"""A teacher in two parts: of the first examples, and of the others."""

from __future__ import annotations

from polydistill.distill.signals import Batch, Signals
from polydistill.distill.teachers.base import Teacher


class InParts(Teacher):
    """One teacher answers for the first examples, another one for the rest; no batch has examples of both.

    Args:
        first: Whose examples are the first.
        second: Whose `example_id` begins with 0 again.
        count: Examples of the first.
    """

    def __init__(self, first: Teacher, second: Teacher, count: int) -> None:
        self._first, self._second, self._count = first, second, count
        self.needs = first.needs

    def signals(self, batch: Batch) -> Signals:
        """The signals of a batch; it has `example_id` (B,)."""
        if int(batch["example_id"][0]) < self._count:
            return self._first.signals(batch)
        return self._second.signals({**batch, "example_id": batch["example_id"] - self._count})
