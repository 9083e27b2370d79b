"""A process of its own that loads one model, predicts one batch and prints its peak memory (see `cost`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polydistill.devices import using
from polydistill.evaluation.heads import TaskModel, open_model
from polydistill.evaluation.kinds import KINDS
from polydistill.labelled import examples as kinds_of_examples
from polydistill.processes import answer
from polydistill.records.record import peak_memory_bytes


def footprint(job: dict[str, Any]) -> dict[str, int]:
    """Loads the job's model and predicts."""
    model = opened(Path(job["folder"]), job)
    KINDS[job["kind"]].predict(model, examples_of(job), batch_size=job["batch_size"])
    return {"peak_memory_bytes": peak_memory_bytes()}


def opened(folder: Path, job: Mapping[str, Any]) -> TaskModel:
    """A model of a job."""
    with using(job["device"]):
        return open_model(
            folder,
            job["kind"],
            job["labels"],
            not_scored=job["not_scored"],
            max_length=job["max_length"],
            prompt=job["prompt"],
            language=job["language"],
            own=job["own"],
        )


def examples_of(job: Mapping[str, Any]) -> list[Any]:
    """The examples of a job."""
    make = getattr(kinds_of_examples, job["type"])
    return [make(**{key: _frozen(value) for key, value in example.items()}) for example in job["examples"]]


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


if __name__ == "__main__":
    answer(footprint)
