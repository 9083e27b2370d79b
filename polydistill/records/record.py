"""polydistill.json: what was run, on what, with what result, and from which model the result descends."""

from __future__ import annotations

import hashlib
import platform
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from polydistill.errors import PolydistillError
from polydistill.files.durable import write_file
from polydistill.files.inside import leads_out
from polydistill.files.outputs import RECORD
from polydistill.models.files import own_files

if TYPE_CHECKING:
    from polydistill.models.checkpoint import Checkpoint
    from polydistill.models.refs import ResolvedModel

NAME = RECORD
FORMAT = 1
MOST_DEPTH = 200  # of nesting: a run's own record has less than ten, and each earlier step adds one
PACKAGES = ("polydistill", "numpy", "tokenizers", "sentencepiece", "torch", "transformers", "peft")


@dataclass(frozen=True)
class Score:
    """One measured value. `value` and `interval` are fractions from 0 to 1.

    Args:
        model: The model's name or folder.
        task: The task's name.
        language: Its code; for a question about a paragraph, the paragraph's.
        split: Which part of the data.
        metric: `accuracy`, `f1`, `exact_match`, `accuracy_at_1` or `spearman`.
        value: The score.
        interval: 95% bootstrap interval over the items; questions are drawn with their paragraph.
        n: Number of items.
        normalisation: `conlleval`, `strict-iob2`, `squad`, `mlqa` or None.
        data_hash: Of the examples.
        weights_hash: Of the model's weights.
        task_version: Hash of the task's definition.
        question_language: Its code, if questions are asked in another language than the paragraph's.
        selection: Languages whose dev data chose the model's checkpoint, as far as its record says.
        seed: Of the bootstrap.
        predictions: Key of the predictions in the cache.
    """

    model: str
    task: str
    language: str
    split: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    n: int
    normalisation: str | None = None
    data_hash: str | None = None
    weights_hash: str | None = None
    task_version: str | None = None
    question_language: str | None = None
    selection: tuple[str, ...] = ()
    seed: int = 0
    predictions: str | None = None

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Score:
        """The score that `to_json` or `asdict` wrote, after a round trip through JSON.

        Raises:
            TypeError: A field is missing or unknown.
        """
        interval = values["interval"]
        return cls(
            **{
                **values,
                "interval": tuple(interval) if interval else None,
                "selection": tuple(values.get("selection", ())),
            }
        )


@dataclass(frozen=True)
class RunRecord:
    """The record of one run; the folder's card and every later step are made from it.

    Args:
        command: Name of the command.
        config: Its full configuration.
        source: The model it began with: name, where it came from, revision, licence, hash of the weights.
        texts: The text used: language, place, lines, bytes, hash.
        versions: Package -> version.
        result: What the command prints as JSON.
        scores: Evaluation results, appended later.
        costs: Time and memory compared with another model, appended later.
        parent: The record of the source, if it has one.
        others: Other models that took part, from `other_model`: teachers, the LLM of a stack.
    """

    command: str
    config: dict[str, Any]
    source: dict[str, Any]
    texts: list[dict[str, Any]]
    result: dict[str, Any]
    versions: dict[str, str] = field(default_factory=lambda: versions())
    scores: list[Score] = field(default_factory=list)
    costs: list[dict[str, Any]] = field(default_factory=list)
    parent: dict[str, Any] | None = None
    others: list[dict[str, Any]] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Writes the folder's polydistill.json, replacing an older one in one step."""
        data = {"polydistill": FORMAT, **asdict(self)}
        write_file(folder / NAME, orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n")

    @classmethod
    def load(cls, folder: Path) -> RunRecord | None:
        """Reads a folder's record, None if it has none.

        Raises:
            PolydistillError: The file is not a record, or a link to something outside the folder.
        """
        path = folder / NAME
        if not path.is_file():
            return None
        if leads_out(path, folder):
            raise PolydistillError(
                f"{path} is a link that leads out of {folder}, where nothing is read.", "Put the file itself there."
            )
        try:
            data = orjson.loads(path.read_bytes())
            data["polydistill"]  # marks a record
            if not _is_flat(data):
                raise ValueError
            if unknown := data.keys() - {f.name for f in fields(cls)} - {"polydistill"}:
                raise PolydistillError(
                    f"{path} says {min(unknown)!r}, which this version of polydistill does not know.",
                    "Install the newest version, which probably wrote it.",
                )
            return cls.from_json(data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PolydistillError(f"{path} is not a polydistill record.", "Remove it, or trim again.") from error

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunRecord:
        """The record that a file's JSON object holds.

        Raises:
            KeyError: A field is missing.
            TypeError: A field is unknown, or of the wrong type.
        """
        values = {k: v for k, v in data.items() if k != "polydistill"}
        values["scores"] = [Score.from_json(score) for score in values["scores"]]
        values["costs"] = [dict(cost) for cost in values.get("costs", ())]
        return cls(**values)

    def lineage(self) -> list[Mapping[str, Any]]:
        """This record and those it descends from, newest first, as plain objects."""
        chain: list[Mapping[str, Any]] = [asdict(self)]
        while isinstance(parent := chain[-1].get("parent"), dict) and parent:
            chain.append(parent)
        return chain


def _is_flat(value: Any) -> bool:
    """Whether nothing is nested too deep for Python to read."""
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return True
    return False


def parent_of(folder: Path) -> dict[str, Any] | None:
    """The record of a folder, in the form in which its descendants' records hold it.

    Raises:
        PolydistillError: The file is not a record.
    """
    record = RunRecord.load(folder)
    return None if record is None else asdict(record)


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that affect results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def text_hash(lines: list[str]) -> str:
    """SHA-256 of lines joined by line feeds."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def source_facts(resolved: ResolvedModel, checkpoint: Checkpoint) -> dict[str, Any]:
    """What a record says about the model that a run began with; `left_out` is in its folder, but not part of it."""
    files = own_files(resolved.folder, checkpoint.folder, checkpoint.files)
    return {
        "name": resolved.ref.name if resolved.ref.path is None else resolved.source,
        "source": resolved.source,
        "revision": resolved.revision,
        "licence": resolved.licence,
        "weights_hash": checkpoint.weights_hash,
        "files": checkpoint.file_hashes,
        "left_out": sorted(files.foreign),
    }


def other_model(role: str, resolved: ResolvedModel, checkpoint: Checkpoint) -> dict[str, Any]:
    """What a record says about a model that took part, besides the one that the run began with.

    Args:
        role: Such as `teacher`.
        resolved: The model.
        checkpoint: Its weights.
    """
    return {"role": role, "source": source_facts(resolved, checkpoint), "record": parent_of(resolved.folder)}


def peak_memory_bytes() -> int:
    """The most memory that this process has used.

    On Linux `getrusage` also counts the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)  # kilobytes everywhere else
