"""What a comparison is made of: rows in sections, and macro-averages over languages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from polydistill.reports.runs import ModelFacts

Interval = tuple[float, float]


class Section(NamedTuple):
    """What the rows of one table share."""

    task: str
    split: str
    metric: str
    normalisation: str | None

    @property
    def measure(self) -> str:
        """`f1 (conlleval)`."""
        return f"{self.metric} ({self.normalisation})" if self.normalisation else self.metric

    def __str__(self) -> str:
        return f"{self.task}, {self.split}, {self.measure}"


class Cell(NamedTuple):
    """What two scores must share to be comparable, besides the data's hash."""

    section: Section
    language: str
    question_language: str | None = None

    @property
    def is_crossed(self) -> bool:
        """Whether the question is in another language than the context."""
        return self.question_language not in (None, self.language)

    @property
    def label(self) -> str:
        """`sw`, or `en>sw` for questions in English on contexts in Swahili."""
        return f"{self.question_language}>{self.language}" if self.is_crossed else self.language

    def __str__(self) -> str:
        return f"{self.section} {self.label}"


@dataclass(frozen=True)
class Row:
    """A model's score in one language, or its macro-average over languages.

    Args:
        section: Task, split, metric and normalisation.
        label: The language, as in `Cell.label`; for an average, its name.
        model: The model's name.
        value: Its score, as a fraction.
        interval: 95% interval of the score.
        n: Number of items; for an average, of languages.
        cell: Where it was measured, None for an average.
        average_of: The labels that an average is over.
        difference: Its score minus the reference's, None for the reference itself.
        difference_interval: 95% interval of the difference.
        p: McNemar's exact two-sided p, for accuracies only.
        p_adjusted: The same adjusted for the languages of the section (Holm).
        retention: Its score over the reference's.
        retention_interval: 95% interval of that.
    """

    section: Section
    label: str
    model: str
    value: float
    interval: Interval | None
    n: int
    cell: Cell | None = None
    average_of: tuple[str, ...] = ()
    difference: float | None = None
    difference_interval: Interval | None = None
    p: float | None = None
    p_adjusted: float | None = None
    retention: float | None = None
    retention_interval: Interval | None = None

    @property
    def is_average(self) -> bool:
        """Whether it is a macro-average."""
        return self.cell is None

    def to_json(self) -> dict[str, Any]:
        """The row as JSON; an average has `label` and `average_of` in place of its languages."""
        shared = {**self.section._asdict(), "model": self.model, "value": self.value, "interval": self.interval}
        measured = ("n", "difference", "difference_interval", "p", "p_adjusted", "retention", "retention_interval")
        if self.cell is None:
            place: dict[str, Any] = {"label": self.label, "average_of": self.average_of}
        else:
            place = {"language": self.cell.language, "question_language": self.cell.question_language}
        return {**shared, **place, **{name: getattr(self, name) for name in measured}}


@dataclass(frozen=True)
class Comparison:
    """Models side by side.

    Args:
        models: The reference first.
        rows: In the order of the tables: a section's languages, then its averages, each with the reference first.
        notes: What is missing, and why.
        seeds: Models that each row is a mean over.
    """

    models: tuple[ModelFacts, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())
    seeds: int = 1

    @property
    def reference(self) -> str:
        """The model that the others are compared with."""
        return self.models[0].name

    @property
    def sections(self) -> dict[Section, list[Row]]:
        """The rows of each table."""
        return in_sections(self.rows)

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "command": "compare",
            "reference": self.reference,
            "seeds": self.seeds,
            "models": [asdict(m) for m in self.models],
            "scores": [row.to_json() for row in self.rows if not row.is_average],
            "averages": [row.to_json() for row in self.rows if row.is_average],
            "notes": list(self.notes),
        }


def in_sections(rows: Iterable[Row]) -> dict[Section, list[Row]]:
    """Rows by section, in order."""
    found: dict[Section, list[Row]] = {}
    for row in rows:
        found.setdefault(row.section, []).append(row)
    return found
