"""Long runs: the folder of an unfinished one, and its stages, each in a folder that appears when it is done."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from polydistill.errors import PolydistillError
from polydistill.files.durable import InUse, followed, locked, make_folders, sync, write_file
from polydistill.files.outputs import in_use, new_folder
from polydistill.files.sealing import SEAL, is_whole, seal
from polydistill.models.checkpoint import copy_file
from polydistill.models.copying import copy_rest
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.processes import is_main, told_by_main, wait
from polydistill.progress import SILENT, Progress
from polydistill.training.resuming import LOSSES, writing
from polydistill.trimming.plan import TrimPlan, apply

NAME = "stage.json"
ABOUT = (NAME, LOSSES, SEAL)  # of a stage, and no part of its model
LOCK = "lock"
SETTINGS = "config.json"  # what has to be the same for a run to go on
SIGNALS = "signals.json"  # whether a teacher's signals are on disk, see `decided`
ANEW = "Start again with `overwrite` instead of `resume`."
ENDS = 20  # steps at either end of a stage whose losses are averaged for the report


@dataclass(frozen=True)
class Made:
    """What a stage has made, before it is written.

    Attributes:
        write: Writes the stage's result into an empty folder; returns what else the record says of the stage, as JSON.
        steps: Optimizer steps.
        terms: Term of the loss -> value at every step, in order.
    """

    write: Callable[[Path], Mapping[str, Any]]
    steps: int = 0
    terms: Sequence[Mapping[str, float]] = ()


@dataclass(frozen=True)
class Stage:
    """A stage that is done.

    Attributes:
        name: Its name, and its folder's.
        folder: Where its result is.
        steps: Optimizer steps.
        loss: `first` and `last`: term -> mean over up to 20 steps at that end.
        seconds: How long it took; after `resume`, since then.
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


class Stages:
    """Runs stages one after the other in the folder of an unfinished run.

    Args:
        work: That folder.
        progress: Where to report.

    Attributes:
        done: The stages so far.
    """

    def __init__(self, work: Path, progress: Progress) -> None:
        self._work, self._progress = work, progress
        self.done: list[Stage] = []

    def run(self, name: str, make: Callable[[Path], Made]) -> Stage:
        """Runs a stage, unless it was done before.

        Args:
            name: Its name.
            make: Folder for checkpoints -> result. Every process calls it; the main one writes.
        """
        folder, checkpoints = self._work / name, self._work / f".{name}.training"
        if not told_by_main(self._is_done(folder) if is_main() else False):
            started = time.perf_counter()
            self._progress.note(f"Stage {name}.")
            with writing(checkpoints):
                made = make(checkpoints)
            if is_main():
                with new_folder(folder, overwrite=True) as out:
                    facts = made.write(out)
                    _write_facts(out / NAME, made, facts, time.perf_counter() - started)
                    if made.terms:
                        (out / LOSSES).write_bytes(b"".join(orjson.dumps(step) + b"\n" for step in made.terms))
                    seal(out)
                shutil.rmtree(checkpoints, ignore_errors=True)
            wait()
        values = orjson.loads((folder / NAME).read_bytes())
        self.done.append(Stage(name, folder, **values))
        return self.done[-1]

    def _is_done(self, folder: Path) -> bool:
        """Whether a stage's result is there as it was written; one that is not is made again."""
        if is_whole(folder):
            return True
        if folder.exists():
            self._progress.warn(f"{folder} is damaged, so that the stage is done again.")
            shutil.rmtree(folder)
        return False

    def link_into(self, out: Path) -> None:
        """Puts the folders of all stages into another one, too: as links, so that nothing is lost if the run fails."""
        for stage in self.done:
            for path in sorted(stage.folder.rglob("*")):
                if path.is_file() and path.name != SEAL:
                    _link(path, out / stage.name / path.relative_to(stage.folder))


def _link(file: Path, target: Path) -> None:
    """A second name of a file, or a copy where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(file)
    except OSError:
        copy_file(file, target)


def decided(note: Path, decide: Callable[[], bool]) -> bool:
    """What is decided once in a run and noted in its folder, so that the run goes on with it.

    Args:
        note: The file.
        decide: Called once, by the main process.

    Raises:
        PolydistillError: The file is damaged.
    """
    if is_main() and not note.is_file():
        write_file(note, orjson.dumps(decide()))
    wait()
    try:
        found = orjson.loads(note.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, bool):
        raise PolydistillError(f"{note} is damaged.", ANEW)
    return found


@contextmanager
def work_folder(
    output: Path, config: dict[str, Any], *, resume: bool, overwrite: bool, progress: Progress
) -> Iterator[Path]:
    """The folder of an output's checkpoints and stages, `.NAME.training` beside it.

    It goes when the block ends well, and stays for `resume` otherwise. With both `resume` and `overwrite`, what is
    replaced is the output alone: training goes on.

    Raises:
        PolydistillError: An unfinished run is there and neither `resume` nor `overwrite` was asked for, or it was
            made with another configuration; or a run that makes the same output has not ended.
    """
    place = followed(output)
    if is_main():
        make_folders(place.parent)
    work = place.with_name(f".{place.name}.training")
    with (
        _alone(work, output) if is_main() else nullcontext(),
        _begun(work, output, config, resume=resume, overwrite=overwrite, progress=progress),
    ):
        yield work


@contextmanager
def _alone(work: Path, output: Path) -> Iterator[None]:
    """Keeps out a second run of the same output until the block has ended and what is left over is gone."""
    try:
        with locked(work / LOCK):
            try:
                yield
            finally:
                with suppress(OSError, PolydistillError):
                    if not unfinished(work):
                        _clear(work)
    except InUse as error:
        raise in_use(output) from error
    finally:
        with suppress(OSError):  # an unfinished run is there, or the next one
            work.rmdir()


def _clear(work: Path) -> None:
    """Removes everything but the lock.

    Raises:
        PolydistillError: Something cannot be removed.
    """
    for path in sorted(work.iterdir(), key=lambda path: path.name == SETTINGS):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()
        except OSError as error:
            raise PolydistillError(f"{path} cannot be removed ({error.strerror}).", "Remove it by hand.") from error


@contextmanager
def _begun(
    work: Path, output: Path, config: dict[str, Any], *, resume: bool, overwrite: bool, progress: Progress
) -> Iterator[None]:
    wait()  # for the lock
    settings = work / SETTINGS
    written = orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    if unfinished(work) and (resume or not overwrite):
        if not resume:
            raise PolydistillError(
                f"An unfinished training of {output} is there.",
                "Continue it with `resume`, or start again with `overwrite`.",
            )
        if not _is_json(settings):
            raise PolydistillError(f"The unfinished training of {output} is damaged: {settings} cannot be read.", ANEW)
        if settings.read_bytes() != written:
            raise PolydistillError(
                f"The unfinished training of {output} had other options or data.",
                f"Give the options that stand in {settings}, or: {ANEW}",
            )
    elif is_main():
        _clear(work)
        write_file(settings, written)
        sync(work.parent)
    wait()
    try:
        yield
    except BaseException:
        if unfinished(work):
            progress.warn(f"What was done stays in {work}: the same command with `resume` continues from there.")
        raise
    wait()
    if is_main():
        with suppress(PolydistillError):
            _clear(work)


def _is_json(path: Path) -> bool:
    try:
        orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def save_network(
    network: Any, like: Path, out: Path, include: Sequence[Path] = (), progress: Progress = SILENT
) -> None:
    """Writes a trained network with the tokenizer and everything else of the folder that it came from.

    Args:
        network: A transformers model.
        like: That folder.
        out: An existing folder.
        include: Folders with architectures of the user's own.
        progress: Where to report.
    """
    from polydistill.models.loading import quiet_transformers

    source = Source.open(resolve(ModelRef.parse(str(like))), include)
    for note in copy_rest(source, out, vocabulary=True):
        progress.note(note)
    with quiet_transformers():
        network.save_pretrained(source.place_in(out))


def cut_models(plans: Mapping[str, TrimPlan], progress: Progress) -> Made:
    """A stage that cuts models: a folder's name -> its plan."""

    def write(out: Path) -> dict[str, Any]:
        for name, plan in plans.items():
            (out / name).mkdir()
            for note in apply(plan, out / name, progress=progress):
                progress.note(note)
        return {}

    return Made(write)


def unfinished(work: Path) -> bool:
    """Whether a folder holds a stage or a checkpoint."""
    return any(work.glob(f"*/{NAME}")) or any(work.glob("**/checkpoint-*/trainer_state.json"))


def _write_facts(path: Path, made: Made, facts: Mapping[str, Any], seconds: float) -> None:
    loss = {"first": _means(made.terms[:ENDS]), "last": _means(made.terms[-ENDS:])}
    values = {"steps": made.steps, "loss": loss, "seconds": round(seconds, 1), "facts": dict(facts)}
    path.write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n")


def _means(terms: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {term: sum(step[term] for step in terms) / len(terms) for term in terms[0]} if terms else {}
