"""PS-KD: a model that learns from what it said itself an epoch ago."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from polydistill.distill.augmentation.base import AUGMENTED
from polydistill.distill.objectives.base import AddsUp, Mean, Needs, Objective
from polydistill.distill.objectives.common import NOT_TRAINED, is_answer
from polydistill.distill.signals import LOGITS, NEVER, Batch, Signal, Signals
from polydistill.errors import PolydistillError
from polydistill.options.settings import Options, setting

if TYPE_CHECKING:
    from torch import Tensor, nn

    from polydistill.training.batching import Feature
    from polydistill.training.facts import TrainingFacts

ENDS = ("start_positions", "end_positions")
_LOGITS = Signal(LOGITS)


@dataclass(frozen=True)
class PsKdOptions(Options):
    """The options of `ps-kd`."""

    alpha: float = setting(0.8, "Weight of the model's own past in the last epoch.", "", least=0, most=1)


class PsKd(Objective):
    """Progressive self-knowledge distillation (Kim et al. 2021, arXiv 2006.12000); the teacher is not asked.

    In epoch e of E, counted from 0, the target of example i is (1 - a_e) onehot(y_i) + a_e p_i, where
    a_e = alpha (e + 1) / E, and p_i are the probabilities that the network gave the example in the epoch before, in the
    forward pass of its training. Epoch 0 has plain labels, and so has an example that was not seen before. The loss is
    the cross-entropy: the mean over rows for classes, over words for tags; for an answer the mean over texts of the sum
    for start and end. Probabilities are kept as float16: n L numbers for classes, one row a word for tags.

    Args:
        options: alpha.
        outputs: L, labels of a class or a tag; 0 for answers.
    """

    options_class = PsKdOptions
    adds_up: ClassVar[AddsUp] = AddsUp.ALONE
    module: nn.Module

    def __init__(self, options: PsKdOptions = PsKdOptions(), *, outputs: int) -> None:
        self._options, self._outputs, self._epochs = options, outputs, 1
        self.needs = Needs(frozenset({_LOGITS}), frozenset())

    def begin(self, facts: TrainingFacts) -> None:
        """Makes room for the probabilities of all examples.

        Raises:
            PolydistillError: The inputs have no labels.
        """
        import torch
        from torch import nn

        sizes = torch.tensor([0, *(self._size(feature) for feature in facts.features)])
        self._epochs, self._starts, self.module = facts.epochs, sizes.cumsum(0), nn.Module()
        for name in ("past", "present"):
            empty = torch.full((int(self._starts[-1]),), torch.nan, dtype=torch.float16)
            self.module.register_buffer(name, empty)
        self.module.register_buffer("epoch", torch.tensor(0))

    def _size(self, feature: Feature) -> int:
        """How many probabilities an input has."""
        if ENDS[0] in feature:
            return 2 * len(feature["input_ids"])
        if "labels" not in feature:
            raise PolydistillError("The objective `ps-kd` needs labels.", "Use it where there are some.")
        labels: Any = feature["labels"]
        return self._outputs * sum(label != NOT_TRAINED for label in ([labels] if isinstance(labels, int) else labels))

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term, `ps_kd`.

        Args:
            student: The logits.
            teacher: Not looked at.
            batch: `example_id` (B,), and `labels` (B,) or (B, N), or for answers `start_positions` and
                `end_positions` (B,).
        """
        import torch
        from torch.nn.functional import one_hot

        if AUGMENTED in batch:  # it has no labels, and no past
            return {"ps_kd": Mean(student[_LOGITS].sum() * 0, self.weight(batch))}
        rows, gold, valid = self._rows(student[_LOGITS].float(), batch)
        target = one_hot(gold.clamp(min=0), rows.shape[-1]).to(rows.dtype)
        spans = [(int(self._starts[i]), int(self._starts[i + 1])) for i in batch["example_id"].tolist()]
        places = torch.cat([torch.arange(*span) for span in spans]).to(rows.device)
        past = torch.zeros_like(rows).masked_scatter(valid, self.module.get_buffer("past")[places].to(rows.dtype))
        share = self._options.alpha * (int(self.module.get_buffer("epoch")) + 1) / self._epochs
        unseen = past.isnan().any(-1, keepdim=True)
        target = torch.where(unseen, target, (1 - share) * target + share * past)
        if self.learns:
            self.module.get_buffer("present")[places] = rows.detach().softmax(-1)[valid].half()
        known = (gold != NOT_TRAINED).unsqueeze(-1)
        return {"ps_kd": Mean(-(target * rows.log_softmax(-1))[known.expand_as(rows)].sum(), self.weight(batch))}

    @staticmethod
    def _rows(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """((R, C) logits, (R,) what is right, (R, C) which of them are not padding); an answer has two rows."""
        import torch

        mask = batch["attention_mask"].bool()
        if is_answer(logits, mask):
            valid = mask.unsqueeze(1).expand_as(logits).flatten(0, 1)
            gold = torch.stack([batch[end] for end in ENDS], 1).flatten()
            return logits.flatten(0, 1).masked_fill(~valid, NEVER), gold, valid
        known = batch["labels"] != NOT_TRAINED
        rows = logits[known]
        return rows, batch["labels"][known], torch.ones_like(rows, dtype=torch.bool)

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: the number of labels."""
        return (batch["labels" if "labels" in batch else ENDS[0]] != NOT_TRAINED).sum()

    def begin_epoch(self, epoch: int) -> None:
        """What was said in the last epoch is the past now."""
        self.module.get_buffer("epoch").fill_(epoch)
        if epoch:
            self.module.get_buffer("past").copy_(self.module.get_buffer("present"))
