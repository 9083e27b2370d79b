"""A bit that flips, or an end that is missing, in what is promised exact: refused, or without effect."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from amount import cases
from damage import damage

from polydistill.errors import PolydistillError
from polydistill.evaluation import cache
from polydistill.files.sealing import SEAL, is_whole, seal
from polydistill.methods.sparse.method import apply, remove
from polydistill.models.checkpoint import Checkpoint
from polydistill.sparse.files import NAME, TASK, UNDO_NAME, BaseTensor, Difference, Entries
from polydistill.sparse.weights import tensor_hash

pytestmark = pytest.mark.faults


def changed(model: Path, seed: int) -> Difference:
    """A difference of a few hundred entries."""
    tensors, random = Checkpoint.open(model).tensors, np.random.default_rng(seed)
    base = {name: BaseTensor(t.shape, tensor_hash(t)) for name, t in tensors.items()}
    entries = {}
    for name in sorted(base)[::3]:
        indices = np.sort(random.choice(base[name].elements, min(20, base[name].elements), replace=False))
        entries[name] = Entries(indices, random.normal(size=len(indices)).astype(np.float32))
    return Difference(entries, base, TASK, ("en",), (f"task-{seed}",))


def weights(folder: Path) -> dict[str, str]:
    return {name: tensor_hash(tensor) for name, tensor in Checkpoint.open(folder).tensors.items()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_difference_is_taken_off_exactly_or_not_at_all(dtype: str, tmp_path: Path) -> None:
    model = tiny.model_folder("bert", "base", tmp_path / "model", tokenizer="xlm-roberta", dtype=dtype)
    for seed in (1, 2):
        changed(model, seed).save(tmp_path / f"{seed}.safetensors")
    apply(str(model), [tmp_path / "1.safetensors", tmp_path / "2.safetensors"], tmp_path / "both")
    apply(str(model), [tmp_path / "1.safetensors"], tmp_path / "first")
    chance, refused = random.Random(dtype), 0
    for _ in range(cases(20)):
        shutil.copytree(tmp_path / "both", tmp_path / "here")
        file = tmp_path / "here" / chance.choice([NAME, UNDO_NAME, UNDO_NAME, "difference-2.safetensors"])
        case = damage(file, chance)
        one = chance.random() < 0.5  # of the two, or both
        off = tmp_path / "2.safetensors" if one else None
        try:
            result = remove(str(tmp_path / "here"), off, tmp_path / "out")
        except PolydistillError:
            refused += 1
            assert not (tmp_path / "out").exists(), case
        else:
            assert result.exact and weights(tmp_path / "out") == weights(tmp_path / "first" if one else model), case
            shutil.rmtree(tmp_path / "out")
        try:
            apply(str(model), [file], tmp_path / "out")
        except PolydistillError:
            pass
        else:
            pytest.fail(f"it was applied: {case}")
        shutil.rmtree(tmp_path / "here")
    assert refused >= cases(10)


def test_a_damaged_folder_or_cached_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))
    chance = random.Random(3)
    key = cache.key_of({"task": "nli"})
    (tmp_path / "sealed/below").mkdir(parents=True)
    for name in ("a", "below/b"):
        (tmp_path / "sealed" / name).write_bytes(chance.randbytes(200))
    seal(tmp_path / "sealed")
    cache.save(key, {"task": "nli"}, [{"label": "yes", "probabilities": [0.1, 0.9]}] * 5, [])
    said, predictions = cache.load(key), cache.place(key).read_bytes()
    assert said and is_whole(tmp_path / "sealed")
    for _ in range(cases(300)):
        case = damage(cache.place(key), chance)
        assert cache.load(key) in (None, said), case
        cache.place(key).write_bytes(predictions)
        file = tmp_path / "sealed" / chance.choice(["a", "below/b", SEAL])
        content = file.read_bytes()
        case = damage(file, chance)
        assert not is_whole(tmp_path / "sealed"), case
        file.write_bytes(content)
    (tmp_path / "sealed" / SEAL).write_text('["a"]')
    assert not is_whole(tmp_path / "sealed")
