"""The readable form of what an annotation projection did."""

from __future__ import annotations

from polydistill.runs.result import Result
from polydistill.runs.tables import columns, score_rows, stage_rows


def table(result: Result) -> str:
    """What was projected, the stages, and scores."""
    found = result.facts["projection"]
    dropped = "; ".join(f"{count:,} {why}" for why, count in found["dropped"].items())
    entities = found["entities"]
    parts = [
        f"{found['kept']:,} of {found['pairs']:,} pairs kept, with {entities['projected']:,} of {entities['found']:,} "
        f"entities{f' ({dropped})' if dropped else ''}."
    ]
    if result.stages:
        parts.append(columns(stage_rows(result.stages), right=(1, 2, 4, 5)))
    if result.scores:
        parts.append(columns(score_rows(result.scores), right=(4, 5)))
    return "\n\n".join(parts)
