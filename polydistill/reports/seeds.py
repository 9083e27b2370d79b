"""Methods side by side, each trained with several seeds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation.cache import Items
from polydistill.metrics.items import Measured
from polydistill.metrics.seeds import mean_difference, mean_retained, mean_score
from polydistill.progress import SILENT, Progress
from polydistill.records.record import Score
from polydistill.reports.averages import with_averages
from polydistill.reports.rows import Cell, Comparison, Row, Section
from polydistill.reports.runs import ModelFacts, read_run

Scores = Mapping[Cell, tuple[Score, ...]]


@dataclass(frozen=True)
class _Method:
    """A method: what its models are called together, the first one's facts, and the scores of every seed."""

    facts: ModelFacts
    scores: Scores


def compare_seeds(groups: Sequence[Sequence[Path]], progress: Progress = SILENT) -> Comparison:
    """Compares methods with the first one, seed by seed.

    Args:
        groups: Of each method the runs of all seeds, in one order: files that `evaluate` wrote of one model each, or
            model folders with scores.
        progress: Where to report.

    Raises:
        PolydistillError: A run cannot be read or has several models, methods have not as many seeds, or no two scores
            can be compared.
    """
    if len({len(group) for group in groups}) > 1 or len(groups) < 2:
        sizes = " and ".join(str(len(group)) for group in groups)
        raise UsageError(
            f"Methods are compared seed by seed, and they have {sizes} runs.",
            "Give as many runs of each of at least two methods, joined by commas, the seeds in one order.",
        )
    methods, notes = _on_one_data([_read(group) for group in groups])
    items, rows = Items(), list[Row]()
    shared = [cell for cell in methods[0].scores if any(cell in other.scores for other in methods[1:])]
    if not shared:
        raise PolydistillError(
            " ".join(["The methods have no task, language and split in common on the same data.", *notes]),
            "Evaluate all of them on the same task, language, split and metric.",
        )
    with progress.bar("comparing", len(shared), "score") as done:
        for cell in shared:
            found = {m.facts.name: _measured(m.scores[cell], items) for m in methods if cell in m.scores}
            if missing := [name for name, measured in found.items() if measured is None]:
                notes.append(f"{cell} has no intervals: predictions of {', '.join(missing)} are not in the cache here.")
            for method in methods:
                if cell in method.scores:
                    rows.append(_row(cell, method, methods[0], found))
            done(1)
    return Comparison(tuple(m.facts for m in methods), with_averages(rows, {}), tuple(notes), len(groups[0]))


def _on_one_data(methods: Sequence[_Method]) -> tuple[list[_Method], list[str]]:
    """(methods with the scores on the first one's data alone, what is said of others)."""
    first, kept, notes = methods[0], [methods[0]], []
    for method in methods[1:]:
        same = {
            cell: scores
            for cell, scores in method.scores.items()
            if cell not in first.scores or scores[0].data_hash == first.scores[cell][0].data_hash
        }
        notes += [
            f"{method.facts.name} was measured on other data than {first.facts.name}: {cell}."
            for cell in method.scores.keys() - same.keys()
        ]
        kept.append(replace(method, scores=same))
    return kept, notes


def _read(paths: Sequence[Path]) -> _Method:
    runs = [read_run(path) for path in paths]
    by_cell: dict[Cell, list[Score]] = {}
    for run in runs:
        if len({score.model for score in run.scores}) > 1:
            raise UsageError(
                f"{run.where} has several models, so it does not say which of them belongs to a seed.",
                "Give model folders, or files of one model each.",
            )
        for score in {_cell(score): score for score in run.scores}.values():
            by_cell.setdefault(_cell(score), []).append(score)
    whole = {
        cell: tuple(scores)
        for cell, scores in by_cell.items()
        if len(scores) == len(runs) and len({score.data_hash for score in scores}) == 1
    }
    return _Method(replace(runs[0].models[0], name=_name(paths), weights_hash=None), whole)


def _cell(score: Score) -> Cell:
    section = Section(score.task, score.split, score.metric, score.normalisation)
    return Cell(section, score.language, score.question_language)


def _name(paths: Sequence[Path]) -> str:
    """`ner-*` for ner-0, ner-1 and ner-2."""
    names = [path.resolve().name for path in paths]
    start = "".join(letters[0] for letters in itertools.takewhile(_alike, zip(*names, strict=False)))
    rest = [name[len(start) :][::-1] for name in names]
    end = "".join(letters[0] for letters in itertools.takewhile(_alike, zip(*rest, strict=False)))[::-1]
    return f"{start}*{end}" if start or end else ", ".join(names)


def _alike(letters: Sequence[str]) -> bool:
    return len(set(letters)) == 1


def _measured(scores: Sequence[Score], items: Items) -> list[Measured] | None:
    found = [items.of(score) for score in scores]
    whole = [measured for measured in found if measured is not None]
    return whole if len(whole) == len(found) else None


def _row(cell: Cell, method: _Method, reference: _Method, known: Mapping[str, list[Measured] | None]) -> Row:
    scores, base = method.scores[cell], reference.scores[cell]
    value = sum(score.value for score in scores) / len(scores)
    row = Row(cell.section, cell.label, method.facts.name, value, None, scores[0].n, cell)
    own, other = known[method.facts.name], known[reference.facts.name]
    if own is not None:
        row = replace(row, interval=mean_score(own).interval)
    if method is reference:
        return row
    pairs = list(zip(scores, base, strict=True))
    ratios = [a.value / b.value for a, b in pairs if b.value]
    row = replace(
        row,
        difference=sum(a.value - b.value for a, b in pairs) / len(pairs),
        retention=sum(ratios) / len(ratios) if len(ratios) == len(pairs) else None,
    )
    if own is None or other is None or len(own[0].items) != len(other[0].items):
        return row
    kept = mean_retained(own, other)
    return replace(
        row,
        difference_interval=mean_difference(own, other).interval,
        retention_interval=kept.interval if kept else None,
    )
