"""A stack as one network: encoder, projection, LLM, one vector of its states, and a head where a task was learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polydistill.models.pooling import pooled


@dataclass
class StackOutput:
    """What a stack says of a batch.

    Attributes:
        vectors: (B, H) the mean of the last states over each text.
        logits: (B, L) of the head; None without one.
    """

    vectors: Tensor
    logits: Tensor | None = None


class Stack(nn.Module):
    """y = mean(LLM(W enc(x) + b)), MT-LLM (Schmidt et al. 2024, arXiv 2406.12739).

    Without an LLM it is a linear map of the encoder's mean state, the plainest way from one space to the other; without
    an encoder it is the LLM alone, which is what a stack learns from.

    Args:
        encoder: Frozen, from `open_encoder`; None for the LLM alone.
        projection: From the encoder's width to that of the LLM's inputs; None for the LLM alone.
        llm: From `open_llm`, with LoRA or without; None for a linear map.
        head: (H -> L) without bias; None for vectors alone.
        pooling: How the LLM's states become a vector, see `pooling.pooled`; without an LLM it is the mean.
    """

    def __init__(
        self,
        encoder: Any | None,
        projection: nn.Linear | None,
        llm: Any | None,
        head: nn.Linear | None = None,
        pooling: str = "mean",
    ) -> None:
        super().__init__()
        self.encoder, self.projection, self.llm, self.head = encoder, projection, llm, head
        self.pooling = pooling if llm is not None else "mean"
        self.register_state_dict_post_hook(_only_trained)
        self.register_load_state_dict_post_hook(_frozen_is_there)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> StackOutput:
        """Vectors and logits of a batch.

        Args:
            input_ids: (B, N).
            attention_mask: (B, N), 0 at padding.
            token_type_ids: (B, N), for models that tell the texts of a pair apart.
        """
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        if self.encoder is None:
            assert self.llm is not None
            states = self.llm(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
        else:
            states = self.through(self.states(input_ids, attention_mask, **types), attention_mask)
        vectors = pooled(states.float(), attention_mask, self.pooling)
        return StackOutput(vectors, None if self.head is None else self.head(vectors))

    @torch.no_grad()
    def states(self, input_ids: Tensor, attention_mask: Tensor, **types: Tensor) -> Tensor:
        """(B, N, d) the encoder's last states, without gradients."""
        assert self.encoder is not None
        found: Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state
        return found

    def through(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, N, H) what projection and LLM make of the encoder's states (B, N, d)."""
        assert self.projection is not None
        inputs = self.projection(states.to(self.projection.weight.dtype))
        if self.llm is None:
            return inputs
        inputs = inputs.to(next(self.llm.parameters()).dtype)
        found: Tensor = self.llm(inputs_embeds=inputs, attention_mask=attention_mask).last_hidden_state
        return found

    @torch.no_grad()
    def begin_with(self, weight: np.ndarray, bias: np.ndarray) -> None:
        """Sets the projection to x -> x W + b.

        Args:
            weight: (d, D).
            bias: (D,).
        """
        assert self.projection is not None
        self.projection.weight.copy_(torch.from_numpy(weight.T))
        self.projection.bias.copy_(torch.from_numpy(bias))

    def train(self, mode: bool = True) -> Stack:
        """Training or not; the encoder is frozen, dropout too."""
        super().train(mode)
        if self.encoder is not None:
            self.encoder.eval()
        return self


def _only_trained(module: nn.Module, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    """Leaves the frozen weights out of checkpoints: they are in the folders of the parents."""
    trained = {prefix + name for name, parameter in module.named_parameters() if parameter.requires_grad}
    for name in [name for name in state if name not in trained]:
        del state[name]


def _frozen_is_there(module: nn.Module, keys: Any) -> None:
    """Says of a checkpoint that it lacks nothing if it has all that is trained."""
    frozen = {name for name, tensor in module.named_parameters() if not tensor.requires_grad}
    frozen |= {name for name, _ in module.named_buffers()}
    keys.missing_keys[:] = [name for name in keys.missing_keys if name not in frozen]
