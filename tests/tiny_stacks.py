"""Tiny stacks, their models and data: fixtures that several test files use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from configs import stack, stack_config
from safetensors.numpy import load_file

from polydistill.methods.stack.options import StackOptions

LABELS = ("entailment", "neutral", "contradiction")
PAIRS = {"en": ("the red house", "a letter"), "sw": ("nyumba nyekundu", "barua")}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "en.txt"
    path.write_text("\n".join(tiny.sentences("en", count=60)) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs whose label is the hypothesis' first word."""
    root = tmp_path_factory.mktemp("data")
    for code, (premise, noun) in PAIRS.items():
        for split, count in (("train", 48), ("dev", 18), ("test", 18)):
            rows = [
                {
                    "premise": f"{premise} {i % 5}",
                    "hypothesis": f"{('yes', 'no', 'maybe')[i % 3]} {noun} {i % 7}",
                    "label": LABELS[i % 3],
                }
                for i in range(count)
            ]
            path = root / f"nli/{code}/{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("models")
    return (tiny.model_folder("xlm-roberta", "base", root / "encoder"), tiny.model_folder("bert", "base", root / "llm"))


def config(models: tuple[Path, Path], output: Path, **options: Any) -> StackOptions:
    values = {
        "encoder": str(models[0]),
        "llm": str(models[1]),
        "preset": "smoke",
        "steps": 8,
        "batch_size": 8,
        "max_length": 32,
        "lr": 2e-3,
        "task_max_length": 48,
        "teacher_epochs": 1,
        "task_epochs": 1,
        "task_batch_size": 8,
        "output": output,
    }
    return stack_config(**{**values, **options})


@pytest.fixture(scope="module")
def first(models: tuple[Path, Path], text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack of stage 1."""
    root = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYDISTILL_CACHE", str(root / "cache"))
        return stack(config(models, root / "s", text=(str(text),), steps=40)).output


@pytest.fixture(scope="module")
def second(models: tuple[Path, Path], first: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The result of stage 2 on top of it, with both languages scored."""
    root = tmp_path_factory.mktemp("second")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYDISTILL_CACHE", str(root / "cache"))
        return stack(
            config(
                models,
                root / "s",
                stack=str(first),
                task="nli",
                data_dir=data,
                languages=("en", "sw"),
                teacher_epochs=15,
                teacher_lr=1e-2,
                task_epochs=25,
                task_lr=1e-2,
            )
        )


def weights(folder: Path) -> dict[str, bytes]:
    return {name: tensor.tobytes() for name, tensor in load_file(folder / "model.safetensors").items()}
