"""How several teachers become one, as options; without torch."""

from __future__ import annotations

from dataclasses import dataclass

from polydistill.options.settings import Options, setting

PROBABILITIES, MEAN_LOGITS, BALANCE, PARTITION = "probabilities", "logits", "balance", "partition"


@dataclass(frozen=True)
class Combined(Options):
    """How several teachers count."""

    combine: str = setting(
        PROBABILITIES,
        "How several teachers become one: the mean of their probabilities or of their logits; balance, where those "
        "count more that the student is still far from; or partition, where each word or text follows the teacher that "
        "knows it best, if that is better than the student was at first.",
        "Data",
        metavar="HOW",
        choices=(PROBABILITIES, MEAN_LOGITS, BALANCE, PARTITION),
    )
