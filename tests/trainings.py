"""A training of a few steps of each kind, for the tests of what becomes of one that is stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny
from configs import (
    bistil,
    bistil_config,
    finetune,
    finetune_config,
    prokd,
    prokd_config,
    sparse_train,
    sparse_train_config,
    stack,
)
from safetensors.numpy import load_file
from tiny_stacks import LABELS, config

from polydistill.progress import SILENT, Progress

NAMES = {"PER": ["Ana", "Ion", "Maria"], "LOC": ["Cluj", "Paris", "Nairobi"], "ORG": ["Acme", "Dacia", "Safaricom"]}
PLAIN = ["sees", "the", "red", "house", "in", "and", "with", "a", "letter"]
SIZE = {"num_hidden_layers": 2, "hidden_dropout_prob": 0.1}


def prepare(root: Path) -> Path:
    """Writes the models and the data that all of them begin with."""
    for code in ("en", "sw"):
        (root / f"ner/{code}").mkdir(parents=True)
        (root / f"{code}.txt").write_text("\n".join(tiny.sentences(code, count=120)) + "\n", encoding="utf-8")
        for split, start, count in (("train", 0, 24), ("dev", 7, 9), ("test", 30, 9)):
            (root / f"ner/{code}/{split}.conll").write_text("\n".join(map(_sentence, range(start, start + count))))
    (root / "nli/en").mkdir(parents=True)
    for split in ("train", "dev", "test"):
        rows = (
            f'{{"premise": "the house", "hypothesis": "{PLAIN[i % 3]} house", "label": "{LABELS[i % 3]}"}}\n'
            for i in range(24)
        )
        (root / f"nli/en/{split}.jsonl").write_text("".join(rows))
    tiny.model_folder("bert", "base", root / "base", tokenizer="xlm-roberta", config=SIZE)
    tiny.model_folder("xlm-roberta", "base", root / "encoder", config={"num_hidden_layers": 1})
    tiny.model_folder("bert", "base", root / "llm", config={"num_hidden_layers": 1})
    return root


def _sentence(i: int) -> str:
    kind = list(NAMES)[i % 3]
    words = [(PLAIN[(i * 3 + j) % len(PLAIN)], "O") for j in range(2 + i % 4)]
    return "".join(f"{w} {t}\n" for w, t in [*words[:1], (NAMES[kind][(i // 3) % 3], f"B-{kind}"), *words[1:]])


def tune(root: Path, output: Path, progress: Progress = SILENT, **options: Any) -> Any:
    """`finetune` of 12 steps with 4 checks."""
    values: dict[str, Any] = {
        "task": "ner",
        "languages": ("en",),
        "epochs": 2,
        "lr": 5e-3,
        "batch_size": 4,
        "max_length": 32,
        "patience": 0,
        "data_dir": root,
        "model": str(root / "base"),
    }
    return finetune(finetune_config(output=output, **{**values, **options}), progress)


def bilingual(root: Path, output: Path, progress: Progress = SILENT, **options: Any) -> Any:
    """`bistil`, both phases."""
    text = tuple(f"{code}={root}/{code}.txt" for code in ("en", "sw"))
    values: dict[str, Any] = {
        "text": text,
        "preset": "smoke",
        "steps": 4,
        "batch_size": 4,
        "max_length": 16,
        "precision": "float32",
        "task": "ner",
        "data_dir": root,
        "task_batch_size": 8,
        "task_epochs": 2,
        "task_sparse_epochs": 2,
        "density": 0.1,
        "test_split": ("en=none", "sw=none"),
        "model": str(root / "base"),
    }
    return bistil(bistil_config(output=output, **{**values, **options}), progress)


def unlabelled(root: Path, output: Path, progress: Progress = SILENT, **options: Any) -> Any:
    """`prokd` with its teacher."""
    values: dict[str, Any] = {
        "data_dir": root,
        "max_length": 32,
        "batch_size": 8,
        "teacher_epochs": 1,
        "epochs": 2,
        "objective": ("alignment=1:warmup=0",),
        "test_split": ("en=none", "sw=none"),
        "model": str(root / "base"),
    }
    return prokd(prokd_config(output=output, **{**values, **options}), progress)


def language(root: Path, output: Path, progress: Progress = SILENT, **options: Any) -> Any:
    """`sparse train`."""
    values: dict[str, Any] = {
        "language": "sw",
        "text": (f"{root}/sw.txt",),
        "density": 0.05,
        "steps": 6,
        "batch_size": 4,
        "max_length": 16,
        "model": str(root / "base"),
    }
    return sparse_train(sparse_train_config(output=output, **{**values, **options}), progress)


def stacked(root: Path, output: Path, progress: Progress = SILENT, **options: Any) -> Any:
    """`stack`, both stages."""
    values = {
        "text": (f"{root}/en.txt",),
        "task": "nli",
        "data_dir": root,
        "limit": 16,
        "lora_dropout": 0.1,
        "steps": 4,
        "test_split": "dev",
    }
    return stack(config((root / "encoder", root / "llm"), output, **{**values, **options}), progress)


TRAININGS: dict[str, Callable[..., Any]] = {
    "finetune": tune,
    "bistil": bilingual,
    "prokd": unlabelled,
    "sparse train": language,
    "stack": stacked,
}


def weights(folder: Path) -> dict[str, bytes]:
    """Name -> the bytes of a tensor."""
    return {name: tensor.tobytes() for name, tensor in load_file(folder / "model.safetensors").items()}
