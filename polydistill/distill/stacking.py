"""What teaches a stack: the LLM's vectors of the same texts, a least-squares map to begin with, squared errors.

MT-LLM, Schmidt et al. 2024 (arXiv 2406.12739): stage 1 on plain text, stage 2 on a task's.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch

from polydistill.distill.cached import make_room
from polydistill.distill.listing import STACKED, objectives
from polydistill.distill.loss import DistilLoss
from polydistill.distill.objectives.build import build
from polydistill.distill.signals import VECTOR, Batch, Signal, Signals
from polydistill.distill.teachers.base import Teacher
from polydistill.errors import PolydistillError
from polydistill.files.outputs import write_beside
from polydistill.models.offline import cache_root
from polydistill.progress import Progress
from polydistill.stacks.folder import LoadedStack
from polydistill.stacks.network import Stack
from polydistill.stacks.parts import on_device
from polydistill.training.batching import Feature, run
from polydistill.training.loop import Curves, Schedule, collator, train

FORMAT = 2  # to be raised whenever the same text gives another vector
DIGEST = 32  # bytes of SHA-256 in front of kept vectors
PENALTIES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)  # of the ridge, times the mean variance of an input
BATCH, CHUNK = 32, 50_000
MOST_KEPT = 4_000_000_000  # bytes of vectors on disk; above that, those that no run has used for a day go
SAME = 1e-10  # share of squared length that is rounding


# --- the teacher's vectors


def text_features(stack: LoadedStack, texts: Sequence[str]) -> list[Feature]:
    """Inputs of texts, cut to fit, with `example`, the number of the text."""
    rows = stack.reader(texts)
    return [{**{key: rows[key][i] for key in rows}, "example": i} for i in range(len(texts))]


def vectors(
    stack: LoadedStack,
    features: Sequence[Feature],
    *,
    bf16: bool = False,
    facts: Mapping[str, Any] | None = None,
    progress: Progress,
    what: str = "vectors",
) -> np.ndarray:
    """(n, H) float32 vectors of inputs; with `facts` they are kept on disk and read again.

    Args:
        stack: A stack, or the LLM alone.
        features: Inputs.
        bf16: Whether matrices are multiplied in bfloat16.
        facts: What the vectors depend on beside the inputs: the hash of the weights.
        progress: Where to report.
        what: Name of the bar.
    """
    place, shape = None, (len(features), stack.description.widths[2])
    if facts is not None:
        ids = hashlib.sha256()
        for feature in features:
            ids.update(np.asarray([len(feature["input_ids"]), *feature["input_ids"]], np.int64).tobytes())
        key = {"format": FORMAT, **facts, "bf16": bf16, "inputs": ids.hexdigest()}
        name = hashlib.sha256(orjson.dumps(key, option=orjson.OPT_SORT_KEYS)).hexdigest()
        place = cache_root() / "vectors" / f"{name}.f32"
        if (found := _kept(place, shape)) is not None:
            with suppress(OSError):
                os.utime(place)
            return found
    made = np.zeros(shape, np.float32)
    network = on_device(stack.network)
    with progress.bar(what, len(features), "text") as done:
        for start in range(0, len(features), CHUNK):
            part = features[start : start + CHUNK]
            rows = run(network, stack.reader, part, BATCH, lambda o: [o.vectors], positions=False, bf16=bf16, done=done)
            made[start : start + CHUNK] = [row for (row,) in rows]
    if place is not None:
        others = [file for file in place.parent.glob("*.f32") if file != place]
        make_room([(file.stat().st_mtime, file) for file in others], MOST_KEPT - made.nbytes)
        values = made.tobytes()
        write_beside(place, hashlib.sha256(values).digest() + values, option="POLYDISTILL_CACHE")
    return made


def _kept(place: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """What was kept, None if it is not there or not what was written."""
    try:
        content = place.read_bytes()
    except OSError:
        return None
    digest, values = content[:DIGEST], content[DIGEST:]
    if len(values) != 4 * shape[0] * shape[1] or hashlib.sha256(values).digest() != digest:
        return None
    return np.frombuffer(values, np.float32).reshape(shape).copy()


def input_means(llm: Any, features: Sequence[Feature]) -> np.ndarray:
    """(n, D) the mean of an LLM's own input embeddings over each text."""
    table = llm.get_input_embeddings()
    device = next(table.parameters()).device
    with torch.no_grad():
        means = [table(torch.tensor(f["input_ids"], device=device)).float().mean(0).cpu().numpy() for f in features]
    return np.stack(means)


def unexplained_variance(found: np.ndarray, wanted: np.ndarray) -> float:
    """Squared error of vectors (n, H) as a share of the teacher's variance: 0 is perfect, 1 is as good as its mean.

    Raises:
        PolydistillError: The teacher's vectors are all the same.
    """
    variance = ((wanted - wanted.mean(0)) ** 2).sum()
    if variance <= SAME * (wanted**2).sum():
        raise PolydistillError(
            "The LLM's vectors of all held-out texts are the same, so that nothing can be learnt from them.",
            "Give texts that differ in their first tokens (`length`), in a script that the LLM's tokenizer knows.",
        )
    return float(((found - wanted) ** 2).sum() / variance)


# --- least squares


@dataclass(frozen=True)
class LinearMap:
    """y = x W + b.

    Attributes:
        weight: (d, H).
        bias: (H,).
        penalty: Of the ridge, in units of the mean variance of an input.
        unexplained: Share of the variance that it leaves unexplained on the dev rows.
    """

    weight: np.ndarray
    bias: np.ndarray
    penalty: float
    unexplained: float


def least_squares(inputs: np.ndarray, wanted: np.ndarray, dev_inputs: np.ndarray, dev_wanted: np.ndarray) -> LinearMap:
    """The ridge regression whose penalty, out of `PENALTIES`, is the best on held-out rows.

    Args:
        inputs: (n, d).
        wanted: (n, H).
        dev_inputs: (m, d) rows that choose the penalty.
        dev_wanted: (m, H).

    Raises:
        PolydistillError: Some of them are NaN or infinite.
    """
    if not all(np.isfinite(rows).all() for rows in (inputs, wanted, dev_inputs, dev_wanted)):
        raise PolydistillError(
            "Vectors of the LLM or of the encoder are NaN or infinite: the weights of one of them are damaged.",
            "Fetch or save that model again.",
        )
    x, y = inputs.astype(np.float64), wanted.astype(np.float64)
    middle, centre = x.mean(0), y.mean(0)
    gram, cross = (x - middle).T @ (x - middle), (x - middle).T @ (y - centre)
    scale = max(float(np.trace(gram)) / len(gram), 1e-12)
    best: LinearMap | None = None
    for penalty in PENALTIES:
        weight = np.linalg.solve(gram + penalty * scale * np.eye(len(gram)), cross)
        bias = centre - middle @ weight
        left = unexplained_variance(dev_inputs @ weight + bias, dev_wanted)
        if best is None or left < best.unexplained:
            best = LinearMap(weight.astype(np.float32), bias.astype(np.float32), penalty, left)
    assert best is not None
    return best


# --- training


class KeptVectors(Teacher):
    """A teacher whose vectors are all known.

    Args:
        vectors: (n, H), by `example`.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = torch.from_numpy(vectors)
        self.needs = frozenset({Signal(VECTOR)})

    def signals(self, batch: Batch) -> Signals:
        """(B, H) vectors; the batch has `example` (B,)."""
        found = self._vectors[batch["example"].cpu()]
        return {Signal(VECTOR): found.to(batch["example"].device)}


def vector_loss(stack: LoadedStack, wanted: np.ndarray) -> DistilLoss:
    """The loss of both phases: squared error of a stack's vectors and its teacher's (n, H), by `example`."""
    return DistilLoss(stack.network, build(objectives(["vectors=1"], STACKED)), KeptVectors(wanted), None)


def train_stack(
    stack: LoadedStack,
    features: Sequence[Feature],
    loss: DistilLoss,
    dev_score: Callable[[Stack], float],
    schedule: Schedule,
    work: Path,
    progress: Progress,
) -> Curves:
    """Trains what of a stack needs gradients, and leaves it as it was at its best dev score.

    Args:
        stack: What to train.
        features: Inputs with `example`, and `labels` where the loss needs them.
        loss: What is minimised.
        dev_score: Network -> score, the higher the better.
        schedule: How long and how fast.
        work: The folder of checkpoints; training goes on from the newest one there.
        progress: Where to report.
    """
    collate = collator(stack.reader, about=True)
    return train(
        stack.network,
        stack.reader.tokenizer,
        features,
        dev_score,
        schedule,
        work,
        progress,
        collate=collate,
        step_loss=loss,
    )
