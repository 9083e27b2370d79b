"""polydistill.json: what was run, on what, with what result, and from which model the result descends."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from polydistill.errors import PolydistillError

NAME = "polydistill.json"
FORMAT = 1
PACKAGES = ("polydistill", "numpy", "tokenizers", "sentencepiece", "torch", "transformers")


@dataclass(frozen=True)
class Score:
    """One measured value. `value` and `interval` are fractions from 0 to 1."""

    value: float
    interval: tuple[float, float] | None
    n: int
    task: str
    language: str
    split: str
    metric: str
    normalisation: str | None = None
    data_hash: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """The record of one run; the folder's card and every later step are made from it.

    Args:
        command: Name of the command.
        config: Its full configuration.
        source: The model it began with: name, where it came from, revision, licence, hash of the weights.
        texts: The text used: language, place, lines, bytes, hash.
        versions: Package -> version.
        result: What the command reports with --json.
        scores: Evaluation results, appended later.
        parent: The record of the source, where it has one.
    """

    command: str
    config: dict[str, Any]
    source: dict[str, Any]
    texts: list[dict[str, Any]]
    result: dict[str, Any]
    versions: dict[str, str] = field(default_factory=lambda: versions())
    scores: list[Score] = field(default_factory=list)
    parent: dict[str, Any] | None = None

    def save(self, folder: Path) -> None:
        """Writes the folder's polydistill.json."""
        data = {"polydistill": FORMAT, **asdict(self)}
        (folder / NAME).write_bytes(orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n")

    @classmethod
    def load(cls, folder: Path) -> RunRecord | None:
        """Reads a folder's record, None if it has none.

        Raises:
            PolydistillError: The file is not a record.
        """
        path = folder / NAME
        if not path.is_file():
            return None
        try:
            data = orjson.loads(path.read_bytes())
            data.pop("polydistill")
            scores = [
                Score(**{**s, "interval": tuple(s["interval"]) if s["interval"] else None}) for s in data.pop("scores")
            ]
            return cls(**data, scores=scores)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PolydistillError(f"{path} is not a polydistill record.", "Remove it, or trim again.") from error

    def lineage(self) -> list[Mapping[str, Any]]:
        """This record and those it descends from, newest first, as plain objects."""
        chain: list[Mapping[str, Any]] = [asdict(self)]
        while chain[-1].get("parent"):
            chain.append(chain[-1]["parent"])
        return chain


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def text_hash(lines: list[str]) -> str:
    """SHA-256 of lines joined by line ends."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
