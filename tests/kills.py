"""A run that is stopped in the middle, as a kill would do it."""

from __future__ import annotations

from polydistill.progress import Progress


class Killed(Exception):
    """What ends the run."""


class Listener(Progress):
    """Keeps warnings; stops the run after so many dev scores, as a kill would."""

    def __init__(self, checks: int = 1000) -> None:
        self.left, self.said = checks, ""

    def note(self, text: str) -> None:
        self.left -= text.startswith("step")
        if self.left < 0:
            raise Killed

    def warn(self, text: str) -> None:
        self.said += text
