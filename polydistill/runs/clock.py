"""The minutes of a run, shared out between its stages."""

from __future__ import annotations

import time


class Clock:
    """Counts down the minutes of a run.

    Args:
        minutes: Of the whole run; None for as long as it takes.
    """

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes

    def minutes(self, share: float, left: float) -> float | None:
        """How long a stage may take.

        Args:
            share: The stage's share.
            left: The sum of its share and those of the stages that follow.
        """
        if self._end is None or not share:
            return None
        return max(0.0, self._end - time.monotonic()) / 60 * share / left
