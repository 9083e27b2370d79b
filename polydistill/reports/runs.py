"""Runs as `compare` reads them: a file that `evaluate` wrote, or a model folder whose record has scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import orjson

from polydistill import registry
from polydistill.errors import PolydistillError
from polydistill.records.record import RunRecord, Score

_SCORED = "evaluate"  # the command that makes files of scores, as they name it
_WAY_OUT = "Give a file that `polydistill evaluate output=FILE` wrote, or a model folder with scores."
_FIELDS = frozenset(f.name for f in fields(Score))
_NAMES = ("model", "task", "language", "split", "metric")
_TEXTS = ("normalisation", "question_language", "data_hash", "weights_hash", "task_version", "predictions")


@dataclass(frozen=True)
class Spot:
    """A token or a prototype on a plane.

    Args:
        x: To the right.
        y: Upwards.
        kind: Number of its class.
        language: 0 for the source's, 1 for the target's.
    """

    x: float
    y: float
    kind: int
    language: int


@dataclass(frozen=True)
class Plane:
    """Tokens and prototypes of two languages in two dimensions, before or after they were aligned.

    Args:
        when: `before` or `after` the prototypes were aligned.
        languages: Codes of source and target.
        classes: Names.
        explained: Share of the tokens' variance that the plane has.
        tokens: Some tokens of every class.
        prototypes: One a class and language.
    """

    when: str
    languages: tuple[str, str]
    classes: tuple[str, ...]
    explained: float
    tokens: tuple[Spot, ...]
    prototypes: tuple[Spot, ...]


@dataclass(frozen=True)
class ModelFacts:
    """What a run says about a model; None for what it does not say.

    Args:
        name: What its scores call it.
        weights_hash: Hash of its weights.
        source: Where it came from.
        embedding: Parameters with a vocabulary axis.
        rest: All other parameters.
        bytes: Size on disk.
        lineage: One line for each run that made it, newest first.
        languages: The languages that it was made for.
        planes: Pictures of its prototypes.
    """

    name: str
    weights_hash: str | None = None
    source: str | None = None
    embedding: int | None = None
    rest: int | None = None
    bytes: int | None = None
    lineage: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    planes: tuple[Plane, ...] = ()

    @property
    def parameters(self) -> int | None:
        """All parameters."""
        return None if self.embedding is None or self.rest is None else self.embedding + self.rest


@dataclass(frozen=True)
class Run:
    """The scores of one file or folder and their models, in its order."""

    where: Path
    models: tuple[ModelFacts, ...]
    scores: tuple[Score, ...]


def read_run(path: Path) -> Run:
    """Reads a run.

    Raises:
        PolydistillError: It does not exist, is not a run, or has no scores.
    """
    if not path.exists():
        raise PolydistillError(f"There is no run {path}.", _WAY_OUT)
    return _read_folder(path) if path.is_dir() else _read_file(path)


def _read_file(path: Path) -> Run:
    try:
        data = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise PolydistillError(f"{path} is not a run: it is not JSON.", _WAY_OUT) from error
    if not isinstance(data, dict) or data.get("command") != _SCORED or not isinstance(data.get("scores"), list):
        raise PolydistillError(f"{path} is not a run: `polydistill evaluate` did not write it.", _WAY_OUT)
    if not data["scores"]:
        raise PolydistillError(f"{path} has no scores.", "Run `polydistill evaluate` again.")
    try:
        scores = tuple(_score(entry, number) for number, entry in enumerate(data["scores"], 1))
        facts = {facts.name: facts for facts in map(_facts, data.get("models") or ())}
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise PolydistillError(f"{path} is not a run: {_why(error)}.", "Run `polydistill evaluate` again.") from error
    of_scores = {s.model: ModelFacts(s.model, s.weights_hash) for s in scores}
    return Run(path, tuple(facts.get(name, found) for name, found in of_scores.items()), scores)


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else "its models are not described as evaluate does it"


def _score(entry: Any, number: int) -> Score:
    """A score from JSON, without fields that this version does not know."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"score {number} is not an object")
    known = {k: plain(v) if isinstance(v, str) else v for k, v in entry.items() if k in _FIELDS}
    for name in _NAMES:
        if not isinstance(known.get(name), str) or not known[name]:
            raise ValueError(f"score {number} does not name its {name}")
    for name in _TEXTS:
        if not isinstance(known.get(name), str | None):
            raise ValueError(f"{name} of score {number} is not text")
    interval = known.get("interval")
    if interval is not None and not (isinstance(interval, list) and len(interval) == 2):
        raise ValueError(f"the interval of score {number} is not a pair")
    if not all(_is_share(v) for v in (known.get("value"), *(interval or ()))) or type(known.get("n")) is not int:
        raise ValueError(f"score {number} lacks a value, or it is not between -1 and 1, or n is not a whole number")
    return Score.from_json({**known, "interval": interval})


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and -1 <= value <= 1


def _facts(entry: Mapping[str, Any]) -> ModelFacts:
    parameters = entry.get("parameters") or {}
    return ModelFacts(
        name=plain(entry["model"]),
        weights_hash=_some(entry.get("weights_hash")),
        source=_some(entry.get("source")),
        embedding=_count(parameters.get("embedding")),
        rest=_count(parameters.get("rest")),
        bytes=_count(entry.get("bytes")),
        lineage=lines(entry.get("lineage") or ()),
        languages=tuple(map(plain, entry.get("languages") or ())),
    )


def _some(value: Any) -> str | None:
    return plain(value) if value else None


def _count(value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < 0):
        raise ValueError("a model's size is not a whole number")
    return value


def plain(text: Any) -> str:
    """A text on one line without control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))


def lines(lineage: Iterable[Any]) -> tuple[str, ...]:
    """One line for each run of a lineage, which is given as text or as a record."""
    from polydistill.card.lineage import lineage_line

    return tuple(plain(step if isinstance(step, str) else lineage_line(step)) for step in lineage)


def _read_folder(folder: Path) -> Run:
    record = RunRecord.load(folder)
    if record is None:
        raise PolydistillError(f"{folder} is not a run: it has no polydistill.json.", _WAY_OUT)
    if not record.scores:
        raise PolydistillError(
            f"{folder} has no scores.",
            f"Measure it first: `polydistill evaluate model={folder} task=... languages=...`.",
        )
    told = registry.told(record.command)
    if told is not None and told.files:
        return _read_files(folder, record)
    # The folder may have had another name when its first scores were taken.
    name = plain(record.scores[-1].model or folder.resolve().name)
    embedding, rest, size = _sizes(folder)
    facts = ModelFacts(
        name=name,
        weights_hash=record.scores[-1].weights_hash,
        source=plain(folder),
        embedding=embedding,
        rest=rest,
        bytes=size,
        lineage=lines(record.lineage()),
        languages=tuple(map(plain, record.result.get("languages", ()))),
        planes=_planes(folder, record),
    )
    return Run(folder, (facts,), tuple(replace(score, model=name) for score in record.scores))


def _read_files(folder: Path, record: RunRecord) -> Run:
    """Several models in one folder: one for each file that the record names."""
    hashes = {plain(score.model): score.weights_hash for score in record.scores}
    sizes = {file.get("path"): file.get("bytes") for file in record.result.get("files", ())}
    models = tuple(
        ModelFacts(
            name=name,
            weights_hash=found,
            source=plain(folder),
            lineage=lines(record.lineage()),
            bytes=next((size for path, size in sizes.items() if Path(path).name == Path(name).name), None),
            languages=tuple(map(plain, record.result.get("languages", ()))),
        )
        for name, found in hashes.items()
    )
    return Run(folder, models, tuple(replace(score, model=plain(score.model)) for score in record.scores))


def _planes(folder: Path, record: RunRecord) -> tuple[Plane, ...]:
    """The pictures of prototypes in a record, in the order of time."""
    result = record.result
    if not (picture := result.get("picture")):
        return ()
    try:
        languages = plain(result["sources"][0]), plain(result["target"])
        return tuple(
            Plane(
                when,
                languages,
                tuple(map(plain, found["classes"])),
                float(found["explained"]),
                _spots(found, "tokens"),
                _spots(found, "prototypes"),
            )
            for when in ("before", "after")
            if (found := picture.get(when))
        )
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise PolydistillError(
            f"The picture of prototypes in {folder}/polydistill.json is damaged.",
            f"Run `polydistill {plain(record.command)}` again.",
        ) from error


def _spots(found: Mapping[str, Any], what: str) -> tuple[Spot, ...]:
    return tuple(
        Spot(float(x), float(y), range(len(found["classes"])).index(int(kind)), number)
        for number, role in enumerate(("source", "target"))
        for x, y, kind in found[role][what]
    )


def _sizes(folder: Path) -> tuple[int | None, int | None, int | None]:
    """(embedding parameters, other parameters, bytes); None if the folder holds only the record."""
    from polydistill.models.refs import ModelRef, resolve
    from polydistill.models.source import Source
    from polydistill.trimming.surgery import embedding_parameters

    try:
        source = Source.open(resolve(ModelRef.parse(str(folder.resolve()))))
    except PolydistillError:
        return None, None, None
    embedding = embedding_parameters(source.checkpoint, source.arch)
    return embedding, source.checkpoint.parameters - embedding, source.nbytes
