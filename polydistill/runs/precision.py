"""Whether matrices are multiplied in bfloat16."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from polydistill.devices import AUTO, BFLOAT16, FASTER, FLOAT32
from polydistill.training.deciding import decided

if TYPE_CHECKING:
    from polydistill.runs.stages import Work


def multiplies_in_bfloat16(precision: str, folder: Path, work: Work) -> bool:
    """Whether a run multiplies in bfloat16: as asked, or for `auto` if a step is a tenth faster here with it.

    It is measured once a run, on a model of the same sizes, so that a resumed run does the same.

    Args:
        precision: `float32`, `bfloat16` or `auto`.
        folder: A model of the sizes that are trained.
        work: Of the stage; the decision is noted for the whole run.
    """
    if precision != AUTO:
        return precision == BFLOAT16
    from polydistill.distill.speed import training_rates

    def is_faster() -> bool:
        rates = training_rates(folder)
        return rates[BFLOAT16] > FASTER * rates[FLOAT32]

    return decided(work.note("precision.json"), is_faster)
