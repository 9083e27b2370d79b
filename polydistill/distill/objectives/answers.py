"""Answers: KL of the places of answers, as strong as the teacher was right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from polydistill.distill.objectives.base import AddsUp, Mean, Needs, Objective
from polydistill.distill.objectives.common import is_answer, logit_rows
from polydistill.distill.signals import LOGITS, Batch, Signal, Signals
from polydistill.errors import PolydistillError
from polydistill.options.settings import Options, setting

if TYPE_CHECKING:
    from torch import Tensor

ONE, FIRST, PRECISION, EXAMPLE, MRR = "one", "first-hit", "average-precision", "per-example", "mrr"
LIKELIEST, BEFORE, AFTER = 10, 5, 4  # places that are looked at; a hit lies in gold - 5 ... gold + 4
ENDS = ("start_positions", "end_positions")
_LOGITS = Signal(LOGITS)


@dataclass(frozen=True)
class AnswersOptions(Options):
    """The options of `answers`."""

    temperature: float = setting(2.0, "Softmax temperature of both distributions.", "", least=1e-6)
    coefficient: str = setting(
        FIRST,
        "What the KL is multiplied by: one; first-hit, the mean over the batch of 1 over the rank of the teacher's "
        "first place near the right one; average-precision, of all such places; mrr, of the right place alone; or "
        "per-example, first-hit for each text by itself.",
        "",
        choices=(ONE, FIRST, PRECISION, EXAMPLE, MRR),
    )
    unanswered: bool = setting(
        True, "Whether windows without an answer, whose right place is the first token, count for the coefficient.", ""
    )


class Answers(Objective):
    """Self-distillation for questions and answers across languages (Carrino et al. 2023, arXiv 2309.17134).

    a T^2 KL(softmax(z_T/T) || softmax(z_S/T)), the mean over texts of that for start and end. The coefficient a says
    how right the teacher is: its 10 likeliest places are ranked, and one is a hit if it lies in gold - 5 ... gold + 4.
    For the start and the end apart, the value of each text is averaged over the batch, and the two are averaged.
    Padding is among neither the likeliest places nor the KL.

    Args:
        options: Temperature and coefficient.
    """

    options_class = AnswersOptions
    adds_up: ClassVar[AddsUp] = AddsUp.BATCHES

    def __init__(self, options: AnswersOptions = AnswersOptions()) -> None:
        self._options = options
        self.needs = Needs(frozenset({_LOGITS}), frozenset({_LOGITS}))

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term, `answers`, coefficient included.

        Args:
            student: Logits of start and end (B, 2, N).
            teacher: The same.
            batch: `start_positions` and `end_positions` (B,).

        Raises:
            PolydistillError: The logits are not those of answers.
        """
        import torch

        if not is_answer(student[_LOGITS], batch["attention_mask"].bool()):
            raise PolydistillError(
                "The objective `answers` is for questions, and these logits are no places of answers.", "Use `logits`."
            )
        rows = logit_rows("answers", student, teacher, batch)
        gold = torch.stack([batch[end] for end in ENDS], 1)
        own, theirs = (z / self._options.temperature for z in (rows.student, rows.teacher))
        own, theirs = own.log_softmax(-1), theirs.log_softmax(-1)
        divergence = (theirs.exp() * (theirs - own)).sum(-1) * self._options.temperature**2
        share = self._coefficient(rows.teacher, gold, batch["attention_mask"])
        self.noted = {"coefficient": float(share.mean())}
        return {"answers": Mean((share * divergence).mean(1).sum(), rows.number)}

    def _coefficient(self, teacher: Tensor, gold: Tensor, mask: Tensor) -> Tensor:
        """(B, 2) what each divergence is multiplied by."""
        how = self._options.coefficient
        if how == ONE:
            return teacher.new_ones(gold.shape)
        values = rightness(hits(teacher, gold, mask, exact=how == MRR), textbook=how == PRECISION)
        if how == EXAMPLE:
            return values
        counted = gold.new_ones(gold.shape, dtype=values.dtype) if self._options.unanswered else (gold > 0).to(values)
        mean = (values * counted).sum(0) / counted.sum(0).clamp(min=1)
        return mean.mean().expand(gold.shape)

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: the number of texts."""
        return batch["attention_mask"].new_tensor(len(batch["attention_mask"]))


def hits(logits: Tensor, gold: Tensor, mask: Tensor, *, exact: bool) -> Tensor:
    """(B, 2, 10) whether each of the likeliest places, the likeliest first, is a hit.

    Args:
        logits: (B, 2, N) of start and end.
        gold: (B, 2) the right places.
        mask: (B, N) 0 at padding.
        exact: Whether only the right place itself is one.
    """
    places = logits.topk(min(LIKELIEST, logits.shape[-1]), dim=-1).indices
    right = gold.unsqueeze(-1)
    found = places == right if exact else (places >= right - BEFORE) & (places <= right + AFTER)
    real = mask.bool().unsqueeze(1).expand(-1, logits.shape[1], -1).gather(-1, places)
    return found & real


def rightness(found: Tensor, *, textbook: bool = False) -> Tensor:
    """(...) 1 over the rank of the first hit, 0 without one; or the average precision of all hits.

    Args:
        found: (..., K) hits by rank.
        textbook: Average precision: the mean over hits of the share of hits up to each.
    """
    import torch

    ranks = torch.arange(1, found.shape[-1] + 1, device=found.device)
    values = found.float()
    if textbook:
        precision = values.cumsum(-1) / ranks
        return (precision * values).sum(-1) / values.sum(-1).clamp(min=1)
    return (values / ranks).amax(-1)
