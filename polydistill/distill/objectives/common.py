"""What several objectives do alike: compare like with like, in float32, and leave padding out."""

from __future__ import annotations

from torch import Tensor

from polydistill.distill.signals import Batch
from polydistill.errors import PolydistillError

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
