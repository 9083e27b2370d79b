"""What an average is to do."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from outside.average.options import AverageOptions
from outside.average.stages import averaged, rounded
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.refs import ModelRef, resolve
from polydistill.progress import Progress
from polydistill.runs.plan import Origin, Plan, Report
from polydistill.runs.stages import Stage


def prepare(options: AverageOptions, progress: Progress) -> Plan:
    """Looks at both models."""
    first, second = (
        Origin(found, Checkpoint.open(found.folder), role)
        for role, name in (("model", options.first), ("second", options.second))
        for found in [resolve(ModelRef.parse(name), progress=progress.note)]
    )
    a, b = first.resolved.folder, second.resolved.folder
    return Plan(
        output=options.place.output or Path("averaged"),
        origin=first,
        stages=(
            Stage("averaged", partial(averaged, a, b, options.share), keep=False),
            Stage("rounded", partial(rounded, a, options.digits, options.exact), needs=("averaged",), keep=False),
        ),
        report=lambda done, out: Report(
            {"total": first.checkpoint.parameters}, facts={"tensors": done["averaged"].facts["tensors"]}
        ),
        languages=("en",),
        settings={"share": options.share, "digits": options.digits},
        inputs={"weights": [first.checkpoint.weights_hash, second.checkpoint.weights_hash]},
        others=(second,),
    )
