"""A comparison as one HTML page that needs no network: plots, lineages and a table that sorts.

The same comparison gives the same bytes. Everything that a user wrote is escaped, and the page's policy allows no
script but its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from polydistill.card import human_bytes
from polydistill.files.outputs import check_file, write_beside
from polydistill.reports import figures
from polydistill.reports.rows import Comparison, Row, Section
from polydistill.reports.runs import ModelFacts
from polydistill.reports.tables import estimate, explanation, label, p_value, share

# Metrics by how well they represent a task; the first of a task's metrics is drawn, all are in the table.
_DRAWN = ("accuracy", "f1", "accuracy_at_1", "spearman", "exact_match")
_DRAWN_SCORINGS = (None, "conlleval", "squad", "strict-iob2", "mlqa")
# Heading of a column, and whether it is sorted as numbers.
_COLUMNS = {
    "Language": False,
    "Model": False,
    "Value [95%]": True,
    "Difference [95%]": True,
    "p (Holm)": True,
    "Retained": True,
    "n": True,
}


def check_page(path: Path, *, overwrite: bool, reads: Iterable[Path]) -> None:
    """Refuses what would make the page fail, before the work begins.

    Raises:
        PolydistillError: `path` exists, is a folder, or matplotlib is not installed.
    """
    check_file(path, overwrite=overwrite, option="html", reads=reads)
    figures.check_library()


def write_page(comparison: Comparison, path: Path, *, overwrite: bool) -> None:
    """Writes the page; the file appears whole or not at all.

    Raises:
        PolydistillError: The file exists, the disk is full, the place cannot be written, or matplotlib is missing.
    """
    write_beside(path, page(comparison).encode(), overwrite=overwrite, option="html")


def page(comparison: Comparison) -> str:
    """The page's HTML."""
    here = files("polydistill.reports")
    template, style, script = ((here / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    series = {facts.name: i for i, facts in enumerate(comparison.models)}
    others = [facts.name for facts in comparison.models[1:]]
    compared = others[0] if len(others) == 1 else f"{len(others)} models"
    return Template(template).substitute(
        title=escape(f"{compared} against {comparison.reference}"),
        explanation=escape(explanation(comparison)),
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        models="\n".join(_model(facts, i, comparison.reference) for i, facts in enumerate(comparison.models)),
        tasks="\n".join(
            _task(f"task-{i}", sections, comparison, series) for i, sections in enumerate(_tasks(comparison))
        ),
        prototypes="\n".join(_prototypes(facts, i) for i, facts in enumerate(comparison.models) if facts.planes),
        notes=_notes(comparison.notes),
    )


def _tasks(comparison: Comparison) -> list[list[Section]]:
    """The sections of each task and split; the first one is drawn, all have a table."""

    def rank(section: Section) -> tuple[int, int]:
        places = ((_DRAWN, section.metric), (_DRAWN_SCORINGS, section.normalisation))
        metric, scoring = (known.index(v) if v in known else len(known) for known, v in places)
        return metric, scoring

    tasks: dict[tuple[str, str], list[Section]] = {}
    for section in comparison.sections:
        tasks.setdefault((section.task, section.split), []).append(section)
    return [sorted(sections, key=rank) for sections in tasks.values()]


def _model(facts: ModelFacts, number: int, reference: str) -> str:
    told = {
        "parameters": None if facts.parameters is None else f"{facts.parameters:,}",
        "of them in embeddings": share((facts.embedding or 0) / facts.parameters) if facts.parameters else None,
        "on disk": None if facts.bytes is None else human_bytes(facts.bytes),
        "source": facts.source,
        "languages": ", ".join(facts.languages),
        "weights": facts.weights_hash[:12] if facts.weights_hash else None,
    }
    listed = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in told.items() if value)
    steps = "".join(f"<li>{escape(step)}</li>" for step in facts.lineage)
    lineage = (
        f'<p class="muted">Lineage, newest first</p><ol>{steps}</ol>'
        if steps
        else ('<p class="muted">No lineage is recorded.</p>')
    )
    role = " (reference)" if facts.name == reference else ""
    head = f"<h3>{figures.key(number, f'model-{number}')}{escape(facts.name)}{role}</h3>"
    return f"<article>{head}<dl>{listed}</dl>{lineage}</article>"


def _task(name: str, sections: Sequence[Section], comparison: Comparison, series: dict[str, int]) -> str:
    """A task's legend, its two plots and a table for each of its metrics."""
    section, rows = sections[0], comparison.sections[sections[0]]
    legend = "".join(
        f"<li>{figures.key(series[model], f'{name}-key-{series[model]}')}{escape(model)}</li>"
        for model in dict.fromkeys(row.model for row in rows)
    )
    measure = f"{section.measure} × 100"
    parts = [
        f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(f"{section.task}, {section.split}")}</h2>',
        f'<ul class="legend">{legend}</ul><div class="figures">',
        _size_figure(rows, comparison.models, series, measure, f"{name}-size"),
        _figure(
            figures.bars(rows, series, measure, f"Scores by language: {section}", f"{name}-bars"),
            f"{section.measure} in each language{_lines(rows)}.",
        ),
        "</div>",
        *(_table(each, comparison.sections[each], f"{name}-table-{i}") for i, each in enumerate(sections)),
        "</section>",
    ]
    return "\n".join(parts)


def _prototypes(facts: ModelFacts, number: int) -> str:
    """How a model's teacher sees the tokens of both languages, before and after prototypes were aligned."""
    name = f"prototypes-{number}"
    shown = [
        _figure(
            figures.prototypes(plane, f"Prototypes of {facts.name}, {plane.when} training", f"{name}-{plane.when}"),
            f"{plane.when.capitalize()} the teacher's training: some tokens of each class, and large the prototypes. "
            f"Classes are gold in {plane.languages[0]} and the trained teacher's own in {plane.languages[1]}.",
        )
        for plane in facts.planes
    ]
    head = f'<section aria-labelledby="{name}"><h2 id="{name}">Prototypes of {escape(facts.name)}</h2>'
    return "\n".join([head, '<div class="figures">', *shown, "</div></section>"])


def _lines(rows: Sequence[Row]) -> str:
    return "; the lines are 95% intervals" if any(row.interval for row in rows) else ""


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _size_figure(
    rows: Sequence[Row], models: Sequence[ModelFacts], series: dict[str, int], measure: str, name: str
) -> str:
    """Size against the average over the languages that all models have, or against the first one in common."""
    sizes = {facts.name: facts.parameters for facts in models}
    by_label: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: not row.is_average):
        by_label.setdefault(label(row), []).append(row)
    count = len({row.model for row in rows})
    place, shared = next(((at, found) for at, found in by_label.items() if len(found) == count), ("", []))
    if not shared:
        return '<p class="muted">No plot of size against quality: there is no language that all of them have.</p>'
    points = [
        figures.Point(row.model, series[row.model], size, row.value, row.interval)
        for row in shared
        if (size := sizes[row.model])
    ]
    if not points:
        return '<p class="muted">No plot of size against quality: the runs do not say how large the models are.</p>'
    over = f"{place} languages: {', '.join(shared[0].average_of)}" if shared[0].is_average else place
    svg = figures.size_against_quality(points, measure, f"Size against quality: {rows[0].section}, {over}", name)
    unknown = count - len(points)
    left_out = f" The size of {unknown} is not known." if unknown else ""
    return _figure(svg, f"Size against {rows[0].section.measure} ({over}){_lines(shared)}.{left_out}")


def _table(section: Section, rows: Sequence[Row], name: str) -> str:
    """A section's table, in a frame that scrolls by itself on a narrow page."""
    body = [_table_cells(row) for row in rows]
    kept = [column for column in _COLUMNS if any(cells[column][0] for cells in body)]
    heads = "".join(
        f'<th scope="col" aria-sort="none"{_class(column)}><button type="button">{column}</button></th>'
        for column in kept
    )
    lines = []
    for row, cells in zip(rows, body, strict=True):
        line = "".join(
            f'<th scope="row">{escape(cells[c][0])}</th>'
            if c == "Model"
            else f'<td data-sort="{escape(cells[c][1])}"{_class(c)}>{escape(cells[c][0])}</td>'
            for c in kept
        )
        lines.append(f"<tr{' class=average' if row.is_average else ''}>{line}</tr>")
    table = f'<table><caption id="{name}">{escape(str(section))}</caption><thead><tr>{heads}</tr></thead><tbody>'
    parts = [f'<div class="scroll" role="region" aria-labelledby="{name}" tabindex="0">{table}', *lines]
    return "\n".join([*parts, "</tbody></table></div>"])


def _class(column: str) -> str:
    return ' class="number"' if _COLUMNS[column] else ""


def _table_cells(row: Row) -> dict[str, tuple[str, str]]:
    """Column -> (what it shows, what it is sorted by)."""
    numbers = {
        "Value [95%]": (estimate(row.value, row.interval), row.value),
        "Difference [95%]": (estimate(row.difference, row.difference_interval, signed=True), row.difference),
        "p (Holm)": (p_value(row.p_adjusted), row.p_adjusted),
        "Retained": (share(row.retention), row.retention),
        "n": ("" if row.is_average else f"{row.n:,}", None if row.is_average else row.n),
    }
    keyed = {name: (shown, "" if key is None else str(key)) for name, (shown, key) in numbers.items()}
    return {"Language": (label(row), label(row)), "Model": (row.model, row.model), **keyed}


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<section aria-labelledby="notes"><h2 id="notes">Notes</h2><ul>{listed}</ul></section>'
