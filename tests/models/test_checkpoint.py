"""Safetensors as bytes: broken files are refused, rows are gathered exactly, and an output is whole or not there."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from polydistill.errors import PolydistillError
from polydistill.models import checkpoint
from polydistill.models.checkpoint import INDEX_NAME, Checkpoint, NewTensor, RowReader, copy_file

SINGLE = "model.safetensors"


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def entry(start: int, stop: int, *shape: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


GOOD = safetensors({"a": entry(0, 8, 2), "__metadata__": {"format": "pt"}}, bytes(8))
BROKEN = {
    "empty": b"",
    "no length": b"\x08\x00",
    "header cut off": GOOD[:20],
    "length beyond the file": safetensors({}, length=1 << 40),
    "length of 2**64 - 1": safetensors({}, length=(1 << 64) - 1),
    "header is no JSON": safetensors(b'{"a": {'),
    "header is not UTF-8": safetensors(b'{"\xff\xfe": 1}'),
    "header is a list": safetensors([1, 2]),
    "entry is no object": safetensors({"a": 3}),
    "entry lacks its offsets": safetensors({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "one offset": safetensors({"a": {**entry(0, 8, 2), "data_offsets": [0]}}, bytes(8)),
    "shape of words": safetensors({"a": {**entry(0, 8, 2), "shape": ["two"]}}, bytes(8)),
    "negative shape": safetensors({"a": entry(0, 8, -1, -2)}, bytes(8)),
    "data cut off": GOOD[:-1],
    "data too long": GOOD + b"\x00",
    "offsets beyond the data": safetensors({"a": entry(0, 16, 4)}, bytes(8)),
    "offsets that do not fit the shape": safetensors({"a": entry(0, 8, 3)}, bytes(8)),
    "overlapping tensors": safetensors({"a": entry(0, 8, 2), "b": entry(4, 12, 2)}, bytes(12)),
    "a hole between tensors": safetensors({"a": entry(0, 8, 2), "b": entry(12, 20, 2)}, bytes(20)),
    "offsets backwards": safetensors({"a": entry(8, 0, 2)}, bytes(8)),
    "metadata is a list": safetensors({"__metadata__": [1], "a": entry(0, 8, 2)}, bytes(8)),
    "metadata of numbers": safetensors({"__metadata__": {"format": 1}, "a": entry(0, 8, 2)}, bytes(8)),
    "an offset without end": safetensors(GOOD[8:].rstrip(b"\x00").replace(b"8]", b"Infinity]"), bytes(8)),
    "a shape of true": safetensors({"a": entry(0, 8, True, 2)}, bytes(8)),
    "an axis of 2**60": safetensors({"a": entry(0, 8, 2), "b": entry(8, 8, 1 << 60, 0)}, bytes(8)),
    "a type that is a list": safetensors({"a": {**entry(0, 8, 2), "dtype": ["F32"]}}, bytes(8)),
    "a tensor twice": safetensors(
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        bytes(8),
    ),
    "nested 100,000 times": safetensors(b'{"a":' * 100_000),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / SINGLE).write_bytes(BROKEN[name])
    with pytest.raises(PolydistillError, match="not a whole safetensors file") as caught:
        Checkpoint.open(tmp_path)
    assert SINGLE in str(caught.value)
    assert caught.value.hint


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / SINGLE).write_bytes(safetensors({"a": entry(0, 8, 2, dtype="F4")}, bytes(8)))
    with pytest.raises(PolydistillError, match="unknown type F4"):
        Checkpoint.open(tmp_path)


def test_what_safetensors_writes_is_read(tmp_path: Path) -> None:
    tensors = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.arange(5, dtype=np.float16),
        "scalar": np.array(3, np.int64),
        "none": np.zeros((0, 4), np.float32),
        "flag": np.array([True, False]),
    }
    save_file(tensors, tmp_path / SINGLE, {"format": "pt"})
    found = Checkpoint.open(tmp_path)
    assert {n: (t.shape, t.nbytes) for n, t in found.tensors.items()} == {
        n: (a.shape, a.nbytes) for n, a in tensors.items()
    }
    assert found.metadata[tmp_path / SINGLE] == {"format": "pt"}
    assert found.parameters == sum(a.size for a in tensors.values())
    raw = (tmp_path / SINGLE).read_bytes()
    for name, tensor in found.tensors.items():
        assert raw[tensor.start : tensor.start + tensor.nbytes] == tensors[name].tobytes()


def write_index(folder: Path, names: Any) -> None:
    (folder / INDEX_NAME).write_text(json.dumps({"metadata": {}, "weight_map": names}))


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "sub/a.safetensors", ".."])
def test_an_index_that_points_outside_is_refused(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path / "secret.safetensors", folder / "sub" / "a.safetensors"):
        place.write_bytes(GOOD)
    write_index(folder, {"a": name})
    with pytest.raises(PolydistillError, match=r"out of its folder|in another folder"):
        Checkpoint.open(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.safetensors").write_bytes(GOOD)
    write_index(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    with pytest.raises(PolydistillError, match=r"two\.safetensors, which is missing"):
        Checkpoint.open(tmp_path)


NO_INDEX = [b"", b"{", b"[]", b"{}", b'{"weight_map": [1]}', b'{"weight_map": {"a": 1}}', b"\xff"]


@pytest.mark.parametrize("content", NO_INDEX)
def test_a_broken_index_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / INDEX_NAME).write_bytes(content)
    (tmp_path / SINGLE).write_bytes(GOOD)
    with pytest.raises(PolydistillError, match="weight_map"):
        Checkpoint.open(tmp_path)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.safetensors").write_bytes(GOOD)
    write_index(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    with pytest.raises(PolydistillError, match="is in two files"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "tf_model.h5", "flax_model.msgpack"])
def test_a_pickle_alone_is_refused_and_never_opened(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(PolydistillError, match=name) as caught:
        Checkpoint.open(tmp_path)
    assert "save_pretrained" in caught.value.hint
    assert not (tmp_path / "ran").exists()


def test_several_files_need_an_index(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.safetensors").write_bytes(GOOD)
    with pytest.raises(PolydistillError, match="2 safetensors files but no"):
        Checkpoint.open(tmp_path)
    (tmp_path / "two.safetensors").unlink()
    assert list(Checkpoint.open(tmp_path).tensors) == ["a"]


def test_no_weights(tmp_path: Path) -> None:
    with pytest.raises(PolydistillError, match=r"no \*\.safetensors"):
        Checkpoint.open(tmp_path)


# ---- rows ----


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int64"])
@pytest.mark.parametrize("chunk", [1, 24, 100, 1 << 24])
def test_rows_are_what_numpy_takes(
    axis: int, dtype: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "CHUNK_BYTES", chunk)
    generator = np.random.default_rng(axis)
    array = generator.integers(0, 200, (7, 11, 5)).astype(dtype)
    save_file({"x": array, "before": np.arange(3, dtype=np.uint8)}, tmp_path / SINGLE)
    tensor = Checkpoint.open(tmp_path).tensors["x"]
    length = array.shape[axis]
    choices = [np.arange(length), np.array([0]), np.array([length - 1]), np.arange(0, length, 2), np.array([1, 2, 4])]
    shuffled = generator.permutation(length)
    for ids in [*choices, shuffled, shuffled[:3], np.array([0, 4, 3])]:
        with RowReader(tmp_path / SINGLE) as reader:
            chunks = list(reader.rows(tensor, ids, axis))
        assert b"".join(c.tobytes() for c in chunks) == array.take(ids, axis).tobytes()
        width = tensor.nbytes // int(np.prod(array.shape[: axis + 1]))
        assert all(c.nbytes <= max(chunk, width) for c in chunks)


@pytest.mark.parametrize("chunk", [1, 7, 8, 1000])
def test_a_whole_tensor_in_chunks(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "CHUNK_BYTES", chunk)
    array = np.arange(30, dtype=np.int16).reshape(5, 6)
    save_file({"x": array}, tmp_path / SINGLE)
    with RowReader(tmp_path / SINGLE) as reader:
        chunks = list(reader.whole(Checkpoint.open(tmp_path).tensors["x"]))
    assert b"".join(c.tobytes() for c in chunks) == array.tobytes()
    assert all(c.nbytes <= chunk for c in chunks)


def test_a_writer_that_writes_too_little_is_caught(tmp_path: Path) -> None:
    bad = NewTensor("x", "F32", (2,), lambda out: checkpoint.write_all(out, bytes(7)))
    with pytest.raises(AssertionError, match="7 bytes instead of 8"):
        checkpoint.write_safetensors(tmp_path / SINGLE, [bad], {})


def test_what_is_written_is_read_by_safetensors(tmp_path: Path) -> None:
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(3, 2), "a": np.arange(3, dtype=np.int64)}
    kinds = {"f": "F32", "i": "I64"}
    new = [
        NewTensor(n, kinds[a.dtype.kind], a.shape, lambda out, a=a: checkpoint.write_all(out, a.tobytes()))
        for n, a in arrays.items()
    ]
    checkpoint.write_safetensors(tmp_path / SINGLE, new, {"format": "pt"})
    found = load_file(tmp_path / SINGLE)
    assert all(np.array_equal(found[n], a) and found[n].dtype == a.dtype for n, a in arrays.items())
    assert Checkpoint.open(tmp_path).metadata[tmp_path / SINGLE] == {"format": "pt"}


# ---- copies ----


@pytest.mark.parametrize("broken", [None, errno.EXDEV, errno.ENOSYS, errno.EINVAL])
def test_a_copy_has_the_same_bytes_and_is_no_link(
    broken: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the kernel cannot copy, and where it stops half-way."""
    data = np.random.default_rng(0).bytes(100_000)
    (tmp_path / "from").write_bytes(data)
    real = os.copy_file_range

    def some(source: int, target: int, count: int) -> int:
        if broken and os.lseek(source, 0, os.SEEK_CUR) > 30_000:
            raise OSError(broken, os.strerror(broken))
        return real(source, target, min(count, 12_345))

    monkeypatch.setattr(os, "copy_file_range", some)
    monkeypatch.setattr(checkpoint, "CHUNK_BYTES", 999)
    copy_file(tmp_path / "from", tmp_path / "deep" / "to")
    assert (tmp_path / "deep" / "to").read_bytes() == data
    (tmp_path / "deep" / "to").write_bytes(b"changed")
    assert (tmp_path / "from").read_bytes() == data


def test_a_source_that_shrinks_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "from").write_bytes(bytes(10))
    with (tmp_path / "to").open("wb", buffering=0) as out, pytest.raises(PolydistillError, match="became shorter"):
        checkpoint.copy_bytes(tmp_path / "from", 0, 11, out)
    monkeypatch.delattr(os, "copy_file_range")
    with (tmp_path / "to").open("wb", buffering=0) as out, pytest.raises(PolydistillError, match="became shorter"):
        checkpoint.copy_bytes(tmp_path / "from", 0, 11, out)


def test_an_empty_tensor_may_lie_anywhere(tmp_path: Path) -> None:
    for order in (("a", "none", "b"), ("none", "a", "b"), ("b", "a", "none")):
        entries = {"a": entry(0, 8, 2), "none": entry(8, 8, 0, 3), "b": entry(8, 12, 1), "first": entry(0, 0, 0)}
        header = {name: entries[name] for name in (*order, "first")}
        (tmp_path / SINGLE).write_bytes(safetensors(header, bytes(12)))
        assert Checkpoint.open(tmp_path).parameters == 3
