"""Gold labels: what plain fine-tuning asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polydistill.distill.objectives.base import Mean, Needs, Objective
from polydistill.distill.objectives.common import NOT_TRAINED, is_answer
from polydistill.distill.signals import LOGITS, NEVER, Batch, Signal, Signals

if TYPE_CHECKING:
    from torch import Tensor

_LOGITS = Signal(LOGITS)


class HardLabels(Objective):
    """Cross-entropy with gold labels (Hinton et al. 2015, arXiv 1503.02531, section 2); the teacher is not asked.

    -log softmax(z_S)_y: the mean over rows for classes, over positions with a label for tags; for an answer the mean
    over rows of the sum for its start and its end, as in `Logits`.
    """

    def __init__(self) -> None:
        self.needs = Needs(frozenset({_LOGITS}), frozenset())

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term, `labels`.

        Args:
            student: The logits.
            teacher: Not looked at.
            batch: `labels` (B,) or (B, N); for answers `start_positions` and `end_positions` (B,). -100: no label.
        """
        logits, mask = student[_LOGITS], batch["attention_mask"]
        if not is_answer(logits, mask):
            return {"labels": labelled(logits, batch["labels"])}
        logits = logits.masked_fill(mask.unsqueeze(1) == 0, NEVER)
        first, last = (labelled(logits[:, i], batch[f"{end}_positions"]) for i, end in enumerate(("start", "end")))
        return {"labels": Mean(first.total + last.total, first.weight)}

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: the number of labels."""
        return (batch["labels" if "labels" in batch else "start_positions"] != NOT_TRAINED).sum()


def labelled(logits: Tensor, labels: Tensor) -> Mean:
    """Cross-entropy of logits (..., L) where labels (...) are not -100."""
    from torch.nn.functional import cross_entropy

    known = labels != NOT_TRAINED
    return Mean(cross_entropy(logits[known].float(), labels[known], reduction="sum"), known.sum())
