"""What a section's rows say together: averages over languages, and p adjusted for the number of languages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from polydistill.metrics.items import Measured
from polydistill.metrics.loyalty import retention
from polydistill.metrics.paired import holm, middle, resampled_means, retained
from polydistill.reports.rows import Cell, Row, Section, in_sections

Items = Mapping[tuple[Cell, str], Measured | None]


def with_averages(rows: Iterable[Row], items: Items) -> tuple[Row, ...]:
    """Rows by section, each followed by its macro-averages over the languages that all of its models have.

    Questions in another language than their context have an average of their own, G-XLT; the other is then XLT (Lewis
    et al., MLQA: Evaluating Cross-lingual Extractive Question Answering, ACL 2020).

    Args:
        rows: One a model and language.
        items: (language, model) -> what its score is made of; averages over others have no intervals.
    """
    found: list[Row] = []
    for section, own in in_sections(rows).items():
        adjusted = _adjusted(own)
        found += [*adjusted, *_averages(section, own, items, crossed=False)]
        found += _averages(section, own, items, crossed=True)
    return tuple(found)


def _adjusted(rows: Sequence[Row]) -> list[Row]:
    """The rows with each model's p adjusted for its languages."""
    by_model: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if row.p is not None:
            by_model.setdefault(row.model, []).append(i)
    found = list(rows)
    for places in by_model.values():
        for i, p in zip(places, holm([rows[i].p or 0.0 for i in places]), strict=True):
            found[i] = replace(rows[i], p_adjusted=p)
    return found


def _averages(section: Section, rows: Sequence[Row], items: Items, *, crossed: bool) -> list[Row]:
    """One average a model, where there are at least two languages to average."""
    models = list(dict.fromkeys(row.model for row in rows))
    cells: dict[Cell, dict[str, Row]] = {}
    for row in rows:
        if row.cell is not None and row.cell.is_crossed == crossed:
            cells.setdefault(row.cell, {})[row.model] = row
    shared = {cell: by_model for cell, by_model in cells.items() if len(by_model) == len(models)}
    if len(shared) < 2:
        return []
    drawn = _drawn([[items.get((cell, name)) for cell in shared] for name in models])
    label = "G-XLT" if crossed else "average"
    return [
        _average(
            section,
            label,
            [m[name] for m in shared.values()],
            [m[models[0]] for m in shared.values()],
            drawn[i],
            drawn[0],
        )
        for i, name in enumerate(models)
    ]


def _drawn(models: Sequence[Sequence[Measured | None]]) -> list[np.ndarray | None]:
    """(resamples,) means of each model on the same draws; None where the items of one language are missing."""
    whole = {i: [m for m in sets if m is not None] for i, sets in enumerate(models) if None not in sets}
    sizes = {i: [len(m.items) for m in sets] for i, sets in whole.items()}
    whole = {i: sets for i, sets in whole.items() if sizes[i] == next(iter(sizes.values()))}
    means = dict(zip(whole, resampled_means(list(whole.values())), strict=True)) if whole else {}
    return [means.get(i) for i in range(len(models))]


def _average(
    section: Section,
    label: str,
    rows: Sequence[Row],
    reference: Sequence[Row],
    drawn: np.ndarray | None,
    base_drawn: np.ndarray | None,
) -> Row:
    value, base = (math.fsum(r.value for r in some) / len(some) for some in (rows, reference))
    compared = any(row.difference is not None for row in rows)
    found = Row(
        section=section,
        label=label,
        model=rows[0].model,
        value=value,
        interval=None if drawn is None else middle(drawn),
        n=len(rows),
        average_of=tuple(r.label for r in rows),
        difference=value - base if compared else None,
        retention=retention(value, base) if compared else None,
    )
    if not compared or drawn is None or base_drawn is None:
        return found
    return replace(
        found, difference_interval=middle(drawn - base_drawn), retention_interval=retained(drawn, base_drawn)
    )
