"""Every objective with signals and a batch to try it on."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from polydistill.distill.objectives.attention import AttentionProbabilities
from polydistill.distill.objectives.base import Mean, Objective
from polydistill.distill.objectives.cosine import Cosine
from polydistill.distill.objectives.hidden import HiddenStates
from polydistill.distill.objectives.labels import HardLabels
from polydistill.distill.objectives.logits import Logits, LogitsOptions
from polydistill.distill.objectives.mlm import MaskedTokens
from polydistill.distill.objectives.pooled import PooledVectors
from polydistill.distill.objectives.probabilities import Probabilities
from polydistill.distill.objectives.relations import Relations, RelationsOptions
from polydistill.distill.objectives.scores import AttentionScores
from polydistill.distill.objectives.taid import Taid
from polydistill.distill.objectives.vectors import Vectors
from polydistill.distill.signals import ATTENTION, HIDDEN, LOGITS, POOLED, PROJECTIONS, SCORES, VECTOR, Signal
from polydistill.training.facts import TrainingFacts

PAIRS = ((0, 1), (1, 3))
WIDTH, HEADS, OUTPUTS = 8, 2, 5
CLASSES, TAGS, WORDS, ANSWERS, TEXT = "classes", "tags", "words", "answers", "text"
Seen = dict[Signal, Tensor]


def tensor(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def value(objective: Objective, student: Seen, teacher: Seen, batch: dict[str, Any]) -> float:
    """The sum of its terms."""
    return sum(float(mean.value.detach()) for mean in objective(student, teacher, batch).values())


def logits(student: Tensor, teacher: Tensor | None = None) -> tuple[Seen, Seen]:
    return {Signal(LOGITS): student}, {} if teacher is None else {Signal(LOGITS): teacher}


def hidden_example() -> tuple[Seen, Seen, dict[str, Any]]:
    """Two positions and one of padding: squared errors 0, 4, 9, 0 below and 0, 0, 1, 1 above."""
    student = {Signal(HIDDEN, 0): tensor([[1, 2], [3, 4], [7, 7]]), Signal(HIDDEN, 1): tensor([[2, 2], [1, 1], [7, 7]])}
    teacher = {Signal(HIDDEN, 0): tensor([[1, 0], [0, 4], [9, 0]]), Signal(HIDDEN, 2): tensor([[2, 2], [2, 2], [9, 0]])}
    return student, teacher, {"attention_mask": torch.tensor([[1, 1, 0]])}


def relations_of(*vectors: Tensor, layer: int = 0) -> Seen:
    """The same vectors (N, H) for Q, K and V where one is given."""
    given = vectors if len(vectors) == 3 else vectors * 3
    return {Signal(kind, layer): x.unsqueeze(0) for kind, x in zip(PROJECTIONS, given, strict=True)}


def begun(objective: Objective, steps: int = 10, an_epoch: int = 10) -> Any:
    """The objective as it is at the first step of a training."""
    objective.begin(TrainingFacts(steps, an_epoch))
    return objective


class Case(NamedTuple):
    """An objective, and the kind of task its logits and labels are of."""

    objective: Objective
    task: str = TEXT


CASES = {
    "hidden": Case(HiddenStates(PAIRS)),
    "hidden-relative": Case(HiddenStates(PAIRS, relative=True)),
    "attention": Case(AttentionProbabilities(PAIRS)),
    "attention-relative": Case(AttentionProbabilities(PAIRS, relative=True)),
    "scores": Case(AttentionScores(PAIRS)),
    "relations": Case(Relations(pairs=PAIRS)),
    "relations-4": Case(Relations(RelationsOptions(heads=4), pairs=PAIRS)),
    "logits-classes": Case(Logits(), CLASSES),
    "logits-tags": Case(Logits(), TAGS),
    "logits-text": Case(Logits(LogitsOptions(form="kl")), TEXT),
    "logits-answers": Case(Logits(LogitsOptions(temperature=3)), ANSWERS),
    "taid-classes": Case(begun(Taid()), CLASSES),
    "taid-tags": Case(begun(Taid()), TAGS),
    "taid-answers": Case(begun(Taid()), ANSWERS),
    "probabilities": Case(Probabilities(), WORDS),
    "cosine": Case(Cosine(PAIRS)),
    "pooled": Case(PooledVectors()),
    "vectors": Case(begun(Vectors())),
    "mlm": Case(MaskedTokens(), TAGS),
    "labels-classes": Case(HardLabels(), CLASSES),
    "labels-tags": Case(HardLabels(), TAGS),
    "labels-answers": Case(HardLabels(), ANSWERS),
}
TAUGHT = [name for name, case in CASES.items() if case.objective.needs.teacher and not name.startswith("taid")]
BY_POSITION = [name for name, case in CASES.items() if case.task != CLASSES and name not in ("pooled", "vectors")]
LENGTHS = (6, 3, 4)


def batch_of(task: str) -> dict[str, Any]:
    """Three texts of different lengths with random labels of which some are missing."""
    generator = torch.Generator().manual_seed(3)
    mask = torch.tensor([[int(j < n) for j in range(max(LENGTHS))] for n in LENGTHS])
    batch: dict[str, Any] = {"attention_mask": mask}
    if task == CLASSES:
        batch["labels"] = torch.tensor([4, 0, 2])
    if task == TAGS:
        labels = torch.randint(0, OUTPUTS, mask.shape, generator=generator)
        batch["labels"] = labels.masked_fill(mask == 0, -100).index_fill(1, torch.tensor([0]), -100)
    if task == WORDS:
        batch["word_ids"] = (torch.arange(mask.shape[1]) // 2).expand_as(mask).masked_fill(mask == 0, -1)
        batch["word_ids"] = batch["word_ids"].index_fill(1, torch.tensor([1, 3, 5]), -1)
    if task == ANSWERS:
        batch |= {"start_positions": torch.tensor([1, 0, 2]), "end_positions": torch.tensor([4, 2, 3])}
    return batch


def signals(needs: frozenset[Signal], batch: dict[str, Any], task: str, seed: int) -> Seen:
    generator, (rows, n) = torch.Generator().manual_seed(seed), batch["attention_mask"].shape
    kinds = {CLASSES: (rows, OUTPUTS), ANSWERS: (rows, 2, n)}
    shapes = {
        ATTENTION: (rows, HEADS, n, n),
        SCORES: (rows, HEADS, n, n),
        POOLED: (rows, WIDTH),
        VECTOR: (rows, WIDTH),
        LOGITS: kinds.get(task, (rows, n, OUTPUTS)),
    }
    found = {s: torch.randn(shapes.get(s.kind, (rows, n, WIDTH)), generator=generator) for s in sorted(needs)}
    return {s: x.softmax(-1) if s.kind == ATTENTION else x for s, x in found.items()}


def example(name: str) -> tuple[Objective, Seen, Seen, dict[str, Any]]:
    objective, task = CASES[name]
    batch = batch_of(task)
    needs = objective.needs
    return objective, signals(needs.student, batch, task, 1), signals(needs.teacher, batch, task, 2), batch


def total(found: dict[str, Mean]) -> Tensor:
    return torch.stack([mean.total / mean.weight for mean in found.values()]).sum()


def watched(seen: Seen) -> Seen:
    return {signal: x.clone().requires_grad_() for signal, x in seen.items()}
