"""Sparse differences as files: what a fine-tuning adds to some entries of its base model, and what stood there before.

A base model is a network without its head. `difference.safetensors` holds, for each of its tensors, flat indices and
what is added there; the metadata list all tensors of the base with shape and hash. A model folder with differences
applied carries them beside its weights, and in `difference.undo.safetensors` the entries that they overwrote. Both
kinds of file carry a hash of all that they say, so that a damaged one is never taken for exact.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from polydistill.errors import PolydistillError
from polydistill.files.hashing import file_sha256
from polydistill.files.jsonfiles import parse_json
from polydistill.files.outputs import write_beside
from polydistill.models.checkpoint import ITEM_BYTES, Checkpoint, NewTensor, Tensor, header, in_order

NAME, UNDO_NAME = "difference.safetensors", "difference.undo.safetensors"
FORMAT, UNDO_FORMAT = "polydistill-difference-2", "polydistill-undo-2"
CONTENT = "sha256"  # of all else
TAKE_BASE = f"Take the base model itself, or delete {UNDO_NAME} and subtract the difference with `approximate`."
TASK, LANGUAGE, COMBINED = "task", "language", "combined"
BITS: dict[int, Any] = {2: np.uint16, 4: np.uint32, 8: np.uint64}  # bytes of a value -> its bits as a number
FILE_TYPES = {
    "I32": np.int32,
    "I64": np.int64,
    "F32": np.float32,
    "F16": np.uint16,
    "BF16": np.uint16,
    "F64": np.uint64,
}
LAYER = re.compile(r".*?\.\d+(?=\.)")
INT32_MAX = 2**31 - 1


class Entries(NamedTuple):
    """Some entries of one tensor.

    Attributes:
        indices: (n,) int64, ascending, into the tensor's values in the order in which they are stored.
        values: (n,) what is added there (float32), or the bits of what stands there (unsigned integers).
    """

    indices: np.ndarray
    values: np.ndarray


class BaseTensor(NamedTuple):
    """A tensor of the base model.

    Attributes:
        shape: Its shape.
        sha256: `values_hash` of its values.
    """

    shape: tuple[int, ...]
    sha256: str

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def values_hash(pieces: Iterable[np.ndarray]) -> str:
    """SHA-256 of a tensor's values as float32 (float64 as they are): the same whatever type they are stored in."""
    digest = hashlib.sha256()
    for piece in pieces:
        wide = np.float64 if piece.dtype == np.float64 else np.float32
        digest.update(np.ascontiguousarray(piece, wide).data)
    return digest.hexdigest()


def base_hash(base: Mapping[str, BaseTensor]) -> str:
    """SHA-256 of the sorted lines `name shape hash`: of a model without its head."""
    lines = (f"{name} {'x'.join(map(str, t.shape))} {t.sha256}" for name, t in sorted(base.items()))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Difference:
    """What a sparse fine-tuning adds to its base model.

    Args:
        entries: Tensor of the base model -> where, and what is added there.
        base: Every tensor of the base model.
        kind: `TASK`, `LANGUAGE` or `COMBINED`.
        languages: Codes of the languages of its training data.
        tasks: Names of the tasks that it was trained for.
    """

    entries: Mapping[str, Entries]
    base: Mapping[str, BaseTensor]
    kind: str
    languages: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of entries."""
        return sum(len(e.indices) for e in self.entries.values())

    @property
    def parameters(self) -> int:
        """Number of values of the base model."""
        return sum(t.elements for t in self.base.values())

    @property
    def density(self) -> float:
        """Share of the base model's values that have an entry."""
        return self.count / self.parameters

    @property
    def base_hash(self) -> str:
        """Hash of the base model."""
        return base_hash(self.base)

    def groups(self) -> list[dict[str, Any]]:
        """For each layer, and each other part: its entries, their share of all entries, and their density there."""
        found: dict[str, list[int]] = {}
        for name, tensor in self.base.items():
            layer = LAYER.match(name)
            sums = found.setdefault(layer[0] if layer else name.partition(".")[0], [0, 0])
            sums[0] += len(self.entries[name].indices) if name in self.entries else 0
            sums[1] += tensor.elements
        return [
            {"group": group, "entries": n, "share": n / max(1, self.count), "density": n / max(1, size)}
            for group, (n, size) in found.items()
        ]

    def save(self, path: Path, *, overwrite: bool = True) -> None:
        """Writes the file, whole or not at all."""
        types = dict.fromkeys(self.entries, "F32")
        metadata = {
            "format": FORMAT,
            "kind": self.kind,
            "languages": json.dumps(self.languages),
            "tasks": json.dumps(self.tasks),
            "count": str(self.count),
            "density": f"{self.density:.9g}",
            "base": self.base_hash,
            "base_tensors": json.dumps(self.base),
        }
        write_beside(path, _file_bytes(self.entries, types, metadata), overwrite=overwrite)

    @classmethod
    def load(cls, path: Path) -> Difference:
        """Reads a file.

        Raises:
            PolydistillError: It is missing, broken or something else.
        """
        metadata, entries, _ = _read(path, FORMAT)
        try:
            base = _base(metadata["base_tensors"], path)
            languages, tasks = (tuple(map(str, _said(metadata[key], path, list))) for key in ("languages", "tasks"))
            found = cls(entries, base, metadata["kind"], languages, tasks)
            promised = int(metadata["count"]), metadata["base"]
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise _broken(path, "its metadata cannot be read") from error
        for name, (indices, values) in entries.items():
            if name not in base or (len(indices) and indices[-1] >= base[name].elements):
                raise _broken(path, f"the entries of {name} lie outside its base")
            if not np.isfinite(values).all():
                raise _broken(path, f"some values of {name} are not numbers")
        if promised != (found.count, found.base_hash):
            raise _broken(path, "its entries or its base are not those that its metadata promises")
        _check_hash(path)
        return found


@dataclass(frozen=True)
class Applied:
    """A difference that a folder has taken in.

    Args:
        file: Its name there.
        sha256: Of that file.
    """

    file: str
    sha256: str


@dataclass(frozen=True)
class Undo:
    """What a folder needs to get back to its base.

    Args:
        entries: Tensor of the base model -> the bits that were overwritten.
        types: Tensor of the base model -> its type, as safetensors call it.
        base: Every tensor of the base model, as it was before.
        result: Tensor of the base model -> `values_hash` after.
        applied: The differences, in the order in which they are added up.
    """

    entries: Mapping[str, Entries]
    types: Mapping[str, str]
    base: Mapping[str, BaseTensor]
    result: Mapping[str, str]
    applied: tuple[Applied, ...]

    def fits(self, hashes: Mapping[str, str], types: Mapping[str, str]) -> bool:
        """Whether weights with these `values_hash`es and types are those that it leads back from."""
        same = all(hashes.get(name) == sha for name, sha in self.result.items())
        return same and all(types.get(name) == code for name, code in self.types.items())

    def save(self, folder: Path) -> None:
        """Writes the folder's file, whole or not at all."""
        metadata = {
            "format": UNDO_FORMAT,
            "base": base_hash(self.base),
            "base_tensors": json.dumps(self.base),
            "result": json.dumps(self.result),
            "applied": json.dumps([[a.file, a.sha256] for a in self.applied]),
        }
        write_beside(folder / UNDO_NAME, _file_bytes(self.entries, self.types, metadata))

    @classmethod
    def load(cls, folder: Path) -> Undo | None:
        """Reads a folder's file, None if it has none.

        Raises:
            PolydistillError: It is broken.
        """
        path = folder / UNDO_NAME
        if not path.is_file():
            return None
        metadata, entries, types = _read(path, UNDO_FORMAT)
        try:
            applied = tuple(Applied(Path(file).name, str(sha)) for file, sha in _said(metadata["applied"], path, list))
            found = cls(entries, types, _base(metadata["base_tensors"], path), _said(metadata["result"], path), applied)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise _broken(path, "its metadata cannot be read") from error
        if any(name not in found.base for name in (*entries, *found.result)):
            raise _broken(path, "its entries lie outside its base")
        _check_hash(path)
        return found

    def differences(self, folder: Path) -> list[Difference]:
        """The differences that the folder has taken in.

        Raises:
            PolydistillError: One is missing or is not the one that was applied.
        """
        for part in self.applied:
            file = folder / part.file
            if not file.is_file() or file_sha256(file) != part.sha256:
                raise PolydistillError(
                    f"{file} is not the difference that was applied to {folder}.",
                    "Go back to the base with `polydistill sparse remove`, then apply the ones you want.",
                )
        return [Difference.load(folder / part.file) for part in self.applied]


def component_name(number: int) -> str:
    """The file of the `number`-th difference of a folder, counted from 1."""
    return NAME if number == 1 else f"difference-{number}.safetensors"


def common_base(differences: Sequence[Difference]) -> dict[str, BaseTensor]:
    """All base tensors of several differences.

    Raises:
        PolydistillError: They were made on different bases.
    """
    found: dict[str, BaseTensor] = {}
    for difference in differences:
        for name, tensor in difference.base.items():
            if found.setdefault(name, tensor) != tensor:
                raise PolydistillError(
                    f"The differences were made on different models: {name} is not the same.",
                    "Combine only what was tuned from one base model.",
                )
    return found


def combine(differences: Sequence[Difference]) -> Difference:
    """Several differences as one: all their entries, the values added up in float32 from left to right.

    Raises:
        PolydistillError: They were made on different bases.
    """
    base = common_base(differences)
    kinds = {d.kind for d in differences}
    return Difference(
        total(differences),
        base,
        kinds.pop() if len(kinds) == 1 else COMBINED,
        tuple(dict.fromkeys(code for d in differences for code in d.languages)),
        tuple(dict.fromkeys(name for d in differences for name in d.tasks)),
    )


def total(differences: Sequence[Difference]) -> dict[str, Entries]:
    """The sum of differences, tensor by tensor."""
    found: dict[str, Entries] = {}
    for difference in differences:
        for name, entries in difference.entries.items():
            found[name] = _sum(found[name], entries) if name in found else entries
    return found


def _sum(a: Entries, b: Entries) -> Entries:
    indices = np.union1d(a.indices, b.indices)
    values = np.zeros(len(indices), np.float32)
    for part in (a, b):
        values[np.searchsorted(indices, part.indices)] += part.values
    return Entries(indices, values)


def _said(text: str, path: Path, kind: type = dict) -> Any:
    """What a text in the metadata of a file says."""
    try:
        return parse_json(text.encode(), path, kind)
    except PolydistillError as error:
        raise ValueError(error.message) from error


def _base(text: str, path: Path) -> dict[str, BaseTensor]:
    listed = _said(text, path).items()
    return {name: BaseTensor(tuple(map(int, shape)), str(sha)) for name, (shape, sha) in listed}


def content_hash(metadata: Mapping[str, str], tensors: Mapping[str, bytes]) -> str:
    """SHA-256 of all that a file says: its metadata but for this hash, and the bytes of its tensors."""
    digest = hashlib.sha256()
    for key, value in sorted(metadata.items()):
        if key != CONTENT:
            digest.update(json.dumps([key, value]).encode())
    for name, content in sorted(tensors.items()):
        digest.update(json.dumps([name, len(content)]).encode())
        digest.update(content)
    return digest.hexdigest()


def _check_hash(path: Path) -> None:
    """Refuses a file that does not say what was written.

    Raises:
        PolydistillError: It does not.
    """
    checkpoint = Checkpoint.of_file(path)
    tensors = {name: _array(tensor).tobytes() for name, tensor in checkpoint.tensors.items()}
    metadata = checkpoint.metadata[path]
    if metadata.get(CONTENT) != content_hash(metadata, tensors):
        raise _broken(path, "it was changed or damaged after it was written")


def _file_bytes(entries: Mapping[str, Entries], types: Mapping[str, str], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with `NAME.indices` and `NAME.values` for each tensor."""
    content: dict[str, bytes] = {}
    tensors = []
    for name, (indices, values) in entries.items():
        small = not len(indices) or indices[-1] <= INT32_MAX
        content[f"{name}.indices"] = indices.astype(np.int32 if small else np.int64).tobytes()
        content[f"{name}.values"] = values.tobytes()
        for key, code in ((f"{name}.indices", "I32" if small else "I64"), (f"{name}.values", types[name])):
            tensors.append(NewTensor(key, code, (len(indices),), lambda out: None))
    ordered = in_order(tensors)
    sealed = {**metadata, CONTENT: content_hash(metadata, content)}
    return header(ordered, sealed) + b"".join(content[t.name] for t in ordered)


def _read(path: Path, wanted: str) -> tuple[dict[str, str], dict[str, Entries], dict[str, str]]:
    """(metadata, tensor -> entries, tensor -> type of its values) of a file that `_file_bytes` made.

    Raises:
        PolydistillError: It is missing, broken or of another format.
    """
    checkpoint = Checkpoint.of_file(path)
    metadata = checkpoint.metadata[path]
    if metadata.get("format") != wanted:
        raise PolydistillError(
            f"{path} is not a sparse difference of polydistill.",
            f"Give a {NAME} that sparse fine-tuning or `polydistill sparse combine` wrote, or a folder with one.",
        )
    entries, types = {}, {}
    names = {key.rpartition(".")[0] for key in checkpoint.tensors}
    for name in sorted(names):
        try:
            where, what = (checkpoint.tensors[f"{name}.{part}"] for part in ("indices", "values"))
            indices, values = _array(where).astype(np.int64), _array(what)
        except KeyError as error:
            raise _broken(path, f"the entries of {name} are not whole") from error
        ascending = bool((np.diff(indices) > 0).all()) and (not len(indices) or indices[0] >= 0)
        if where.dtype not in ("I32", "I64") or len(indices) != len(values) or not ascending:
            raise _broken(path, f"the entries of {name} are not whole")
        as_bits = wanted == UNDO_FORMAT
        entries[name] = Entries(indices, values.view(BITS[ITEM_BYTES[what.dtype]]) if as_bits else values)
        types[name] = what.dtype
        if not as_bits and what.dtype != "F32":
            raise _broken(path, f"the values of {name} are not float32")
    return metadata, entries, types


def _array(tensor: Tensor) -> np.ndarray:
    return np.fromfile(tensor.file, FILE_TYPES[tensor.dtype], tensor.elements, offset=tensor.start)


def _broken(path: Path, why: str) -> PolydistillError:
    hint = TAKE_BASE if path.name == UNDO_NAME else "Take it from where it was made once more."
    return PolydistillError(f"{path} is broken: {why}.", hint)
