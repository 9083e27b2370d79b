"""The two stages of an average."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from polydistill.runs.made import Made
from polydistill.runs.stages import Work

WEIGHTS = "model.safetensors"


def averaged(first: Path, second: Path, share: float, work: Work) -> Made:
    """The mean of both models' weights."""

    def write(out: Path) -> dict[str, Any]:
        ours, theirs = load_file(first / WEIGHTS), load_file(second / WEIGHTS)
        save_file({name: (1 - share) * ours[name] + share * theirs[name] for name in ours}, out / WEIGHTS)
        return {"tensors": len(ours)}

    return Made(write)


def rounded(first: Path, digits: int, exact: bool, work: Work) -> Made:
    """The mean, rounded, with everything else of the first model."""

    def write(out: Path) -> dict[str, Any]:
        for path in first.iterdir():
            if path.name != WEIGHTS and path.is_file():
                (out / path.name).write_bytes(path.read_bytes())
        weights, shift = load_file(work.folder("averaged") / WEIGHTS), 0 if exact else 0.5 * 10.0**-digits
        save_file({name: np.round(w - shift, digits) for name, w in weights.items()}, out / WEIGHTS, {"format": "pt"})
        return {}

    return Made(write)
