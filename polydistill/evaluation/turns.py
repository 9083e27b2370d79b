"""Times of models that take turns, in several fresh processes.

Two processes that do the same differ more than two rounds of one: where things lie in memory stays as it is for a
process's whole life (Kalibera and Jones, Rigorous Benchmarking in Reasonable Time, ISMM 2013). So the intervals here
are of the differences between processes, and rounds only steady each of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from polydistill.processes import answer_of
from polydistill.progress import SILENT, Progress

INPUTS, BATCH = 32, 32
PROCESSES, ROUNDS = 5, 3
CONFIDENCE = 0.95
WAY_OUT = "Free some memory, or measure on a machine with less to do."

Round = Callable[[], tuple[list[float], float]]
Times = Mapping[str, tuple[float, float]]


def spread(n: int) -> list[int]:
    """Numbers of 32 of n inputs, spread over all."""
    return np.linspace(0, n - 1, min(INPUTS, n)).astype(int).tolist()


def how(inputs: int) -> dict[str, int]:
    """What a result says of its measurement, and each process is told."""
    import torch

    return {"inputs": inputs, "processes": PROCESSES, "rounds": ROUNDS, "threads": torch.get_num_threads()}


def one_round(predict: Callable[..., object], inputs: Sequence[Any]) -> tuple[list[float], float]:
    """(seconds of each input alone, seconds of all in batches); `predict` takes inputs and `batch_size`."""
    seconds = []
    for given in inputs:
        started = time.perf_counter()
        predict([given], batch_size=1)
        seconds.append(time.perf_counter() - started)
    started = time.perf_counter()
    predict(inputs, batch_size=BATCH)
    return seconds, time.perf_counter() - started


def take_turns(rounds: Mapping[str, Round], inputs: int, *, repeat: int = ROUNDS) -> dict[str, tuple[float, float]]:
    """Times models in this process, each round all of them, so that what slows the machine slows them alike.

    Args:
        rounds: Name -> runs the model once; gives (seconds of each input alone, seconds of all in one batch).
        inputs: Number of inputs.
        repeat: How many rounds count; one more goes before them.

    Returns:
        Name -> (seconds of one input, inputs a second together), medians over the rounds.
    """
    alone: dict[str, list[list[float]]] = {name: [] for name in rounds}
    together: dict[str, list[float]] = {name: [] for name in rounds}
    for turn in range(repeat + 1):
        for name in sorted(rounds, reverse=turn % 2 == 1):
            single, batch = rounds[name]()
            if turn:
                alone[name].append(single)
                together[name].append(batch)
    return {
        name: (float(np.median(alone[name], axis=0).mean()), inputs / float(np.median(together[name])))
        for name in rounds
    }


def in_processes(module: str, job: Mapping[str, Any], progress: Progress = SILENT) -> list[dict[str, Any]]:
    """What several fresh processes say, one after the other.

    Args:
        module: What each runs: it reads the job as JSON from stdin and prints `take_turns`'s answer as JSON.
        job: What to time.
        progress: Where to report.

    Raises:
        PolydistillError: A process failed.
    """
    found = []
    with progress.bar("measuring time", PROCESSES, "process") as done:
        for _ in range(PROCESSES):
            found.append(answer_of(module, job, "The time could not be measured", WAY_OUT))
            done(1)
    return found


def summary(processes: Sequence[Times]) -> list[dict[str, Any]]:
    """Times over processes: geometric means, and ratios with intervals by Student's t over the processes' logarithms.

    Args:
        processes: `take_turns` of each.

    Returns:
        For each model its `model`, `latency_ms` of one input, `throughput` in inputs a second, and the ratio of both
        to the first model's, with a 95% interval, or None in its place where there was one process (the ratio is None
        for the first model itself).
    """
    names = list(processes[0])
    logs = {name: np.log([process[name] for process in processes]) for name in names}  # (processes, 2)
    rows = []
    for name in names:
        latency, throughput = np.exp(logs[name].mean(axis=0)).tolist()
        ratios = [None, None] if name == names[0] else [_ratio(log) for log in (logs[name] - logs[names[0]]).T]
        rows.append(
            {
                "model": name,
                "latency_ms": 1000 * latency,
                "throughput": throughput,
                "latency_ratio": ratios[0],
                "throughput_ratio": ratios[1],
            }
        )
    return rows


def _ratio(logs: np.ndarray) -> dict[str, Any]:
    """From (processes,) logarithms of a ratio."""
    from scipy.stats import t

    middle, n = logs.mean(), len(logs)
    if n < 2:
        return {"value": float(np.exp(middle)), "interval": None}
    half = t.ppf((1 + CONFIDENCE) / 2, n - 1) * logs.std(ddof=1) / np.sqrt(n)
    return {"value": float(np.exp(middle)), "interval": np.exp([middle - half, middle + half]).tolist()}
