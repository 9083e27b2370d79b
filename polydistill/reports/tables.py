"""A comparison as tables of text, and as Markdown to paste. Values are times 100."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from polydistill.card import human_bytes
from polydistill.reports.rows import Comparison, Interval, Row
from polydistill.reports.runs import ModelFacts

MODEL_HEADER = ("model", "parameters", "in embeddings", "bytes", "source")
HEADER = ("language", "n", "model", "value [95%]", "difference [95%]", "p (Holm)", "retained")
RIGHT = frozenset({"n", "parameters", "in embeddings", "bytes", "p (Holm)", "retained"})

Text = Callable[[str], str]
Table = list[tuple[str, ...]]


def percent(value: float, *, signed: bool = False) -> str:
    """0.8738 -> `87.4`; with a sign `+87.4`, but a plain `0.0`."""
    text = f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"
    return text.lstrip("+-") if float(text) == 0 else text


def estimate(value: float | None, interval: Interval | None, *, signed: bool = False) -> str:
    """`87.4 [86.1, 88.6]`; without brackets if there is no interval, empty if there is no value."""
    if value is None:
        return ""
    if interval is None:
        return percent(value, signed=signed)
    low, high = (percent(limit, signed=signed) for limit in interval)
    return f"{percent(value, signed=signed)} [{low}, {high}]"


def p_value(p: float | None) -> str:
    """`0.031`, `<0.001`, or empty."""
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def share(value: float | None) -> str:
    """0.9731 -> `97.3%`, or empty."""
    return "" if value is None else f"{100 * value:.1f}%"


def label(row: Row) -> str:
    """`sw`, or `average of 2`."""
    return f"{row.label} of {row.n}" if row.is_average else row.label


def cells(row: Row, text: Text = str) -> tuple[str, ...]:
    """A row's cells under `HEADER`; `text` is applied to what users wrote."""
    return (
        text(label(row)),
        "" if row.is_average else f"{row.n:,}",
        text(row.model),
        estimate(row.value, row.interval),
        estimate(row.difference, row.difference_interval, signed=True),
        p_value(row.p_adjusted),
        share(row.retention),
    )


def model_cells(facts: ModelFacts, reference: str, text: Text = str) -> tuple[str, ...]:
    """A model's cells under `MODEL_HEADER`; empty if its run does not say."""
    return (
        text(facts.name) + (" (reference)" if facts.name == reference else ""),
        "" if facts.parameters is None else f"{facts.parameters:,}",
        share((facts.embedding or 0) / facts.parameters) if facts.parameters else "",
        "" if facts.bytes is None else human_bytes(facts.bytes),
        text(facts.source or ""),
    )


def tables(comparison: Comparison, text: Text = str) -> list[tuple[str, Table]]:
    """(heading, rows, the header first) of the models, under an empty heading, and of each section."""
    models = [model_cells(facts, comparison.reference, text) for facts in comparison.models]
    found = [("", _without_empty([MODEL_HEADER, *models]))]
    for section, rows in comparison.sections.items():
        found.append((text(str(section)), _without_empty([HEADER, *(cells(row, text) for row in rows)])))
    return found


def _without_empty(rows: Sequence[tuple[str, ...]]) -> Table:
    """A table without its empty columns."""
    kept = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])]
    return [tuple(row[i] for i in kept) for row in rows]


def explanation(comparison: Comparison) -> str:
    """Short notes on what the numbers are."""
    parts = [f"Values are times 100; differences are to {comparison.reference}"]
    if any(row.interval or row.difference_interval for row in comparison.rows):
        parts.append("intervals are 95%")
    if comparison.seeds > 1:
        parts.append(f"values are means over {comparison.seeds} seeds, and intervals those of items and seeds together")
    elif any(row.difference_interval for row in comparison.rows):
        parts.append("those of differences by paired bootstrap over items")
    if any(row.is_average and row.interval for row in comparison.rows):
        parts.append(
            "for averages items of one id are drawn in all languages at once, and questions with their paragraph"
        )
    if any(row.p is not None for row in comparison.rows):
        parts.append("p is McNemar's, exact and two-sided, adjusted for a model's languages in a table (Holm)")
    return "; ".join(parts) + "."


def markdown(comparison: Comparison) -> str:
    """Tables in Markdown, with special characters escaped."""
    parts = []
    for heading, rows in tables(comparison, escape):
        rule = tuple("---:" if name in RIGHT else "---" for name in rows[0])
        parts += [f"### {heading}"] * bool(heading)
        parts.append("\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:])))
    parts.append(escape(explanation(comparison)))
    parts += ["\n".join(f"- {escape(note)}" for note in comparison.notes)] * bool(comparison.notes)
    return "\n\n".join(parts)


def escape(text: str) -> str:
    """Text with a backslash before every character that is special in Markdown, or in HTML within it."""
    return re.sub(r"([\\`*|<>\[\]~])", r"\\\1", text)
