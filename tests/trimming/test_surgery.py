"""Cutting a checkpoint: which tensors, which rows, which type, which bytes."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from polydistill.catalog import arch
from polydistill.errors import PolydistillError
from polydistill.models import checkpoint
from polydistill.models.checkpoint import INDEX_NAME, Checkpoint
from polydistill.trimming import surgery
from polydistill.vocab.keep import KeepSet

ROWS, WIDTH = 9, 5
KEPT = [0, 2, 3, 8]
WORDS, BIAS, LAYER = "bert.embeddings.word_embeddings.weight", "cls.predictions.bias", "bert.encoder.layer.0.x.weight"
KINDS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def keep(ids: list[int] = KEPT, size: int = ROWS) -> KeepSet:
    return KeepSet.of(dict.fromkeys(ids, "corpus"), size)


def bert(**more: np.ndarray) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        WORDS: generator.normal(size=(ROWS, WIDTH)).astype(np.float32),
        BIAS: generator.normal(size=ROWS).astype(np.float32),
        LAYER: generator.normal(size=(WIDTH, WIDTH)).astype(np.float32),
        "bert.embeddings.position_ids": np.arange(4)[None],
        **more,
    }


def write(folder: Path, *shards: dict[str, Any]) -> Checkpoint:
    folder.mkdir(exist_ok=True)
    if len(shards) == 1:
        save_file(shards[0], folder / "model.safetensors", {"format": "pt"})
        return Checkpoint.open(folder)
    names = {}
    for i, shard in enumerate(shards):
        file = f"model-{i}.safetensors"
        save_file(shard, folder / file, {"format": "pt", "part": str(i)})
        names |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": 1, "total_parameters": 1, "note": "x"}, "weight_map": names}
    (folder / INDEX_NAME).write_text(json.dumps(index))
    return Checkpoint.open(folder)


def cut(source: Checkpoint, out: Path, *, rows: int = len(KEPT), model: str = "bert", **options: Any) -> dict[str, Any]:
    out.mkdir()
    cuts = surgery.plan_cuts(source, arch(model), [keep()], [rows])
    surgery.write_checkpoint(source, cuts, out, **options)
    return {name: a for file in sorted(out.glob("*.safetensors")) for name, a in load_file(file).items()}


def test_only_tensors_with_a_vocabulary_axis_are_cut(tmp_path: Path) -> None:
    tensors = bert()
    new = cut(write(tmp_path / "old", tensors), tmp_path / "new")
    assert new.keys() == tensors.keys()
    for name, before in tensors.items():
        expected = before[KEPT] if name in (WORDS, BIAS) else before
        assert new[name].dtype == before.dtype
        assert new[name].tobytes() == expected.tobytes()
    assert Checkpoint.open(tmp_path / "new").metadata[tmp_path / "new" / "model.safetensors"] == {"format": "pt"}


def test_the_second_axis_of_a_bias(tmp_path: Path) -> None:
    tensors = {
        "model.shared.weight": np.arange(ROWS * 2, dtype=np.float32).reshape(ROWS, 2),
        "final_logits_bias": np.arange(ROWS, dtype=np.float32)[None],
    }
    new = cut(write(tmp_path / "old", tensors), tmp_path / "new", model="mbart", rows=6)
    assert new["final_logits_bias"].tolist() == [[0, 2, 3, 8, -1e4, -1e4]]
    assert new["model.shared.weight"][4:].tolist() == [[0, 0], [0, 0]]


def test_a_row_may_be_moved_to_the_end(tmp_path: Path) -> None:
    tensors = bert()
    source = write(tmp_path / "old", tensors)
    moved = keep().with_last(2)
    assert moved.ids.tolist() == [0, 3, 8, 2]
    assert [moved.new(i) for i in KEPT] == [0, 3, 1, 2]
    (tmp_path / "new").mkdir()
    surgery.write_checkpoint(source, surgery.plan_cuts(source, arch("bert"), [moved], [4]), tmp_path / "new")
    assert load_file(tmp_path / "new" / "model.safetensors")[WORDS].tobytes() == tensors[WORDS][[0, 3, 8, 2]].tobytes()


def test_shards_without_a_vocabulary_tensor_are_copied_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = bert()
    first = {LAYER: tensors.pop(LAYER)}
    source = write(tmp_path / "old", first, tensors)
    opened: list[Path] = []
    real = surgery.RowReader
    monkeypatch.setattr(surgery, "RowReader", lambda file: opened.append(file) or real(file))
    steps: list[int] = []
    new = cut(source, tmp_path / "new", progress=steps.append)
    assert [p.name for p in opened] == ["model-1.safetensors"]
    before, after = ((tmp_path / side / "model-0.safetensors") for side in ("old", "new"))
    assert after.read_bytes() == before.read_bytes()
    assert after.stat().st_ino != before.stat().st_ino
    assert new[WORDS].shape == (len(KEPT), WIDTH)
    index = json.loads((tmp_path / "new" / INDEX_NAME).read_text())
    assert index["weight_map"] == json.loads((tmp_path / "old" / INDEX_NAME).read_text())["weight_map"]
    assert index["metadata"] == {
        "total_size": sum(a.nbytes for a in new.values()),
        "total_parameters": sum(a.size for a in new.values()),
        "note": "x",
    }
    assert sum(steps) >= index["metadata"]["total_size"]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write(tmp_path / "old", bert())
    cut(source, tmp_path / "one", rows=7)
    cut(source, tmp_path / "two", rows=7)
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()


def test_sizes_are_those_of_the_result(tmp_path: Path) -> None:
    source = write(tmp_path / "old", bert())
    for dtype in ("keep", "float16"):
        cuts = surgery.plan_cuts(source, arch("bert"), [keep()], [6])
        parameters, nbytes = surgery.sizes(source, cuts, dtype)
        new = cut(source, tmp_path / dtype, rows=6, dtype=dtype)
        assert parameters == sum(a.size for a in new.values())
        assert nbytes == sum(a.nbytes for a in new.values())


# ---- padding ----


@pytest.mark.parametrize("dtype", ["keep", "float16", "bfloat16"])
def test_padding_rows_are_zero_and_their_bias_is_never_chosen(dtype: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file as load_torch

    tensors = bert()
    cut(write(tmp_path / "old", tensors), tmp_path / "new", rows=8, dtype=dtype)
    new = load_torch(tmp_path / "new" / "model.safetensors")
    assert new[WORDS].shape == (8, WIDTH)
    assert not new[WORDS][4:].any()
    assert torch.allclose(new[BIAS][:4].float(), torch.from_numpy(tensors[BIAS][KEPT]), rtol=0.01)
    assert (new[BIAS][4:].float() < -9000).all()
    assert torch.isfinite(new[BIAS]).all()


# ---- misfits ----


def test_a_tokenizer_larger_than_the_matrix_is_refused(tmp_path: Path) -> None:
    tensors = bert()
    del tensors[BIAS]
    source = write(tmp_path / "old", tensors)
    with pytest.raises(PolydistillError, match="too small for 30 tokens"):
        surgery.plan_cuts(source, arch("bert"), [keep([1, ROWS], 30)], [2])


def test_embeddings_of_no_width_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "old", {**bert(), WORDS: np.zeros((ROWS, 0), np.float32)})
    with pytest.raises(PolydistillError, match=r"\[\d+, 0\], too small"):
        surgery.plan_cuts(source, arch("bert"), [keep()], [4])


def test_a_broken_index_is_not_written_anew(tmp_path: Path) -> None:
    source = write(tmp_path / "old", {WORDS: bert()[WORDS]}, {LAYER: bert()[LAYER]})
    index = tmp_path / "old" / INDEX_NAME
    index.write_text(json.dumps({**json.loads(index.read_text()), "metadata": [1]}))
    with pytest.raises(PolydistillError, match=r"index\.json: metadata is a list of 1, but must be an object"):
        cut(source, tmp_path / "new")


def test_a_model_without_embeddings_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "old", {LAYER: np.zeros((2, 2), np.float32), BIAS: np.zeros(ROWS, np.float32)})
    with pytest.raises(PolydistillError, match="none of the embedding tensors"):
        surgery.plan_cuts(source, arch("bert"), [keep()], [4])


@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 3), (3, ROWS)])
def test_a_tensor_of_that_length_that_nobody_names_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    source = write(tmp_path / "old", bert(**{"extra.head": np.zeros(shape, np.float32)}))
    with pytest.raises(PolydistillError, match=r"extra\.head .* does not name it") as caught:
        surgery.plan_cuts(source, arch("bert"), [keep()], [4])
    assert "`include_path`" in caught.value.hint


# ---- types ----


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", ["F32", "F16", "BF16"])
def test_casting_is_what_torch_does(source: str, target: str) -> None:
    generator = torch.Generator().manual_seed(0)
    spread = 10.0 ** torch.randint(-9, 4, (6000,), generator=generator)
    ties = [0.0, -0.0, 1.0, 65504.0, 6e-8, 1 + 2**-9, 1 + 3 * 2**-9, 1 + 2**-8 + 2**-20, 1 + 2**-11, 1 + 3 * 2**-11]
    values = torch.cat([torch.randn(6000, generator=generator) * spread, torch.tensor(ties)]).double()
    values = values[values.abs() <= 65504 if target == "F16" else slice(None)].to(KINDS[source])
    if target == "F16":
        values[values.double().abs() > 65504] = 0  # bfloat16 rounds up
    raw = values.view(torch.uint8).numpy().reshape(1, -1)
    got = surgery.cast(raw, source, target)
    assert got.dtype == np.uint8
    assert got.tobytes() == values.to(KINDS[target]).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("value", [70_000.0, -1e30])
def test_an_overflow_is_refused(value: float, tmp_path: Path) -> None:
    tensors = bert()
    tensors[LAYER][2, 3] = value
    source = write(tmp_path / "old", tensors)
    with pytest.raises(PolydistillError, match="too large for float16") as caught:
        cut(source, tmp_path / "half", dtype="float16")
    assert "bfloat16" in caught.value.hint
    assert np.isfinite(tensors[LAYER]).all()
    assert cut(source, tmp_path / "brain", dtype="bfloat16")


def test_infinite_weights_stay_infinite() -> None:
    raw = np.array([[np.inf, -np.inf, np.nan]], np.float32).view(np.uint8)
    got = surgery.cast(raw, "F32", "F16").view(np.float16)
    assert got[0, 0] == np.inf and got[0, 1] == -np.inf and np.isnan(got[0, 2])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_checkpoint_in_another_type(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file as load_torch

    monkeypatch.setattr(checkpoint, "CHUNK_BYTES", 30)
    tensors = bert()
    half = {n: a.astype(np.float16) if a.dtype.kind == "f" and n == LAYER else a for n, a in tensors.items()}
    cut(write(tmp_path / "old", half), tmp_path / "new", dtype=dtype)
    new = load_torch(tmp_path / "new" / "model.safetensors")
    for name, before in half.items():
        expected = torch.from_numpy(before[KEPT] if name in (WORDS, BIAS) else before)
        if before.dtype.kind == "f":
            expected = expected.to(getattr(torch, dtype))
        assert new[name].dtype == expected.dtype
        assert torch.equal(new[name], expected), name


# ---- failures of the writer ----


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_full_disk_is_not_worked_around(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel cannot copy, the bytes are read and written; where nothing can be written, that is the end."""

    def full(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    source = write(tmp_path / "old", bert())
    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OSError) as caught:
        cut(source, tmp_path / "new")
    assert caught.value.errno == number
