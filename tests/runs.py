"""Runs and cached predictions written by hand, for the tests of `compare`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from polydistill.evaluation.cache import FORMAT
from polydistill.files.sealing import with_hash

Items = Sequence[Sequence[float]]


def right(pattern: str) -> Items:
    """Items of an accuracy: `1` where the prediction is right."""
    return [[int(c), 1] for c in pattern]


class Model(NamedTuple):
    """A model as a run's file describes it."""

    name: str
    weights_hash: str
    embedding: int = 1_000_000
    rest: int = 500_000
    source: str | None = None
    lineage: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "source": self.source or f"/models/{self.name}",
            "weights_hash": self.weights_hash,
            "parameters": {"embedding": self.embedding, "rest": self.rest},
            "bytes": 4 * (self.embedding + self.rest),
            "lineage": list(self.lineage),
            "languages": list(self.languages),
        }


TEACHER = Model("teacher", "a" * 64, 3_000_000, 1_000_000, "org/teacher@12345678")
STUDENT = Model("student", "b" * 64, 500_000, 500_000, lineage=("trim (sw) of /data/models/teacher",))


def value_of(items: Items, metric: str, normalisation: str | None) -> float:
    """The score of items, computed apart from the package."""
    if metric == "f1" and normalisation in ("conlleval", "strict-iob2"):
        hits, predicted, gold = (sum(row[i] for row in items) for i in range(3))
        return 2 * hits / (predicted + gold)
    return sum(row[0] for row in items) / sum(row[1] for row in items)


def score(
    model: Model,
    language: str,
    items: Items,
    *,
    cache: Path | None,
    task: str = "nli",
    split: str = "test",
    metric: str = "accuracy",
    normalisation: str | None = None,
    question_language: str | None = None,
    data: str | None = "data",
    interval: tuple[float, float] | None = None,
    units: Sequence[str] = (),
    **other: Any,
) -> dict[str, Any]:
    """A score as `evaluate --json` prints it; with `cache` its items are stored there, as `evaluate` does."""
    name = f"{model} {task} {split} {language} {question_language} {metric} {normalisation} {data}"
    key = hashlib.sha256(name.encode()).hexdigest()
    data_hash = data and hashlib.sha256(f"{data} {task} {split} {language}".encode()).hexdigest()
    found = {
        "model": model.name,
        "task": task,
        "language": language,
        "split": split,
        "metric": metric,
        "value": value_of(items, metric, normalisation),
        "interval": interval,
        "n": len(items),
        "normalisation": normalisation,
        "data_hash": data_hash,
        "weights_hash": model.weights_hash,
        "task_version": "1",
        "question_language": question_language,
        "selection": ["en"],
        "seed": 0,
        "predictions": key,
        **other,
    }
    if cache is not None:
        entry = {"metric": metric, "normalisation": normalisation, "sums": True, "items": items}
        stored = {
            "format": FORMAT,
            "key": key,
            "task": task,
            "language": language,
            "question_language": question_language,
            "split": split,
            "data_hash": data_hash,
            "weights_hash": model.weights_hash,
            "settings": {},
            "predictions": [None] * len(items),
            "items": [entry],
            "units": units or [str(i) for i in range(len(items))],
        }
        path = cache / "predictions" / key[:2] / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(with_hash(stored))
    return found


def run(path: Path, models: Sequence[Model], scores: Sequence[dict[str, Any]]) -> Path:
    """Writes a run's file."""
    content = {
        "command": "evaluate",
        "scores": list(scores),
        "averages": [],
        "latency": None,
        "loyalty": None,
        "models": [model.facts() for model in models],
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def two_models(folder: Path, cache: Path) -> Path:
    """A run with known differences: in English a loses 3 items and wins 1 of 10, in Swahili nothing changes."""
    english, swahili = {"interval": (0.5, 1.0)}, {"interval": (0.1, 0.9)}
    return run(
        folder / "nli.json",
        [TEACHER, STUDENT],
        [
            score(TEACHER, "en", right("1111111100"), cache=cache, **english),
            score(TEACHER, "sw", right("1111100000"), cache=cache, **swahili),
            score(STUDENT, "en", right("1111100010"), cache=cache, interval=(0.3, 0.9)),
            score(STUDENT, "sw", right("1111100000"), cache=cache, **swahili),
        ],
    )
