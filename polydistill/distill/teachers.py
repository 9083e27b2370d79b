"""What a student learns from: a frozen network, several of them, or one with another vocabulary."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from polydistill.catalog import Arch
from polydistill.catalog import arch as find_arch
from polydistill.distill.signals import (
    HIDDEN,
    LOGITS,
    POOLED,
    Batch,
    Observer,
    Signal,
    Signals,
    layers_of,
    needs_attention,
)
from polydistill.errors import PolydistillError
from polydistill.evaluation import classification, tagging
from polydistill.evaluation.heads import VECTOR_KINDS, TaskModel, open_model
from polydistill.labelled.examples import PairExample, TaggedExample
from polydistill.models.folder import model_folder
from polydistill.models.loading import load_encoder


class Teacher(Protocol):
    """Whatever gives signals. It is no module, so nothing of it is ever saved or trained with a student."""

    @property
    def needs(self) -> frozenset[Signal]:
        """What `signals` returns."""

    def signals(self, batch: Batch) -> Signals:
        """The signals of a batch: float32, without gradients, where the batch lies."""


class FrozenTeacher:
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
            PolydistillError: They are no numbers, so that nothing could be learnt from them.
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
        include: Folders with architectures of the user's own.

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


# ---- labels


def check_labels(found: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuses a teacher whose labels are not those of the data.

    Raises:
        PolydistillError: They are others.
    """
    if wanted and set(found) != set(wanted):
        raise PolydistillError(
            f"The teacher's labels ({', '.join(dict.fromkeys(found)) or 'none'}) are not those of the data "
            f"({', '.join(wanted)}).",
            "Choose a teacher that was tuned with these labels.",
        )


def in_order(logits: Tensor, found: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Logits (..., L') of the labels `found` as those of `wanted` (..., L); probabilities of one label add up."""
    if tuple(found) == tuple(wanted):
        return logits
    places = [[i for i, label in enumerate(found) if label == name] for name in wanted]
    return torch.stack([logits[..., place].logsumexp(-1) for place in places], -1)


def rows_of(model: TaskModel, wanted: Sequence[str]) -> list[int]:
    """The output of each label; of several that count as O since the task scores no such type, the one that was O."""
    own = getattr(getattr(model.network, "config", None), "id2label", model.labels)  # a stack has no other names
    names = [own[i] for i in range(len(model.labels))]
    places = [[i for i, found in enumerate(model.labels) if found == label] for label in wanted]
    return [max(found, key=lambda i: names[i] == label) for found, label in zip(places, wanted, strict=True)]


# ---- several


class Ensemble:
    """Several teachers whose logits are averaged (Avram et al. 2022, arXiv 2112.12650); other signals are one's own.

    Args:
        teachers: Each with its weight; the weights are scaled to add up to 1.
        average: `logits`, as in the paper, or `probabilities`, whose logarithms are returned.

    Raises:
        PolydistillError: A signal other than logits would come from several, or a weight is not positive.
    """

    def __init__(
        self, teachers: Sequence[tuple[Teacher, float]], *, average: Literal["logits", "probabilities"] = "logits"
    ) -> None:
        if any(not weight > 0 for _, weight in teachers):
            raise PolydistillError("A teacher's weight must be above 0.", "Leave out the teachers that do not count.")
        self._teachers, self._average = tuple(teachers), average
        every = [s for teacher, _ in teachers for s in teacher.needs]
        self.needs = frozenset(every)
        twice = sorted({s.kind for s in every if s.kind != LOGITS and every.count(s) > 1})
        if twice:
            raise PolydistillError(
                f"Several teachers cannot share {', '.join(twice)}: only logits are averaged.",
                "Use the objective `logits` alone, or one teacher.",
            )

    def signals(self, batch: Batch) -> Signals:
        """The signals of a batch."""
        found: dict[Signal, Tensor] = {}
        voters = [w for teacher, w in self._teachers if Signal(LOGITS) in teacher.needs]
        for teacher, weight in self._teachers:
            for signal, tensor in teacher.signals(batch).items():
                if signal.kind == LOGITS:
                    share = weight / sum(voters)
                    tensor = share * (tensor.softmax(-1) if self._average == "probabilities" else tensor)
                    tensor = tensor if signal not in found else found[signal] + tensor
                found[signal] = tensor
        if self._average == "probabilities" and voters:
            shares = found[Signal(LOGITS)]  # 0 at the padding of an answer
            found[Signal(LOGITS)] = shares.clamp(min=torch.finfo(shares.dtype).tiny).log()
        return found


# ---- another vocabulary


class ExampleAligned:
    """A teacher of classes that reads the texts with a tokenizer of its own, once; a stack, for instance.

    Args:
        model: The teacher.
        examples: The examples that the student is trained on, in their order.
        labels: (L,) the labels in the student's order.
        batch_size: Inputs at once.
        autocast: Whether matrices are multiplied in bfloat16.
        done: Called with the number of inputs just done.

    Raises:
        PolydistillError: Its labels are not the wanted ones.
    """

    def __init__(
        self,
        model: TaskModel,
        examples: Sequence[PairExample],
        labels: Sequence[str],
        *,
        batch_size: int = 32,
        autocast: bool = False,
        done: Callable[[int], object] = lambda n: None,
    ) -> None:
        check_labels(model.labels, labels)
        self.needs = frozenset({Signal(LOGITS)})
        rows = classification.logits(model, examples, batch_size=batch_size, bf16=autocast, done=done)
        self._logits = in_order(torch.from_numpy(rows), model.labels, labels)

    def signals(self, batch: Batch) -> Signals:
        """(B, L) logits; the batch has `example` (B,)."""
        device = batch["example"].device
        if self._logits.device != device:
            self._logits = self._logits.to(device)
        return {Signal(LOGITS): self._logits[batch["example"]]}


class WordAligned:
    """A tagging teacher that reads the words with a tokenizer of its own.

    It reads all sentences once. Its logits for a word then stand where the student's tokenizer begins that word; where
    no word begins, and for words that it has no tokens for, they are 0, which says nothing.

    Args:
        model: The teacher.
        examples: The sentences that the student is trained on, in their order.
        labels: (L,) the labels in the student's order.
        batch_size: Inputs at once.
        autocast: Whether matrices are multiplied in bfloat16.
        done: Called with the number of inputs just done.

    Raises:
        PolydistillError: Its labels are not the wanted ones.
    """

    def __init__(
        self,
        model: TaskModel,
        examples: Sequence[TaggedExample],
        labels: Sequence[str],
        *,
        batch_size: int = 32,
        autocast: bool = False,
        done: Callable[[int], object] = lambda n: None,
    ) -> None:
        check_labels(model.labels, labels)
        self.needs = frozenset({Signal(LOGITS)})
        rows = tagging.word_logits(model, examples, batch_size=batch_size, bf16=autocast, done=done)
        nothing = np.zeros((1, len(model.labels)), np.float32)  # the last row, which -1 means
        self._logits = in_order(torch.from_numpy(np.concatenate([*rows, nothing])), model.labels, labels)
        self._logits = self._logits.nan_to_num(nan=0.0)
        self._logits[-1] = 0
        self._starts = torch.tensor(np.cumsum([0, *map(len, rows)])[:-1])

    def signals(self, batch: Batch) -> Signals:
        """(B, N, L) logits; the batch has `word_ids` (B, N), -1 where no word begins, and `example` (B,)."""
        words, device = batch["word_ids"], batch["word_ids"].device
        if self._logits.device != device:
            self._logits, self._starts = self._logits.to(device), self._starts.to(device)
        places = torch.where(words < 0, -1, self._starts[batch["example"]].unsqueeze(1) + words)
        return {Signal(LOGITS): self._logits[places]}
