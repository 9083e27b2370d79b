"""The readable form of what a distillation without target labels did."""

from __future__ import annotations

from polydistill.runs.result import Result
from polydistill.runs.tables import columns, score_rows, stage_rows


def table(result: Result) -> str:
    """Stages, what became of pseudo-labels, and scores."""
    parts, facts = [], result.facts
    if result.stages:
        parts.append(columns(stage_rows(result.stages), right=(1, 2, 4, 5)))
    if told := facts["pseudo_labels"]:
        similar = f"mean cosine {facts['prototypes'][0]['similarity']:.3f}"
        share, changed = told["share_entity"], told["changed"]
        rectified = "" if changed is None else f"; prototypes changed {100 * changed:.2f} % of its tags"
        parts.append(
            f"Prototypes of {facts['target']} and {facts['sources'][0]}: {similar}. Of the words of {facts['target']}, "
            f"the teacher tags {100 * (share or 0):.1f} % as part of an entity{rectified}."
        )
    if result.scores:
        parts.append(columns(score_rows(result.scores), right=(4, 5)))
    return "\n\n".join(parts)
