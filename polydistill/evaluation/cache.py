"""Predictions on disk, under a key made of the model's weights, the task, the data and the settings.

What is evaluated twice is read instead; an evaluation that was stopped goes on at the language where it stopped. The
numbers of each item lie there too, so that runs can be compared item by item.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from polydistill.errors import PolydistillError
from polydistill.metrics.items import Measured

FORMAT = 1  # to be raised whenever a predict loop says something else of the same input


def key_of(facts: Mapping[str, Any]) -> str:
    """The key of an evaluation: whatever could change its predictions changes the key."""
    return hashlib.sha256(orjson.dumps({"format": FORMAT, **facts}, option=orjson.OPT_SORT_KEYS)).hexdigest()


def place(key: str) -> Path:
    """The file of a key."""
    home = os.environ.get("POLYDISTILL_CACHE")
    folder = Path(home).expanduser() if home else Path.home() / ".cache" / "polydistill"
    return folder / "predictions" / key[:2] / f"{key}.json"


def load(key: str) -> dict[str, Any] | None:
    """What was stored under a key, None if nothing whole is there."""
    try:
        data = orjson.loads(place(key).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return data if isinstance(data, dict) and data.get("key") == key and data.get("format") == FORMAT else None


def save(key: str, facts: Mapping[str, Any], predictions: list[Any], measured: list[Measured]) -> None:
    """Stores predictions and the metrics' numbers of each item; the file appears whole or not at all.

    Raises:
        PolydistillError: The cache cannot be written.
    """
    path = place(key)
    partial = path.with_name(f".{key}.partial-{os.getpid()}")
    items = [{"metric": m.metric, "normalisation": m.normalisation, "sums": m.sums, "items": m.items} for m in measured]
    content = {"format": FORMAT, "key": key, **facts, "predictions": predictions, "items": items}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))
        partial.replace(path)
    except OSError as error:
        raise PolydistillError(
            f"The predictions could not be stored in {path.parent} ({error.strerror}).",
            "Free some space, or name another folder in POLYDISTILL_CACHE.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
