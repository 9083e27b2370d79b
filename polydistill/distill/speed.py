"""How fast a distillation step is on this machine, in float32 and in bfloat16, before anything is trained."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch

from polydistill.catalog import Arch
from polydistill.catalog.task import CLASSIFICATION, SPAN_EXTRACTION, TAGGING, WORD_TAGGING
from polydistill.devices import BFLOAT16, CPU, CUDA, PRECISIONS, current
from polydistill.distill.objectives.base import Weighted
from polydistill.distill.observer import Observer
from polydistill.errors import PolydistillError
from polydistill.evaluation.heads import AUTO_CLASSES
from polydistill.models.loading import load_config, loading_failed, quiet_transformers
from polydistill.training.facts import TrainingFacts

CPU_TOKENS = 512  # a CPU is as fast with a small batch as with a large one, token by token
LEAST_RUNS, MOST_RUNS = 2, 10


def random_network(
    folder: Path, kind: str | None, labels: int, *, eager: bool = False, device: str | None = None
) -> Any:
    """A model of random weights, with the sizes that a folder's config.json says.

    Args:
        folder: Where the config.json lies.
        kind: A key of `AUTO_CLASSES` for a model with that head; others and None give the base model.
        labels: Number of the head's outputs, where it has labels.
        eager: Whether attention is computed without fused kernels (eager).
        device: `meta` for a model that takes no memory.

    Raises:
        PolydistillError: transformers cannot build it.
    """
    import transformers

    loader = getattr(transformers, AUTO_CLASSES.get(kind or "", "AutoModel"))
    options: dict[str, Any] = {"num_labels": labels} if kind in (CLASSIFICATION, TAGGING, WORD_TAGGING) else {}
    try:
        with quiet_transformers(), torch.device(device or "cpu"):
            config = load_config(folder, **options)
            plain = {"attn_implementation": "eager"} if eager else {}
            model = loader.from_config(config, dtype=torch.float32, trust_remote_code=False, **plain)
    except PolydistillError:
        raise
    except Exception as error:
        what = f"transformers cannot build the model of {folder}{f' for {kind}' if kind else ''}"
        raise loading_failed(what, error, "Choose another model.") from error
    return model if device else model.to(current())


def tokens_per_second(
    teacher: Any,
    student: Any,
    objectives: Weighted,
    arch: Arch,
    batch_size: int,
    length: int,
    *,
    kind: str | None = None,
    seconds: float = 0.5,
) -> dict[str, float]:
    """The rate of training steps: teacher forward, student forward and backward, clipping, AdamW; on random ids.

    On a CPU forward and backward are measured on at most 512 tokens and scaled to the batch.

    Args:
        teacher: Its network.
        student: Its network; its weights are changed.
        objectives: What is asked of the student.
        arch: The architecture of both.
        batch_size: Inputs a step.
        length: Tokens of each.
        kind: Kind of task, for labels.
        seconds: How long to measure each precision, at least; no fewer than two runs after one to warm up.

    Returns:
        Precision (one of `PRECISIONS`) -> tokens per second.
    """
    rows = batch_size if current() != CPU else max(1, min(batch_size, CPU_TOKENS // length))
    batch = _random_batch(student, rows, length, kind)
    rows_of = [{k: v[i].tolist() if isinstance(v, torch.Tensor) else v for k, v in batch.items()} for i in range(rows)]
    objectives.begin(TrainingFacts(1, 1, rows_of))
    objectives.module.to(current())
    teacher.eval()
    student.train()
    observers = Observer(teacher, objectives.needs.teacher, arch), Observer(student, objectives.needs.student, arch)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-9)

    def learn() -> None:
        with torch.no_grad():
            wanted = observers[0](batch) if objectives.needs.teacher else {}
        objectives(observers[1](batch), wanted, batch)[0].backward()

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()

    found = {}
    for precision in PRECISIONS:
        with _multiplying(precision):
            learning = _seconds(learn, seconds)
        stepping = _seconds(step, seconds / 5)
        optimizer.zero_grad()
        tokens = batch_size * length
        found[precision] = tokens / (learning * batch_size / rows + stepping)
    for observer in observers:
        observer.close()
    return found


def training_rates(folder: Path, batch_size: int = 8, length: int = 64) -> dict[str, float]:
    """The rate of forward and backward passes of a model of random weights, without an optimizer.

    Args:
        folder: Where the config.json lies that says its sizes.
        batch_size: Inputs a step.
        length: Tokens of each.

    Returns:
        Precision (one of `PRECISIONS`) -> tokens per second.
    """
    network = random_network(folder, None, 0)
    batch = {**_random_batch(network, batch_size, length, None)}
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}

    def learn() -> None:
        network(**inputs)[0].float().square().mean().backward()

    found = {}
    for precision in PRECISIONS:
        with _multiplying(precision):
            found[precision] = batch_size * length / _seconds(learn, 0.5)
    return found


def _multiplying(precision: str) -> AbstractContextManager[Any]:
    return torch.autocast(current(), dtype=torch.bfloat16) if precision == BFLOAT16 else nullcontext()


def _random_batch(network: Any, rows: int, length: int, kind: str | None) -> dict[str, Any]:
    """Ids without padding, of tokens that are not special, as far as a small vocabulary allows."""
    vocabulary = network.get_input_embeddings().num_embeddings
    ids = torch.randint(
        min(10, vocabulary // 2), vocabulary, (rows, length), generator=torch.Generator().manual_seed(0)
    )
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "example_id": torch.arange(rows)}
    if kind in (TAGGING, WORD_TAGGING):
        batch["labels"] = torch.zeros_like(ids)
    elif kind == CLASSIFICATION:
        batch["labels"] = torch.zeros(rows, dtype=torch.long)
    elif kind == SPAN_EXTRACTION:
        batch["start_positions"] = batch["end_positions"] = torch.ones(rows, dtype=torch.long)
    return {**{key: tensor.to(current()) for key, tensor in batch.items()}, "language": "en"}


def _seconds(work: Callable[[], None], least: float) -> float:
    """The median time of a piece of work."""
    work()
    times: list[float] = []
    while len(times) < LEAST_RUNS or (sum(times) < least and len(times) < MOST_RUNS):
        _finish()
        start = time.perf_counter()
        work()
        _finish()
        times.append(time.perf_counter() - start)
    return median(times)


def _finish() -> None:
    """Waits for an accelerator, which works on while Python goes ahead."""
    if current() == CUDA:
        torch.cuda.synchronize()
