"""Running a model over inputs of many lengths: the longest together, padded only as far as their batch needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from polydistill.errors import PolydistillError, UsageError

Feature = dict[str, Any]
MODEL_KEYS = ("input_ids", "attention_mask", "token_type_ids")


NOT_TRAINED = -100  # torch's cross entropy leaves such positions out


def check_parts(batch_size: int, parts: int) -> None:
    """Refuses a batch that cannot be split evenly, so that memory and processes would not share it alike.

    Raises:
        UsageError: It cannot.
    """
    if batch_size % parts:
        raise UsageError(
            f"A batch of {batch_size} cannot be split into {parts} equal parts.",
            "Change its size, the number of parts or, where there are several, the number of processes.",
        )


def by_length(features: Sequence[Feature], batch_size: int) -> Iterator[list[int]]:
    """Positions of the features in batches of similar length, the longest first: memory runs out at once or never."""
    order = sorted(range(len(features)), key=lambda i: -len(features[i]["input_ids"]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def padded(tokenizer: Any, features: Sequence[Feature]) -> dict[str, Any]:
    """One batch of tensors (B, longest)."""
    rows = [{key: f[key] for key in MODEL_KEYS if key in f} for f in features]
    return dict(tokenizer.pad(rows, return_tensors="pt", verbose=False))


def run(
    network: Any,
    tokenizer: Any,
    features: Sequence[Feature],
    batch_size: int,
    outputs: Callable[[Any], Sequence[Any]],
    *,
    positions: bool = True,
    bf16: bool = False,
    done: Callable[[int], object] = lambda n: None,
) -> list[tuple[np.ndarray, ...]]:
    """The outputs of every feature, in the order given.

    Args:
        network: The model.
        tokenizer: What pads.
        features: Inputs with `input_ids` and `attention_mask`.
        batch_size: How many at once; the outputs do not depend on it but for rounding (below 1e-4 in float32).
        outputs: Model output -> tensors (B, ...).
        positions: Whether their second axis is that of positions, which is cut to the input's length.
        bf16: Whether matrices are multiplied in bfloat16.
        done: Called with the number of features just done.

    Raises:
        PolydistillError: An output is NaN, or infinite; minus infinity may stand for what is never said.
    """
    import torch

    device = next(network.parameters()).device
    results: list[tuple[np.ndarray, ...]] = [()] * len(features)
    network.eval()
    with torch.inference_mode(), _precision(device.type, bf16):
        for places in by_length(features, batch_size):
            batch = {k: v.to(device) for k, v in padded(tokenizer, [features[i] for i in places]).items()}
            found = [t.float().cpu().numpy() for t in outputs(network(**batch))]
            for row, place in enumerate(places):
                n = len(features[place]["input_ids"])
                results[place] = tuple(t[row, :n] if positions else t[row] for t in found)
                if not all((t < np.inf).all() for t in results[place]):  # which NaN is not either
                    raise no_numbers()
            done(len(places))
    return results


def no_numbers() -> PolydistillError:
    """The error that a model computes what no prediction can be made of."""
    return PolydistillError(
        "The model's outputs are not numbers (NaN or infinite): its weights are damaged, or overflow.",
        "Fetch or save the model again, or run it without bfloat16.",
    )


def _precision(device: str, bf16: bool) -> AbstractContextManager[Any]:
    import torch

    return torch.autocast(device, dtype=torch.bfloat16) if bf16 else nullcontext()
