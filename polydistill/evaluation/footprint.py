"""A process of its own that loads one model, predicts one batch and prints its peak memory (see `cost`)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson

from polydistill.evaluation.heads import open_model
from polydistill.evaluation.kinds import KINDS
from polydistill.labelled import examples as kinds_of_examples
from polydistill.record import peak_memory_bytes


def main() -> None:
    """Reads a job as JSON from stdin."""
    job = orjson.loads(sys.stdin.buffer.read())
    model = open_model(
        Path(job["folder"]), job["kind"], job["labels"], not_scored=job["not_scored"],
        max_length=job["max_length"], prompt=job["prompt"], language=job["language"], own=job["own"],
    )  # fmt: skip
    make = getattr(kinds_of_examples, job["type"])
    found = [make(**{key: _frozen(value) for key, value in example.items()}) for example in job["examples"]]
    KINDS[job["kind"]].predict(model, found, batch_size=job["batch_size"])
    sys.stdout.write(orjson.dumps({"peak_memory_bytes": peak_memory_bytes()}).decode())


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


if __name__ == "__main__":
    main()
