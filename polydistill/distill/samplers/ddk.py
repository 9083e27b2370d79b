"""DDK: more of the groups in which the student is further behind its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp
from typing import Any, ClassVar

from polydistill.distill.samplers.base import Losses, Sampler
from polydistill.options.settings import Options, setting

MOST = 10.0  # of an exponent: early losses would overflow


@dataclass(frozen=True)
class DdkOptions(Options):
    """The options of `ddk`."""

    alpha: float = setting(0.5, "How far the shares follow the losses; 0 makes them equal.", "", least=0, most=1)
    every: int = setting(100, "Batches after which new shares are used.", "", least=1)


class Ddk(Sampler):
    """Distillation with domain knowledge (Liu et al. 2024, arXiv 2407.16154), with languages as domains.

    With the held-out losses l_S of the student and l_T of the teacher, r_0 = softmax(l_S / l_T), and at each check
    psi = r exp(l_S / l_T), r <- a psi / sum(psi) + (1 - a) / n: no share falls below (1 - a) / n. The paper has
    perplexities; in phase 1 of BiStil l_S is the relative error, and l_T is 1.

    Args:
        sizes: Group -> number of its examples.
        options: a, and when the shares are looked at.
    """

    options_class = DdkOptions
    follows: ClassVar[bool] = True

    def __init__(self, sizes: Mapping[str, int], options: DdkOptions = DdkOptions()) -> None:
        super().__init__(sizes)
        self.every, self._alpha = options.every, options.alpha
        self._shares: dict[str, float] = {}

    def weights(self) -> dict[str, float]:
        """Group -> r; all alike before the first losses are known."""
        return dict(self._shares) if self._shares else dict.fromkeys(self.groups, 1 / len(self.groups))

    def update(self, losses: Mapping[str, Losses]) -> None:
        """Moves the shares to where the student is behind."""
        begun = bool(self._shares)
        before = self.weights()
        behind = {group: min(losses[group].student / losses[group].teacher, MOST) for group in self.groups}
        raised = {group: (before[group] if begun else 1.0) * exp(behind[group]) for group in self.groups}
        shares = {group: value / sum(raised.values()) for group, value in raised.items()}
        kept = self._alpha if begun else 1.0
        self._shares = {group: kept * share + (1 - kept) / len(shares) for group, share in shares.items()}

    def state(self) -> dict[str, Any]:
        """The shares."""
        return {"shares": self._shares}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores them."""
        self._shares = dict(state["shares"])
