"""A teacher's signals on disk, for small sets of examples that are seen again and again."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import weakref
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, time
from typing import Any

import numpy as np
import orjson
import torch
from torch import Tensor

from polydistill.distill.augmentation.base import AUGMENTED
from polydistill.distill.signals import ATTENTION, LOGITS, NEVER, POOLED, SCORES, Batch, Signal, Signals
from polydistill.distill.teachers.base import Teacher
from polydistill.errors import PolydistillError
from polydistill.files.outputs import explain_os_error, write_beside
from polydistill.models.checkpoint import write_all
from polydistill.models.offline import cache_root
from polydistill.progress import SILENT, Progress

FORMAT = 2  # to be raised whenever files or signals change
HEADER, MARKS = "header.json", "checksums.u32"
FLUSH_SECONDS = 30
UNUSED_SECONDS = 24 * 3600  # after which signals may go; a run that goes on writes its header anew
ROOM_LEFT = 1 << 30  # bytes of a disk that are left free

Shape = tuple[int | None, ...]  # of one example's signal; None is its number of positions


def cached(
    inner: Teacher,
    facts: Mapping[str, Any],
    lengths: Sequence[int],
    *,
    max_bytes: int | None,
    writes: bool = True,
    progress: Progress = SILENT,
) -> Teacher:
    """A teacher whose signals are kept on disk, or the teacher itself where that takes too much room.

    Args:
        inner: The teacher.
        facts: What its signals depend on beside `needs` and lengths: hashes of its weights and of the data, its
            precision, the order of its labels.
        lengths: (n,) positions of each example, by `example_id`.
        max_bytes: More is not kept. Where others do not fit in beside these, those that no run has used for a day go.
            None for as much as it takes.
        writes: Whether this process adds to what is there; only one may.
        progress: Where to report.

    Raises:
        PolydistillError: The cache cannot be written.
    """
    shapes = shapes_of(inner)
    needed, root = bytes_of(shapes, lengths), cache_root() / "signals"
    folder = root / key_of(facts, shapes, lengths)
    if max_bytes is None:
        return CachedTeacher(inner, folder, shapes, lengths, writes=writes, progress=progress)
    if writes and needed <= max_bytes:
        headers = [header for header in root.glob(f"*/{HEADER}") if header.parent != folder]
        make_room([(header.stat().st_mtime, header.parent) for header in headers], max_bytes - needed)
    if needed > max_bytes or (not (folder / HEADER).is_file() and needed > _free(root) - ROOM_LEFT):
        progress.note(f"The teacher's signals would take {needed / 1e9:.1f} GB, so they are computed in every step.")
        return inner
    return CachedTeacher(inner, folder, shapes, lengths, writes=writes, progress=progress)


def make_room(others: Sequence[tuple[float, Path]], allowed: int) -> None:
    """Removes what was not used for a day, the longest unused first, until all of it takes what is allowed.

    Args:
        others: When each was used last (seconds since 1970), and its file or folder.
        allowed: Bytes.
    """
    sizes = {
        place: sum(file.stat().st_size for file in (place.iterdir() if place.is_dir() else (place,)))
        for _, place in others
    }
    total = sum(sizes.values())
    for used, place in sorted(others):
        if total <= allowed or used > time() - UNUSED_SECONDS:
            return
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)
        total -= sizes[place]


def key_of(facts: Mapping[str, Any], shapes: Mapping[Signal, Shape], lengths: Sequence[int]) -> str:
    """The name of the folder: whatever could change the signals changes it."""
    signals = sorted((*signal, *shape) for signal, shape in shapes.items())
    content = {"format": FORMAT, "facts": facts, "signals": [list(map(str, s)) for s in signals], "lengths": lengths}
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def shapes_of(teacher: Teacher) -> dict[Signal, Shape]:
    """What each signal looks like, from a run on five tokens."""
    ids = torch.arange(5, 10)[None]
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "word_ids": torch.full_like(ids, -1),
        "example": torch.zeros(1, dtype=torch.int64),
    }
    return {signal: _shape(signal, tensor.shape[1:]) for signal, tensor in teacher.signals(batch).items()}


def _shape(signal: Signal, seen: Sequence[int]) -> Shape:
    if signal.kind in (ATTENTION, SCORES):
        return (seen[0], None, None)
    if signal.kind == POOLED or len(seen) == 1:
        return tuple(seen)
    if signal.kind == LOGITS and seen[0] == 2:  # start and end of an answer; with five tokens there is no doubt
        return (2, None)
    return (None, *seen[1:])


def bytes_of(shapes: Mapping[Signal, Shape], lengths: Sequence[int]) -> int:
    """What all signals of all examples take."""
    return 4 * sum(int(_values(shape, lengths).sum()) for shape in shapes.values())


def _values(shape: Shape, lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """(n,) values of each example."""
    fixed, free = math.prod(d for d in shape if d is not None), shape.count(None)
    return fixed * np.asarray(lengths, np.int64) ** free


def _free(folder: Path) -> int:
    there = next(p for p in (folder, *folder.parents) if p.exists())
    return shutil.disk_usage(there).free


class CachedTeacher(Teacher):
    """Signals are written when an example is first seen, and read from then on; padding is 0 (`NEVER` in answers).

    Each example has a checksum. While signals are written, one that does not fit has them written again.

    Args:
        inner: The teacher.
        folder: Where they lie.
        shapes: From `shapes_of`.
        lengths: (n,) positions of each example.
        writes: Whether this process adds to them.
        progress: Where to report.

    Attributes:
        needs: Those of the inner teacher.
        hits: Batches that were read.

    Raises:
        PolydistillError: The folder cannot be written.
    """

    def __init__(
        self,
        inner: Teacher,
        folder: Path,
        shapes: Mapping[Signal, Shape],
        lengths: Sequence[int],
        *,
        writes: bool = True,
        progress: Progress = SILENT,
    ) -> None:
        self.needs, self.folder, self.hits = inner.needs, folder, 0
        self._inner, self._lengths, self._progress = inner, np.asarray(lengths, np.int64), progress
        files = {s: _File(folder, s, shape, self._lengths) for s, shape in shapes.items()}
        self._files = dict(sorted(files.items(), key=lambda item: item[1].path.name))  # the order of checksums
        self._writer: _Writer | None = None
        self._marks: np.ndarray | None = None
        if writes:
            try:
                self._writer = _Writer(folder, list(self._files.values()), len(lengths))
            except OSError as error:
                raise explain_os_error(error, folder, "POLYDISTILL_CACHE") from error
            weakref.finalize(self, self._writer.close)

    def signals(self, batch: Batch) -> Signals:
        """The signals of a batch; it has `example_id` (B,). A batch that was changed is not looked up."""
        if AUGMENTED in batch:
            return self._inner.signals(batch)
        ids = batch["example_id"].tolist()
        marks = self._marked()
        if marks is not None and marks[ids].all() and self._are_sound(ids, marks):
            self.hits += 1
            device, width = batch["input_ids"].device, batch["input_ids"].shape[1]
            return {s: file.read(ids, width).to(device) for s, file in self._files.items()}
        found = self._inner.signals(batch)
        if self._writer is not None:
            self._add(ids, batch, found, self._writer)
        return found

    @property
    def nbytes(self) -> int:
        """Bytes that all signals take."""
        return sum(file.nbytes for file in self._files.values())

    @property
    def is_full(self) -> bool:
        """Whether every example can be read."""
        marks = self._marked()
        return marks is not None and bool(marks.all())

    def close(self) -> None:
        """Marks what was written, and writes no more."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _marked(self) -> np.ndarray | None:
        """(n,) checksums of the examples that can be read, else 0; None while there is no cache to read."""
        if self._writer is not None:
            return self._writer.marks
        if self._marks is None and (self.folder / HEADER).is_file():
            self._marks = np.memmap(self.folder / MARKS, np.uint32, "r", shape=(len(self._lengths),))
        return self._marks

    def _are_sound(self, ids: Sequence[int], marks: np.ndarray) -> bool:
        """Whether some examples are as they were written.

        Raises:
            PolydistillError: They are not, and this process cannot write them again.
        """
        damaged = [i for i in ids if checksum(file.values(i) for file in self._files.values()) != marks[i]]
        if damaged and self._writer is None:
            raise PolydistillError(
                f"Signals in {self.folder} changed after they were written.",
                "Run the command again to resume: they are computed anew.",
            )
        if damaged:
            marks[damaged] = 0
        return not damaged

    def _add(self, ids: Sequence[int], batch: Batch, found: Signals, writer: _Writer) -> None:
        real = batch["attention_mask"].sum(-1).tolist()
        if real != self._lengths[ids].tolist():
            raise ValueError(f"examples {ids} have {real} positions, not the {self._lengths[ids].tolist()} of before")
        tensors = {file: found[s].cpu() for s, file in self._files.items()}
        try:
            for row, example in enumerate(ids):
                if not writer.marks[example]:
                    writer.add(example, [(file, tensor[row]) for file, tensor in tensors.items()])
        except OSError as error:
            why = explain_os_error(error, self.folder, "POLYDISTILL_CACHE").message
            self._progress.warn(f"{why} The teacher's signals are kept no further.")
            self.close()


def checksum(parts: Iterable[np.ndarray]) -> int:
    """CRC-32 of an example's values, never 0."""
    found = 0
    for values in parts:
        found = zlib.crc32(np.ascontiguousarray(values, np.float32).data, found)
    return found or 1


class _File:
    """One signal of all examples: float32 values, one example's after the other's."""

    def __init__(self, folder: Path, signal: Signal, shape: Shape, lengths: np.ndarray) -> None:
        self.path, self.shape, self.lengths = folder / f"{signal.kind}-{signal.layer}.f32", shape, lengths
        self.starts = np.concatenate([[0], np.cumsum(_values(shape, lengths))])
        self._fill = NEVER if shape == (2, None) else 0.0
        self._map: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        return 4 * int(self.starts[-1])

    def own(self, example: int) -> tuple[slice, ...]:
        """Where an example's values lie in those of a batch."""
        return tuple(slice(int(self.lengths[example]) if d is None else d) for d in self.shape)

    def values(self, example: int) -> np.ndarray:
        """(k,) all of an example."""
        if self._map is None:
            self._map = np.memmap(self.path, np.float32, "r", shape=(int(self.starts[-1]),))
        return self._map[self.starts[example] : self.starts[example + 1]]

    def read(self, ids: Sequence[int], width: int) -> Tensor:
        """(B, ...) the signal of some examples, padded to `width` positions."""
        found = np.full((len(ids), *(width if d is None else d for d in self.shape)), self._fill, np.float32)
        for row, example in enumerate(ids):
            place = self.own(example)
            found[row][place] = self.values(example).reshape([part.stop for part in place])
        return torch.from_numpy(found)


class _Writer:
    """Adds examples to the files; an example is marked on disk only after its values are there.

    Values are written to the files and not through a mapping, which a full disk would turn into a crash.
    """

    def __init__(self, folder: Path, files: Sequence[_File], count: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._open = {file: _open(file.path, file.nbytes) for file in files}
        self._marks_file = _open(folder / MARKS, 4 * count)
        self.marks = np.fromfile(folder / MARKS, np.uint32, count)
        about = {"format": FORMAT, "examples": count, "files": {f.path.name: list(f.shape) for f in files}}
        write_beside(folder / HEADER, orjson.dumps(about), option="POLYDISTILL_CACHE")
        self._pending: list[int] = []
        self._flushed = monotonic()

    def add(self, example: int, values: Sequence[tuple[_File, Tensor]]) -> None:
        arrays = [np.ascontiguousarray(tensor.numpy()[file.own(example)], np.float32) for file, tensor in values]
        for (file, _), array in zip(values, arrays, strict=True):
            out = self._open[file]
            out.seek(4 * int(file.starts[example]))
            write_all(out, array)
        self.marks[example] = checksum(arrays)
        self._pending.append(example)
        if monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Brings values to the disk, then marks them."""
        for out in self._open.values():
            os.fsync(out.fileno())
        for example in self._pending:
            self._marks_file.seek(4 * example)
            self._marks_file.write(self.marks[example].tobytes())
        os.fsync(self._marks_file.fileno())
        self._pending.clear()
        self._flushed = monotonic()

    def close(self) -> None:
        if self._marks_file.closed:
            return
        with suppress(OSError):  # what could not be written stays unmarked
            self.flush()
        for out in (*self._open.values(), self._marks_file):
            out.close()


def _open(path: Path, nbytes: int) -> Any:
    """A file of at least so many bytes, for writing anywhere in it."""
    path.touch()
    out = path.open("r+b", buffering=0)
    if path.stat().st_size < nbytes:
        out.truncate(nbytes)
    return out
