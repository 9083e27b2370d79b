"""One vector a text."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_pooled(hidden: Tensor, mask: Tensor) -> Tensor:
    """(B, H) the mean over a text's positions of hidden states (B, N, H); `mask` (B, N) is 0 at padding."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def pooled(hidden: Tensor, mask: Tensor, how: str) -> Tensor:
    """(B, H) one vector a text: the mean over its positions, or the state at its first or its last one.

    Args:
        hidden: (B, N, H) hidden states.
        mask: (B, N), 0 at padding, which follows the text.
        how: `mean`, `first` or `last`.
    """
    if how == "mean":
        return mean_pooled(hidden, mask)
    places = torch.zeros_like(mask[:, 0]) if how == "first" else mask.sum(1) - 1
    return hidden[torch.arange(len(hidden), device=hidden.device), places]
