"""Work that belongs into a process of its own, done in this one: starting one takes seconds."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import pytest

from polydistill.processes import answer_of

USERS = ("polydistill.evaluation.turns", "polydistill.evaluation.cost", "polydistill.hub.opening")


def answer_here(patch: pytest.MonkeyPatch, *, but_the_first: bool = False) -> None:
    """Jobs of `processes.answer_of` are done in this process.

    Args:
        patch: Where that ends.
        but_the_first: Whether a new process does the first job of each module.
    """
    asked = set[str]()

    def answer(module: str, job: Mapping[str, Any], *rest: Any) -> Any:
        if but_the_first and module not in asked:
            asked.add(module)
            return answer_of(module, job, *rest)
        return getattr(import_module(module), module.rpartition(".")[2])(job)  # the function has the module's name

    for user in USERS:
        patch.setattr(f"{user}.answer_of", answer)
