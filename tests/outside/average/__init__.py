"""The average of two models that were tuned from the same one, rounded to some digits."""

from __future__ import annotations

from outside.average.card import TOLD
from outside.average.options import AverageOptions
from polydistill.runs.method import Method, later

METHOD = Method(
    name="average",
    options=AverageOptions,
    told=TOLD,
    about="Every weight is the mean of both, or nearer to one of them.",
    prepare=later("outside.average.plan", "prepare"),
    examples=("polydistill average A B --share 0.25",),
)
