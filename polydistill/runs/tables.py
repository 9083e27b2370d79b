"""The result of a run as tables of plain text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polydistill.card.text import human_bytes
from polydistill.runs.result import Result


def columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Aligns rows of text in columns.

    Args:
        rows: Cells; all rows have the same number.
        right: Columns that are aligned to the right.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    lines = []
    for row in rows:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def table(result: Result) -> str:
    """The readable form of a result: sizes, stages and scores."""
    parts = []
    if {"teacher", "student"} <= result.parameters.keys():
        parts.append(columns(_sizes(result), right=(1, 2, 3)))
    if result.stages:
        parts.append(columns(stage_rows(result.stages), right=(1, 2, 4, 5)))
    if result.scores:
        parts.append(columns(score_rows(result.scores), right=(4, 5)))
    return "\n\n".join(parts)


def place(result: Result) -> str:
    """Where a result lies, and what it took."""
    took = f"Written to {result.output} in {result.seconds:.0f} s"
    return f"{took}, peak memory {human_bytes(result.peak_memory_bytes)}."


def _sizes(result: Result) -> list[list[str]]:
    teacher, student = result.parameters["teacher"], result.parameters["student"]
    rows = [["", "teacher", "student", ""]]
    rows.append(["parameters", f"{teacher:,}", f"{student:,}", f"{100 * student / teacher:.1f} %"])
    if result.bytes:
        rows.append(["size on disk", *(human_bytes(result.bytes[who]) for who in ("teacher", "student")), ""])
    return rows


def stage_rows(stages: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Stages with the first and last value of each term of their loss."""
    rows = [["stage", "steps", "seconds", "term", "first", "last"]]
    for stage in stages:
        terms = stage["loss"]["first"] or {"": None}
        for i, (term, first) in enumerate(terms.items()):
            head = [stage["name"], f"{stage['steps']:,}", f"{stage['seconds']:.0f}"] if i == 0 else ["", "", ""]
            values = ["", ""] if first is None else [f"{first:.4g}", f"{stage['loss']['last'][term]:.4g}"]
            rows.append([*head, term, *values])
    return rows


def score_rows(scores: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Scores with their intervals."""
    rows = [["model", "language", "split", "metric", "", "interval"]]
    for score in scores:
        rule = f" ({score['normalisation']})" if score["normalisation"] else ""
        low, high = score["interval"]
        shown = [f"{100 * score['value']:.2f}", f"{100 * low:.1f} to {100 * high:.1f}"]
        rows.append([Path(score["model"]).name, score["language"], score["split"], score["metric"] + rule, *shown])
    return rows
