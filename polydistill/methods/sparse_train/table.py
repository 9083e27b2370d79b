"""The readable form of what a sparse language fine-tuning did."""

from __future__ import annotations

from polydistill.runs.result import Result
from polydistill.runs.tables import columns


def table(result: Result) -> str:
    """Losses of both trainings, and how much of the model differs from its base."""
    rows = [["stage", "steps", "seconds", "loss at first", "at last", "best on held-out text"]]
    for stage in result.stages:
        if stage["steps"]:
            losses = [f"{stage['loss'][end]['mlm']:.4g}" for end in ("first", "last")]
            best = f"{stage['facts']['best']:.4g} after {stage['facts']['best_step']:,}"
            rows.append([stage["name"], f"{stage['steps']:,}", f"{stage['seconds']:.0f}", *losses, best])
    facts = result.facts
    changed = f"{facts['entries']:,} of {facts['parameters']:,} ({facts['density']:.2%})"
    sizes = columns([["model", result.model], ["base", facts["base"]], ["changed weights", changed]])
    return f"{columns(rows, right=(1, 2, 3, 4, 5))}\n\n{sizes}"
