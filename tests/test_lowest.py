"""Lower bounds: each is one, and with the versions that are installed every module can be imported."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import tomllib
from pathlib import Path

import polydistill

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("lowest", ROOT / "scripts/lowest.py")
assert SPEC is not None and SPEC.loader is not None
lowest = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(lowest)


def test_every_module_can_be_imported() -> None:
    names = [m.name for m in pkgutil.walk_packages(polydistill.__path__, "polydistill.") if "__main__" not in m.name]
    assert len(names) > 100
    for name in names:
        importlib.import_module(name)


def test_whatever_users_install_has_one_lower_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [name for name in project["optional-dependencies"] if name != "dev"]
    pinned = dict(line.split("==") for line in lowest.lowest(extras))
    assert {"transformers", "accelerate", "numpy", "onnx", "matplotlib"} <= set(pinned) and "torch" not in pinned
    bounds = {name.split(">=")[0]: name.split(">=")[-1] for name in project["optional-dependencies"]["dev"]}
    assert all(bounds.get(name, version) == version for name, version in pinned.items())
