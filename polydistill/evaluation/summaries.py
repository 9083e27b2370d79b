"""What several scores say together: averages over languages, and a student beside its teacher."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from polydistill.metrics.answers import g_xlt
from polydistill.metrics.items import Measured
from polydistill.metrics.loyalty import retention
from polydistill.metrics.paired import interval
from polydistill.record import Score


def averages(scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Means over languages, each language counting the same; XLT and G-XLT where questions were crossed."""
    groups: dict[tuple[Any, ...], list[Score]] = defaultdict(list)
    for score in scores:
        groups[score.model, score.task, score.split, score.metric, score.normalisation].append(score)
    found: list[dict[str, Any]] = []
    for (model, name, split, metric, normalisation), group in groups.items():
        facts = {"model": model, "task": name, "split": split, "metric": metric, "normalisation": normalisation}
        straight = [score for score in group if score.question_language is None]
        codes = [score.language for score in straight]
        if len(straight) > 1:
            mean = sum(score.value for score in straight) / len(straight)
            found.append({**facts, "average": "macro", "value": mean, "languages": codes})
        if len(group) > len(straight):
            cells = {(s.question_language or s.language, s.language): s.value for s in group}
            same, crossed = g_xlt([[cells[asked, about] for about in codes] for asked in codes])
            found.append({**facts, "average": "xlt", "value": same, "languages": codes})
            found.append({**facts, "average": "g-xlt", "value": crossed, "languages": codes})
    return found


def loyalty_rows(
    student: str, language: str, question_language: str | None, measured: Sequence[Measured], seed: int
) -> list[dict[str, Any]]:
    """Loyalty in one language, as JSON.

    Args:
        student: Its name.
        language: Of the data.
        question_language: Of the questions, where it is another one.
        measured: What the kind of task says of both models' predictions.
        seed: Of the bootstrap.
    """
    return [
        {"model": student, "language": language, "question_language": question_language, "metric": m.metric,
         "normalisation": m.normalisation, "value": m.value, "interval": list(interval(m, seed=seed)),
         "n": len(m.items)}
        for m in measured
    ]  # fmt: skip


def retention_rows(teacher: str, scores: Sequence[Score]) -> list[dict[str, Any]]:
    """The share of the teacher's scores that the others keep, as JSON; None where the teacher has 0."""

    def what(score: Score) -> tuple[Any, ...]:
        return score.language, score.question_language, score.metric, score.normalisation

    reference = {what(score): score.value for score in scores if score.model == teacher}
    return [
        {"model": score.model, "language": score.language, "question_language": score.question_language,
         "metric": "retention", "of": score.metric, "normalisation": score.normalisation,
         "value": retention(score.value, reference[what(score)]), "interval": None, "n": score.n}
        for score in scores
        if score.model != teacher
    ]  # fmt: skip
