"""Cutting a checkpoint: which tensors have a vocabulary axis, and a new checkpoint with some of its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from polydistill.catalog import Arch, VocabularyTensor
from polydistill.errors import PolydistillError
from polydistill.files.jsonfiles import Part, read_json, short
from polydistill.models.checkpoint import (
    INDEX_NAME,
    ITEM_BYTES,
    Checkpoint,
    NewTensor,
    RowReader,
    Tensor,
    copy_bytes,
    copy_file,
    header,
    in_order,
    write_all,
    write_safetensors,
)
from polydistill.vocab.keep import KeepSet

FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
DTYPES = {name: code for code, name in FLOATS.items() if name != "float64"}
NEVER = -1e4  # logit of a row that pads the matrix: e**-10000 is 0, and half precision can hold it


@dataclass(frozen=True)
class Cut:
    """What happens to one tensor with a vocabulary axis.

    Args:
        spec: What the architecture says of it.
        keep: The rows that stay.
        rows: Number of rows afterwards, padding included.
    """

    spec: VocabularyTensor
    keep: KeepSet
    rows: int


def plan_cuts(checkpoint: Checkpoint, arch: Arch, keeps: Sequence[KeepSet], rows: Sequence[int]) -> dict[str, Cut]:
    """Finds the tensors to cut.

    Args:
        checkpoint: The original.
        arch: Its architecture.
        keeps: One KeepSet for each id space of the tokenizer.
        rows: For each, the number of rows that the result shall have.

    Returns:
        Tensor name -> cut.

    Raises:
        PolydistillError: There is nothing to cut, or the tensors do not fit the tokenizer or the architecture file.
    """
    cuts: dict[str, Cut] = {}
    for name, tensor in checkpoint.tensors.items():
        spec = arch.vocabulary_tensor(name)
        if spec is None:
            continue
        space = spec.space if len(keeps) > 1 else 0
        if (
            not tensor.elements
            or spec.axis >= len(tensor.shape)
            or tensor.shape[spec.axis] < keeps[space].ids.max() + 1
        ):
            raise PolydistillError(
                f"{short(name)} has the shape {list(tensor.shape)}, too small for {keeps[space].size:,} tokens.",
                "The tokenizer does not belong to these weights: put the one that they were trained with beside them.",
            )
        cuts[name] = Cut(spec, keeps[space], rows[space])
    if not any(cut.spec.role == "embedding" for cut in cuts.values()):
        raise PolydistillError(
            f"{checkpoint.folder} has none of the embedding tensors that a {arch.name} model has.",
            "Check model_type in its config.json, or describe the model in a TOML file (`include_path`).",
        )
    _refuse_unnamed(checkpoint, arch, cuts)
    return cuts


def vocabulary_rows(checkpoint: Checkpoint, arch: Arch, spaces: int) -> list[int]:
    """For each id space of the tokenizer, how many ids have a row in every tensor; 0 where there is no tensor."""
    found: list[list[int]] = [[] for _ in range(spaces)]
    for name, tensor in checkpoint.tensors.items():
        spec = arch.vocabulary_tensor(name)
        if spec is not None and tensor.elements and spec.axis < len(tensor.shape):
            found[spec.space if spaces > 1 else 0].append(tensor.shape[spec.axis])
    return [min(heights, default=0) for heights in found]


def _refuse_unnamed(checkpoint: Checkpoint, arch: Arch, cuts: Mapping[str, Cut]) -> None:
    """A tensor as long as the vocabulary that the architecture file does not name would break the model."""
    rows = {checkpoint.tensors[n].shape[c.spec.axis] for n, c in cuts.items()}
    for name, tensor in checkpoint.tensors.items():
        if name not in cuts and len(tensor.shape) <= 2 and rows & set(tensor.shape):
            hidden = {s for n, c in cuts.items() for i, s in enumerate(checkpoint.tensors[n].shape) if i != c.spec.axis}
            if not rows & hidden:
                raise PolydistillError(
                    f"{name} has the shape {list(tensor.shape)}, as long as the vocabulary, "
                    f"but the architecture file of {arch.name} does not name it.",
                    "Add it to a copy of that file and pass it with `include_path`.",
                )


def new_shape(tensor: Tensor, cut: Cut | None) -> tuple[int, ...]:
    """The shape of a tensor after its cut."""
    if cut is None:
        return tensor.shape
    return tuple(cut.rows if i == cut.spec.axis else n for i, n in enumerate(tensor.shape))


def new_dtype(tensor: Tensor, dtype: str) -> str:
    """The type of a tensor after the cut; integers stay as they are."""
    return DTYPES[dtype] if dtype != "keep" and tensor.dtype in FLOATS else tensor.dtype


def sizes(checkpoint: Checkpoint, cuts: Mapping[str, Cut], dtype: str) -> tuple[int, int]:
    """(parameters, bytes of weights) of the checkpoint that `write_checkpoint` would write, headers left out."""
    shapes = [(np.prod(new_shape(t, cuts.get(n)), dtype=np.int64), t) for n, t in checkpoint.tensors.items()]
    return int(sum(n for n, _ in shapes)), int(sum(n * ITEM_BYTES[new_dtype(t, dtype)] for n, t in shapes))


def file_bytes(checkpoint: Checkpoint, cuts: Mapping[str, Cut], dtype: str) -> int:
    """Bytes of the weight files that `write_checkpoint` would write, headers included."""
    total = 0
    for file in checkpoint.files:
        tensors = checkpoint.in_file(file)
        if _copied(tensors, cuts, dtype):
            total += file.stat().st_size
            continue
        new = [
            NewTensor(t.name, new_dtype(t, dtype), new_shape(t, cuts.get(t.name)), lambda out: None) for t in tensors
        ]
        total += len(header(in_order(new), checkpoint.metadata[file])) + sum(t.nbytes for t in new)
    return total


def _copied(tensors: Sequence[Tensor], cuts: Mapping[str, Cut], dtype: str) -> bool:
    return dtype == "keep" and not any(t.name in cuts for t in tensors)


def embedding_parameters(checkpoint: Checkpoint, arch: Arch) -> int:
    """Number of values in tensors with a vocabulary axis."""
    return sum(t.elements for n, t in checkpoint.tensors.items() if arch.vocabulary_tensor(n))


def write_checkpoint(
    checkpoint: Checkpoint,
    cuts: Mapping[str, Cut],
    out: Path,
    *,
    dtype: str = "keep",
    progress: Callable[[int], object] = lambda n: None,
) -> None:
    """Writes the cut checkpoint, file by file and tensor by tensor.

    A file with nothing to change is copied inside the kernel without being parsed. Otherwise at most 16 MiB are held.

    Args:
        checkpoint: The original.
        cuts: From `plan_cuts`.
        out: An existing folder.
        dtype: `keep`, `float32`, `bfloat16` or `float16`, for tensors of floats.
        progress: Called with the number of bytes just written.
    """
    for file in checkpoint.files:
        tensors = checkpoint.in_file(file)
        if _copied(tensors, cuts, dtype):
            copy_file(file, out / file.name)
            progress(file.stat().st_size)
            continue
        with RowReader(file) as reader:
            new = [_new_tensor(reader, t, cuts.get(t.name), new_dtype(t, dtype), progress) for t in tensors]
            write_safetensors(out / file.name, new, checkpoint.metadata[file])
    index = checkpoint.folder / INDEX_NAME
    if index.is_file():
        data = read_json(index)
        parameters, nbytes = sizes(checkpoint, cuts, dtype)
        data["metadata"] = {**(Part(index, data)["metadata"].optional(dict) or {}), "total_size": nbytes}
        if "total_parameters" in data["metadata"]:
            data["metadata"]["total_parameters"] = parameters
        (out / INDEX_NAME).write_bytes(orjson.dumps(data, option=orjson.OPT_INDENT_2))


def write_renamed(
    checkpoint: Checkpoint, names: Mapping[str, str], out: Path, *, progress: Callable[[int], object] = lambda n: None
) -> None:
    """Writes some of the tensors under other names, bit for bit, file by file and tensor by tensor.

    Args:
        checkpoint: The original.
        names: Old name -> new name; the others are left out, and so are files of which nothing stays.
        out: An existing folder.
        progress: Called with the number of bytes just written.
    """
    places: dict[str, str] = {}
    for file in checkpoint.files:
        tensors = [t for t in checkpoint.in_file(file) if t.name in names]
        if not tensors:
            continue
        with RowReader(file) as reader:
            new = [replace(_new_tensor(reader, t, None, t.dtype, progress), name=names[t.name]) for t in tensors]
            write_safetensors(out / file.name, new, checkpoint.metadata[file])
        places.update({t.name: file.name for t in new})
    index = checkpoint.folder / INDEX_NAME
    if index.is_file():
        data = read_json(index)
        kept = [checkpoint.tensors[name] for name in names]
        data["metadata"] = {
            **(Part(index, data)["metadata"].optional(dict) or {}),
            "total_size": sum(t.nbytes for t in kept),
        }
        if "total_parameters" in data["metadata"]:
            data["metadata"]["total_parameters"] = sum(t.elements for t in kept)
        data["weight_map"] = dict(sorted(places.items()))
        (out / INDEX_NAME).write_bytes(orjson.dumps(data, option=orjson.OPT_INDENT_2))


def renamed_bytes(checkpoint: Checkpoint, names: Mapping[str, str], cuts: Mapping[str, Cut]) -> int:
    """Bytes of the files that `write_renamed` would write of the checkpoint with these cuts, headers included."""
    total = 0
    for file in checkpoint.files:
        new = [
            NewTensor(names[t.name], t.dtype, new_shape(t, cuts.get(t.name)), lambda out: None)
            for t in checkpoint.in_file(file)
            if t.name in names
        ]
        if new:
            total += len(header(in_order(new), checkpoint.metadata[file])) + sum(t.nbytes for t in new)
    return total


def _new_tensor(
    reader: RowReader, tensor: Tensor, cut: Cut | None, dtype: str, progress: Callable[[int], object]
) -> NewTensor:
    def write(out: BinaryIO) -> None:
        if cut is None and dtype == tensor.dtype:
            copy_bytes(tensor.file, tensor.start, tensor.nbytes, out)
            progress(tensor.nbytes)
            return
        chunks = reader.whole(tensor) if cut is None else reader.rows(tensor, cut.keep.ids, cut.spec.axis)
        width = 0
        for chunk in chunks:
            data = cast(chunk, tensor.dtype, dtype)
            width = data.shape[1]
            write_all(out, data)
            progress(data.nbytes)
        if cut is not None and cut.rows > len(cut.keep):
            write_all(out, _padding(cut, tensor, dtype, width))

    return NewTensor(tensor.name, dtype, new_shape(tensor, cut), write)


def _padding(cut: Cut, tensor: Tensor, dtype: str, width: int) -> bytes:
    """Rows beyond the vocabulary: zero, and a logit that is never chosen where there is a bias to say so."""
    if any(n != 1 for n in tensor.shape[: cut.spec.axis]):
        raise PolydistillError(f"{tensor.name} cannot be padded along axis {cut.spec.axis}.", "Leave the padding out.")
    rows = cut.rows - len(cut.keep)
    if cut.spec.role == "bias" and dtype in FLOATS:
        return cast(np.full((rows, 1), NEVER, np.float32).view(np.uint8), "F32", dtype).tobytes()
    return bytes(rows * width)


def cast(data: np.ndarray, source: str, target: str) -> np.ndarray:
    """Converts rows of bytes from one float type to another, to nearest even.

    Args:
        data: (rows, bytes) uint8.
        source: safetensors name of the type that the bytes are in.
        target: The one wanted.

    Returns:
        (rows, new bytes) uint8.
    """
    if source == target:
        return data
    import ml_dtypes

    def kind(code: str) -> Any:
        return ml_dtypes.bfloat16 if code == "BF16" else np.dtype(FLOATS[code])

    values = np.ascontiguousarray(data).view(kind(source))
    with np.errstate(over="ignore"):
        converted = values.astype(kind(target))
    if not np.array_equal(np.isfinite(converted), np.isfinite(values)):
        raise PolydistillError(f"Some weights are too large for {FLOATS[target]}.", "Use `dtype=bfloat16`.")
    return converted.view(np.uint8)
