"""Methods of other packages: the example of the docs, installed, is a command, a function and a card like any other."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import trainings

import polydistill
from polydistill import registry
from polydistill.cli import commands, main
from polydistill.distill.listing import OBJECTIVES
from polydistill.errors import UsageError
from polydistill.runs import functions

PAGE = Path(__file__).parents[2] / "docs/add-your-own.md"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example as a package beside a model."""
    code = re.search(r'```python\n("""shout\.py.*?)```', PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    (tmp_path / "shout.py").write_text(code[1], encoding="utf-8")
    about = tmp_path / "shout-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shout\nVersion: 1.0\nSummary: Shout at a model.\n")
    (about / "entry_points.txt").write_text("[polydistill.methods]\nshout = shout\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._installed.cache_clear()
    functions.named.cache_clear()
    tiny.model_folder("bert", "base", tmp_path / "m", tokenizer="xlm-roberta", config={"num_hidden_layers": 1})
    yield tmp_path
    sys.modules.pop("shout", None)
    registry._installed.cache_clear()
    functions.named.cache_clear()


def test_the_objective_on_the_page_can_be_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r'```python\n("""penalty\.py.*?)```', PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    (tmp_path / "penalty.py").write_text(code[1], encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(OBJECTIVES, "_listed", dict(OBJECTIVES._listed))
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))
    importlib.import_module("penalty")
    root = trainings.prepare(tmp_path / "root")
    made = trainings.tune(root, tmp_path / "out", objective=("labels=1", "penalty=0.1:entropy=0.5"))
    (stage,) = made.stages
    assert set(stage["loss"]["first"]) == {"labels", "penalty"}
    assert made.settings["objective"] == ["labels=1:smoothing=0", "penalty=0.1:entropy=0.5"]
    assert "penalty=0.1:entropy=0.5" in (tmp_path / "out/README.md").read_text()


def test_a_package_adds_a_command(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands()["shout"] == "Shout at a model."
    main(["shout", "--help"])
    said = capsys.readouterr().out
    assert "Shout at a model." in said and "--times N" in said and "MODEL" in said
    (installed / "loud.toml").write_text("times = 3\n")
    model, place = str(installed / "m"), ["-o", str(installed / "o")]
    main(["shout", model, "--config", str(installed / "loud.toml"), "--json", *place])
    result = json.loads(capsys.readouterr().out)
    assert result["command"] == "shout" and result["shouted"] == 3 and result["settings"] == {"times": 3}
    with pytest.raises(SystemExit, match="2"):
        main(["shout", model, "--times", "0", *place])
    assert "--times must be at least 1" in capsys.readouterr().err


def test_a_package_adds_a_function_and_a_card(installed: Path) -> None:
    signature = inspect.signature(polydistill.shout)
    assert list(signature.parameters) == ["model", "times", "resume", "output", "overwrite", "progress"]
    assert "times: How often to shout." in (polydistill.shout.__doc__ or "")
    polydistill.shout(str(installed / "m"), times=2, output=installed / "o")
    assert (installed / "o/README.md").is_file()
    with pytest.raises(UsageError, match="There is no option `tims`"):
        polydistill.shout(str(installed / "m"), tims=2)


def test_names_are_taken_once() -> None:
    with pytest.raises(UsageError, match="There is a method trim already"):
        registry.register("trim", "mine", "Trim.")
    with pytest.raises(UsageError, match="There is no method evaluate"):
        registry.method("evaluate")
    assert registry.find("nothing") is None and not hasattr(polydistill, "nothing")
