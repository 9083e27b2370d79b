"""The stages of a run: each is made in a folder of its own, which appears whole when the stage is done."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson

from polydistill.files.outputs import new_folder
from polydistill.files.sealing import SEAL, is_whole, seal
from polydistill.models.checkpoint import copy_file
from polydistill.processes import is_main, told_by_main, wait
from polydistill.progress import Progress
from polydistill.runs.clock import Clock
from polydistill.runs.folder import NAME
from polydistill.runs.made import Made
from polydistill.training.resuming import LOSSES, writing

ABOUT = (NAME, LOSSES, SEAL)  # of a stage, and no part of its model
Job = TypeVar("Job")
ENDS = 20  # steps at either end of a stage whose losses are averaged for the report


@dataclass(frozen=True)
class Done:
    """A stage that is done.

    Attributes:
        name: Its name, and its folder's.
        folder: Where its result is.
        steps: Optimizer steps.
        loss: `first` and `last`: term -> mean over up to 20 steps at that end.
        seconds: How long it took; after a run was resumed, since then.
        facts: What else the record says of it.
    """

    name: str
    folder: Path
    steps: int
    loss: dict[str, dict[str, float]]
    seconds: float
    facts: dict[str, Any]

    def to_json(self, root: Path) -> dict[str, Any]:
        """As JSON, with the folder that it has below `root` once the run is done."""
        return {**asdict(self), "folder": str(root / self.name)}


@dataclass(frozen=True)
class Work:
    """What a stage is given.

    Attributes:
        checkpoints: Folder for what it needs to go on after a kill.
        minutes: How long it may train; None for as long as it takes.
        progress: Where to report.
        done: Name -> stage that it needs.
    """

    checkpoints: Path
    minutes: float | None
    progress: Progress
    done: Mapping[str, Done]

    def folder(self, name: str) -> Path:
        """The result of a stage that it needs."""
        return self.done[name].folder

    def note(self, name: str) -> Path:
        """File of something that is decided once in the run, for `training.deciding.decided`."""
        return self.checkpoints.with_name(name)


@dataclass(frozen=True)
class Stage:
    """A stage of a plan.

    Attributes:
        name: Its name, and its folder's.
        make: Does the work. Every process calls it; the main one writes what it has made.
        needs: Names of the stages whose results it reads.
        share: Its part of the run's minutes beside the shares of the stages that follow; 0 where nothing is trained.
        keep: Whether its result also stands below `stages/` of the run's.
    """

    name: str
    make: Callable[[Work], Made]
    needs: tuple[str, ...] = ()
    share: float = 0.0
    keep: bool = True


def in_order(job: Job, made: Sequence[tuple[str, Callable[[Job, Work], Made], float]]) -> tuple[Stage, ...]:
    """Stages one after the other, each of which may read the results of all before it.

    Args:
        job: What every stage is given beside its `Work`.
        made: Name, what does the work, and share of the minutes of each.
    """
    names = tuple(name for name, _, _ in made)
    return tuple(
        Stage(name, partial(make, job), needs=names[:i], share=share) for i, (name, make, share) in enumerate(made)
    )


@dataclass
class Stages:
    """Runs stages one after the other in the folder of an unfinished run.

    Attributes:
        work: That folder.
        progress: Where to report.
        done: Name -> stage that is done, in order.
    """

    work: Path
    progress: Progress
    done: dict[str, Done] = field(default_factory=dict)

    def run(self, stage: Stage, minutes: float | None = None) -> Done:
        """Runs a stage, unless it was done before.

        Args:
            stage: The stage.
            minutes: How long it may train.
        """
        folder, checkpoints = self.work / stage.name, self.work / f".{stage.name}.training"
        if not told_by_main(self._is_done(folder) if is_main() else False):
            started = time.perf_counter()
            self.progress.note(f"Stage {stage.name}.")
            needed = {name: self.done[name] for name in stage.needs}
            with writing(checkpoints):
                made = stage.make(Work(checkpoints, minutes, self.progress, needed))
            if is_main():
                _write(made, folder, started)
                shutil.rmtree(checkpoints, ignore_errors=True)
            wait()
        values = orjson.loads((folder / NAME).read_bytes())
        self.done[stage.name] = Done(stage.name, folder, **values)
        return self.done[stage.name]

    def run_all(self, stages: Sequence[Stage], minutes: float | None) -> None:
        """Runs all stages of a plan, which share the minutes between them."""
        clock = Clock(minutes)
        for i, stage in enumerate(stages):
            left = sum(later.share for later in stages[i:])
            self.run(stage, clock.minutes(stage.share, left))

    def _is_done(self, folder: Path) -> bool:
        """Whether a stage's result is there as it was written; one that is not is made again."""
        if is_whole(folder):
            return True
        if folder.exists():
            self.progress.warn(f"{folder} is damaged, so the stage is done again.")
            shutil.rmtree(folder)
        return False

    def link_into(self, out: Path, names: Sequence[str]) -> None:
        """Puts the folders of stages into another one, too: as links, so that nothing is lost if the run fails."""
        for stage in (self.done[name] for name in names):
            for path in sorted(stage.folder.rglob("*")):
                if path.is_file() and path.name != SEAL:
                    _link(path, out / stage.name / path.relative_to(stage.folder))


def copy_result(stage: Done, out: Path) -> None:
    """Copies what a stage has made into a folder, without what is about the stage."""
    for path in stage.folder.rglob("*"):
        if path.is_file() and path.name not in ABOUT:
            place = out / path.relative_to(stage.folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            copy_file(path, place)


def _write(made: Made, folder: Path, started: float) -> None:
    """Writes a stage's result, facts and losses into its folder."""
    with new_folder(folder, overwrite=True) as out:
        facts = made.write(out)
        loss = {"first": _means(made.terms[:ENDS]), "last": _means(made.terms[-ENDS:])}
        seconds = round(time.perf_counter() - started, 1)
        values = {"steps": made.steps, "loss": loss, "seconds": seconds, "facts": dict(facts)}
        (out / NAME).write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n")
        if made.terms:
            (out / LOSSES).write_bytes(b"".join(orjson.dumps(step) + b"\n" for step in made.terms))
        seal(out)


def _means(terms: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {term: sum(step[term] for step in terms) / len(terms) for term in terms[0]} if terms else {}


def _link(file: Path, target: Path) -> None:
    """A second name of a file, or a copy where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(file)
    except OSError:
        copy_file(file, target)
