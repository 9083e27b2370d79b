"""Work that belongs into a process of its own, done in this one: starting one takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import pytest


def answer_here(patch: pytest.MonkeyPatch) -> None:
    """Jobs of `processes.answer_of` are done in this process."""
    for user in ("polydistill.evaluation.turns", "polydistill.evaluation.cost", "polydistill.hub.opening"):
        patch.setattr(f"{user}.answer_of", _answer)


def _answer(module: str, job: Mapping[str, Any], *_: object) -> Any:
    """What the function of a module's own name makes of a job."""
    return getattr(import_module(module), module.rpartition(".")[2])(job)
