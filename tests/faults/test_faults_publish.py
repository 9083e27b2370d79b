"""A Hub whose answers are cut, garbled, wrong, late or missing: what is said of it is true, and what it has is had."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from amount import cases
from safetensors.numpy import save_file

from polydistill.records.record import RunRecord

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its record."""
    folder = tiny.model_folder(
        "bert", "base", tmp_path_factory.mktemp("hub") / "model", tokenizer="xlm-roberta", seed=1
    )
    source = {"name": "org/base", "source": "org/base@1", "weights_hash": "0" * 64, "licence": "mit"}
    RunRecord("finetune", {"model": "org/base"}, source, [], {"languages": ["en"]}).save(folder)
    return folder


def test_what_is_said_of_a_commit_is_true(folder: Path) -> None:
    """Every request of a publication may be answered badly, once or always, also those that ask what came of it."""
    count = cases(200)
    ends = tried("publish_cases.py", folder, count)
    assert ends["published"] + ends["nothing"] + ends["unknown"] + ends["not yet"] == count
    # Each end was seen, and so was a commit that was only found by asking for it.
    assert min(ends[end] for end in ("published", "nothing", "unknown", "not yet", "found out", "changed since")) > 0


def test_what_is_fetched_is_what_the_hub_has(tmp_path: Path) -> None:
    """Models and text of data sets; what was refused or cut is fetched whole by the next try."""
    (tmp_path / "model").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert"}' + 500 * " ")
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    save_file({"a": np.arange(60_000, dtype=np.float32)}, tmp_path / "model" / "model.safetensors")
    lines = (json.dumps({"text": f"line {i} " + 300 * "x"}) + "\n" for i in range(400))
    (tmp_path / "texts" / "train.jsonl").write_text("".join(lines))
    count = cases(60)
    ends = tried("fetch_cases.py", tmp_path, count)
    assert sum(ends.values()) == count
    assert min(ends[end] for end in ("the same", "refused fetch_model", "refused fetch_texts")) > 0


def tried(script: str, folder: Path, count: int) -> dict[str, int]:
    """How often each end was seen in so many cases, none of which was wrong."""
    command = [sys.executable, str(Path(__file__).with_name(script)), str(folder), "1", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["wrong"] == []
    ends: dict[str, int] = found["ends"]
    return ends
