"""Relations: how the queries, keys and values of one layer resemble each other, in models of any size."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING

from polydistill.distill.objectives.base import LayerPairs, Mean, Needs, Objective
from polydistill.distill.signals import NEVER, PROJECTIONS, Batch, Signal, Signals
from polydistill.errors import PolydistillError, UsageError
from polydistill.options.settings import Options, setting

if TYPE_CHECKING:
    from torch import Tensor

HEAD_WIDTH = 16  # the teacher's in the paper: 48 relation heads of 768 columns, 64 of 1,024


@dataclass(frozen=True)
class RelationsOptions(Options):
    """The options of `relations`."""

    heads: int | None = setting(
        None,
        "Relation heads that vectors are split into. [default: as narrow as in the paper, if they fit]",
        "",
        least=1,
    )
    layers: tuple[int, ...] = setting(
        (), "Layer of the student and of the teacher, such as 2,11, counted from 0. [default: the last ones]", ""
    )


class Relations(Objective):
    """Multi-head self-attention relations (MiniLMv2, Wang et al. 2021, arXiv 2012.15828, section 3.1).

    The heads of Q, K and V are laid side by side and split again into A_r relation heads;
    R_X = softmax(X X^T / sqrt(d_r)) for X = Q, K, V, without padding. The loss is
    sum_X 1/(A_r |x|) sum_{heads, queries} KL(R_X^T || R_X^S). d_r is the model's own, so that widths and numbers of
    heads may differ.

    Args:
        options: A_r and the layers. By default there are as many heads as divide all widths and leave the teacher's no
            narrower than in the paper (`HEAD_WIDTH` columns). The paper takes the last layers, and layer 19 of 24
            (counted from 1) of a large XLM-R.
        pairs: (student's layer, teacher's layer), counted from 0; the last pair is compared where no layers are given.
        depths: Layers of student and teacher; None if not known.

    Raises:
        UsageError: There are no such layers.
    """

    options_class = RelationsOptions

    def __init__(
        self,
        options: RelationsOptions = RelationsOptions(),
        *,
        pairs: LayerPairs,
        depths: tuple[int, int] | None = None,
    ) -> None:
        self._heads = options.heads
        self._pair = _pair(options.layers, depths) if options.layers else max(pairs)
        student, teacher = (frozenset(Signal(kind, layer) for kind in PROJECTIONS) for layer in self._pair)
        self.needs = Needs(student, teacher)

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
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


def _pair(layers: tuple[int, ...], depths: tuple[int, int] | None) -> tuple[int, int]:
    """(student's layer, teacher's layer) as they were given.

    Raises:
        UsageError: There are no such layers.
    """
    given = ",".join(map(str, layers))
    if len(layers) != 2 or min(layers) < 0:
        raise UsageError(
            f"'layers={given}' of the objective `relations` does not name two layers.",
            "Write the student's and the teacher's, counted from 0, such as layers=2,11.",
        )
    if depths and (layers[0] >= depths[0] or layers[1] >= depths[1]):
        last = [depth - 1 for depth in depths]
        raise UsageError(
            f"'layers={given}' of the objective `relations` does not name two layers.",
            f"Write the student's (0 to {last[0]}) and the teacher's (0 to {last[1]}), such as {last[0]},{last[1]}.",
        )
    return layers[0], layers[1]


def _divergence(student: Tensor, teacher: Tensor, heads: int, mask: Tensor) -> Tensor:
    """Scalar: the mean over heads of the sum over queries of KL(teacher || student); inputs are (B, N, H)."""
    own, theirs = (_log_relations(x, heads, mask) for x in (student, teacher))
    return (theirs.exp() * (theirs - own)).sum() / heads  # a padded query has the same relations in both


def _log_relations(x: Tensor, heads: int, mask: Tensor) -> Tensor:
    """(B, A_r, N, N) log softmax(X X^T / sqrt(d_r)) of X (B, N, H); `mask` (B, N) is False at padding.

    A padded position counts as a vector of zeros: as a key it has no probability, as a query all keys are alike to it.
    """
    import torch

    split = x.float().masked_fill(~mask.unsqueeze(-1), 0).unflatten(-1, (heads, -1)).transpose(1, 2)
    with torch.autocast(x.device.type, enabled=False):  # which would round the products to bfloat16
        scores = split @ split.transpose(-1, -2) / split.shape[-1] ** 0.5
    return scores.masked_fill(~mask[:, None, None, :], NEVER).log_softmax(-1)
