"""A run that is stopped in the middle, as a kill would do it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from polydistill.progress import Progress
from polydistill.training.resuming import LOSSES


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


def loss_curves(folder: Path) -> dict[str, Any]:
    """Stage of a finished run -> the losses of every step; those of a teacher that was tuned are its record's."""
    found: dict[str, Any] = {path.parent.name: path.read_text() for path in folder.glob(f"stages/*/{LOSSES}")}
    for path in folder.glob("stages/*/*/polydistill.json"):
        found[path.parent.name] = json.loads(path.read_text())["result"].get("curves")
    assert any(found.values())
    return found
