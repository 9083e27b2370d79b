"""Sparse fine-tuning: only the weights that a first tuning moved the most are trained (LT-SFT).

Ansell et al. 2022 (arXiv 2110.07560, section 3.1); with distillation, Ansell et al. 2023 (arXiv 2306.01709, section
3.2). First everything is tuned; `choose_entries` finds the K weights that moved the most; from the beginning again,
head and all, `SparseAdamW` and `mask_gradients` tune these K and the head alone; `difference_of` is what comes out.
Names are the network's, as in `named_parameters`; tied weights have one name and count once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from polydistill.errors import PolydistillError, UsageError
from polydistill.models.checkpoint import Checkpoint
from polydistill.sparse.files import BaseTensor, Difference, Entries, values_hash

PIECE = 1 << 20  # values compared at a time
DIGIT = 16  # bits of a float that one pass over the weights decides
NOT_FINITE = 0x7F80  # the first digit of infinity and of what is no number


class Stored(Mapping[str, Tensor]):
    """The tensors of a safetensors file, or of a model folder, each read when it is asked for.

    Args:
        place: The file or the folder.

    Raises:
        PolydistillError: It is missing or broken.
    """

    def __init__(self, place: Path) -> None:
        self.checkpoint = Checkpoint.open(place) if place.is_dir() else Checkpoint.of_file(place)

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self.checkpoint.tensors[name].file, "pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.checkpoint.tensors)

    def __len__(self) -> int:
        return len(self.checkpoint.tensors)


def save_parameters(network: nn.Module, file: Path) -> Stored:
    """Writes all parameters, tied ones once, for `Stored`; the file appears whole or not at all."""
    partial_file = file.with_name(f".{file.name}.partial-{os.getpid()}")
    save_file({name: p.detach().contiguous() for name, p in network.named_parameters()}, partial_file)
    partial_file.replace(file)
    return Stored(file)


def base_names(network: Any) -> dict[str, str]:
    """Name in the network -> name in its base model, for the parameters of the base model."""
    inside = {id(parameter): name for name, parameter in network.base_model.named_parameters()}
    return {name: inside[id(p)] for name, p in network.named_parameters() if id(p) in inside}


def head_of(network: Any) -> frozenset[str]:
    """The names of the parameters that are not in the base model: they stay dense."""
    return frozenset(name for name, _ in network.named_parameters()) - base_names(network).keys()


def entry_count(network: Any, density: float) -> int:
    """K: that share of the base model's parameters, tied ones once, embeddings included, the head not.

    Raises:
        UsageError: It is no share, or one that leaves nothing.
    """
    parameters = sum(p.numel() for p in network.base_model.parameters())
    count = round(density * parameters) if 0 < density <= 1 else 0
    if not count:
        raise UsageError(f"A density of {density:g} is impossible.", "Give a share, such as 0.08.")
    return count


@torch.no_grad()
def choose_entries(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], count: int, *, dense: Collection[str] = ()
) -> dict[str, Tensor]:
    """The entries with the largest |after - before|, under one threshold for all tensors, and exactly `count` of them.

    The threshold is found digit by digit: floats that are not negative have the order of their bits, so one histogram
    of their first 16 bits and one of the last 16 tell it. Beside `after`, what is held is one tensor of `before`.

    Args:
        before: Name -> tensor; `Stored` reads one at a time.
        after: Name -> tensor; those that share their memory count once, under the name that comes first.
        count: How many entries.
        dense: Names that are left out: the head, and what is frozen.

    Returns:
        Name, in order -> (n,) int64 ascending flat indices on the CPU. Of entries that moved equally far those of the
        first names and then the first indices are taken.

    Raises:
        UsageError: There are not so many entries.
        PolydistillError: Some weights are no numbers.
    """
    tensors = _once({name: after[name] for name in sorted(after) if name not in dense})
    if not 0 <= count <= (size := sum(t.numel() for t in tensors.values())):
        raise UsageError(f"{count:,} of {size:,} entries cannot be chosen.", "Lower the density.")

    def moved(name: str) -> Iterator[Tensor]:
        return _movements(before[name], tensors[name])

    threshold, equal = _threshold(lambda: (bits for name in tensors for bits in moved(name)), count)
    chosen = {}
    for name in tensors:
        found, start = [], 0
        for bits in moved(name):
            above = bits > threshold
            ties = (bits == threshold).nonzero().flatten()[:equal]
            above[ties] = True
            equal -= len(ties)
            found.append(above.nonzero().flatten().cpu() + start)
            start += len(bits)
        chosen[name] = torch.cat(found) if found else torch.empty(0, dtype=torch.int64)
    return chosen


def _once(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors without those that lie where an earlier one lies."""
    first: dict[Any, str] = {}
    for name, tensor in tensors.items():
        first.setdefault((tensor.data_ptr(), tensor.shape) if tensor.numel() else name, name)
    return {name: tensors[name] for name in first.values()}


def _movements(before: Tensor, after: Tensor) -> Iterator[Tensor]:
    """(n,) int32 at a time: the bits of |after - before| as float32, which are ordered as the values are."""
    wide = torch.promote_types(after.dtype, torch.float32)
    old, new = before.detach().reshape(-1), after.detach().reshape(-1)
    for start in range(0, new.numel(), PIECE):
        piece = new[start : start + PIECE].to(wide) - old[start : start + PIECE].to(new.device, wide)
        yield piece.abs_().float().view(torch.int32)


def _threshold(movements: Callable[[], Iterator[Tensor]], count: int) -> tuple[int, int]:
    """(the bits of the `count`-th largest movement, how many of those that are equal to it are among the `count`)."""
    if not count:
        return 2**31 - 1, 0
    found, left = 0, count
    for shift in (DIGIT, 0):
        histogram = torch.zeros(1 << DIGIT, dtype=torch.int64)
        for bits in movements():
            digits = bits >> DIGIT if shift else bits[bits >> DIGIT == found] & ((1 << DIGIT) - 1)
            histogram += torch.bincount(digits, minlength=1 << DIGIT).cpu()
        if shift and histogram[NOT_FINITE:].any():
            raise PolydistillError("Some weights became NaN or infinite.", "Lower the learning rate.")
        largest_first = histogram.flip(0)
        reached = largest_first.cumsum(0)
        place = int(torch.searchsorted(reached, left))
        left -= int(reached[place] - largest_first[place])
        found = found << DIGIT | (1 << DIGIT) - 1 - place
    return found, left


class _Part(NamedTuple):
    """Some entries of a parameter.

    Attributes:
        parameter: The whole of it.
        indices: (n,) which.
        values: (n,) what the optimizer sees.
    """

    parameter: nn.Parameter
    indices: Tensor
    values: Tensor

    def gather(self) -> None:
        """From the network: the truth is there, also after a checkpoint was loaded into it."""
        self.values.copy_(self.parameter.view(-1)[self.indices])
        gradient = self.parameter.grad
        self.values.grad = None if gradient is None else gradient.reshape(-1)[self.indices]

    def scatter(self) -> None:
        """Back to the network."""
        self.parameter.view(-1)[self.indices] = self.values
        self.values.grad = None


class SparseAdamW(torch.optim.AdamW):
    """AdamW over some entries of each parameter, and over whole ones: state and weight decay exist for these alone.

    Its parameters are the compact values of the entries, so that states, schedulers and checkpoints work as always.
    The network must be on its device already, and losses must not be scaled (bfloat16 needs that no more than float32).

    Args:
        network: The network.
        entries: Name -> (n,) flat indices of the entries to train.
        dense: Names of parameters to train as a whole.
        no_decay: Names without weight decay.
        options: Of AdamW: `lr`, `betas`, `eps`, `weight_decay`.
    """

    def __init__(
        self,
        network: nn.Module,
        entries: Mapping[str, Tensor],
        *,
        dense: Collection[str] = (),
        no_decay: Collection[str] = (),
        **options: Any,
    ) -> None:
        if twice := sorted(set(dense) & entries.keys()):
            raise ValueError(f"{twice[0]} is to be trained as a whole and in part")
        self._network, self._parts = network, []
        groups: tuple[list[Tensor], list[Tensor]] = ([], [])
        for name, parameter in _named(network, (*entries, *dense)).items():
            if name in dense:
                groups[name in no_decay].append(parameter)
            elif len(entries[name]):
                indices = entries[name].to(parameter.device)
                part = _Part(parameter, indices, parameter.detach().view(-1)[indices])
                self._parts.append(part)
                groups[name in no_decay].append(part.values)
        self._which = _fingerprint(entries)
        trained: list[dict[str, Any]] = [{"params": groups[0], "entries": self._which}]
        trained.append({"params": groups[1], "entries": self._which, "weight_decay": 0.0})
        super().__init__([group for group in trained if group["params"]], **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of AdamW; entries that were not chosen stay bit for bit."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.gather()
        super().step()
        for part in self._parts:
            part.scatter()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients of the whole network as well."""
        super().zero_grad(set_to_none)
        self._network.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters that are trained as a whole."""
        super().add_param_group({"entries": self._which, **param_group})

    def load_state_dict(self, state_dict: Any) -> None:
        """Takes up a state.

        Raises:
            PolydistillError: It is of other entries.
        """
        if any(group.get("entries") != self._which for group in state_dict["param_groups"]):
            raise PolydistillError("The checkpoint is of a training of other entries.", "Start again with `overwrite`.")
        super().load_state_dict(state_dict)


def _named(network: nn.Module, names: Collection[str]) -> dict[str, nn.Parameter]:
    """Parameters by name; a tied one answers to each of its names."""
    every = dict(network.named_parameters(remove_duplicate=False))
    return {name: every[name] for name in names}


def _fingerprint(entries: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(entries):
        digest.update(f"{name} {len(entries[name])} ".encode())
        digest.update(entries[name].cpu().numpy().data)
    return digest.hexdigest()


def mask_gradients(network: nn.Module, entries: Mapping[str, Tensor], *, dense: Collection[str] = ()) -> ExitStack:
    """From now on the gradients of all that is not trained are 0 after each backward pass, so that clipping and the
    logged norm see the chosen entries and the dense parameters alone.

    Args:
        network: The network, on its device already.
        entries: Name -> (n,) flat indices of the entries that keep their gradients.
        dense: Names of parameters that keep all of theirs.

    Returns:
        What takes this back: `close()`, or the end of a `with` block.
    """
    chosen = {id(p): entries[name] for name, p in _named(network, entries).items()}
    whole = {id(p) for p in _named(network, dense).values()}
    stack = ExitStack()
    for parameter in network.parameters():
        if parameter.requires_grad and id(parameter) not in whole:
            kept = chosen.get(id(parameter), torch.empty(0, dtype=torch.int64)).to(parameter.device)
            stack.callback(parameter.register_post_accumulate_grad_hook(partial(_keep_only, kept)).remove)
    return stack


@contextmanager
def training_only(
    network: nn.Module, entries: Mapping[str, Tensor] | None, *, dense: Collection[str], lr: float, weight_decay: float
) -> Iterator[SparseAdamW | None]:
    """An optimizer of some entries, and for the length of the block no gradients of others; None for all of them.

    The network goes to the device that it is trained on. Biases and norms have no weight decay, as everywhere.

    Args:
        network: The network.
        entries: Name -> (n,) flat indices; None to train everything.
        dense: Names of parameters to train as a whole.
        lr: Highest learning rate.
        weight_decay: Of AdamW.
    """
    if entries is None:
        yield None
        return
    network.to(PartialState().device)  # the optimizer holds copies of the entries, which would stay behind
    flat = [name for name, parameter in network.named_parameters() if parameter.ndim < 2]
    optimizer = SparseAdamW(network, entries, dense=dense, no_decay=flat, lr=lr, weight_decay=weight_decay)
    with mask_gradients(network, entries, dense=dense):
        yield optimizer


def _keep_only(indices: Tensor, parameter: Tensor) -> None:
    assert parameter.grad is not None
    gradient = parameter.grad.view(-1)
    kept = gradient[indices]
    gradient.zero_()[indices] = kept


@torch.no_grad()
def difference_of(
    network: Any,
    before: Mapping[str, Tensor],
    entries: Mapping[str, Tensor],
    *,
    kind: str,
    names: Mapping[str, str] | None = None,
    languages: Sequence[str] = (),
    tasks: Sequence[str] = (),
) -> Difference:
    """What was added to the entries of a network's base model.

    The entries are then set to base + difference, which may differ from what was trained in the last bit: so the
    network is exactly what applying the difference to its base gives.

    Args:
        network: The tuned network.
        before: Name in the network -> tensor before.
        entries: Name in the network -> (n,) flat indices.
        kind: `sparse_files.TASK` or `LANGUAGE`.
        names: Name in the network -> name in its base model; None for all that `network.base_model` has.
        languages: Codes of the languages of the training data.
        tasks: Names of the tasks.
    """
    names = base_names(network) if names is None else names
    parameters = dict(network.named_parameters())
    found, base = {}, {}
    for name, inside in names.items():
        old, parameter = before[name], parameters[name]
        base[inside] = BaseTensor(tuple(old.shape), _hash_of(old))
        if name in entries:
            values = _add_rounded(parameter, old, entries[name])
            found[inside] = Entries(entries[name].cpu().numpy(), values)
    return Difference(found, base, kind, tuple(languages), tuple(tasks))


def _add_rounded(parameter: nn.Parameter, before: Tensor, indices: Tensor) -> np.ndarray:
    """(n,) float32 what was added; the parameter becomes the sum."""
    wide = torch.promote_types(parameter.dtype, torch.float32)
    here = indices.to(parameter.device)
    old = before.reshape(-1)[indices.to(before.device)].to(here.device, wide)
    values = (parameter.view(-1)[here].to(wide) - old).float()
    parameter.view(-1)[here] = (old + values).to(parameter.dtype)
    return values.cpu().numpy()


def _hash_of(tensor: Tensor) -> str:
    flat = tensor.detach().reshape(-1)
    wide = torch.promote_types(tensor.dtype, torch.float32)
    return values_hash(flat[start : start + PIECE].to("cpu", wide).numpy() for start in range(0, len(flat), PIECE))
