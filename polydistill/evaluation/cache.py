"""Predictions on disk, under a key made of the model's weights, the task, the data and the settings.

What is evaluated twice is read instead; an evaluation that was stopped goes on at the language where it stopped. The
numbers of each item lie there too, so that runs can be compared item by item.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from polydistill.metrics.items import Measured
from polydistill.offline import cache_root
from polydistill.outputs import write_beside
from polydistill.sealing import checked, with_hash

FORMAT = 2  # to be raised whenever a predict loop says something else of the same input


def key_of(facts: Mapping[str, Any]) -> str:
    """The key of an evaluation: whatever could change its predictions changes the key."""
    return hashlib.sha256(orjson.dumps({"format": FORMAT, **facts}, option=orjson.OPT_SORT_KEYS)).hexdigest()


def place(key: str) -> Path:
    """The file of a key."""
    return cache_root() / "predictions" / key[:2] / f"{key}.json"


def load(key: str) -> dict[str, Any] | None:
    """What was stored under a key, None if nothing is there or something else than was stored."""
    data = checked(place(key))
    return data if data is not None and (data.get("key"), data.get("format")) == (key, FORMAT) else None


def save(key: str, facts: Mapping[str, Any], predictions: list[Any], measured: list[Measured]) -> None:
    """Stores predictions and the metrics' numbers of each item; the file appears whole or not at all.

    Raises:
        PolydistillError: The cache cannot be written.
    """
    items = [{"metric": m.metric, "normalisation": m.normalisation, "sums": m.sums, "items": m.items} for m in measured]
    content = {"format": FORMAT, "key": key, **facts, "predictions": predictions, "items": items}
    write_beside(place(key), with_hash(content), option="POLYDISTILL_CACHE")
