"""What a run is to do, with everything that could be checked before it begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from polydistill.errors import PolydistillError
from polydistill.runs.stages import Done, Stage, copy_result

if TYPE_CHECKING:
    from polydistill.models.checkpoint import Checkpoint
    from polydistill.models.refs import ResolvedModel
    from polydistill.progress import Progress
    from polydistill.records.record import Score


OUTPUTS = Path("polydistill-out")  # where results go that were given no place


@dataclass(frozen=True)
class Origin:
    """A model that took part in a run, as its record names it.

    Attributes:
        resolved: Where it came from.
        checkpoint: Its weights.
        role: What it was there: `model` for the one that the run began with, else such as `teacher` or `llm`.
    """

    resolved: ResolvedModel
    checkpoint: Checkpoint
    role: str = "model"


@dataclass(frozen=True)
class Report:
    """What a method reports about its result, beside what the runner knows.

    Attributes:
        parameters: Weights, such as `teacher` and `student`.
        bytes: Sizes on disk, likewise.
        selection: What chose the checkpoint; see `selection`.
        facts: The method's own part of the result, at the top level of its JSON.
    """

    parameters: Mapping[str, int]
    bytes: Mapping[str, int] = field(default_factory=dict)
    selection: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """Scores at the end of a run.

    Attributes:
        scores: All of them, those of the models that it is compared with too.
        kept: Those of the result, which its record keeps.
        loyalty: How far the result predicts what its teacher does; None where that was not measured.
    """

    scores: Sequence[Score]
    kept: Sequence[Score]
    loyalty: Any = None


class Scores(Protocol):
    """What scores the result of a run."""

    def score(self, done: Mapping[str, Done], out: Path, progress: Progress) -> Scored:
        """Scores what lies in a folder, by the name that it will have.

        Args:
            done: The stages.
            out: Where the result lies now.
            progress: Where to report.
        """


@dataclass(frozen=True)
class Plan:
    """A run that can begin.

    Attributes:
        output: The folder to write.
        origin: The model that the run begins with.
        stages: What is made, in order.
        report: Stages that are done, folder of the result -> what the method says of it.
        languages: Codes of the languages that the model is made for, or tuned on.
        task: Name of the task that it learns; None for none.
        settings: Every value that the run goes by, presets resolved; it stands in the record.
        inputs: Hashes of the models, data and labels, which have to be the same for a run to go on.
        texts: Stages that are done -> what the record says of the text that was read.
        others: Further models that take part.
        parent: Folder whose record this run descends from, where it is not the origin's.
        idle: Option -> why it changes nothing here.
        warnings: What else is said before the run begins.
        scoring: What is scored at the end; None for nothing.
        place: Stages that are done, folder -> writes the result there; without it, the last stage's is copied.
        packages: Further packages whose versions the record has.
    """

    output: Path
    origin: Origin
    stages: tuple[Stage, ...]
    report: Callable[[Mapping[str, Done], Path], Report]
    languages: tuple[str, ...] = ()
    task: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    texts: Callable[[Mapping[str, Done]], Sequence[Mapping[str, Any]]] = lambda done: ()
    others: tuple[Origin, ...] = ()
    parent: Path | None = None
    idle: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    scoring: Scores | None = None
    place: Callable[[Mapping[str, Done], Path], None] | None = None
    packages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for stage in self.stages:
            if stage.name in seen or not seen.issuperset(stage.needs):
                raise PolydistillError(f"The stage {stage.name} is listed twice, or before one that it needs.")
            seen.add(stage.name)

    def write(self, done: Mapping[str, Done], out: Path) -> None:
        """Writes the finished model into an empty folder."""
        if self.place is not None:
            self.place(done, out)
        else:
            copy_result(list(done.values())[-1], out)


def selection(stage: Done, languages: Sequence[str], split: str, metric: str) -> dict[str, Any]:
    """What chose a stage's checkpoint.

    Args:
        stage: A stage whose facts have `best` and `best_step`.
        languages: Codes of the dev data's languages.
        split: Its split.
        metric: What was compared.
    """
    return {
        "languages": list(languages),
        "split": split,
        "metric": metric,
        "value": stage.facts["best"],
        "step": stage.facts["best_step"],
    }
