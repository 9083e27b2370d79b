"""Safetensors checkpoints as bytes: read lazily, written tensor by tensor, put in place in one rename.

Nothing here builds a model or needs torch. The format is a little-endian u64 header length, a JSON header
`{name: {dtype, shape, data_offsets}}` and the tensors' bytes (https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from polydistill.errors import PolydistillError
from polydistill.files.hashing import file_sha256
from polydistill.files.inside import inside
from polydistill.files.jsonfiles import Part, parse_json, read_json, short

ITEM_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}
INDEX_NAME = "model.safetensors.index.json"
CHUNK_BYTES = 16 << 20
LARGEST_HEADER = 32 << 20  # a hundred thousand tensors have a third of it
LARGEST_SIZE = 1 << 48  # of an axis or an offset
HINT = "Download or save the model again; nothing was written."
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")


@dataclass(frozen=True)
class Tensor:
    """Where one tensor lies: `nbytes` bytes of `file` from the absolute offset `start`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.elements * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a model folder by name, with the files that hold them; nothing is read but the headers."""

    folder: Path
    files: tuple[Path, ...]
    tensors: Mapping[str, Tensor]
    metadata: Mapping[Path, dict[str, str]]

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Reads the headers of a model folder's safetensors.

        Raises:
            PolydistillError: There are none (or only pickles), or one is truncated or corrupt.
        """
        return cls._read(folder, tuple(_checkpoint_files(folder)))

    @classmethod
    def of_file(cls, file: Path) -> Checkpoint:
        """Reads the header of one safetensors file, whatever its name.

        Raises:
            PolydistillError: It is missing, truncated or corrupt.
        """
        if not file.is_file():
            raise PolydistillError(f"There is no file {file}.", "Check the path.")
        return cls._read(file.parent, (file,))

    @classmethod
    def _read(cls, folder: Path, files: tuple[Path, ...]) -> Checkpoint:
        tensors: dict[str, Tensor] = {}
        metadata: dict[Path, dict[str, str]] = {}
        for file in files:
            metadata[file], entries = _read_header(file)
            for tensor in entries:
                if tensor.name in tensors:
                    raise _broken(file, f"the tensor {short(tensor.name)} is in two files")
                tensors[tensor.name] = tensor
        return cls(folder, files, tensors, metadata)

    def in_file(self, file: Path) -> list[Tensor]:
        """The tensors of one file, in the order in which they lie."""
        return sorted((t for t in self.tensors.values() if t.file == file), key=lambda t: t.start)

    @property
    def parameters(self) -> int:
        """Number of stored values; a tied head that is stored twice counts twice."""
        return sum(t.elements for t in self.tensors.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(f.stat().st_size for f in self.files)

    @cached_property
    def file_hashes(self) -> dict[str, str]:
        """SHA-256 of each file, by file name."""
        return {f.name: file_sha256(f) for f in self.files}

    @property
    def weights_hash(self) -> str:
        """One file: its SHA-256. Several: the SHA-256 of the sorted lines `name sha256`."""
        hashes = self.file_hashes
        if len(hashes) == 1:
            return next(iter(hashes.values()))
        return hashlib.sha256("\n".join(f"{n} {h}" for n, h in sorted(hashes.items())).encode()).hexdigest()


def _broken(file: Path, why: str) -> PolydistillError:
    return PolydistillError(f"{file} is not a whole safetensors file: {why}.", HINT)


def _checkpoint_files(folder: Path) -> list[Path]:
    index = folder / INDEX_NAME
    if index.is_file():
        try:
            weights = Part(index, read_json(index))["weight_map"]
            weights.of(dict)
            names = sorted({part.of(str) for part in weights.members()})
        except PolydistillError as error:
            raise _broken(index, f"its weight_map cannot be read ({error.message.rstrip('.')})") from error
        for name in names:
            if not inside(folder, name, index).is_file():
                raise _broken(index, f"it names {name}, which is missing")
            if Path(name).name != name:
                raise _broken(index, f"it names a file in another folder ({name})")
        return [folder / name for name in names]
    single = folder / "model.safetensors"
    if single.is_file():
        return [single]
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found
    if found:
        raise PolydistillError(
            f"{folder} has {len(found)} safetensors files but no {INDEX_NAME} that says what is in them.",
            "Save the model again with save_pretrained.",
        )
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLE_SUFFIXES) if folder.is_dir() else []
    if pickles:
        raise PolydistillError(
            f"{folder} has only a pickle or foreign checkpoint ({pickles[0]}), which could run code when it is loaded.",
            "Convert it to safetensors where you trust it: AutoModel.from_pretrained(...).save_pretrained(...).",
        )
    raise PolydistillError(f"{folder} has no *.safetensors weights.", "Give a model folder or a Hub name.")


def _read_header(file: Path) -> tuple[dict[str, str], list[Tensor]]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > size - 8:
            raise _broken(file, "its header is cut off")
        if length > LARGEST_HEADER:
            raise _broken(file, f"its header has {length:,} bytes, more than {LARGEST_HEADER:,}")
        raw = stream.read(length)
    try:
        header = Part(file, parse_json(raw, file, unique=True), hint=HINT)
        metadata = {key: header["__metadata__"][key].of(str) for key in header["__metadata__"].optional(dict) or ()}
        entries = [_entry(name, header[name]) for name in header.value if name != "__metadata__"]
    except PolydistillError as error:
        raise _broken(file, f"its header cannot be read ({error.message.rstrip('.')})") from error
    base, end = 8 + length, 0
    tensors = []
    for name, dtype, shape, start, stop in sorted(entries, key=lambda e: e[3:]):
        if dtype not in ITEM_BYTES:
            raise PolydistillError(f"{file}: {short(name)} has the unknown type {short(dtype)}.", "Update polydistill.")
        tensor = Tensor(name, dtype, shape, file, base + start)
        if start != end or stop - start != tensor.nbytes:
            raise _broken(file, f"the bytes of {short(name)} do not fit its shape")
        end = stop
        tensors.append(tensor)
    if base + end != size:
        raise _broken(file, f"{base + end:,} bytes were promised and {size:,} are there")
    return metadata, tensors


def _entry(name: str, part: Part) -> tuple[str, str, tuple[int, ...], int, int]:
    """(name, type, shape, start, stop) of a tensor."""
    part.of(dict)
    if len(part["data_offsets"].of(list)) != 2:
        raise part["data_offsets"].wrong("a start and a stop")
    start, stop = (offset.whole_number(0, LARGEST_SIZE) for offset in part["data_offsets"].items())
    part["shape"].of(list)
    shape = tuple(n.whole_number(0, LARGEST_SIZE) for n in part["shape"].items())
    return name, part["dtype"].of(str), shape, start, stop


class RowReader:
    """Gathers rows of tensors of one file through a memory map that never stays resident."""

    def __init__(self, file: Path) -> None:
        self._stream = file.open("rb")
        self._map = mmap.mmap(self._stream.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> RowReader:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BufferError):  # an error's traceback still holds rows; the error itself is what matters
            self._map.close()
        self._stream.close()

    def rows(self, tensor: Tensor, ids: np.ndarray, axis: int = 0) -> Iterator[np.ndarray]:
        """Yields the kept slices along `axis` as arrays of bytes, from at most 16 MiB of the file at a time.

        Args:
            tensor: A tensor of this file.
            ids: (K,) indices along `axis`; read fastest where they ascend.
            axis: The vocabulary axis.

        Yields:
            (k, bytes of one slice) uint8 arrays; concatenated they are the new tensor's bytes.
        """
        outer, rows = math.prod(tensor.shape[:axis]), tensor.shape[axis]
        width = tensor.nbytes // (outer * rows)
        step = max(1, CHUNK_BYTES // width)
        for block in range(outer):
            start = tensor.start + block * rows * width
            table = np.frombuffer(self._map, np.uint8, rows * width, start).reshape(rows, width)
            for run in np.split(ids, np.flatnonzero(np.diff(ids) < 0) + 1):
                for first in range(0, rows, step):
                    low, high = np.searchsorted(run, (first, first + step))
                    if low < high:
                        yield table[run[low:high]]
                        self._release(start + first * width, start + min(first + step, rows) * width)
            del table  # an exported buffer would keep the map from closing

    def whole(self, tensor: Tensor) -> Iterator[np.ndarray]:
        """Yields a tensor's bytes as (1, n) uint8 arrays of at most 16 MiB."""
        for start in range(tensor.start, tensor.start + tensor.nbytes, CHUNK_BYTES):
            stop = min(start + CHUNK_BYTES, tensor.start + tensor.nbytes)
            yield np.frombuffer(self._map, np.uint8, stop - start, start).reshape(1, -1).copy()
            self._release(start, stop)

    def _release(self, start: int, stop: int) -> None:
        """Lets go of pages already read: they stay in the page cache but not in this process."""
        start -= start % mmap.PAGESIZE
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)


@dataclass(frozen=True)
class NewTensor:
    """A tensor to be written: its header entry, and a function that writes exactly its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    write: Callable[[BinaryIO], None]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def in_order(tensors: Sequence[NewTensor]) -> list[NewTensor]:
    """Tensors as they lie in a file: wide types come first, so every tensor stays aligned."""
    return sorted(tensors, key=lambda t: -ITEM_BYTES[t.dtype])


def header(tensors: Sequence[NewTensor], metadata: Mapping[str, str]) -> bytes:
    """What stands before the bytes of tensors that lie in this order."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for tensor in tensors:
        start, end = end, end + tensor.nbytes
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    raw = json.dumps(entries, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def write_safetensors(path: Path, tensors: Sequence[NewTensor], metadata: Mapping[str, str]) -> None:
    """Writes one safetensors file."""
    ordered = in_order(tensors)
    with path.open("wb", buffering=0) as out:
        write_all(out, header(ordered, metadata))
        for tensor in ordered:
            before = out.tell()
            tensor.write(out)
            if out.tell() - before != tensor.nbytes:
                raise AssertionError(f"{tensor.name}: wrote {out.tell() - before} bytes instead of {tensor.nbytes}")


def write_all(out: BinaryIO, data: Any) -> None:
    """Writes all of `data` (bytes or a contiguous array) to an unbuffered file, which may take less at a time."""
    view = memoryview(data).cast("B")
    while len(view):
        view = view[out.write(view) :]


def copy_bytes(source: Path, start: int, count: int, out: BinaryIO) -> None:
    """Copies `count` bytes from offset `start` to where `out` stands, inside the kernel where it can."""
    with source.open("rb", buffering=0) as stream:
        stream.seek(start)
        try:
            while count:
                done = os.copy_file_range(stream.fileno(), out.fileno(), count)
                if not done:
                    raise _broken(source, "it became shorter while it was read")
                count -= done
        except (AttributeError, OSError) as error:
            fatal = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
            if isinstance(error, OSError) and error.errno in fatal:
                raise
            while count:
                data = stream.read(min(count, CHUNK_BYTES))
                if not data:
                    raise _broken(source, "it became shorter while it was read") from error
                write_all(out, data)
                count -= len(data)


def copy_file(source: Path, target: Path) -> None:
    """Copies a file's bytes; the copy shares nothing with the source that a later save could overwrite."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb", buffering=0) as out:
        copy_bytes(source, 0, source.stat().st_size, out)
