"""How PyTorch computes attention while a model is trained."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

SHORT = 128  # tokens: the plain way was quicker with 48, 96 and 128, and slower with 256, in one try of each


def trained_attention(ids: torch.Tensor) -> AbstractContextManager[Any]:
    """A context for a forward pass that is to be followed by a backward pass.

    On a CPU the fused kernel's backward pass takes longer in bfloat16 than plain matrix products where inputs are short
    (benchmarks/bistil.md, Speed, has the tokens per second of both), so those are taken there. Without gradients, on
    longer inputs and elsewhere PyTorch chooses.

    Args:
        ids: (B, N) of the inputs.
    """
    plain = torch.is_grad_enabled() and ids.device.type == "cpu" and ids.shape[-1] <= SHORT
    return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()
