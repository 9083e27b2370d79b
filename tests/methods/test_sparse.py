"""Sparse fine-tuning: exactly K entries, an optimizer for these alone, differences that go on and come off."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from polydistill.cli import main
from polydistill.errors import PolydistillError, UsageError
from polydistill.methods.sparse.method import apply, combine, info, remove
from polydistill.models.checkpoint import Checkpoint
from polydistill.sparse import training as sparse
from polydistill.sparse.files import NAME, TASK, UNDO_NAME, Difference, base_hash, content_hash
from polydistill.sparse.files import combine as combined
from polydistill.sparse.training import (
    SparseAdamW,
    Stored,
    base_names,
    choose_entries,
    difference_of,
    entry_count,
    head_of,
    mask_gradients,
    save_parameters,
)
from polydistill.sparse.weights import keep_beside

# ---- which entries


def _naive(before: dict[str, Tensor], after: dict[str, Tensor], count: int) -> dict[str, list[int]]:
    every = [
        (-abs(float(a.float() - b.float())), name, i)
        for name in sorted(after)
        for i, (a, b) in enumerate(zip(after[name].flatten(), before[name].flatten(), strict=True))
    ]
    chosen: dict[str, list[int]] = {name: [] for name in sorted(after)}
    for _, name, i in sorted(every)[:count]:
        chosen[name].append(i)
    return {name: sorted(indices) for name, indices in chosen.items()}


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
    share=st.floats(0, 1),
    levels=st.sampled_from([1, 2, 5, 10**6]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_the_entries_are_those_of_a_plain_sort(
    sizes: list[int], seed: int, share: float, levels: int, dtype: torch.dtype
) -> None:
    make = torch.Generator().manual_seed(seed)

    def some() -> dict[str, Tensor]:
        drawn = [torch.randint(0, levels + 1, (n,), generator=make) / levels - 0.5 for n in sizes]
        return {f"t{i}": (values * 10.0 ** -(i * 3)).to(dtype) for i, values in enumerate(drawn)}

    before, after = some(), some()
    count = round(share * sum(sizes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse, "PIECE", 7)  # so that tensors are cut into pieces
        found = choose_entries(before, after, count)
    assert {name: indices.tolist() for name, indices in found.items()} == _naive(before, after, count)
    assert all(indices.dtype == torch.int64 for indices in found.values())


def test_ties_are_cut_by_name_and_index() -> None:
    before = {"b": torch.zeros(2, 3), "a": torch.zeros(4), "c": torch.zeros(2)}
    after = {"b": torch.full((2, 3), -2.0), "a": torch.tensor([2.0, 1, -2, 2]), "c": torch.tensor([5.0, 2])}
    found = choose_entries(before, after, 6)
    assert {n: i.tolist() for n, i in found.items()} == {"a": [0, 2, 3], "b": [0, 1], "c": [0]}
    nothing_moved = choose_entries(before, before, 5)
    assert {n: i.tolist() for n, i in nothing_moved.items()} == {"a": [0, 1, 2, 3], "b": [0], "c": []}


def test_dense_tensors_are_left_out_and_shared_memory_counts_once() -> None:
    shared = torch.ones(4)
    after = {"embedding": shared, "output": shared, "head": torch.full((3,), 9.0), "other": torch.zeros(2)}
    before = {name: torch.zeros_like(tensor) for name, tensor in after.items()}
    found = choose_entries(before, after, 6, dense={"head"})
    assert {n: i.tolist() for n, i in found.items()} == {"embedding": [0, 1, 2, 3], "other": [0, 1]}
    with pytest.raises(UsageError, match="7 of 6 entries"):
        choose_entries(before, after, 7, dense={"head"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(PolydistillError, match="became NaN or infinite"):
        choose_entries({"a": torch.zeros(3)}, {"a": torch.tensor([1.0, value, 2.0])}, 1)


MEMORY = """
import sys, torch
from pathlib import Path
from polydistill.sparse.training import Stored, choose_entries
from polydistill.records.record import peak_memory_bytes
stored = Stored(Path(sys.argv[1]))
choose_entries({"w": torch.zeros(9)}, {"w": torch.ones(9)}, 3)
names = sorted(stored)
after = {name: torch.empty(stored.checkpoint.tensors[name].shape).uniform_() for name in names}
parameters = sum(t.nbytes for t in after.values())
before = peak_memory_bytes()
chosen = choose_entries(stored, after, int(sys.argv[2]))
print(sum(len(i) for i in chosen.values()), parameters, peak_memory_bytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
def test_memory_stays_under_two_copies_of_the_parameters(tmp_path: Path) -> None:
    save_file({f"layer{i}": torch.zeros(2000, 2500) for i in range(8)}, tmp_path / "before.safetensors")
    arguments = [sys.executable, "-c", MEMORY, str(tmp_path / "before.safetensors"), "3200000"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    count, parameters, more = map(int, done.stdout.split())
    assert count == 3_200_000 and parameters == 160_000_000
    assert more < parameters  # beside the tuned parameters themselves: before, entries and all else


# ---- the optimizer


class Small(nn.Module):
    """A network whose base model is a part of it, as in transformers."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.base_model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.base_model(x))
        return out


def _train(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int, start: int = 0) -> None:
    for step in range(start, start + steps):
        make = torch.Generator().manual_seed(step)
        for _ in range(2):  # gradients accumulate
            x = torch.randn(6, 4, generator=make)
            (network(x) - x[:, :2]).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()


def _some(network: Small, every: int) -> dict[str, Tensor]:
    return {n: torch.arange(0, p.numel(), every) for n, p in network.named_parameters() if n not in head_of(network)}


def test_with_all_entries_it_is_adamw() -> None:
    ours, plain = Small(), Small()
    head = head_of(ours)
    assert head == {"head.weight", "head.bias"}
    no_decay = {n for n, _ in plain.named_parameters() if n.endswith("bias")}
    groups = [
        {"params": [p for n, p in plain.named_parameters() if n not in no_decay]},
        {"params": [p for n, p in plain.named_parameters() if n in no_decay], "weight_decay": 0.0},
    ]
    entries = _some(ours, 1)
    sparse_one = SparseAdamW(ours, entries, dense=head, no_decay=no_decay, lr=0.05, weight_decay=0.1)
    whole = torch.optim.AdamW(groups, lr=0.05, weight_decay=0.1)
    schedules = [torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.1, 10) for o in (sparse_one, whole)]
    with mask_gradients(ours, entries, dense=head):
        for step in range(10):
            for network, optimizer, schedule in ((ours, sparse_one, schedules[0]), (plain, whole, schedules[1])):
                _train(network, optimizer, 1, step)
                schedule.step()
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)


def test_only_the_chosen_entries_move_and_have_state() -> None:
    network = Small()
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    entries, head = _some(network, 3), head_of(network)
    entries["base_model.0.bias"] = torch.empty(0, dtype=torch.int64)
    optimizer = SparseAdamW(network, entries, dense=head, lr=0.05, weight_decay=0.5)
    with mask_gradients(network, entries, dense=head):
        _train(network, optimizer, 5)
    for name, parameter in network.named_parameters():
        moved = (parameter != before[name]).flatten().nonzero().flatten().tolist()
        assert moved == (list(range(parameter.numel())) if name in head else entries[name].tolist()), name
    chosen, dense = sum(map(len, entries.values())), sum(before[n].numel() for n in head)
    for moment in ("exp_avg", "exp_avg_sq"):
        assert sum(state[moment].numel() for state in optimizer.state.values()) == chosen + dense
    assert all(p.grad is None for p in network.parameters())


def test_the_hooks_leave_only_the_chosen_gradients_and_can_be_taken_away() -> None:
    network, x = Small(), torch.ones(3, 4)
    entries = {"base_model.0.weight": torch.tensor([2, 7])}
    network(x).square().sum().backward()
    full = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    hooks = mask_gradients(network, entries, dense={"head.bias"})
    for _ in range(2):
        network(x).square().sum().backward()
    gradients = {n: p.grad for n, p in network.named_parameters()}
    kept = torch.zeros(20)
    kept[[2, 7]] = 2 * full["base_model.0.weight"].flatten()[[2, 7]]
    torch.testing.assert_close(gradients["base_model.0.weight"], kept.view(5, 4))
    torch.testing.assert_close(gradients["head.bias"], 2 * full["head.bias"])
    others = set(full) - {"base_model.0.weight", "head.bias"}
    assert all(not gradients[n].any() for n in others)  # type: ignore[union-attr]
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1e9)
    assert norm.item() == pytest.approx(float((kept.square().sum() + (2 * full["head.bias"]).square().sum()).sqrt()))
    hooks.close()
    network.zero_grad()
    network(x).square().sum().backward()
    assert all(torch.equal(p.grad, full[n]) for n, p in network.named_parameters() if p.grad is not None)


def test_a_state_goes_on_only_with_the_same_entries() -> None:
    whole, stopped = Small(), Small()
    entries = _some(whole, 2)

    def tuned(network: Small) -> SparseAdamW:
        return SparseAdamW(network, entries, dense=head_of(network), lr=0.05)

    _train(whole, tuned(whole), 6)
    first = tuned(stopped)
    _train(stopped, first, 3)
    resumed = Small(seed=1)
    second = tuned(resumed)  # made before the weights are loaded, as the Trainer does
    resumed.load_state_dict(stopped.state_dict())
    second.load_state_dict(first.state_dict())
    _train(resumed, second, 3, start=3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    other = SparseAdamW(resumed, _some(resumed, 3), dense=head_of(resumed))
    with pytest.raises(PolydistillError, match="other entries"):
        other.load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="as a whole and in part"):
        SparseAdamW(resumed, entries, dense=entries)


def test_a_closure_is_called_before_the_step() -> None:
    network = Small()
    optimizer = SparseAdamW(network, _some(network, 2), lr=0.05)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = network(torch.ones(3, 4)).square().mean()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(5)]
    assert losses[-1] < losses[0]


# ---- with transformers


def _network(folder: Path, auto: str = "AutoModelForTokenClassification", **options: Any) -> Any:
    return getattr(transformers, auto).from_pretrained(folder, **options).eval()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without a head."""
    return tiny.model_folder("bert", "base", tmp_path_factory.mktemp("base") / "m", tokenizer="xlm-roberta")


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta", "distilbert", "albert"])
def test_k_counts_the_base_model_with_tied_weights_once(model_type: str, tmp_path: Path) -> None:
    folder = tiny.model_folder(model_type, "base", tmp_path / "m")
    network = _network(folder, "AutoModelForMaskedLM")
    embeddings = network.get_input_embeddings().weight
    assert network.get_output_embeddings().weight is embeddings
    sizes = {n: p.numel() for n, p in network.base_model.named_parameters()}
    assert entry_count(network, 0.08) == round(0.08 * sum(sizes.values()))
    names = base_names(network)
    assert sorted(names.values()) == sorted(sizes) and not any("decoder" in n for n in head_of(network))
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    with torch.no_grad():
        for p in network.parameters():
            p.add_(torch.randn_like(p) * 0.01)
    found = choose_entries(before, dict(network.named_parameters()), 500, dense=head_of(network))
    assert sum(map(len, found.values())) == 500 and set(found) == set(names)
    for density in (0, -0.1, 1.5, float("nan"), 1e-9):
        with pytest.raises(UsageError, match="is impossible"):
            entry_count(network, density)


def _arguments(folder: Path, **options: Any) -> transformers.TrainingArguments:
    values: dict[str, Any] = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_steps": 8,
        "learning_rate": 1e-2,
        "save_steps": 4,
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 3,
    }
    return transformers.TrainingArguments(output_dir=str(folder), **{**values, **options})


class _Killed(Exception):
    pass


class _Kill(transformers.TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 6:
            raise _Killed


def test_the_trainer_accumulates_clips_and_resumes_with_it(model: Path, tmp_path: Path) -> None:
    make = torch.Generator().manual_seed(0)
    rows = [
        {"input_ids": torch.randint(5, 100, (7,), generator=make), "labels": torch.randint(0, 2, (7,), generator=make)}
        for _ in range(24)
    ]

    def stage(work: Path, kill: bool = False, resume: bool = False) -> tuple[Any, dict[str, Tensor], Any]:
        torch.manual_seed(0)
        network = _network(model)
        before = {n: p.detach().clone() for n, p in network.named_parameters()}
        head = head_of(network)
        entries = {n: torch.arange(0, p.numel(), 5) for n, p in network.named_parameters() if n not in head}
        optimizer = SparseAdamW(network, entries, dense=head, lr=1e-2, weight_decay=0.1)
        trainer = transformers.Trainer(
            model=network,
            args=_arguments(work),
            train_dataset=rows,
            optimizers=(optimizer, None),
            callbacks=[_Kill] if kill else [],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        with mask_gradients(network, entries, dense=head):
            if kill:
                with pytest.raises(_Killed):
                    trainer.train()
            else:
                trainer.train(resume_from_checkpoint=resume or None)
        return network, before, (entries, head, optimizer, trainer.state.log_history)

    network, before, (entries, head, optimizer, logged) = stage(tmp_path / "whole")
    for name, parameter in network.named_parameters():
        unchanged = torch.ones(parameter.numel(), dtype=torch.bool)
        unchanged[entries.get(name, slice(None))] = False
        assert torch.equal(parameter.flatten()[unchanged], before[name].flatten()[unchanged]), name
        assert name.startswith("bert.pooler") or not torch.equal(parameter, before[name]), name
    states = [s["exp_avg"].numel() for s in optimizer.state.values()]
    assert sum(states) == sum(map(len, entries.values())) + sum(before[n].numel() for n in head)
    stage(tmp_path / "stopped", kill=True)
    resumed, _, (*_, logged_again) = stage(tmp_path / "stopped", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), resumed.parameters(), strict=True))
    losses, again = ([entry["loss"] for entry in history if "loss" in entry] for history in (logged, logged_again))
    assert len(losses) == 8 and losses == again


# ---- two stages, and files


def _tune(network: Any, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> None:
    make = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        ids, labels = torch.randint(5, 100, (4, 9), generator=make), torch.randint(0, 2, (4, 9), generator=make)
        network(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def _lottery(folder: Path, out: Path, *, seed: int, languages: tuple[str, ...], tasks: tuple[str, ...] = ()) -> Any:
    """Both stages on a model: (difference, the finished folder's network, theta 0)."""
    torch.manual_seed(seed)
    network = _network(folder, dtype=torch.float32)
    before = save_parameters(network, out.with_name(f"{out.name}-before.safetensors"))
    head = head_of(network)
    _tune(network, torch.optim.AdamW(network.parameters(), lr=1e-3), 4, seed)
    entries = choose_entries(before, dict(network.named_parameters()), entry_count(network, 0.08), dense=head)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(before[name])
    with mask_gradients(network, entries, dense=head):
        _tune(network, SparseAdamW(network, entries, dense=head, lr=1e-2), 6, seed + 1)
    difference = difference_of(network, before, entries, kind=TASK, languages=languages, tasks=tasks)
    network.save_pretrained(out)
    for file in folder.glob("tok*.json"):
        shutil.copy(file, out / file.name)
    keep_beside(out, difference, before.checkpoint)
    return difference, network, before


class _Made:
    """A model, and two differences made on it beside the folders that were tuned with them."""

    def __init__(self, folder: Path, place: Path) -> None:
        self.model, self.a, self.b = folder, place / "a", place / "b"
        self.difference, self.network, self.before = _lottery(folder, self.a, seed=1, languages=("en",), tasks=("ner",))
        _lottery(folder, self.b, seed=2, languages=("sw",))


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> _Made:
    return _Made(model, tmp_path_factory.mktemp("made"))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))


def _weights(folder: Path) -> dict[str, Tensor]:
    return {k: v for file in Checkpoint.open(folder).files for k, v in load_file(file).items()}


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def test_a_finished_folder_is_its_base_plus_the_difference(made: _Made, tmp_path: Path) -> None:
    difference, names = made.difference, base_names(made.network)
    assert difference.count == entry_count(made.network, 0.08)
    for name, parameter in made.network.named_parameters():
        if name not in names:
            assert not torch.equal(parameter, made.before[name])  # the head is tuned as a whole
            continue
        sums = made.before[name].flatten().clone()
        indices, values = difference.entries[names[name]]
        sums[indices] += torch.from_numpy(values)
        assert torch.equal(sums, parameter.detach().flatten()), name
    found = Difference.load(made.a / NAME)
    assert (found.base, found.kind, found.languages, found.tasks) == (difference.base, TASK, ("en",), ("ner",))
    assert all(
        np.array_equal(x, y)
        for n in difference.entries
        for x, y in zip(found.entries[n], difference.entries[n], strict=True)
    )
    result = apply(str(made.model), [made.a], tmp_path / "applied")
    assert result.entries == difference.count and result.base == difference.base_hash
    applied, finished = _weights(tmp_path / "applied"), _weights(made.a)
    assert all(torch.equal(finished[f"bert.{n}"], applied[n]) for n in difference.base)
    assert set(applied) - set(difference.base) == {"pooler.dense.weight", "pooler.dense.bias"}
    assert not transformers.AutoModel.from_pretrained(tmp_path / "applied", output_loading_info=True)[1]["missing_keys"]


def test_removing_restores_bit_for_bit_and_leaves_the_head(made: _Made, tmp_path: Path) -> None:
    apply(str(made.model), [made.a], tmp_path / "on")
    assert not _same(_weights(tmp_path / "on"), _weights(made.model))
    result = remove(str(tmp_path / "on"), None, tmp_path / "off")
    assert result.exact and not result.applied and _same(_weights(tmp_path / "off"), _weights(made.model))
    assert not list((tmp_path / "off").glob("difference*"))
    remove(str(made.a), made.a / NAME, tmp_path / "headed")
    tuned, restored, before = _weights(made.a), _weights(tmp_path / "headed"), made.before
    for name in tuned:
        assert torch.equal(restored[name], tuned[name] if name in head_of(made.network) else before[name])


def test_differences_add_up_in_any_way(made: _Made, tmp_path: Path) -> None:
    files = [made.a / NAME, made.b / NAME]
    combine(files, tmp_path / "both.safetensors")
    apply(str(made.model), [tmp_path / "both.safetensors"], tmp_path / "combined")
    apply(str(made.model), files, tmp_path / "at-once")
    apply(str(made.model), files[:1], tmp_path / "first")
    result = apply(str(tmp_path / "first"), files[1:], tmp_path / "second")
    expected = _weights(tmp_path / "combined")
    assert _same(_weights(tmp_path / "at-once"), expected) and _same(_weights(tmp_path / "second"), expected)
    assert [part["file"] for part in result.applied] == [NAME, "difference-2.safetensors"]
    a, b = (Difference.load(f) for f in files)
    assert result.entries == combined([a, b]).count < a.count + b.count  # some entries are in both
    assert result.languages == ("en", "sw")
    remove(str(tmp_path / "second"), None, tmp_path / "base")
    assert _same(_weights(tmp_path / "base"), _weights(made.model))
    left = remove(str(tmp_path / "second"), files[0], tmp_path / "only-b")
    apply(str(made.model), files[1:], tmp_path / "b")
    assert _same(_weights(tmp_path / "only-b"), _weights(tmp_path / "b"))
    assert [part["languages"] for part in left.applied] == [["sw"]]
    remove(str(tmp_path / "only-b"), None, tmp_path / "base-again")
    assert _same(_weights(tmp_path / "base-again"), _weights(made.model))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("shards", [1, 3])
def test_half_precision_and_shards(dtype: str, shards: int, tmp_path: Path) -> None:
    folder = tiny.model_folder("xlm-roberta", "base", tmp_path / "m", dtype=dtype, shards=shards)
    difference, network, _ = _lottery(folder, tmp_path / "tuned", seed=1, languages=("en",))
    assert len(Checkpoint.open(folder).files) >= min(2, shards)
    apply(str(folder), [tmp_path / "tuned"], tmp_path / "on")  # its base was the same values in float32
    on, kind = _weights(tmp_path / "on"), getattr(torch, dtype)
    tuned = dict(network.base_model.named_parameters())
    assert all(torch.equal(on[n], tuned[n].to(kind)) and on[n].dtype == kind for n in difference.base)
    remove(str(tmp_path / "on"), None, tmp_path / "off")
    assert _same(_weights(tmp_path / "off"), _weights(folder))
    index = "model.safetensors.index.json"
    assert shards == 1 or (tmp_path / "off" / index).read_bytes() == (folder / index).read_bytes()


def test_a_wrong_base_is_refused(made: _Made, tmp_path: Path) -> None:
    other = shutil.copytree(made.model, tmp_path / "other")
    weights = {name: tensor * 1.01 for name, tensor in _weights(other).items()}
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PolydistillError, match="made on other weights") as refused:
        apply(str(other), [made.a], tmp_path / "out")
    assert "`force`" in refused.value.hint and not (tmp_path / "out").exists()
    apply(str(other), [made.a], tmp_path / "out", force=True)
    assert not _same(_weights(tmp_path / "out"), _weights(other))
    remove(str(tmp_path / "out"), None, tmp_path / "back")
    assert _same(_weights(tmp_path / "back"), _weights(other))
    smaller = tiny.model_folder("bert", "base", tmp_path / "small", tokenizer="xlm-roberta", rows=500)
    with pytest.raises(PolydistillError, match=r"in the shape \[500"):
        apply(str(smaller), [made.a], tmp_path / "x", force=True)
    del weights["encoder.layer.1.output.dense.bias"]
    lacking = shutil.copytree(other, tmp_path / "lacking")
    save_file(weights, lacking / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PolydistillError, match=r"lacks encoder\.layer\.1\.output\.dense\.bias"):
        apply(str(lacking), [made.a], tmp_path / "x", force=True)
    _lottery(other, tmp_path / "foreign", seed=3, languages=("ro",))
    with pytest.raises(PolydistillError, match="made on different models"):
        combine([made.a, tmp_path / "foreign"], tmp_path / "c.safetensors")


def test_removing_without_what_was_overwritten(made: _Made, tmp_path: Path) -> None:
    apply(str(made.model), [made.a], tmp_path / "on")
    (tmp_path / "on" / UNDO_NAME).unlink()
    with pytest.raises(PolydistillError, match=r"has no difference.undo.safetensors.*`approximate`"):
        remove(str(tmp_path / "on"), None, tmp_path / "off")
    assert not (tmp_path / "off").exists()
    result = remove(str(tmp_path / "on"), None, tmp_path / "off", approximate=True)
    assert not result.exact
    back, base = _weights(tmp_path / "off"), _weights(made.model)
    assert all(torch.allclose(back[n], base[n], rtol=0, atol=1e-6) for n in base)


def test_removing_from_weights_that_were_changed_since(made: _Made, tmp_path: Path) -> None:
    apply(str(made.model), [made.a], tmp_path / "on")
    weights = _weights(tmp_path / "on")
    weights["embeddings.LayerNorm.bias"][0] += 1
    save_file(weights, tmp_path / "on" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PolydistillError, match="was changed after the difference was applied"):
        remove(str(tmp_path / "on"), None, tmp_path / "off")
    with pytest.raises(PolydistillError, match="made on other weights"):
        apply(str(tmp_path / "on"), [made.b], tmp_path / "off")


def test_what_does_not_belong_is_refused(made: _Made, tmp_path: Path) -> None:
    apply(str(made.model), [made.a], tmp_path / "on")
    with pytest.raises(UsageError, match=r"is applied to .* already"):
        apply(str(tmp_path / "on"), [made.a], tmp_path / "x")
    with pytest.raises(PolydistillError, match="not one of the differences"):
        remove(str(tmp_path / "on"), made.b, tmp_path / "x")
    with pytest.raises(PolydistillError, match=r"has no difference\.safetensors"):
        remove(str(made.model), None, tmp_path / "x")
    apply(str(tmp_path / "on"), [made.b], tmp_path / "two")
    with pytest.raises(PolydistillError, match="more than one difference"):
        info(tmp_path / "two")
    (tmp_path / "two" / "difference-2.safetensors").unlink()
    with pytest.raises(PolydistillError, match="is not the difference that was applied"):
        remove(str(tmp_path / "two"), made.a, tmp_path / "x")
    remove(str(tmp_path / "two"), None, tmp_path / "x")
    assert _same(_weights(tmp_path / "x"), _weights(made.model))


def test_a_broken_undo_file_is_refused(made: _Made, tmp_path: Path) -> None:
    apply(str(made.model), [made.a], tmp_path / "on")
    undo = tmp_path / "on" / UNDO_NAME
    for change in (_incomplete, _unordered, lambda tensors, metadata: metadata.pop("result")):
        _spoilt(made.a / UNDO_NAME, undo, change)
        with pytest.raises(PolydistillError, match="is broken"):
            remove(str(tmp_path / "on"), None, tmp_path / "off")
    undo.write_bytes((made.a / UNDO_NAME).read_bytes()[:-5])
    with pytest.raises(PolydistillError, match="not a whole safetensors file"):
        remove(str(tmp_path / "on"), None, tmp_path / "off")


def test_an_undo_file_that_leads_elsewhere_is_noticed_before_anything_is_written(made: _Made, tmp_path: Path) -> None:
    """Its hash is right, and what it puts back is not the base model."""
    apply(str(made.model), [made.a], tmp_path / "on")

    def other_values(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        tensors["embeddings.word_embeddings.weight.values"][0] += 1

    _spoilt(tmp_path / "on" / UNDO_NAME, tmp_path / "undo", other_values).replace(tmp_path / "on" / UNDO_NAME)
    with pytest.raises(PolydistillError, match=r"is not the base model: embeddings.word.*delete difference.undo"):
        remove(str(tmp_path / "on"), None, tmp_path / "off")
    assert not (tmp_path / "off").exists()


@pytest.mark.parametrize("what", [NAME, UNDO_NAME])
def test_a_bit_that_flips_is_noticed(what: str, made: _Made, tmp_path: Path) -> None:
    """Also in a value that might as well be another one."""
    apply(str(made.model), [made.a], tmp_path / "on")
    file, noticed = tmp_path / "on" / what, "broken: it was changed or damaged|not the difference that was applied"
    content = bytearray(file.read_bytes())
    tensor = Checkpoint.of_file(file).tensors["embeddings.word_embeddings.weight.values"]
    content[tensor.start + 1] ^= 4
    file.write_bytes(content)
    with pytest.raises(PolydistillError, match=noticed):
        remove(str(tmp_path / "on"), tmp_path / "on" / NAME, tmp_path / "off")
    with pytest.raises(PolydistillError, match=noticed):
        apply(str(tmp_path / "on"), [made.b], tmp_path / "off")
    if what == NAME:
        with pytest.raises(PolydistillError, match=noticed):
            apply(str(made.model), [tmp_path / "on"], tmp_path / "off")
        with pytest.raises(PolydistillError, match=noticed):
            combine([tmp_path / "on", made.b], tmp_path / "both.safetensors")
    assert not (tmp_path / "off").exists()


def test_keeping_beside_checks_that_the_folder_is_the_base_plus_the_difference(made: _Made, tmp_path: Path) -> None:
    folder = shutil.copytree(made.a, tmp_path / "a")
    weights = _weights(folder)
    weights["bert.embeddings.LayerNorm.bias"][0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AssertionError, match="is not the base plus"):
        keep_beside(folder, made.difference, made.before.checkpoint)


def _spoilt(path: Path, out: Path, change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> Path:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    tensors = load_file(path)
    change(tensors, metadata)
    metadata["sha256"] = content_hash(metadata, {name: t.numpy().tobytes() for name, t in tensors.items()})
    save_file(tensors, out, metadata=metadata)
    return out


def _out_of_range(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    tensors["embeddings.word_embeddings.weight.indices"][-1] = 10**6


def _unordered(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    name = "embeddings.word_embeddings.weight.indices"
    tensors[name] = tensors[name].flip(0).contiguous()


def _incomplete(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    del tensors["embeddings.word_embeddings.weight.values"]


def _not_a_number(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    tensors["embeddings.word_embeddings.weight.values"][0] = float("nan")


def _one_less(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    name = "embeddings.word_embeddings.weight"
    for part in ("indices", "values"):
        tensors[f"{name}.{part}"] = tensors[f"{name}.{part}"][1:].clone()


def _other_base(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    metadata["base_tensors"] = metadata["base_tensors"].replace("32", "23", 1)


def _no_metadata(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    del metadata["languages"]


def _deep_metadata(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    metadata["languages"] = "[" * 100_000


def _infinite_base(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    metadata["base_tensors"] = metadata["base_tensors"].replace("32", "Infinity", 1)


SPOILT = [
    _out_of_range,
    _unordered,
    _incomplete,
    _not_a_number,
    _one_less,
    _other_base,
    _no_metadata,
    _deep_metadata,
    _infinite_base,
]


@pytest.mark.parametrize("change", SPOILT)
def test_a_broken_difference_is_refused(
    change: Callable[[dict[str, Tensor], dict[str, str]], None], made: _Made, tmp_path: Path
) -> None:
    file = _spoilt(made.a / NAME, tmp_path / "d.safetensors", change)
    with pytest.raises(PolydistillError, match="is broken"):
        Difference.load(file)


def test_trimming_leaves_differences_behind(made: _Made, tmp_path: Path) -> None:
    from polydistill.methods.trim.method import trim
    from polydistill.methods.trim.options import TrimOptions

    apply(str(made.model), [made.a], tmp_path / "on")
    (tmp_path / "ro.txt").write_text("\n".join(tiny.sentences("ro")))
    trim(
        TrimOptions(
            str(tmp_path / "on"), ("ro",), text=(str(tmp_path / "ro.txt"),), output=tmp_path / "t", verify=False
        )
    )
    assert not list((tmp_path / "t").glob("difference*"))


# ---- the command line


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def say(*args: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(["sparse", *map(str, args)])
            sys.exit(0)
        return (int(stop.value.code or 0), *capsys.readouterr())

    return say


def test_the_commands_print_one_object_and_leave_record_and_card(
    made: _Made, tmp_path: Path, say: Callable[..., tuple[int, str, str]]
) -> None:
    def result(*args: str | Path) -> dict[str, Any]:
        code, out, err = say(*args, "--json")
        assert code == 0 and out.count("\n") == 1, err
        found: dict[str, Any] = json.loads(out)
        return found

    facts = result("info", made.a)
    assert facts["command"] == "sparse info" and facts["entries"] == made.difference.count
    assert facts["density"] == pytest.approx(0.08, abs=1e-4) and facts["tasks"] == ["ner"]
    assert facts["base"] == base_hash(made.difference.base) == made.difference.base_hash
    assert facts["bytes"] == (made.a / NAME).stat().st_size
    assert sum(g["entries"] for g in facts["groups"]) == facts["entries"]
    assert sum(g["share"] for g in facts["groups"]) == pytest.approx(1)
    assert {"embeddings", "encoder.layer.0", "encoder.layer.1"} <= {g["group"] for g in facts["groups"]}
    on = result("apply", made.model, made.a / NAME, "-o", tmp_path / "on")
    assert on["command"] == "sparse apply" and on["applied"][0]["sha256"] == facts["sha256"]
    record = json.loads((tmp_path / "on" / "polydistill.json").read_text())
    assert record["command"] == "sparse apply" and record["result"] == on and record["parent"] is None
    card = (tmp_path / "on" / "README.md").read_text()
    assert "ner in en" in card and f"{on['entries']:,} of its" in card
    off = result("remove", tmp_path / "on", "-o", tmp_path / "off")
    assert off["exact"] and off["applied"] == [] and off["base"] == on["base"]
    record = json.loads((tmp_path / "off" / "polydistill.json").read_text())
    assert record["parent"]["command"] == "sparse apply"
    assert "bit for bit" in (tmp_path / "off" / "README.md").read_text()
    both = result("combine", made.a, made.b, "-o", tmp_path / "c.safetensors")
    assert both["languages"] == ["en", "sw"] and both["kind"] == TASK and both["entries"] > facts["entries"]
    for args in (("info", made.b), ("apply", made.model, made.b, "-o", tmp_path / "b")):
        code, out, _ = say(*args)
        assert code == 0 and "difference.safetensors" in out
    code, out, _ = say("remove", tmp_path / "b", "-o", tmp_path / "none")
    assert code == 0 and "none" in out


def test_bad_input_is_one_sentence_and_a_way_out(
    made: _Made, tmp_path: Path, say: Callable[..., tuple[int, str, str]]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    (tmp_path / "cut.safetensors").write_bytes((made.a / NAME).read_bytes()[:-9])
    (tmp_path / "text.safetensors").write_text("no tensors")
    file, new = made.a / NAME, tmp_path / "new"
    cases: list[tuple[tuple[str | Path, ...], int, str]] = [
        (("apply", made.model, tmp_path / "missing.safetensors", "-o", new), 1, "There is no file"),
        (("apply", made.model, tmp_path / "cut.safetensors", "-o", new), 1, "is not a whole safetensors file"),
        (("apply", made.model, tmp_path / "text.safetensors", "-o", new), 1, "is not a whole safetensors file"),
        (("apply", made.model, made.model / "model.safetensors", "-o", new), 1, "is not a sparse difference"),
        (("apply", made.model, file, "-o", tmp_path / "full"), 1, "already exists"),
        (("apply", made.model, file, "-o", made.model, "--overwrite"), 2, "which is read here"),
        (("apply", made.model, file, "-o", made.model / "new"), 2, "lies in the folder of the model"),
        (("apply", made.model, file, file, "-o", new), 2, "given twice"),
        (("apply", made.model, "-o", new), 2, "Missing argument"),
        (("apply", made.model, file), 2, "Missing option"),
        (("apply", tmp_path / "nothing", file, "-o", new), 2, "There is no folder"),
        (("remove", made.model, "-o", new), 1, "has no difference.safetensors"),
        (("combine", file, "-o", tmp_path / "c"), 2, "two differences"),
        (("combine", file, file, "-o", tmp_path / "c"), 2, "given twice"),
        (("combine", file, made.b, "-o", tmp_path / "cut.safetensors"), 1, "already exists"),
        (("info", tmp_path / "full"), 1, "has no difference.safetensors"),
        (("info", made.a / UNDO_NAME), 1, "is not a sparse difference"),
    ]
    for args, code, message in cases:
        said, out, err = say(*args)
        assert (said, out) == (code, "") and message in err and "bug" not in err, (args, err)
    assert (tmp_path / "full" / "mine").read_text() == "x" and not new.exists() and not list(tmp_path.glob(".*"))


def test_looking_at_a_difference_needs_no_torch(made: _Made) -> None:
    code = (
        "import sys\nfrom polydistill.cli import main\n"
        f"try: main(['sparse', 'info', {str(made.a)!r}, '--json'])\nexcept SystemExit: pass\n"
        "print({'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()" and '"sparse info"' in done.stdout


def test_stored_tensors_are_read_one_by_one(made: _Made) -> None:
    stored = Stored(made.a)
    weights = _weights(made.a)
    assert len(stored) == len(weights) and all(torch.equal(stored[name], weights[name]) for name in stored)
