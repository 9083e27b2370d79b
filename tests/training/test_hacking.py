"""A student that comes nearer to its teacher and worse at the task, by planted curves."""

from __future__ import annotations

import pytest

from polydistill.training.hacking import is_hacking


@pytest.mark.parametrize(
    ("loyalty", "gold", "expected"),
    [
        ([0.90, 0.92, 0.94], [0.80, 0.79, 0.78], True),  # the distance falls from .10 to .06
        ([0.90, 0.92, 0.94], [0.80, 0.82, 0.81], False),  # the task is learnt too
        ([0.90, 0.902, 0.904], [0.80, 0.79, 0.78], False),  # by 4 % alone
        ([0.94, 0.92, 0.90], [0.80, 0.79, 0.78], False),  # further from the teacher
        ([0.50, 0.90, 0.902, 0.904], [0.90, 0.80, 0.79, 0.78], False),  # the last three checks count
        ([0.90, 0.94], [0.80, 0.78], False),
        ([0.90, 0.92, 0.94], [], False),  # what chose was not loyalty
    ],
)
def test_planted_curves(loyalty: list[float], gold: list[float], expected: bool) -> None:
    assert is_hacking(loyalty, gold) == expected
