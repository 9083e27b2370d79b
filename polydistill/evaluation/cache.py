"""Predictions on disk, under a key made of the model's weights, the task, the data and the settings.

A second evaluation reads them instead, and one that was stopped continues at the language where it stopped. The numbers
of each item are stored too, so that runs can be compared item by item.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from polydistill.errors import PolydistillError
from polydistill.files.outputs import write_beside
from polydistill.files.sealing import checked, with_hash
from polydistill.metrics.items import Measured
from polydistill.metrics.stored import restore
from polydistill.models.offline import cache_root
from polydistill.records.record import Score

FORMAT = 2  # to be raised whenever a predict loop says something else of the same input
_KEY = re.compile(r"[0-9A-Za-z_-]{3,200}")
_TOLERANCE = 1e-6  # between a score and what its items give: what rounding may do


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
    """Stores predictions, the metrics' numbers of each item and its unit; the file appears whole or not at all.

    Raises:
        PolydistillError: The cache cannot be written.
    """
    items = [{"metric": m.metric, "normalisation": m.normalisation, "sums": m.sums, "items": m.items} for m in measured]
    units = measured[0].units if measured else None
    content = {"format": FORMAT, "key": key, **facts, "predictions": predictions, "items": items, "units": units}
    write_beside(place(key), with_hash(content), option="POLYDISTILL_CACHE")


class Items:
    """The numbers of each item behind scores, as far as the cache has them; what was read is kept."""

    def __init__(self) -> None:
        self._stored: dict[str, Mapping[str, Any] | None] = {}

    def of(self, score: Score) -> Measured | None:
        """Those of a score, None if the cache does not have them or has others."""
        key = score.predictions
        if not key or not _KEY.fullmatch(key):
            return None
        if key not in self._stored:
            found = load(key)
            wanted = ("data_hash", "weights_hash", "items", "units")
            self._stored[key] = found and {name: found.get(name) for name in wanted}
        stored = self._stored[key]
        if stored is None or (stored["data_hash"], stored["weights_hash"]) != (score.data_hash, score.weights_hash):
            return None
        measured = _restored(stored, score)
        return measured if measured is not None and abs(measured.value - score.value) <= _TOLERANCE else None


def _restored(stored: Mapping[str, Any], score: Score) -> Measured | None:
    """The metric of a score, None if what is stored is damaged; `evaluate` makes it again."""
    named, units = (score.metric, score.normalisation), stored["units"]
    try:
        items = next(entry["items"] for entry in stored["items"] if (entry["metric"], entry["normalisation"]) == named)
        measured = restore(*named, items)
        if units is not None and len(units) != len(measured.items):
            return None
        return replace(measured, units=None if units is None else tuple(map(str, units)))
    except (ValueError, KeyError, TypeError, StopIteration, PolydistillError):
        return None
