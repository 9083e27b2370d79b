"""Times of models that take turns in several processes: the statistics by hand, and what a process may do."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from polydistill.errors import PolydistillError
from polydistill.evaluation import turns
from polydistill.evaluation.turns import take_turns
from polydistill.processes import answer


def test_models_take_turns_in_a_process_and_the_first_round_does_not_count() -> None:
    order = []

    def one(name: str, seconds: float) -> Any:
        def run() -> tuple[list[float], float]:
            order.append(name)
            slower = 9 if order.count(name) == 1 else 1
            return [slower * seconds, slower * 3 * seconds], slower * 4 * seconds

        return run

    times = take_turns({"slow": one("slow", 0.2), "fast": one("fast", 0.1)}, 2, repeat=3)
    assert order == ["fast", "slow", "slow", "fast"] * 2
    assert times == {"slow": (pytest.approx(0.4), pytest.approx(2.5)), "fast": (pytest.approx(0.2), pytest.approx(5))}


def test_ratios_of_times_are_to_the_first_and_their_intervals_are_of_processes() -> None:
    """Ratios of .5, .4 and .5: logarithms of mean -.7675 and deviation .1288, t of 2 degrees 4.3027, half width .32."""
    times = [
        {"a": (2.0, 10.0), "b": (1.0, 20.0)},
        {"a": (1.0, 10.0), "b": (0.4, 20.0)},
        {"a": (2.0, 40.0), "b": (1.0, 80.0)},
    ]
    first, second = turns.summary(times)
    assert first["latency_ratio"] is first["throughput_ratio"] is None
    assert first["latency_ms"] == pytest.approx(1000 * 4 ** (1 / 3)) and second["latency_ms"] == pytest.approx(
        736.81, abs=0.01
    )
    assert second["latency_ratio"]["value"] == pytest.approx(0.1 ** (1 / 3))
    assert second["latency_ratio"]["interval"] == pytest.approx([0.3370, 0.6391], abs=1e-3)
    assert second["throughput_ratio"] == {"value": pytest.approx(2), "interval": pytest.approx([2, 2])}
    assert turns.summary(times[:1])[1]["latency_ratio"] == {"value": pytest.approx(0.5), "interval": None}


def test_intervals_of_ratios_hold_the_truth_where_processes_differ() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        ratios = 0.55 * np.exp(0.05 * rng.standard_normal(turns.PROCESSES))
        (_, row) = turns.summary([{"a": (1.0, 1.0), "b": (ratio, 1.0)} for ratio in ratios])
        low, high = row["latency_ratio"]["interval"]
        held += low <= 0.55 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_a_process_that_fails_ends_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PolydistillError) as refused:
        turns.in_processes("polydistill.nowhere", {})
    assert str(refused.value).startswith("The time could not be measured (") and "\n" not in str(refused.value)

    def refuses(job: dict[str, Any]) -> None:
        raise PolydistillError(f"There is no {job['model']}.", "Give another.")

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b'{"model": "m"}')))
    with pytest.raises(SystemExit) as stop:  # which Python prints, and ends with 1
        answer(refuses)
    assert stop.value.code == "There is no m."
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"2")))
    answer(lambda job: {"twice": 2 * job})
    assert capsys.readouterr().out == '\n{"twice":4}'


def test_an_interrupted_measurement_leaves_no_process(tmp_path: Path) -> None:
    """The process that measures is told to end while its own process waits for a job that never comes to an end."""
    sleeper = tmp_path / "sleeper.py"
    sleeper.write_text(
        "import os, sys, time\nopen(sys.argv[0] + '.pid', 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    code = f"""
import subprocess, sys
from polydistill import interrupts
from polydistill.processes import answer_of
run = subprocess.run
subprocess.run = lambda command, **options: run([sys.executable, {str(sleeper)!r}], **options)
interrupts.install()
answer_of("sleeper", {{}}, "It failed", "Try again.")
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    pid = tmp_path / "sleeper.py.pid"
    while not (pid.exists() and pid.read_text()):
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    assert process.wait(30) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
