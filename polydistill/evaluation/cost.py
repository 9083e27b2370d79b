"""What a prediction costs: time at batch 1 and 32, the models taking turns, and memory in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson

from polydistill.catalog import Task
from polydistill.errors import PolydistillError
from polydistill.evaluation.heads import TaskModel, open_model
from polydistill.evaluation.kinds import kind_of
from polydistill.progress import SILENT, Progress

INPUTS, BATCH, ROUNDS, RESAMPLES = 32, 32, 7, 10_000


def measure_cost(
    folders: Mapping[str, Path],
    task: Task,
    examples: Sequence[Any],
    *,
    max_length: int,
    prompt: str | None = None,
    language: str | None = None,
    seed: int = 0,
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
        seed: Of the bootstrap.
        progress: Where to report.

    Returns:
        `models`: for each its `latency_ms` at batch 1, `throughput` in inputs a second at batch 32, the ratio of both
        to the first model's with a 95% interval (None for the first itself), and the `peak_memory_bytes` of a process
        that loads it and predicts one batch; and how it was measured.
    """
    import torch

    chosen = [examples[i] for i in np.linspace(0, len(examples) - 1, min(INPUTS, len(examples))).astype(int)]
    models = {
        name: open_model(
            folder,
            task.kind,
            task.labels,
            not_scored=task.not_scored,
            max_length=max_length,
            prompt=prompt,
            language=language,
            own=task.own,
        )
        for name, folder in folders.items()
    }
    rounds = {name: partial(_round, model, task, chosen) for name, model in models.items()}
    rows = [
        {**row, "peak_memory_bytes": _peak_memory(folders[row["model"]], task, chosen, max_length, prompt, language)}
        for row in take_turns(rounds, len(chosen), seed=seed, progress=progress)
    ]
    return {"models": rows, "inputs": len(chosen), "rounds": ROUNDS, "threads": torch.get_num_threads(), "seed": seed}


def take_turns(
    rounds: Mapping[str, Callable[[], tuple[list[float], float]]],
    inputs: int,
    *,
    seed: int = 0,
    progress: Progress = SILENT,
) -> list[dict[str, Any]]:
    """Times models on the same inputs, each round all of them, so that what slows the machine slows them alike.

    Args:
        rounds: Name -> runs the model once; gives (seconds of each input alone, seconds of all in one batch).
        inputs: Number of inputs.
        seed: Of the bootstrap.
        progress: Where to report.

    Returns:
        For each its `model`, `latency_ms` of one input, `throughput` in inputs a second, and the ratio of both to the
        first model's with a 95% interval (None for the first itself).
    """
    alone: dict[str, list[list[float]]] = {name: [] for name in rounds}
    together: dict[str, list[float]] = {name: [] for name in rounds}
    with progress.bar("measuring time", (ROUNDS + 1) * len(rounds), "round") as done:
        for turn in range(ROUNDS + 1):  # the first warms up
            for name in sorted(rounds, reverse=turn % 2 == 1):
                single, batch = rounds[name]()
                if turn:
                    alone[name].append(single)
                    together[name].append(batch)
                done(1)
    first = next(iter(rounds))
    rng = np.random.default_rng(seed)
    rows = []
    for name in rounds:
        singles = {key: np.median(alone[key], axis=0) for key in (first, name)}
        rates = {key: inputs / np.array(together[key]) for key in (first, name)}
        rows.append({
            "model": name,
            "latency_ms": 1000 * float(singles[name].mean()),
            "throughput": median(rates[name].tolist()),
            "latency_ratio": None if name == first else _ratio(singles[name], singles[first], rng),
            "throughput_ratio": None if name == first else _ratio(rates[name], rates[first], rng),
        })  # fmt: skip
    return rows


def _round(model: TaskModel, task: Task, examples: Sequence[Any]) -> tuple[list[float], float]:
    """(seconds of each input alone, seconds of all in one batch)."""
    kind, singles = kind_of(task), []
    for example in examples:
        started = time.perf_counter()
        kind.predict(model, [example], batch_size=1)
        singles.append(time.perf_counter() - started)
    started = time.perf_counter()
    kind.predict(model, examples, batch_size=BATCH)
    return singles, time.perf_counter() - started


def _ratio(own: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """Ratio of sums with a 95% bootstrap interval over the pairs.

    Args:
        own: (n,) numbers of a model.
        other: (n,) those of the first model on the same inputs, or in the same rounds.
        rng: What resamples.
    """
    rows = rng.integers(0, len(own), (RESAMPLES, len(own)))
    found = own[rows].sum(1) / other[rows].sum(1)
    low, high = np.percentile(found, [2.5, 97.5])
    return {"value": float(own.sum() / other.sum()), "interval": [float(low), float(high)]}


def _peak_memory(
    folder: Path, task: Task, examples: Sequence[Any], max_length: int, prompt: str | None, language: str | None
) -> int:
    """Peak memory of a new process that loads a model and predicts one batch.

    Raises:
        PolydistillError: The process failed.
    """
    job = {
        "folder": str(folder), "kind": task.kind, "labels": task.labels, "not_scored": task.not_scored,
        "max_length": max_length, "prompt": prompt, "language": language, "own": task.own,
        "type": type(examples[0]).__name__, "examples": [asdict(e) for e in examples], "batch_size": BATCH,
    }  # fmt: skip
    command = [sys.executable, "-P", "-m", "polydistill.evaluation.footprint"]  # no code from where we are
    ended = subprocess.run(command, input=orjson.dumps(job), capture_output=True, check=False)
    if ended.returncode:
        said = ended.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it was killed"]
        raise PolydistillError(f"The memory of {folder} could not be measured ({said[0]}).", "Leave out --latency.")
    return int(orjson.loads(ended.stdout)["peak_memory_bytes"])
