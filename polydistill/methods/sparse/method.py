"""`polydistill sparse`: differences put on models, taken off, added up and looked into."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from polydistill.card import write_card
from polydistill.errors import PolydistillError, UsageError
from polydistill.files.hashing import file_sha256
from polydistill.files.inside import inside
from polydistill.files.outputs import check_file, check_output, check_outside, new_folder
from polydistill.methods.sparse.options import ApplyOptions, RemoveOptions
from polydistill.models.checkpoint import copy_file
from polydistill.models.copying import CONFIG, copy_rest
from polydistill.models.folder import MODULES, model_folder
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.options.settings import Options, plain
from polydistill.progress import SILENT, Progress
from polydistill.records.record import RunRecord, parent_of, source_facts
from polydistill.sparse import files as sparse_files
from polydistill.sparse.files import NAME, Applied, Difference, Entries, Undo, common_base, component_name
from polydistill.sparse.weights import Weights, recompose, rewrite, subtract


@dataclass(frozen=True)
class SparseResult:
    """What was done to a model; `to_json` is what the command prints as JSON.

    Args:
        command: `sparse apply` or `sparse remove`.
        model: The model that it was done to.
        output: The new folder.
        entries: Number of the base model's values that differ from the base afterwards, as far as that is known.
        parameters: Number of the base model's values.
        applied: The differences that the result carries: file, kind, tasks, languages, entries, sha256.
        exact: Whether what was taken off is off bit for bit.
        base: Hash of the base model without its head.
        languages: Of all that it carries.
        seconds: Time it took.
    """

    command: str
    model: str
    output: Path
    entries: int
    parameters: int
    applied: tuple[dict[str, Any], ...]
    exact: bool
    base: str
    languages: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self)}


@dataclass(frozen=True)
class Given:
    """A difference and the file that it was read from."""

    path: Path
    difference: Difference
    sha256: str

    @classmethod
    def load(cls, path: Path) -> Given:
        """Reads a file, or the one of a folder.

        Raises:
            PolydistillError: It is missing or broken, or the folder has more than one.
        """
        file = _file_of(path.expanduser())
        return cls(file, Difference.load(file), file_sha256(file))


def apply(
    model: str,
    differences: Sequence[Path],
    output: Path,
    *,
    force: bool = False,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> SparseResult:
    """Adds differences to a model; with those that it carries already they add up on its base.

    Args:
        model: The model.
        differences: Their files, or folders with one.
        output: The folder to write.
        force: Whether they may be added to other weights than those that they were made on.
        overwrite: Whether the output may be replaced.
        progress: Where to report.

    Raises:
        PolydistillError: Something is missing or broken, or does not fit.
    """
    started = time.perf_counter()
    check_output(output, overwrite=overwrite, reads=[model, *differences])
    given = [Given.load(path) for path in differences]
    source = open_source(model, output, progress)
    weights = Weights.open(source.checkpoint, common_base([g.difference for g in given]))
    carried = _carried(weights, source.model)
    twice = {g.sha256 for g in carried}
    for part in given:
        if part.sha256 in twice:
            raise UsageError(f"{part.path} is applied to {model} already, or was given twice.", "Leave it out.")
        twice.add(part.sha256)
    if not force:
        weights.check_base([g.difference for g in given])
    options = ApplyOptions(model, tuple(differences), force)
    with _new_model(source, output, overwrite, progress) as (folder, target):
        result = compose(source, weights, [*carried, *given], target, progress)
        result = replace(result, command="sparse apply", output=output, seconds=_since(started))
        _document(source, options, result, folder)
    return result


def remove(
    model: str,
    difference: Path | None,
    output: Path,
    *,
    approximate: bool = False,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> SparseResult:
    """Takes a difference off a model, bit for bit where it carries what was overwritten; the head stays as it is.

    Args:
        model: The model.
        difference: The file, or a folder with one; None for all that the model carries.
        output: The folder to write.
        approximate: Whether it may be subtracted where what was overwritten is not known.
        overwrite: Whether the output may be replaced.
        progress: Where to report.

    Raises:
        PolydistillError: Something is missing or broken, or what was overwritten is not known.
    """
    started = time.perf_counter()
    check_output(output, overwrite=overwrite, reads=[model, difference])
    source = open_source(model, output, progress)
    given = None if difference is None else Given.load(difference)
    weights = Weights.open(source.checkpoint, given.difference.base if given else _base_of(source.model))
    listed = weights.undo.applied if weights.undo else ()
    exact = bool(listed) and (given is None or given.sha256 in {part.sha256 for part in listed})
    if not exact and not approximate:
        raise _cannot_restore(source.model, weights, given)
    options = RemoveOptions(model, difference, approximate)
    with _new_model(source, output, overwrite, progress) as (folder, target):
        if exact:
            # Back to the base nothing but the overwritten entries is needed.
            only = given is None or len(listed) == 1
            stay = [] if only else [g for g in _carried(weights, source.model) if given and g.sha256 != given.sha256]
            result = compose(source, weights, stay, target, progress)
        else:
            off = given or Given.load(source.model)
            changes = subtract(weights, off.difference)
            hashes = rewrite(weights, changes, target)
            now = {n: sparse_files.BaseTensor(t.shape, hashes[n]) for n, t in weights.tensors.items()}
            result = replace(_result(source, weights, (), {}), exact=False, base=sparse_files.base_hash(now))
        result = replace(result, command="sparse remove", output=output, seconds=_since(started))
        _document(source, options, result, folder)
    return result


def combine(differences: Sequence[Path], output: Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Adds differences up into one file.

    Args:
        differences: Their files, or folders with one.
        output: The file to write.
        overwrite: Whether it may be replaced.

    Returns:
        What `info` says of the new one.

    Raises:
        PolydistillError: Something is missing or broken, or they were made on different models.
    """
    check_file(output, overwrite=overwrite, reads=differences)
    if len(differences) < 2:
        raise UsageError("Combining takes two differences or more.", "Name another file.")
    given = [Given.load(path) for path in differences]
    if len({g.sha256 for g in given}) < len(given):
        raise UsageError("A difference was given twice.", "Leave one of them out.")
    sparse_files.combine([g.difference for g in given]).save(output, overwrite=overwrite)
    return {**info(output), "command": "sparse combine", "output": str(output)}


def info(path: Path) -> dict[str, Any]:
    """What a difference is: base, entries, density as a whole and in each part of the model, languages, bytes.

    Args:
        path: The file, or a folder with one.

    Raises:
        PolydistillError: It is missing or broken.
    """
    given = Given.load(path)
    difference = given.difference
    return {
        "command": "sparse info",
        "file": str(given.path),
        "sha256": given.sha256,
        "bytes": given.path.stat().st_size,
        "kind": difference.kind,
        "tasks": list(difference.tasks),
        "languages": list(difference.languages),
        "entries": difference.count,
        "parameters": difference.parameters,
        "density": difference.density,
        "base": difference.base_hash,
        "groups": difference.groups(),
    }


def open_source(model: str, output: Path, progress: Progress, include: Sequence[Path] = ()) -> Source:
    """The model to change.

    Raises:
        PolydistillError: It is missing or broken, or the output lies in it.
    """
    source = Source.open(resolve(ModelRef.parse(model), progress=progress.note), include)
    check_outside(output, source.folder, "the model")
    return source


def _file_of(path: Path) -> Path:
    """A difference's file: the path itself, or the only one in that folder.

    Raises:
        PolydistillError: There is none, or more than one.
    """
    if not path.is_dir():
        return path
    folder = path if (path / NAME).is_file() or not (path / MODULES).is_file() else model_folder(path)
    if not inside(folder, NAME, folder).is_file():
        raise PolydistillError(f"{path} has no {NAME}.", "Give the file, or a folder that sparse fine-tuning wrote.")
    if (folder / component_name(2)).is_file():
        raise PolydistillError(
            f"{path} carries more than one difference.", f"Name one of them, such as {folder / NAME}."
        )
    return folder / NAME


def _base_of(folder: Path) -> Mapping[str, sparse_files.BaseTensor]:
    """The base tensors of what a folder carries.

    Raises:
        PolydistillError: It carries nothing.
    """
    undo = Undo.load(folder)
    return undo.base if undo else Difference.load(_file_of(folder)).base


def _carried(weights: Weights, folder: Path) -> list[Given]:
    """What a model carries."""
    if weights.undo is None:
        return []
    parts = zip(weights.undo.applied, weights.undo.differences(folder), strict=True)
    return [Given(folder / part.file, difference, part.sha256) for part, difference in parts]


def _cannot_restore(folder: Path, weights: Weights, given: Given | None) -> PolydistillError:
    if weights.undo is not None and given is not None:
        return PolydistillError(
            f"{given.path} is not one of the differences that {folder} carries.",
            "Leave its name out to go back to the base, or subtract it anyway with `approximate`.",
        )
    missing = not (folder / sparse_files.UNDO_NAME).is_file()
    why = f"has no {sparse_files.UNDO_NAME}" if missing else "was changed after the difference was applied"
    return PolydistillError(
        f"{folder} {why}, so what stood there before cannot be restored bit for bit.",
        "Take the base model itself, or subtract the difference, up to rounding, with `approximate`.",
    )


@contextmanager
def _new_model(source: Source, output: Path, overwrite: bool, progress: Progress) -> Iterator[tuple[Path, Path]]:
    """(the new folder, where its weights go), with all of the model but its weights in it."""
    with new_folder(output, overwrite=overwrite) as folder:
        yield folder, copy_but_weights(source, folder, progress)


def copy_but_weights(source: Source, folder: Path, progress: Progress) -> Path:
    """Copies all of a model but its weights into a folder; where those go."""
    target = source.place_in(folder)
    for note in copy_rest(source, folder, vocabulary=True):
        progress.note(note)
    copy_file(source.model / CONFIG, target / CONFIG)
    return target


def compose(source: Source, weights: Weights, parts: Sequence[Given], target: Path, progress: Progress) -> SparseResult:
    """Writes the weights of base + differences, with the differences and what they overwrote beside them.

    Args:
        source: The model.
        weights: Its weights.
        parts: The differences.
        target: The existing folder where the weights go.
        progress: Where to report.

    Raises:
        PolydistillError: Without differences, the weights are not the base model.
    """
    changes, overwritten = recompose(weights, [g.difference for g in parts])
    with progress.bar("writing", source.checkpoint.nbytes, "B") as done:
        hashes = rewrite(weights, changes, target, done)
    if not parts:
        weights.check_restored(hashes)
    applied = tuple(Applied(component_name(i + 1), g.sha256) for i, g in enumerate(parts))
    for part, given in zip(applied, parts, strict=True):
        copy_file(given.path, target / part.file)
    if parts:
        types = {name: weights.tensors[name].dtype for name in overwritten}
        Undo(overwritten, types, weights.original, hashes, applied).save(target)
    return _result(source, weights, [(a, g.difference) for a, g in zip(applied, parts, strict=True)], overwritten)


def _result(
    source: Source, weights: Weights, parts: Sequence[tuple[Applied, Difference]], overwritten: Mapping[str, Entries]
) -> SparseResult:
    return SparseResult(
        command="",
        model=source.resolved.source,
        output=Path(),
        entries=sum(len(e.indices) for e in overwritten.values()),
        parameters=sum(t.elements for t in weights.tensors.values()),
        applied=tuple(
            {
                "file": a.file,
                "kind": d.kind,
                "tasks": list(d.tasks),
                "languages": list(d.languages),
                "entries": d.count,
                "sha256": a.sha256,
            }
            for a, d in parts
        ),
        exact=True,
        base=sparse_files.base_hash(weights.original),
        languages=tuple(dict.fromkeys(code for _, d in parts for code in d.languages)),
        seconds=0.0,
    )


def _document(source: Source, options: Options, result: SparseResult, folder: Path) -> None:
    """The record and the card."""
    record = RunRecord(
        command=result.command,
        config={**options.deciding(), "model": source.resolved.ref.name},
        source=source_facts(source.resolved, source.checkpoint),
        texts=[],
        result=result.to_json(),
        parent=parent_of(source.resolved.folder),
    )
    record.save(folder)
    write_card(record, folder)


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 3)
