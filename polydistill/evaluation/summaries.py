"""What several scores say together: averages over languages, and a student compared with its teacher."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from polydistill.evaluation.cache import Items
from polydistill.evaluation.scoring import Cell
from polydistill.metrics.answers import g_xlt
from polydistill.metrics.items import Measured
from polydistill.metrics.loyalty import retention
from polydistill.metrics.paired import FEW, FEW_UNITS, interval, middle, resampled, resampled_means, retained
from polydistill.records.record import Score

Row = dict[str, Any]


def averages(scores: Sequence[Score], items: Items | None = None, *, seed: int = 0) -> list[Row]:
    """Means over languages, each language counting the same; XLT and G-XLT where questions were crossed.

    Args:
        scores: Of one or more models and tasks.
        items: What the cache has of them; without it a mean has no interval.
        seed: Of the bootstrap, in which translations of an item are drawn together.
    """
    groups: dict[tuple[Any, ...], list[Score]] = defaultdict(list)
    for score in scores:
        groups[score.model, score.task, score.split, score.metric, score.normalisation].append(score)
    found: list[Row] = []
    for (model, name, split, metric, normalisation), group in groups.items():
        facts = {"model": model, "task": name, "split": split, "metric": metric, "normalisation": normalisation}
        straight = [score for score in group if score.question_language is None]
        crossed = [score for score in group if score.question_language is not None]
        codes = [score.language for score in straight]
        means: dict[str, tuple[float, list[Score]]] = {}
        if len(straight) > 1:
            means["macro"] = sum(score.value for score in straight) / len(straight), straight
        if crossed:
            cells = {(s.question_language or s.language, s.language): s.value for s in group}
            same, other = g_xlt([[cells[asked, about] for about in codes] for asked in codes])
            means |= {"xlt": (same, straight), "g-xlt": (other, crossed)}
        for average, (value, of) in means.items():
            measured = [items.of(score) if items else None for score in of]
            found.append(
                {**facts, "average": average, "value": value, "interval": _interval(measured, seed), "languages": codes}
            )
    return found


def _interval(sets: Sequence[Measured | None], seed: int) -> list[float] | None:
    """Of a mean over sets, None where the items of one are missing."""
    known = [measured for measured in sets if measured is not None]
    return list(middle(resampled_means([known], seed=seed)[0])) if len(known) == len(sets) else None


def loyalty_rows(student: str, cell: Cell, measured: Sequence[Measured], seed: int) -> list[Row]:
    """Loyalty in one language, as JSON.

    Args:
        student: Its name.
        cell: The language.
        measured: `scoring.loyalty` of both models' predictions.
        seed: Of the bootstrap.
    """
    return [
        {
            **_place(student, cell.language.code, cell.asked),
            "metric": m.metric,
            "normalisation": m.normalisation,
            "value": m.value,
            "interval": list(interval(m, seed=seed)),
            "n": len(m.items),
        }
        for m in measured
    ]


def loyalty_averages(
    student: str, cells: Sequence[Cell], measured: Sequence[Sequence[Measured]], seed: int
) -> list[Row]:
    """Mean loyalty over languages, as JSON; the arguments are those of `loyalty_rows`, for all cells."""
    rows = []
    for average, numbers in _averaged([cell.asked for cell in cells]).items():
        for sets in zip(*(measured[i] for i in numbers), strict=True):
            what = {"metric": sets[0].metric, "normalisation": sets[0].normalisation}
            value = float(np.mean([m.value for m in sets]))
            rows.append(
                {
                    "model": student,
                    "average": average,
                    **what,
                    "value": value,
                    "interval": _interval(sets, seed),
                    "languages": _codes(cells[i].language.code for i in numbers),
                }
            )
    return rows


def retention_rows(
    teacher: str, scores: Sequence[Score], items: Items | None = None, *, seed: int = 0
) -> tuple[list[Row], list[Row]]:
    """The share of the teacher's scores that the others keep, in each language and of averages over them, as JSON.

    The share is None where the teacher has 0.

    Args:
        teacher: Its name.
        scores: Its and the others'.
        items: What the cache has of them; without it there are no intervals.
        seed: Of the bootstrap.
    """
    reference = {_cell_of(score): score for score in scores if score.model == teacher}
    groups: dict[tuple[Any, ...], list[Score]] = defaultdict(list)
    for score in scores:
        if score.model != teacher:
            groups[score.model, score.metric, score.normalisation].append(score)
    rows, means = [], []
    for (model, metric, normalisation), own in groups.items():
        what = {"metric": "retention", "of": metric, "normalisation": normalisation}
        theirs = [reference[_cell_of(score)] for score in own]
        for one, other in zip(own, theirs, strict=True):
            rows.append(
                {
                    **_place(model, one.language, one.question_language),
                    **what,
                    **_retention([one], [other], items, seed),
                    "n": one.n,
                }
            )
        for average, numbers in _averaged([score.question_language for score in own]).items():
            some = _retention([own[i] for i in numbers], [theirs[i] for i in numbers], items, seed)
            means.append(
                {
                    "model": model,
                    "average": average,
                    **what,
                    **some,
                    "languages": _codes(own[i].language for i in numbers),
                }
            )
    return rows, means


def _retention(own: Sequence[Score], theirs: Sequence[Score], items: Items | None, seed: int) -> Row:
    """Value and interval of a ratio of means."""
    value = retention(*(sum(score.value for score in some) / len(some) for some in (own, theirs)))
    models = [[m for s in some if items and (m := items.of(s)) is not None] for some in (own, theirs)]
    if value is None or not all(len(sets) == len(own) for sets in models):
        return {"value": value, "interval": None}
    one, other = (
        resampled([sets[0] for sets in models], seed=seed) if len(own) == 1 else resampled_means(models, seed=seed)
    )
    between = retained(one, other)
    return {"value": value, "interval": list(between) if between else None}


def _averaged(asked: Sequence[str | None]) -> Mapping[str, list[int]]:
    """What an average is called -> the numbers of its cells, by each one's language of questions."""
    straight = [i for i, code in enumerate(asked) if code is None]
    crossed = [i for i, code in enumerate(asked) if code is not None]
    found = {"macro": straight, "g-xlt": crossed}
    return {name: numbers for name, numbers in found.items() if len(numbers) > 1}


def _cell_of(score: Score) -> tuple[Any, ...]:
    return score.language, score.question_language, score.metric, score.normalisation


def _place(model: str, language: str, asked: str | None) -> Row:
    return {"model": model, "language": language, "question_language": asked}


def _codes(languages: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(languages))


def few_notes(sets: Iterable[tuple[str, int]]) -> list[str]:
    """What is to be said of intervals on few items: one sentence, or none.

    Args:
        sets: (language, items or paragraphs that there are to draw) of each.
    """
    few = [f"{language} ({n})" for language, n in dict(sets).items() if n < FEW_UNITS]
    return [f"{FEW}: {', '.join(few)}."] if few else []
