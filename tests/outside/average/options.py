"""The options of `polydistill average`."""

from __future__ import annotations

from dataclasses import dataclass

from polydistill.options.groups import Place, Placed
from polydistill.options.settings import group, setting


@dataclass(frozen=True)
class AverageOptions(Placed):
    """The options of an average."""

    first: str
    second: str
    share: float = setting(0.5, "Share of the second model.", "Weights", metavar="X", least=0, most=1)
    digits: int = setting(4, "Digits after the point.", "Weights", metavar="N", least=0)
    exact: bool = setting(True, "Round to the nearest number, not downwards.", "Weights")
    place: Place = group(Place)
