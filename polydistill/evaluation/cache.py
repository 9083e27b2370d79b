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

FORMAT = 2  # to be raised whenever a predict loop says something else of the same input


def key_of(facts: Mapping[str, Any]) -> str:
    """The key of an evaluation: whatever could change its predictions changes the key."""
    return hashlib.sha256(orjson.dumps({"format": FORMAT, **facts}, option=orjson.OPT_SORT_KEYS)).hexdigest()


def place(key: str) -> Path:
    """The file of a key."""
    return cache_root() / "predictions" / key[:2] / f"{key}.json"


def load(key: str) -> dict[str, Any] | None:
    """What was stored under a key, None if nothing is there or something else than was stored."""
    try:
        data = orjson.loads(place(key).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    if not isinstance(data, dict) or (data.get("key"), data.get("format")) != (key, FORMAT):
        return None
    return data if data.pop("sha256", None) == _hash(data) else None


def save(key: str, facts: Mapping[str, Any], predictions: list[Any], measured: list[Measured]) -> None:
    """Stores predictions and the metrics' numbers of each item; the file appears whole or not at all.

    Raises:
        PolydistillError: The cache cannot be written.
    """
    items = [{"metric": m.metric, "normalisation": m.normalisation, "sums": m.sums, "items": m.items} for m in measured]
    content = {"format": FORMAT, "key": key, **facts, "predictions": predictions, "items": items}
    write_beside(place(key), with_hash(content), option="POLYDISTILL_CACHE")


def with_hash(content: Mapping[str, Any]) -> bytes:
    """A file of the cache, with the hash of what it says."""
    plain = orjson.loads(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))
    return orjson.dumps({**plain, "sha256": _hash(plain)})


def _hash(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(plain, option=orjson.OPT_SORT_KEYS)).hexdigest()
