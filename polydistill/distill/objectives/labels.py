"""Gold labels: what plain fine-tuning asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from polydistill.distill.objectives.base import Mean, Needs, Objective
from polydistill.distill.objectives.common import NOT_TRAINED, is_answer
from polydistill.distill.signals import LOGITS, NEVER, Batch, Signal, Signals
from polydistill.options.settings import Options, setting

if TYPE_CHECKING:
    from torch import Tensor

_LOGITS = Signal(LOGITS)


@dataclass(frozen=True)
class LabelsOptions(Options):
    """The options of `labels`."""

    smoothing: float = setting(0.0, "Share of the target that is spread over all labels.", "", least=0, most=0.99)


class HardLabels(Objective):
    """Cross-entropy with gold labels (Hinton et al. 2015, arXiv 1503.02531, section 2); the teacher is not asked.

    -log softmax(z_S)_y: the mean over rows for classes, over positions with a label for tags; for an answer the mean
    over rows of the sum for its start and its end, as in `Logits`. With smoothing e the target is (1 - e) onehot(y) +
    e / L (Szegedy et al. 2016, arXiv 1512.00567); for answers L is the number of places that are not padding.

    Args:
        options: Smoothing.
    """

    options_class = LabelsOptions

    def __init__(self, options: LabelsOptions = LabelsOptions()) -> None:
        self._smoothing = options.smoothing
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
            return {"labels": labelled(logits, batch["labels"], self._smoothing)}
        logits = logits.masked_fill(mask.unsqueeze(1) == 0, NEVER)
        first, last = (
            labelled(logits[:, i], batch[f"{end}_positions"], self._smoothing, mask)
            for i, end in enumerate(("start", "end"))
        )
        return {"labels": Mean(first.total + last.total, first.weight)}

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: the number of labels."""
        return (batch["labels" if "labels" in batch else "start_positions"] != NOT_TRAINED).sum()


def labelled(logits: Tensor, labels: Tensor, smoothing: float = 0.0, possible: Tensor | None = None) -> Mean:
    """Cross-entropy of logits (..., L) where labels (...) are not -100.

    Args:
        logits: (..., L).
        labels: (...).
        smoothing: Share of the target that is spread.
        possible: (..., L) over which labels it is spread; all of them without it.
    """
    import torch

    known = labels != NOT_TRAINED
    found = logits[known].float().log_softmax(-1)
    right = found.gather(-1, labels[known].unsqueeze(-1)).sum()
    if not smoothing:
        return Mean(-right, known.sum())
    among = torch.ones_like(found) if possible is None else possible[known].to(found)
    spread = ((found * among).sum(-1) / among.sum(-1).clamp(min=1)).sum()
    return Mean(-(1 - smoothing) * right - smoothing * spread, known.sum())
