"""What several objectives do alike: compare like with like, in float32, and leave padding out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from polydistill.distill.signals import LOGITS, NEVER, Batch, Signal, Signals
from polydistill.errors import PolydistillError

if TYPE_CHECKING:
    from torch import Tensor

NOT_TRAINED = -100  # label of a position that has none
OTHER_LABELS = "Choose a teacher that was tuned for the same task with the same labels."
ANY_SIZE = "Use `relations`, which compares models of any width and number of heads."


def comparable(
    name: str, what: str, student: Tensor, teacher: Tensor, axis: int = -1, hint: str = ANY_SIZE
) -> tuple[Tensor, Tensor]:
    """Student's and teacher's tensor in float32, the teacher's without a gradient.

    Args:
        name: The objective's, for the message.
        what: What lies along the axis, in the plural.
        student: Any shape.
        teacher: The same shape.
        axis: Where the two may differ because the models do.
        hint: The way out if they do.

    Raises:
        PolydistillError: Their sizes along the axis differ.
    """
    own, theirs = student.shape[axis], teacher.shape[axis]
    if own != theirs:
        raise PolydistillError(
            f"The objective `{name}` needs as many {what} in student and teacher, but they have {own} and {theirs}.",
            hint,
        )
    return student.float(), teacher.detach().float()


def first_tokens(batch: Batch) -> Tensor:
    """(B, N) where a word begins; `word_ids` of the batch are below 0 elsewhere."""
    words: Tensor = batch["word_ids"]
    return words >= 0


def squared_error(student: Tensor, teacher: Tensor, valid: Tensor, axis: int, relative: bool) -> Tensor:
    """Scalar: the sum over valid positions of the mean along an axis of the squared error.

    Args:
        student: (B, ...).
        teacher: The same shape.
        valid: Booleans that broadcast to that shape, with size 1 along `axis`: False at padding.
        axis: That of width or heads.
        relative: Whether to divide each text's error by the teacher's mean square over the same positions. Of one text,
            not of the batch: what a text counts depends neither on the others nor on how processes share them.
    """
    width = student.shape[axis]
    error = (student - teacher).masked_fill(~valid, 0).square().flatten(1).sum(1) / width
    if relative:
        positions = valid.flatten(1).sum(1).clamp(min=1)
        square = teacher.masked_fill(~valid, 0).square().flatten(1).sum(1) / (width * positions)
        error = error / square.clamp(min=1e-12)
    return error.sum()


# --- logits of classes, tags and answers


class Rows(NamedTuple):
    """Distributions that are compared row by row.

    Attributes:
        student: (R, C) logits in float32; of answers (B, 2, N), `NEVER` at padding.
        teacher: The same shape, without a gradient.
        number: Scalar; the number of rows, of answers that of texts.
    """

    student: Tensor
    teacher: Tensor
    number: Tensor


def logit_rows(name: str, student: Signals, teacher: Signals, batch: Batch, temperature: float = 1.0) -> Rows:
    """The rows of logits that count, divided by a temperature.

    Of classes (B, L) all rows. Of tags or tokens (B, N, L) positions where a word begins; where no words are known
    those with a label, and without labels all but padding. Of answers (B, 2, N), the start and the end of each.

    Args:
        name: The objective's, for the message.
        student: With logits.
        teacher: With logits.
        batch: `attention_mask`, and `labels` or `word_ids` (B, N) where there are some.
        temperature: T.

    Raises:
        PolydistillError: Student and teacher have not as many outputs.
    """
    own, theirs, mask = student[Signal(LOGITS)], teacher[Signal(LOGITS)], batch["attention_mask"].bool()
    rows = mask.new_ones(len(own))
    answer = is_answer(own, mask)
    if own.ndim == 3 and not answer:
        rows = positions(batch, mask)
        own, theirs = own[rows], theirs[rows]
    own, theirs = comparable(name, "outputs", own, theirs, hint=OTHER_LABELS)
    own, theirs = own / temperature, theirs / temperature
    if answer:
        padding = ~mask.unsqueeze(1)
        own, theirs = own.masked_fill(padding, NEVER), theirs.masked_fill(padding, NEVER)
    return Rows(own, theirs, rows.sum())


def row_count(batch: Batch) -> Tensor:
    """Scalar: the `number` of the `logit_rows` of a batch."""
    mask = batch["attention_mask"].bool()
    if "start_positions" in batch or ("labels" in batch and batch["labels"].ndim == 1):
        return batch["attention_mask"].new_tensor(len(mask))
    return positions(batch, mask).sum()


def positions(batch: Batch, mask: Tensor) -> Tensor:
    """(B, N) which positions count: where a word begins, those with a label, or all but padding."""
    if "word_ids" in batch:
        return first_tokens(batch)
    return batch["labels"] != NOT_TRAINED if "labels" in batch else mask


def is_answer(logits: Tensor, mask: Tensor) -> bool:
    """Whether logits are (B, 2, N) of start and end, not (B, N, L); a question with its text has more than 2 tokens."""
    return logits.ndim == 3 and logits.shape[1] != mask.shape[1]
