"""Runs a network on batches, and returns what objectives look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from polydistill.catalog import Arch
from polydistill.distill.augmentation.mixup import MIXED, SHARE
from polydistill.distill.signals import (
    ATTENTION,
    HIDDEN,
    KEY,
    NEVER,
    POOLED,
    PROJECTIONS,
    QUERY,
    SCORES,
    VECTOR,
    Batch,
    Signal,
    Signals,
)
from polydistill.errors import PolydistillError
from polydistill.models.attention import trained_attention
from polydistill.models.pooling import mean_pooled
from polydistill.training.batching import MODEL_KEYS


class Observer:
    """Runs a network on batches and returns what was asked for.

    Args:
        network: A transformers model; its modules get hooks where projections are needed.
        needs: What to return.
        arch: Its architecture; needed for projections and scores.

    Raises:
        PolydistillError: The architecture's file does not say where the projections are, or that Q K^T / sqrt(d) are
            its scores.
    """

    def __init__(self, network: Any, needs: frozenset[Signal], arch: Arch | None = None) -> None:
        self.network, self.needs, self._arch = network, needs, arch
        self._seen: dict[Signal, Tensor] = {}
        self._hooks: list[Any] = []
        if any(s.kind == SCORES for s in needs):
            _check_scores(arch)
        projected = {s for s in needs if s.kind in PROJECTIONS}
        projected |= {Signal(kind, s.layer) for s in needs if s.kind == SCORES for kind in (QUERY, KEY)}
        for signal in projected:
            self._hooks.append(self._module(signal).register_forward_hook(partial(self._keep, signal)))

    def __call__(self, batch: Batch, through: Callable[..., Any] | None = None) -> Signals:
        """The signals of a batch.

        Args:
            batch: `input_ids` and `attention_mask` (B, N); keys that a model does not take are left out.
            through: What to call in place of the network: the same one, wrapped for several processes.
        """
        kinds = {s.kind for s in self.needs}
        inputs = {key: batch[key] for key in MODEL_KEYS if key in batch}
        self._seen.clear()
        attention = trained_attention(batch["input_ids"]) if self._is_model else nullcontext()
        with attention, _mixing(self.network, batch):
            output = (through or self.network)(**inputs, **self._wanted(kinds))
        found = {s: self._signal(s, output, batch["attention_mask"]) for s in self.needs}
        self._seen.clear()
        return found

    @property
    def _is_model(self) -> bool:
        """Whether this is a transformers model, and no stack; a stack may compute its activations again, later."""
        return hasattr(self.network, "config")

    def close(self) -> None:
        """Takes the hooks away."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _wanted(self, kinds: set[str]) -> dict[str, bool]:
        """What a transformers model is to return beside its outputs; a stack has nothing else."""
        if not self._is_model:
            return {}
        return {"output_hidden_states": bool(kinds & {HIDDEN, POOLED}), "output_attentions": ATTENTION in kinds}

    def _signal(self, signal: Signal, output: Any, mask: Tensor) -> Tensor:
        if signal.kind == HIDDEN:
            return output.hidden_states[signal.layer]
        if signal.kind == ATTENTION:
            return output.attentions[signal.layer]
        if signal.kind in PROJECTIONS:
            return self._seen[signal]
        if signal.kind == SCORES:
            return self._scores(signal.layer)
        if signal.kind == POOLED:
            return mean_pooled(output.hidden_states[-1], mask)
        if signal.kind == VECTOR:
            return output.vectors
        return logits_of(output, mask)

    def _scores(self, layer: int) -> Tensor:
        """(B, A, N, N) Q K^T / sqrt(d), before the mask and the softmax."""
        heads = self.network.config.num_attention_heads
        query, key = (
            self._seen[Signal(kind, layer)].unflatten(-1, (heads, -1)).transpose(1, 2) for kind in (QUERY, KEY)
        )
        return query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5

    def _keep(self, signal: Signal, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._seen[signal] = output

    def _module(self, signal: Signal) -> nn.Module:
        attention = self._arch.attention if self._arch else None
        if attention is None:
            name = self._arch.name if self._arch else "this"
            raise PolydistillError(
                f"The architecture file of {name} does not name the module of attention's {signal.kind}.",
                "Leave out the objectives `relations` and `scores`, or describe it in a TOML file (`include_path`).",
            )
        found: nn.Module = layers_of(self.network, self._arch)[signal.layer].get_submodule(
            getattr(attention, signal.kind)
        )
        return found


@contextmanager
def _mixing(network: Any, batch: Batch) -> Iterator[None]:
    """Mixes the word embeddings of the rows of a batch, where it says so (see `augmentation.mixup`)."""
    if MIXED not in batch:
        yield
        return

    def mix(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        share = batch[SHARE].to(output).view(-1, 1, 1)
        return share * output + (1 - share) * output[batch[MIXED]]

    hook = network.get_input_embeddings().register_forward_hook(mix)
    try:
        yield
    finally:
        hook.remove()


def _check_scores(arch: Arch | None) -> None:
    """Refuses architectures whose attention is more than softmax(Q K^T / sqrt(d)), and those that are not known."""
    if arch is None or arch.attention is None or not arch.attention.scores:
        raise PolydistillError(
            f"The attention scores of {arch.name if arch else 'this model'} are not known: its architecture file does "
            "not say `scores = true`.",
            "Use the objective `attention` or `relations`.",
        )


def layers_of(network: Any, arch: Arch | None) -> Any:
    """The list of a network's layers.

    Raises:
        PolydistillError: The architecture's file does not say where they are.
    """
    if arch is None or arch.layers is None:
        raise PolydistillError(
            f"The architecture file of {arch.name if arch else 'this model'} does not say where the layers are.",
            "Describe it in a TOML file and pass it with `include_path`.",
        )
    return network.base_model.get_submodule(arch.layers.path)


def logits_of(output: Any, mask: Tensor) -> Tensor:
    """The logits of a model's output; those of an answer's start and end are (B, 2, N), `NEVER` at padding."""
    if hasattr(output, "start_logits"):
        both = torch.stack([output.start_logits, output.end_logits], 1)
        return both.masked_fill(mask.unsqueeze(1) == 0, NEVER)
    logits: Tensor = output.logits
    return logits
