"""Networks side by side on the same inputs: how far their outputs differ, how often they agree, what they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polydistill.evaluation import turns
from polydistill.exporting.networks import FEATURES, Head
from polydistill.progress import SILENT, Progress
from polydistill.training.batching import Feature, run

TOLERANCE = 1e-4  # between float32 outputs; only the order of additions may differ
TOGETHER = 8  # inputs of different lengths in one batch, so that padding is compared too

Outputs = list[tuple[np.ndarray, ...]]


def outputs_of(network: Any, tokenizer: Any, features: Sequence[Feature], head: Head, batch_size: int) -> Outputs:
    """The outputs of each input, those at padding left out.

    Raises:
        PolydistillError: One is not a number.
    """
    return run(
        network,
        tokenizer,
        features,
        batch_size,
        lambda found: [getattr(found, name) for name in head.outputs],
        positions=head.positions,
    )


def largest_difference(one: Outputs, other: Outputs) -> float:
    """The largest absolute difference between two networks' outputs for the same inputs."""
    pairs = ((a, b) for rows in zip(one, other, strict=True) for a, b in zip(*rows, strict=True))
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def agreement(one: Outputs, other: Outputs, head: Head) -> dict[str, Any]:
    """How often two networks predict the same.

    Args:
        one: Outputs of each input.
        other: Those of the other network.
        head: What they are: the likeliest label of an input or token, the likeliest first and last token of an answer,
            or, of features, which other input has the nearest mean vector (by cosine).

    Returns:
        `share`, the number `n` of predictions, and what each is one `of`.
    """
    if head.name == FEATURES:
        a, b = _nearest(one), _nearest(other)
        what = "nearest inputs"
    elif head.name == "question-answering":
        a, b = ([tuple(int(np.argmax(row)) for row in rows) for rows in found] for found in (one, other))
        what = "answers"
    else:
        a, b = ([int(i) for (row,) in found for i in np.atleast_1d(np.argmax(row, -1))] for found in (one, other))
        what = "tokens" if head.positions else "inputs"
    return {"share": sum(x == y for x, y in zip(a, b, strict=True)) / len(a), "n": len(a), "of": what}


def _nearest(outputs: Outputs) -> list[Any]:
    means = np.array([row.mean(0) for (row,) in outputs], np.float64)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    cosines = means @ means.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines.argmax(1).tolist()


def latency(
    model: Path, files: Mapping[str, Path], features: Sequence[Feature], head: Head, progress: Progress = SILENT
) -> dict[str, Any]:
    """Time of networks alone, without the tokenizer, with the same number of threads, taking turns.

    Args:
        model: The part of the model's folder that has config.json; it runs in torch.
        files: Name -> ONNX file.
        features: 32 of them, spread over all, are the inputs.
        head: What the networks end in.
        progress: Where to report.

    Returns:
        `models`: `turns.summary` of several processes, torch first, and how it was measured.

    Raises:
        PolydistillError: A process failed.
    """
    chosen = [features[i] for i in turns.spread(len(features))]
    how = turns.how(len(chosen))
    named = {name: str(path) for name, path in files.items()}
    job = {"model": str(model), "files": named, "head": head.name, "features": chosen, **how}
    return {"models": turns.summary(turns.in_processes("polydistill.exporting.timed", job, progress)), **how}
