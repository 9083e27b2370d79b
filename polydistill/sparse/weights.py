"""Sparse differences put on a checkpoint and taken off again, tensor by tensor, without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from polydistill.errors import PolydistillError
from polydistill.files.hashing import file_sha256
from polydistill.models.checkpoint import (
    INDEX_NAME,
    ITEM_BYTES,
    Checkpoint,
    NewTensor,
    RowReader,
    Tensor,
    copy_bytes,
    copy_file,
    write_all,
    write_safetensors,
)
from polydistill.sparse.files import (
    BITS,
    NAME,
    TAKE_BASE,
    Applied,
    BaseTensor,
    Difference,
    Entries,
    Undo,
    common_base,
    total,
    values_hash,
)
from polydistill.trimming.surgery import FLOATS

NOTHING = Entries(np.empty(0, np.int64), np.empty(0, np.float32))


@dataclass(frozen=True)
class Weights:
    """The base model inside a checkpoint.

    Args:
        checkpoint: The checkpoint, with or without a head.
        tensors: Name in the base model -> tensor.
        hashes: Name in the base model -> `values_hash` of what stands there now.
        undo: What the checkpoint needs to get back to its base; None where nothing was applied, or where the weights
            are no longer those that applying it gave.
    """

    checkpoint: Checkpoint
    tensors: Mapping[str, Tensor]
    hashes: Mapping[str, str]
    undo: Undo | None

    @classmethod
    def open(cls, checkpoint: Checkpoint, base: Mapping[str, BaseTensor]) -> Weights:
        """Finds the base's tensors and hashes them.

        Raises:
            PolydistillError: One is missing, or has another shape.
        """
        undo = Undo.load(checkpoint.folder)
        tensors = base_tensors(checkpoint, {**(undo.base if undo else {}), **base})
        hashes = {name: tensor_hash(tensor) for name, tensor in tensors.items()}
        if undo and not undo.fits(hashes, {name: tensor.dtype for name, tensor in tensors.items()}):
            undo = None
        return cls(checkpoint, tensors, hashes, undo)

    @property
    def original(self) -> dict[str, BaseTensor]:
        """The base model before anything was applied."""
        now = {name: BaseTensor(tensor.shape, self.hashes[name]) for name, tensor in self.tensors.items()}
        return {**now, **(self.undo.base if self.undo else {})}

    def check_base(self, differences: Sequence[Difference]) -> None:
        """Refuses differences that were made on other weights.

        Raises:
            PolydistillError: They were.
        """
        original = self.original
        for name, tensor in common_base(differences).items():
            if original[name] != tensor:
                raise PolydistillError(
                    f"The difference was made on other weights than those of {self.checkpoint.folder} "
                    f"({name} is not the same).",
                    "Give the model that it was made on, or add it to this one anyway with `force`.",
                )

    def check_restored(self, hashes: Mapping[str, str]) -> None:
        """Refuses weights that are not the base model, bit for bit.

        Args:
            hashes: Name in the base model -> `values_hash` of what was written.

        Raises:
            PolydistillError: They are not.
        """
        for name, tensor in self.original.items():
            if hashes[name] != tensor.sha256:
                raise PolydistillError(
                    f"What {self.checkpoint.folder} gives back is not the base model: {name} is not the same.",
                    TAKE_BASE,
                )


def base_tensors(checkpoint: Checkpoint, base: Mapping[str, BaseTensor]) -> dict[str, Tensor]:
    """The base's tensors in a checkpoint; with a head they stand behind a prefix such as `bert.`.

    Raises:
        PolydistillError: One is missing, has another shape or is not of floats.
    """
    first, tensors = min(base), checkpoint.tensors
    prefixes = {n.removesuffix(first) for n in tensors if n == first or n.endswith(f".{first}")}

    def lacking(prefix: str) -> list[str]:
        return [n for n, b in base.items() if prefix + n not in tensors or tensors[prefix + n].shape != b.shape]

    best = min(sorted(prefixes, key=len), key=lambda prefix: len(lacking(prefix)), default="")
    for name in lacking(best):
        there, wanted = tensors.get(best + name), list(base[name].shape)
        why = f"has {name} in the shape {list(there.shape)} instead of {wanted}" if there else f"lacks {name}"
        raise PolydistillError(
            f"{checkpoint.folder} {why}, so it is not what the difference was made on.",
            "Give the model that it was made on, with the same vocabulary and layers.",
        )
    found = {name: tensors[best + name] for name in base}
    if strange := next((t for t in found.values() if t.dtype not in FLOATS), None):
        raise PolydistillError(f"{strange.name} has the type {strange.dtype}.", "Give a model that is not quantised.")
    return found


def tensor_hash(tensor: Tensor, changes: Entries = NOTHING) -> str:
    """`values_hash` of a tensor, with some entries (as bits) in place of what stands there."""
    with RowReader(tensor.file) as reader:
        return values_hash(_floats(bits, tensor.dtype) for bits in _pieces(reader, tensor, changes))


def entries_of(tensor: Tensor, indices: np.ndarray) -> np.ndarray:
    """(n,) the bits of some of a tensor's values."""
    if not len(indices):
        return np.empty(0, _bits(tensor.dtype))
    return np.array(np.memmap(tensor.file, _bits(tensor.dtype), "r", tensor.start, (tensor.elements,))[indices])


def added(bits: np.ndarray, values: np.ndarray, dtype: str) -> np.ndarray:
    """The bits of the sums of values (as bits of `dtype`) and what is added, each rounded once.

    Raises:
        PolydistillError: A sum is too large for the type.
    """
    sums = _floats(bits, dtype) + values
    with np.errstate(over="ignore"):
        rounded = sums.astype(_float_type(dtype))
    if not np.isfinite(rounded).all():
        raise PolydistillError(
            f"With the difference some weights are too large for {FLOATS[dtype]}.", "Store the model in float32."
        )
    return rounded.view(_bits(dtype))


def recompose(weights: Weights, differences: Sequence[Difference]) -> tuple[dict[str, Entries], dict[str, Entries]]:
    """What turns the weights as they are into base + differences.

    Args:
        weights: The weights, with what was applied to them.
        differences: All that shall be on the base afterwards; none for the base itself.

    Returns:
        Name in the base model -> the bits to write; name in the base model -> the base's bits under the differences.
    """
    sums, changes, overwritten = total(differences), {}, {}
    for name, tensor in weights.tensors.items():
        old = weights.undo.entries.get(name, NOTHING) if weights.undo else NOTHING
        new = sums.get(name, NOTHING)
        touched = np.union1d(old.indices, new.indices)
        if not len(touched):
            continue
        bits = entries_of(tensor, touched)
        bits[np.searchsorted(touched, old.indices)] = old.values.astype(bits.dtype, copy=False)
        places = np.searchsorted(touched, new.indices)
        base = bits[places]
        bits[places] = added(base, new.values, tensor.dtype)
        changes[name] = Entries(touched, bits)
        if len(new.indices):
            overwritten[name] = Entries(new.indices, base)
    return changes, overwritten


def subtract(weights: Weights, difference: Difference) -> dict[str, Entries]:
    """The bits that taking a difference off by subtraction gives: the base's up to rounding."""
    changes = {}
    for name, (indices, values) in difference.entries.items():
        tensor = weights.tensors[name]
        changes[name] = Entries(indices, added(entries_of(tensor, indices), -values, tensor.dtype))
    return changes


def rewrite(
    weights: Weights, changes: Mapping[str, Entries], out: Path, progress: Callable[[int], object] = lambda n: None
) -> dict[str, str]:
    """Writes the checkpoint with some entries changed, file by file; everything else stays bit for bit.

    Args:
        weights: The weights as they are.
        changes: Name in the base model -> the bits to write.
        out: An existing folder.
        progress: Called with the number of bytes just written.

    Returns:
        Name in the base model -> `values_hash` of what was written.
    """
    stored = {weights.tensors[name].name: entries for name, entries in changes.items()}
    for file in weights.checkpoint.files:
        tensors = weights.checkpoint.in_file(file)
        if not any(t.name in stored for t in tensors):
            copy_file(file, out / file.name)
        else:
            with RowReader(file) as reader:
                new = [_changed(reader, t, stored.get(t.name)) for t in tensors]
                write_safetensors(out / file.name, new, weights.checkpoint.metadata[file])
        progress(file.stat().st_size)
    if (index := weights.checkpoint.folder / INDEX_NAME).is_file():
        copy_file(index, out / INDEX_NAME)
    written = Checkpoint.open(out).tensors
    return {name: tensor_hash(written[tensor.name]) for name, tensor in weights.tensors.items()}


def keep_beside(folder: Path, difference: Difference, base: Checkpoint) -> None:
    """Puts a difference and what it overwrote beside the weights that were trained with it.

    Args:
        folder: A model folder whose base model is `base` plus the difference, with any head.
        difference: The difference.
        base: Where the base model lies, with any head.

    Raises:
        AssertionError: The folder's base model is something else.
    """
    before = replace(Weights.open(base, difference.base), undo=None)  # as it is, whatever was applied before
    before.check_base([difference])
    after = base_tensors(Checkpoint.open(folder), difference.base)
    changes, overwritten = recompose(before, [difference])
    result = {name: tensor_hash(before.tensors[name], changes.get(name, NOTHING)) for name in difference.base}
    for name, tensor in after.items():
        if tensor.dtype != before.tensors[name].dtype or tensor_hash(tensor) != result[name]:
            raise AssertionError(f"{name} of {folder} is not the base plus the difference")
    difference.save(folder / NAME)
    types = {name: before.tensors[name].dtype for name in overwritten}
    applied = (Applied(NAME, file_sha256(folder / NAME)),)
    Undo(overwritten, types, difference.base, result, applied).save(folder)


def _changed(reader: RowReader, tensor: Tensor, changes: Entries | None) -> NewTensor:
    def write(out: BinaryIO) -> None:
        if changes is None:
            copy_bytes(tensor.file, tensor.start, tensor.nbytes, out)
            return
        for bits in _pieces(reader, tensor, changes):
            write_all(out, bits)

    return NewTensor(tensor.name, tensor.dtype, tensor.shape, write)


def _pieces(reader: RowReader, tensor: Tensor, changes: Entries) -> Iterator[np.ndarray]:
    """A tensor's values as bits, at most 16 MiB at a time, with some of them changed."""
    start = 0
    for chunk in reader.whole(tensor):
        bits = chunk.reshape(-1).view(_bits(tensor.dtype))
        low, high = np.searchsorted(changes.indices, (start, start + len(bits)))
        bits[changes.indices[low:high] - start] = changes.values[low:high]
        start += len(bits)
        yield bits


def _bits(dtype: str) -> Any:
    return BITS[ITEM_BYTES[dtype]]


def _float_type(dtype: str) -> Any:
    import ml_dtypes

    return ml_dtypes.bfloat16 if dtype == "BF16" else np.dtype(FLOATS[dtype])


def _floats(bits: np.ndarray, dtype: str) -> np.ndarray:
    """Values as float32, or as float64 where they are that."""
    values = bits.view(_float_type(dtype))
    return values if dtype == "F64" else values.astype(np.float32, copy=False)
