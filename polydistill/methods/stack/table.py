"""The readable form of what a stacking did."""

from __future__ import annotations

from polydistill.runs.result import Result
from polydistill.runs.tables import columns, score_rows, stage_rows


def table(result: Result) -> str:
    """Stages, unexplained variance, scores and sizes."""
    parts = [columns(stage_rows(result.stages), right=(1, 2, 4, 5))]
    if left := result.facts["unexplained_variance"]:
        first, last = (f"{100 * left[when]:.1f} %" for when in ("first", "last"))
        parts.append(f"Of the LLM's variance {first} was unexplained at first, {last} is now.")
    if result.scores:
        parts.append(columns(score_rows(result.scores), right=(4, 5)))
    whole, trained = (result.parameters[which] / 1e6 for which in ("student", "trained"))
    parts.append(f"{whole:.1f} M parameters, {trained:.2f} M of its own.")
    return "\n\n".join(parts)
