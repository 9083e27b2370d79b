"""Teachers with another vocabulary, whose outputs for words or whole examples are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from polydistill.distill.signals import LOGITS, Batch, Signal, Signals
from polydistill.distill.teachers.base import Teacher
from polydistill.distill.teachers.labels import check_labels, in_order
from polydistill.evaluation import classification, tagging
from polydistill.evaluation.heads import TaskModel
from polydistill.labelled.examples import PairExample, TaggedExample


class ExampleAligned(Teacher):
    """A teacher of classes that reads the texts with a tokenizer of its own, once; a stack, for instance.

    Args:
        model: The teacher.
        examples: The examples that the student is trained on, in their order.
        labels: (L,) the labels in the student's order.
        batch_size: Inputs at once.
        autocast: Whether matrices are multiplied in bfloat16.
        done: Called with the number of inputs just done.

    Raises:
        PolydistillError: Its labels are not the wanted ones.
    """

    def __init__(
        self,
        model: TaskModel,
        examples: Sequence[PairExample],
        labels: Sequence[str],
        *,
        batch_size: int = 32,
        autocast: bool = False,
        done: Callable[[int], object] = lambda n: None,
    ) -> None:
        check_labels(model.labels, labels)
        self.needs = frozenset({Signal(LOGITS)})
        rows = classification.logits(model, examples, batch_size=batch_size, bf16=autocast, done=done)
        self._logits = in_order(torch.from_numpy(rows), model.labels, labels)

    def signals(self, batch: Batch) -> Signals:
        """(B, L) logits; the batch has `example` (B,)."""
        device = batch["example"].device
        if self._logits.device != device:
            self._logits = self._logits.to(device)
        return {Signal(LOGITS): self._logits[batch["example"]]}


class WordAligned(Teacher):
    """A tagging teacher that reads the words with a tokenizer of its own.

    It reads all sentences once. Its logits for a word then stand where the student's tokenizer begins that word; where
    no word begins, and for words that it has no tokens for, they are 0, which says nothing.

    Args:
        model: The teacher.
        examples: The sentences that the student is trained on, in their order.
        labels: (L,) the labels in the student's order.
        batch_size: Inputs at once.
        autocast: Whether matrices are multiplied in bfloat16.
        done: Called with the number of inputs just done.

    Raises:
        PolydistillError: Its labels are not the wanted ones.
    """

    def __init__(
        self,
        model: TaskModel,
        examples: Sequence[TaggedExample],
        labels: Sequence[str],
        *,
        batch_size: int = 32,
        autocast: bool = False,
        done: Callable[[int], object] = lambda n: None,
    ) -> None:
        check_labels(model.labels, labels)
        self.needs = frozenset({Signal(LOGITS)})
        rows = tagging.word_logits(model, examples, batch_size=batch_size, bf16=autocast, done=done)
        nothing = np.zeros((1, len(model.labels)), np.float32)  # the last row, which -1 means
        self._logits = in_order(torch.from_numpy(np.concatenate([*rows, nothing])), model.labels, labels)
        self._logits = self._logits.nan_to_num(nan=0.0)
        self._logits[-1] = 0
        self._starts = torch.tensor(np.cumsum([0, *map(len, rows)])[:-1])

    def signals(self, batch: Batch) -> Signals:
        """(B, N, L) logits; the batch has `word_ids` (B, N), -1 where no word begins, and `example` (B,)."""
        words, device = batch["word_ids"], batch["word_ids"].device
        if self._logits.device != device:
            self._logits, self._starts = self._logits.to(device), self._starts.to(device)
        places = torch.where(words < 0, -1, self._starts[batch["example"]].unsqueeze(1) + words)
        return {Signal(LOGITS): self._logits[places]}
