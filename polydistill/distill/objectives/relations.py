"""Relations: how the queries, keys and values of one layer resemble each other, in models of any size."""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor

from polydistill.distill.objectives.base import Mean, Needs, Objective
from polydistill.distill.signals import NEVER, PROJECTIONS, Batch, Signal, Signals
from polydistill.errors import PolydistillError, UsageError

HEAD_WIDTH = 16  # the teacher's in the paper: 48 relation heads of 768 columns, 64 of 1,024


class Relations(Objective):
    """Multi-head self-attention relations (MiniLMv2, Wang et al. 2021, arXiv 2012.15828, section 3.1).

    The heads of Q, K and V are laid side by side and split again into A_r relation heads;
    R_X = softmax(X X^T / sqrt(d_r)) for X = Q, K, V, without padding. The loss is
    sum_X 1/(A_r |x|) sum_{heads, queries} KL(R_X^T || R_X^S). d_r is the model's own, so that widths and numbers of
    heads may differ.

    Args:
        pair: (student's layer, teacher's layer), counted from 0. The paper takes the last ones, and layer 19 of 24
            (counted from 1) of a large XLM-R.
        heads: A_r. By default as many as divide all widths and leave the teacher's no narrower than in the paper
            (`HEAD_WIDTH` columns).

    Raises:
        UsageError: `heads` is less than 1.
    """

    def __init__(self, pair: tuple[int, int], *, heads: int | None = None) -> None:
        super().__init__()
        if heads is not None and heads < 1:
            raise UsageError(f"{heads} relation heads make no sense.", "Give at least 1.")
        self._pair, self._heads = pair, heads
        student, teacher = (frozenset(Signal(kind, layer) for kind in PROJECTIONS) for layer in pair)
        self.needs = Needs(student, teacher)

    def forward(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """Three terms, `relations_q`, `relations_k` and `relations_v`; their weight is the number of queries.

        Raises:
            PolydistillError: The number of relation heads does not divide a width.
        """
        mask = batch["attention_mask"].bool()
        own = [student[Signal(kind, self._pair[0])] for kind in PROJECTIONS]
        theirs = [teacher[Signal(kind, self._pair[1])].detach() for kind in PROJECTIONS]
        heads = self._number([x.shape[-1] for x in own], [x.shape[-1] for x in theirs])
        return {
            f"relations_{kind[0]}": Mean(_divergence(s, t, heads, mask), self.weight(batch))
            for kind, s, t in zip(PROJECTIONS, own, theirs, strict=True)
        }

    def _number(self, student: list[int], teacher: list[int]) -> int:
        widths = sorted({*student, *teacher})
        common = gcd(*widths)
        if self._heads is None:
            most = max(1, min(teacher) // HEAD_WIDTH)
            return max(n for n in range(1, most + 1) if common % n == 0)
        if common % self._heads:
            raise PolydistillError(
                f"{self._heads} relation heads do not divide the widths {' and '.join(map(str, widths))}.",
                f"Choose a divisor of {common}.",
            )
        return self._heads


def _divergence(student: Tensor, teacher: Tensor, heads: int, mask: Tensor) -> Tensor:
    """Scalar: the mean over heads of the sum over queries of KL(teacher || student); inputs are (B, N, H)."""
    own, theirs = (_log_relations(x, heads, mask) for x in (student, teacher))
    return (theirs.exp() * (theirs - own)).sum() / heads  # a padded query has the same relations in both


def _log_relations(x: Tensor, heads: int, mask: Tensor) -> Tensor:
    """(B, A_r, N, N) log softmax(X X^T / sqrt(d_r)) of X (B, N, H); `mask` (B, N) is False at padding.

    A padded position counts as a vector of zeros: as a key it has no probability, as a query all keys are alike to it.
    """
    split = x.float().masked_fill(~mask.unsqueeze(-1), 0).unflatten(-1, (heads, -1)).transpose(1, 2)
    with torch.autocast(x.device.type, enabled=False):  # which would round the products to bfloat16
        scores = split @ split.transpose(-1, -2) / split.shape[-1] ** 0.5
    return scores.masked_fill(~mask[:, None, None, :], NEVER).log_softmax(-1)
