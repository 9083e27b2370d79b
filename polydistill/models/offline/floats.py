"""Writing float32 safetensors a part at a time, so that a whole model is never in memory."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

Parts = Callable[[], Iterable[np.ndarray]]


def write_floats(path: Path, tensors: Mapping[str, tuple[tuple[int, ...], Parts]]) -> None:
    """Write a safetensors file.

    Args:
        path: The file.
        tensors: Name -> shape, and a function that yields the weights as float32 arrays, in order.

    Raises:
        ValueError: A tensor's parts do not have the size that its shape says.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (shape, _) in tensors.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, (shape, parts) in tensors.items():
            written = sum(file.write(np.ascontiguousarray(part, "<f4").data) for part in parts())
            if written != 4 * math.prod(shape):
                raise ValueError(f"the tensor {name} has {written // 4} weights, not {math.prod(shape)}")
