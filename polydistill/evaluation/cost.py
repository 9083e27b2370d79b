"""What a prediction costs: time at batch 1 and 32, the models taking turns, and memory in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from polydistill.catalog import Task
from polydistill.devices import current
from polydistill.evaluation import turns
from polydistill.processes import answer_of
from polydistill.progress import SILENT, Progress

WAY_OUT = "Leave `latency` out, or free some memory."


def measure_cost(
    folders: Mapping[str, Path],
    task: Task,
    examples: Sequence[Any],
    *,
    max_length: int,
    prompt: str | None = None,
    language: str | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Measures time and memory of models on the same inputs, from text to prediction, in float32.

    Args:
        folders: Name -> snapshot; ratios are to the first.
        task: What is predicted.
        examples: 32 of them, spread over all, are the inputs.
        max_length: Most tokens of an input.
        prompt: As in `open_model`.
        language: Code of the examples' language.
        progress: Where to report.

    Returns:
        `models`: `turns.summary` of several processes, and for each model the `peak_memory_bytes` of a process that
        loads it and predicts one batch; and how it was measured.

    Raises:
        PolydistillError: A process failed.
    """
    chosen = [examples[i] for i in turns.spread(len(examples))]
    how = turns.how(len(chosen))
    job = {
        "kind": task.kind,
        "labels": task.labels,
        "not_scored": task.not_scored,
        "own": task.own,
        "max_length": max_length,
        "prompt": prompt,
        "language": language,
        "device": current(),
        "type": type(chosen[0]).__name__,
        "examples": [asdict(e) for e in chosen],
        **how,
    }
    named = {name: str(folder) for name, folder in folders.items()}
    times = turns.in_processes("polydistill.evaluation.timed", {**job, "folders": named}, progress)
    rows = [{**row, "peak_memory_bytes": _peak_memory(named[row["model"]], job)} for row in turns.summary(times)]
    return {"models": rows, **how}


def _peak_memory(folder: str, job: Mapping[str, Any]) -> int:
    """Peak memory of a new process that loads a model and predicts one batch.

    Raises:
        PolydistillError: The process failed.
    """
    asked = {**job, "folder": folder, "batch_size": turns.BATCH}
    problem = f"The memory of {folder} could not be measured"
    return int(answer_of("polydistill.evaluation.footprint", asked, problem, WAY_OUT)["peak_memory_bytes"])
