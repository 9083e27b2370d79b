"""Whether a student still comes nearer to its teacher while it gets worse at the task (Tiapkin et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence

CHECKS, FALL = 3, 0.05
ADVICE = (
    "Over the last checks the student came nearer to its teacher and got worse at the task, on the same dev data: it "
    "learns what the teacher gets wrong. Other text (`task_text`) or changed inputs (`task_augment`) may help."
)


def is_hacking(loyalty: Sequence[float], gold: Sequence[float]) -> bool:
    """Whether the distance to the teacher fell by more than 5 % over the last three checks while the gold score fell.

    Args:
        loyalty: To the teacher at each check; the distance is 1 less that.
        gold: The task's own metric at the same checks.
    """
    if len(loyalty) < CHECKS or len(gold) < CHECKS:
        return False
    before, after = 1 - loyalty[-CHECKS], 1 - loyalty[-1]
    return after < (1 - FALL) * before and gold[-1] < gold[-CHECKS]
