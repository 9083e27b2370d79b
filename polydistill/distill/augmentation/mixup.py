"""Mixup: the word embeddings of two texts mixed, and the teacher asked about the mixture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polydistill.distill.augmentation.base import Augmentation
from polydistill.options.settings import Options, setting

if TYPE_CHECKING:
    import numpy as np

MIXED, SHARE = "mixed_with", "mixed_share"  # keys of a batch: (B,) row to mix with, (B,) share of the row itself


@dataclass(frozen=True)
class MixupOptions(Options):
    """The options of `mixup`."""

    alpha: float = setting(0.4, "Of the Beta distribution of the share; small values keep near one text.", "", above=0)


class Mixup(Augmentation):
    """x = lambda e_i + (1 - lambda) e_j, lambda ~ Beta(alpha, alpha) (Zhang et al. 2018; Distiller, arXiv 2109.11105).

    e are word embeddings, padded alike, and the mask is that of both. Student and teacher each mix their own, and the
    teacher says what the mixture is: labels are not mixed.

    Args:
        options: alpha.
        tokenizer: The student's.
    """

    options_class = MixupOptions

    def __init__(self, options: MixupOptions = MixupOptions(), *, tokenizer: Any) -> None:
        super().__init__(tokenizer=tokenizer)
        self._options = options

    def __call__(self, batch: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
        """The batch, each of its rows with another one to mix with."""
        import torch

        mask, count = batch["attention_mask"], len(batch["input_ids"])
        other = torch.from_numpy(random.permutation(count))
        shares = torch.from_numpy(random.beta(self._options.alpha, self._options.alpha, count)).float()
        return {**batch, "attention_mask": mask | mask[other], MIXED: other, SHARE: shares}
