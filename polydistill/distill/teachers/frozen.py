"""A frozen network that runs only as far as its signals need it to."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polydistill.catalog import Arch
from polydistill.catalog import arch as find_arch
from polydistill.distill.observer import Observer, layers_of
from polydistill.distill.signals import HIDDEN, LOGITS, POOLED, Batch, Signal, Signals, needs_attention
from polydistill.distill.teachers.base import Teacher
from polydistill.distill.teachers.labels import check_labels, in_order
from polydistill.errors import PolydistillError
from polydistill.evaluation.heads import VECTOR_KINDS, open_model
from polydistill.models.folder import model_folder
from polydistill.models.loading import load_encoder


class FrozenTeacher(Teacher):
    """A network that runs only as far as its signals need it to.

    Args:
        network: A transformers model. Its weights are shared and frozen; its modules stay as they are.
        needs: What to return. Without logits the head is left out, and without pooled vectors the layers that nothing
            asks for.
        arch: Its architecture; without it no layers can be left out.
        autocast: Whether matrices are multiplied in bfloat16.
        labels: (L',) the label of each output.
        wanted: (L,) the labels in the student's order; logits come in the teacher's without it.

    Attributes:
        network: What is run.

    Raises:
        PolydistillError: Its labels are not the wanted ones.
    """

    def __init__(
        self,
        network: Any,
        needs: Iterable[Signal],
        arch: Arch | None = None,
        *,
        autocast: bool = False,
        labels: Sequence[str] = (),
        wanted: Sequence[str] = (),
    ) -> None:
        self.needs = frozenset(needs)
        self._labels, self._wanted, self._autocast = tuple(labels), tuple(wanted), autocast
        check_labels(self._labels, self._wanted)
        whole = any(s.kind == LOGITS for s in self.needs)
        part = _sharing(network if whole else network.base_model).eval().requires_grad_(False)
        self.network = _cut(part, self.needs, arch)
        self._observer = Observer(self.network, self.needs, arch)

    @torch.no_grad()
    def signals(self, batch: Batch) -> Signals:
        """The signals of a batch; the network follows it to its device.

        Raises:
            PolydistillError: They are NaN, so nothing could be learnt from them.
        """
        device = batch["input_ids"].device
        if next(self.network.parameters()).device != device:
            self.network.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self._autocast):
            found = self._observer(batch)
        if broken := next((signal for signal, tensor in found.items() if tensor.isnan().any()), None):
            raise PolydistillError(
                f"The teacher's {broken.kind} is NaN, no number: its weights are damaged, or overflow.",
                "Fetch or save the teacher again, or compute without bfloat16.",
            )
        return {s: self._named(s, t.float()) for s, t in found.items()}

    def _named(self, signal: Signal, tensor: Tensor) -> Tensor:
        return in_order(tensor, self._labels, self._wanted) if signal.kind == LOGITS and self._wanted else tensor


def load_teacher(
    folder: Path,
    needs: Iterable[Signal],
    *,
    kind: str | None = None,
    labels: Sequence[str] = (),
    not_scored: Collection[str] = (),
    autocast: bool = False,
    include: Sequence[Path] = (),
) -> FrozenTeacher:
    """Loads a teacher in float32, its attention fused unless its probabilities are asked for.

    Args:
        folder: A local snapshot.
        needs: What it shall return.
        kind: The kind of task that it was tuned for; None for the bare model.
        labels: The task's labels, in the student's order.
        not_scored: Entity types that the task leaves out; the teacher may know them.
        autocast: Whether matrices are multiplied in bfloat16.
        include: Folders with the user's own architectures.

    Raises:
        PolydistillError: It cannot be loaded, lacks its head, or its labels are not the task's.
    """
    needs, found = frozenset(needs), tuple[str, ...]()
    eager = needs_attention(needs)  # fused attention never has the probabilities
    if kind is None or kind in VECTOR_KINDS:
        network = load_encoder(model_folder(folder), eager=eager)
    else:
        model = open_model(folder, kind, labels, not_scored=not_scored)
        network, found = model.network, model.labels
        if eager:
            network.set_attn_implementation("eager")
    arch = find_arch(network.config.model_type, include)
    return FrozenTeacher(network, needs, arch, autocast=autocast, labels=found, wanted=labels if found else ())


# ---- only as deep as needed


def _sharing(network: Any) -> Any:
    """A copy of a network's modules with the same tensors."""
    return copy.deepcopy(network, {id(t): t for t in chain(network.parameters(), network.buffers())})


def _cut(network: Any, needs: frozenset[Signal], arch: Arch | None) -> Any:
    """The network without the layers after the deepest needed one, if it says the same without them.

    Where a norm stands after the last layer, hidden states of a cut network go through it: one more layer is kept.
    """
    if arch is None or arch.layers is None or arch.layers.decoder_path or {s.kind for s in needs} & {LOGITS, POOLED}:
        return network
    total = getattr(network.config, arch.layers.count_key, 0)
    deepest = max((s.layer + (s.kind != HIDDEN) for s in needs), default=0)
    for depth in (max(1, deepest), deepest + 1):
        if depth < total and _agree(network, short := _with_layers(network, arch, depth), needs, arch):
            return short
    return network


def _with_layers(network: Any, arch: Arch, count: int) -> Any:
    short = _sharing(network)
    assert arch.layers is not None
    setattr(short.config, arch.layers.count_key, count)
    if not arch.layers.shared:
        path, _, name = arch.layers.path.rpartition(".")
        setattr(short.base_model.get_submodule(path), name, layers_of(short, arch)[:count])
    return short


@torch.no_grad()
def _agree(network: Any, short: Any, needs: frozenset[Signal], arch: Arch) -> bool:
    """Whether two networks give the same signals on a few tokens."""
    device, rows = next(network.parameters()).device, network.get_input_embeddings().weight.shape[0]
    ids = torch.arange(5, 13, device=device)[None] % rows
    found = []
    for one in (network, short):
        observer = Observer(one, needs, arch)
        found.append(observer({"input_ids": ids, "attention_mask": torch.ones_like(ids)}))
        observer.close()
    return all(torch.equal(found[0][s], found[1][s]) for s in needs)
