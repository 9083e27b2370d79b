"""MI-alpha: a lower bound of what student and teacher say in common, by critics that are trained with the student."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from polydistill.distill.objectives.base import AddsUp, LayerPairs, Mean, Needs, Objective
from polydistill.distill.signals import HIDDEN, Batch, Signal, Signals
from polydistill.errors import PolydistillError
from polydistill.options.settings import Options, setting

if TYPE_CHECKING:
    from torch import Tensor, nn

    from polydistill.training.facts import TrainingFacts

CRITIC, OUT = 128, 64  # widths of a critic's hidden layer and of what it compares
LEAST = 3  # texts in a batch


@dataclass(frozen=True)
class MiAlphaOptions(Options):
    """The options of `mi-alpha`."""

    alpha: float = setting(
        0.5,
        "Share of the batch's own mean in the baseline: 1 is tight and has much variance, 0 leaves all to a network.",
        "",
        least=0,
        most=1,
    )


class MiAlpha(Objective):
    """Mutual information of two hidden states (Distiller, He et al. 2021, arXiv 2109.11105; Poole et al. 2019).

    With f_ij = <g_S(s_i), g_T(t_j)> of the first tokens' last hidden states s, t of K texts, a baseline b_j of t_j and
    loo_ij the mean of e^f_ik over k != j,

    I = 1 + mean_{i != j} [f_ii - log(a loo_ij + (1 - a) e^b_i)] - mean_{i != j} e^f_ij / (a loo_ii + (1 - a) e^b_i),

    and the loss is -I. g_S, g_T and b are networks of two layers that are trained with the student and dropped when it
    is saved, so that models of any widths compare. A bound from K texts is at most about log K: small batches say
    little.

    Args:
        options: alpha.
        pairs: (student's layer, teacher's layer); the last pair is compared.
        widths: (student's, teacher's) width of a hidden state.
    """

    options_class = MiAlphaOptions
    adds_up: ClassVar[AddsUp] = AddsUp.BATCHES
    module: nn.Module

    def __init__(
        self, options: MiAlphaOptions = MiAlphaOptions(), *, pairs: LayerPairs, widths: tuple[int, int]
    ) -> None:
        self._options, self._widths = options, widths
        student, teacher = pairs[-1]
        self._student, self._teacher = Signal(HIDDEN, student + 1), Signal(HIDDEN, teacher + 1)
        self.needs = Needs(frozenset({self._student}), frozenset({self._teacher}))

    def begin(self, facts: TrainingFacts) -> None:
        """Makes the critics and the baseline."""
        from torch import nn

        def network(width: int, out: int) -> nn.Module:
            return nn.Sequential(nn.Linear(width, CRITIC), nn.ReLU(), nn.Linear(CRITIC, out))

        own, theirs = self._widths
        self.module = nn.ModuleDict(
            {"student": network(own, OUT), "teacher": network(theirs, OUT), "baseline": network(theirs, 1)}
        )

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        """One term, `mi_alpha`: minus the bound.

        Args:
            student: Hidden states (K, N, H).
            teacher: The same of the teacher, of any width.
            batch: At least three texts.

        Raises:
            PolydistillError: There are fewer.
        """
        own, theirs = student[self._student][:, 0].float(), teacher[self._teacher][:, 0].float()
        if len(own) < LEAST:
            raise PolydistillError(
                f"The objective `mi-alpha` compares at least {LEAST} texts at once, and a batch has {len(own)}.",
                "Use larger batches, or split them into fewer parts.",
            )
        critics = {name: self.module.get_submodule(name) for name in ("student", "teacher", "baseline")}
        scores = critics["student"](own) @ critics["teacher"](theirs).T
        bound = information(scores, critics["baseline"](theirs).squeeze(-1), self._options.alpha)
        return {"mi_alpha": Mean(-bound, bound.new_ones(()))}

    def weight(self, batch: Batch) -> Tensor:
        """Scalar: 1, as a batch has one bound."""
        return batch["attention_mask"].new_ones(())


def information(scores: Tensor, baseline: Tensor, alpha: float) -> Tensor:
    """Scalar: the bound I of `MiAlpha`.

    Args:
        scores: (K, K) f_ij.
        baseline: (K,) b.
        alpha: a.
    """
    import torch

    count = len(scores)
    same = torch.eye(count, dtype=torch.bool, device=scores.device)
    # (K, K, K): e^f_ik without k = j, whose mean over k is loo_ij; of it only j != i and the diagonal are used.
    others = scores.unsqueeze(1).expand(-1, count, -1).masked_fill(same.unsqueeze(0), -torch.inf)
    left_out = others.logsumexp(-1) - math.log(count - 1)
    mixed = _mixed(left_out, baseline.unsqueeze(1).expand_as(left_out), alpha)
    joint = (scores.diagonal().unsqueeze(1) - mixed)[~same].mean()
    marginal = (scores - mixed.diagonal().unsqueeze(1))[~same].exp().mean()
    return 1 + joint - marginal


def _mixed(left_out: Tensor, baseline: Tensor, alpha: float) -> Tensor:
    """log(a e^left_out + (1 - a) e^baseline)."""
    if alpha in (0, 1):
        return left_out if alpha else baseline
    return (left_out + math.log(alpha)).logaddexp(baseline + math.log(1 - alpha))
