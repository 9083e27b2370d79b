"""A method that is a folder elsewhere and one line gets everything that the methods here get."""

from __future__ import annotations

import inspect
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tiny
from kills import Killed
from safetensors.numpy import load_file, save_file

import polydistill
from polydistill import registry
from polydistill.card import folder_card
from polydistill.cli import commands, main
from polydistill.records.record import RunRecord, Score
from polydistill.runs import functions


class Said(NamedTuple):
    code: int
    out: str
    err: str


Say = Callable[..., Said]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of the same form, `a` and `b`."""
    root = tmp_path_factory.mktemp("models")
    a = tiny.model_folder("bert", "base", root / "a", tokenizer="xlm-roberta", config={"num_hidden_layers": 1})
    shutil.copytree(a, root / "b")
    save_file({name: w * 0.5 for name, w in weights(a).items()}, root / "b/model.safetensors", {"format": "pt"})
    return root


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_KNOWN", dict(registry._KNOWN))
    functions.named.cache_clear()
    registry.register("average", "outside.average", "Average two models.")
    yield
    functions.named.cache_clear()


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def say(*args: str | Path) -> Said:
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
            sys.exit(0)
        return Said(int(stop.value.code or 0), *capsys.readouterr())

    return say


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model.safetensors")


def test_its_command_has_help_and_checks_numbers(say: Say, models: Path) -> None:
    assert commands()["average"] == "Average two models."
    shown = say("average", "--help").out
    for part in (
        "FIRST SECOND",
        "Average two models.",
        "mean of both",
        "--share X",
        "--exact / --no-exact",
        "--resume",
    ):
        assert part in shown
    assert "polydistill average A B --share 0.25" in shown
    wrong = say("average", models / "a", models / "b", "--share", "2")
    assert wrong.code == 2 and "--share must be at least 0 and at most 1, not 2.0" in wrong.err


def test_it_reads_toml_and_writes_json(say: Say, models: Path, tmp_path: Path) -> None:
    (tmp_path / "average.toml").write_text("share = 0.25\ndigits = 2\nexact = false\n")
    place = ["--config", tmp_path / "average.toml", "--digits", "6", "-o", tmp_path / "out", "--json"]
    done = say("average", models / "a", models / "b", *place)
    found = json.loads(done.out)
    assert found["command"] == "average" and found["tensors"] == len(weights(models / "a"))
    assert found["settings"] == {"share": 0.25, "digits": 6} and [s["name"] for s in found["stages"]] == [
        "averaged",
        "rounded",
    ]
    a, b, mean = (weights(folder) for folder in (models / "a", models / "b", tmp_path / "out"))
    name = next(iter(a))
    assert np.allclose(mean[name], 0.75 * a[name] + 0.25 * b[name], atol=2e-6)


def test_its_function_has_a_signature(models: Path, tmp_path: Path) -> None:
    parameters = inspect.signature(polydistill.average).parameters
    assert list(parameters)[:5] == ["first", "second", "share", "digits", "exact"]
    assert parameters["share"].default == 0.5 and parameters["exact"].annotation is bool
    assert "share: Share of the second model." in (polydistill.average.__doc__ or "")
    result = polydistill.average(models / "a", models / "b", share=0, digits=9, output=tmp_path / "out")
    a, same = weights(models / "a"), weights(result.output)
    assert all(np.allclose(a[name], same[name], atol=1e-8) for name in a)


def test_its_card_tells_of_it_and_of_both_models(models: Path, tmp_path: Path) -> None:
    polydistill.average(models / "a", models / "b", share=0.25, exact=False, output=tmp_path / "out")
    text = folder_card(tmp_path / "out")
    assert text == (tmp_path / "out/README.md").read_text(encoding="utf-8")
    for part in ("# a averaged", "that counts 25 %", "- averaged\n", "Nobody has tried it.", "## Method", "2203.05482"):
        assert part in text
    assert "polydistill average a b --share 0.25 --digits 4 --no-exact -o out" in text and "**Second**: `b`" in text


def test_compare_reads_it_like_any_other(say: Say, models: Path, tmp_path: Path) -> None:
    for name, value in (("one", 0.5), ("two", 0.75)):
        polydistill.average(models / "a", models / "b", output=tmp_path / name)
        record = RunRecord.load(tmp_path / name)
        assert record is not None
        score = Score(name, "nli", "en", "test", "accuracy", value, (value - 0.1, value + 0.1), 8, data_hash="d")
        replace(record, scores=[score]).save(tmp_path / name)
    done = say("compare", tmp_path / "one", tmp_path / "two")
    assert done.code == 0 and "75.0" in done.out
    assert "average (en)" in say("info", tmp_path / "one").out


def test_it_goes_on_after_a_kill(say: Say, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from outside.average import stages

    asked = ("average", models / "a", models / "b", "-o", tmp_path / "out")
    polydistill.average(models / "a", models / "b", output=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(stages.np, "round", lambda *_: (_ for _ in ()).throw(Killed()))
        assert say(*asked).code == 1
    assert not (tmp_path / "out").exists() and (tmp_path / ".out.training/averaged/stage.json").is_file()
    assert "--resume" in say(*asked).err
    assert "(--share)" in say(*asked, "--resume", "--share", "0.1").err
    monkeypatch.setattr(stages, "load_file", lambda path: load_file(path) if "training" in str(path) else 1 / 0)
    assert say(*asked, "--resume").code == 0  # the first stage, which reads the models, is not made again
    assert (tmp_path / "out/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
