"""A process of its own in which models of a task take turns, and which prints their times (see `turns`)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from polydistill.evaluation.footprint import examples_of, opened
from polydistill.evaluation.kinds import KINDS
from polydistill.evaluation.turns import one_round, take_turns
from polydistill.processes import answer


def timed(job: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """(seconds of one input, inputs a second together) of each model of a job of `cost`."""
    import torch

    torch.set_num_threads(job["threads"])
    examples, kind = examples_of(job), KINDS[job["kind"]]
    models = {name: opened(Path(folder), job) for name, folder in job["folders"].items()}
    rounds = {name: partial(one_round, partial(kind.predict, model), examples) for name, model in models.items()}
    return take_turns(rounds, len(examples), repeat=job["rounds"])


if __name__ == "__main__":
    answer(timed)
