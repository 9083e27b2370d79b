"""How several teachers become one."""

from __future__ import annotations

from collections.abc import Sequence

from polydistill.distill.combining import BALANCE, MEAN_LOGITS, PARTITION
from polydistill.distill.teachers.balanced import Balanced
from polydistill.distill.teachers.base import Teacher
from polydistill.distill.teachers.ensemble import Ensemble
from polydistill.distill.teachers.partition import Partition


def as_one(teachers: Sequence[tuple[Teacher, float]], how: str, start: Teacher | None = None) -> Teacher:
    """Several teachers as one.

    Args:
        teachers: Each with its weight; one alone stays as it is, unless examples are shared with the student.
        how: As `combining.Combined` has it.
        start: For `partition`, the student as it was when training began.

    Raises:
        PolydistillError: They cannot be combined so.
    """
    if how == PARTITION:
        assert start is not None
        return Partition([teacher for teacher, _ in teachers], start)
    if len(teachers) == 1:
        return teachers[0][0]
    if how == BALANCE:
        return Balanced(teachers)
    return Ensemble(teachers, average="logits" if how == MEAN_LOGITS else "probabilities")
