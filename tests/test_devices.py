"""Where torch computes: what was chosen is what everything uses, and what is not there is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import trainings

from polydistill import devices
from polydistill.cli import main
from polydistill.errors import UsageError
from polydistill.evaluation.evaluate import EvaluateOptions, evaluate
from polydistill.evaluation.heads import new_head, open_model
from polydistill.stacks.parts import on_device
from polydistill.training import loop


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says that it has a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_the_fastest_that_is_there(monkeypatch: pytest.MonkeyPatch, with_gpu: None) -> None:
    assert devices.current() == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.current() == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.current() == "cpu"


def test_a_choice_holds_until_its_block_ends(with_gpu: None) -> None:
    with devices.using("cpu"):
        assert devices.current() == "cpu"
        with devices.using("auto"):  # scores at the end of a run
            assert devices.current() == "cpu"
        with devices.using("cuda"):
            assert devices.current() == "cuda"
        assert devices.current() == "cpu"
    assert devices.current() == "cuda"
    with pytest.raises(KeyError), devices.using("cpu"):
        raise KeyError
    assert devices.current() == "cuda"


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_read(
    device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = {
        "finetune": ["--task", "ner", "--lang", "en"],
        "bistil": ["en", "sw"],
        "prokd": ["en", "sw"],
        "stack": ["encoder", "llm"],
        "sparse train": ["--lang", "sw"],
        "evaluate": ["--model", "nowhere", "--task", "ner", "--lang", "en"],
        "plan": ["en", "sw"],
    }
    for command, rest in commands.items():
        with pytest.raises(SystemExit) as stop:
            main([*command.split(), *rest, "--device", device])
        said = capsys.readouterr().err
        assert stop.value.code == 2 and said.count("\n") == 2, command
        assert f"no device `{device}` on this machine" in said and "Leave --device out, or choose auto or cpu" in said


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UsageError, match="`device=gpu` is unknown"):
        evaluate(EvaluateOptions(model=("a",), task="ner", languages=("en",), device="gpu"))


def test_the_cpu_is_taken_where_there_is_a_gpu(tmp_path: Path, with_gpu: None) -> None:
    folder = tiny.model_folder("bert", "base", tmp_path / "m")
    new_head(folder, "tagging", ("O", "B-PER"), seed=0).network.save_pretrained(folder)
    with devices.using("cpu"):
        model = open_model(folder, "tagging", ("O", "B-PER"))
        assert {p.device.type for p in model.network.parameters()} == {"cpu"}
        arguments = loop._arguments(loop.Schedule(1, 1e-3, 4), 10, tmp_path)
        assert arguments.use_cpu and not arguments.dataloader_pin_memory
        assert on_device(torch.nn.Linear(2, 2)).weight.device.type == "cpu"


def test_networks_are_moved_to_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device `meta` plays one that this machine lacks."""
    monkeypatch.setattr(devices, "_chosen", "meta")
    folder = tiny.model_folder("bert", "base", tmp_path / "m")
    new_head(folder, "tagging", ("O", "B-PER"), seed=0).network.save_pretrained(folder)
    model = open_model(folder, "tagging", ("O", "B-PER"))
    assert {p.device.type for p in model.network.parameters()} == {"meta"}
    assert on_device(torch.nn.Linear(2, 2)).weight.device.type == "meta"


def test_a_run_says_where_it_computed_and_goes_on_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))
    root = trainings.prepare(tmp_path / "root")
    made = trainings.tune(root, tmp_path / "out", epochs=1, device="cpu")
    assert made.device == "cpu" and "device" not in made.settings
    record = json.loads((tmp_path / "out/polydistill.json").read_text())
    assert record["result"]["device"] == "cpu" and record["config"]["device"] == "cpu"
    found: Any = evaluate(
        EvaluateOptions(model=(str(tmp_path / "out"),), task="ner", languages=("en",), data_dir=root, device="cpu")
    )
    assert found.device == "cpu" and found.precision == "float32"
    options = trainings.finetune_config(device="cpu")
    assert options.deciding() == trainings.finetune_config().deciding()


def test_auto_takes_bfloat16_only_where_it_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for faster in (True, False):
        monkeypatch.setattr(devices, "_is_faster", lambda device, faster=faster: faster)
        assert devices.multiplies_in_bfloat16("auto") is faster
        assert devices.multiplies_in_bfloat16("bfloat16") and not devices.multiplies_in_bfloat16("float32")


def test_the_measurement_gives_an_answer() -> None:
    assert devices._is_faster("cpu") in (True, False)
