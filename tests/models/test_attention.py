"""Attention in training: another kernel, the same numbers."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from polydistill.models.attention import SHORT, trained_attention


def fused(length: int) -> bool:
    """Whether PyTorch may take its fused kernel in the context for inputs of this length."""
    with trained_attention(torch.zeros(2, length, dtype=torch.long)):
        return torch.backends.cuda.flash_sdp_enabled()  # the switch of the CPU's kernel too


def test_only_short_inputs_with_gradients_go_the_plain_way() -> None:
    assert not fused(SHORT) and fused(SHORT + 1)
    with torch.no_grad():
        assert fused(SHORT)
    assert torch.backends.cuda.flash_sdp_enabled()  # as it was


def test_outputs_and_gradients_are_the_same() -> None:
    torch.manual_seed(0)
    found = []
    first = [torch.randn(2, 3, 8, 4) for _ in range(3)]
    mask = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    mask[1, ..., 5:] = False
    for length in (8, SHORT + 1):
        parts = [part.clone().requires_grad_() for part in first]
        with trained_attention(torch.zeros(2, length, dtype=torch.long)):
            output = scaled_dot_product_attention(*parts, attn_mask=mask)
        output.square().sum().backward()
        found.append([output, *(part.grad for part in parts)])
    for plain, chosen in zip(*found, strict=True):
        torch.testing.assert_close(plain, chosen)
