"""Where torch computes, chosen once for a whole command, and in which precision it multiplies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from polydistill.errors import UsageError

DEVICES = AUTO, CPU, CUDA, MPS = "auto", "cpu", "cuda", "mps"
PRECISIONS = FLOAT32, BFLOAT16 = "float32", "bfloat16"
FASTER = 1.1  # bfloat16 rounds, so it has to be worth it
_chosen = AUTO


@contextmanager
def using(device: str) -> Iterator[None]:
    """For the length of the block everything computes on a device.

    Args:
        device: One of `DEVICES`; `auto` inside of another block leaves that block's choice.

    Raises:
        UsageError: PyTorch does not see it.
    """
    global _chosen
    _check(device)
    before = _chosen
    _chosen = before if device == AUTO else device
    try:
        yield
    finally:
        _chosen = before


def current() -> str:
    """`cpu`, `cuda` or `mps`: what was chosen, or the fastest that is there."""
    if _chosen != AUTO:
        return _chosen
    return next((device for device in (CUDA, MPS) if _is_there(device)), CPU)


def _check(device: str) -> None:
    if device not in (AUTO, CPU) and not _is_there(device):
        raise UsageError(
            f"PyTorch sees no device `{device}` on this machine.", f"Leave `device` out, or choose {AUTO} or {CPU}."
        )


def _is_there(device: str) -> bool:
    import torch

    return torch.cuda.is_available() if device == CUDA else torch.backends.mps.is_available()


def multiplies_in_bfloat16(precision: str) -> bool:
    """Whether to multiply in bfloat16.

    Args:
        precision: `float32`, `bfloat16`, or `auto` for bfloat16 if a matrix product is a tenth faster in it on the
            device, which is measured once a process.
    """
    return precision == BFLOAT16 or (precision == AUTO and _is_faster(current()))


def precision_name(bf16: bool) -> str:
    """What `multiplies_in_bfloat16` decided, as records say it."""
    return BFLOAT16 if bf16 else FLOAT32


@cache
def _is_faster(device: str) -> bool:
    import torch

    times = {}
    for name, dtype in ((FLOAT32, torch.float32), (BFLOAT16, torch.bfloat16)):
        left, right = (torch.ones(512, 512, dtype=dtype, device=device) for _ in range(2))
        runs = []
        for _ in range(6):
            start = time.perf_counter()
            for _ in range(8):
                product = left @ right
            product[0, 0].item()  # waits for an accelerator
            runs.append(time.perf_counter() - start)
        times[name] = min(runs)
    return times[FLOAT32] > FASTER * times[BFLOAT16]
