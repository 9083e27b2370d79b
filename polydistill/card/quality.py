"""Scores of a card: beside the teacher's and the model's before, and as the Hub's model-index."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polydistill.card.facts import Facts, task_head, told_of
from polydistill.card.text import at, bounds, code, joined, number, objects, plain, shared, table, texts

METRICS = {
    "f1": "F1",
    "exact_match": "Exact match",
    "accuracy": "Accuracy",
    "accuracy_at_1": "Accuracy at 1",
    "spearman": "Spearman correlation",
}
_SAME = ("task", "language", "question_language", "split", "data_hash", "metric", "normalisation")

Row = Mapping[str, Any]


def sections(facts: Facts) -> list[str]:
    """The section on quality; it says so where nothing was measured."""
    parts = ["## Quality"]
    own = [score for score in facts.newest.scores if number(score.get("value")) is not None]
    parts += [_table(facts, own)] if own else ["The record of this model has no scores."]
    parts += filter(None, (_chosen(facts), _loyalty(facts)))
    return parts


def _table(facts: Facts, own: list[Row]) -> str:
    """Every score; beside it the teacher's and that of the model before, on the same data, where they were measured."""
    teachers = {_identity(row): row for row in objects(facts.newest.result.get("scores")) if _others(facts, row)}
    before: dict[tuple[str, ...], Row] = {}
    for step in reversed(facts.lineage[1:]):
        before |= {_identity(row): row for row in step.scores}
    columns = {"teacher": teachers, "before": before}
    shown = [name for name, known in columns.items() if any(_identity(row) in known for row in own)]
    rows = []
    for row in own:
        beside = [_value(columns[name].get(_identity(row))) for name in shown]
        rows.append([_language(row), code(row.get("split")), metric_name(row), *beside, _value(row), _count(row)])
    told = told_of(facts.newest)
    compared = [told.reference if name == "teacher" else name for name in shown]
    header = ["language", "split", "metric", *compared, "this model" if shown else "score", "n"]
    numbers = range(3, len(header))
    if told.files:
        header[2:2] = ["file"]
        rows = [[*row[:2], code(_file(score)), *row[2:]] for row, score in zip(rows, own, strict=True)]
        numbers = range(4, len(header))
    names = sorted({plain(shared(str(teachers[i].get("model")))) for i in map(_identity, own) if i in teachers})
    explained = "Scores are times 100, with 95 % bootstrap intervals over the items."
    if "teacher" in shown and not told.files:
        explained += f" The teacher is {joined([code(Path(name).name) for name in names])}."
    if "before" in shown:
        explained += " *before* is the model it was made from, scored on the same data."
    return f"{table(header, rows, right=numbers)}\n\n{explained}"


def metric_name(row: Row) -> str:
    """Such as `F1 (conlleval)`."""
    name = str(row.get("metric"))
    rule = row.get("normalisation")
    return METRICS.get(name, plain(name, 60)) + (f" ({plain(rule, 60)})" if rule else "")


def _identity(row: Row) -> tuple[str, ...]:
    return tuple(str(row.get(name)) for name in _SAME)


def _others(facts: Facts, row: Row) -> bool:
    """Whether a score that a run reported is its teacher's, or that of what it exported, and not the model's own."""
    own = (score.get("model") for score in facts.newest.scores)
    written = (facts.newest.result.get("output"), facts.newest.config.get("output"), *own)
    return number(row.get("value")) is not None and row.get("model") not in written


def _file(row: Row) -> str:
    return Path(str(row.get("model"))).name


def _language(row: Row) -> str:
    asked = row.get("question_language")
    return plain(row.get("language"), 20) + (f", asked in {plain(asked, 20)}" if asked else "")


def _count(row: Row) -> str:
    n = number(row.get("n"))
    return "" if n is None else f"{n:,.0f}"


def _value(row: Row | None) -> str:
    """Such as `77.07 (74.5 to 79.7)`."""
    value = None if row is None else number(row.get("value"))
    if row is None or value is None:
        return ""
    interval = bounds(row.get("interval"))
    return f"{100 * value:.2f}" + (f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else "")


def _chosen(facts: Facts) -> str | None:
    """Which dev data chose the checkpoint, in the newest run that chose one."""
    for step in facts.lineage:
        chosen = step.result.get("selection")
        value = number(at(chosen, "value"))
        if value is None:
            continue
        where = f"{code(at(chosen, 'split'))} of {joined(texts(at(chosen, 'languages')))}"
        metric = METRICS.get(str(at(chosen, "metric")), plain(at(chosen, "metric"), 60).replace("_", " "))
        return (
            f"The checkpoint was chosen on {where} ({metric} {100 * value:.2f}, slightly optimistic since it is the "
            "score that chose the checkpoint). No labelled data of another language were used to choose it."
        )
    return None


def _loyalty(facts: Facts) -> str | None:
    """How closely the student follows its teacher."""
    rows = [
        row
        for row in objects(at(facts.newest.result, "loyalty", "scores"))
        if row.get("metric") != "retention" and number(row.get("value")) is not None
    ]
    if not rows:
        return None
    cells = [[_language(row), plain(row.get("metric"), 60).replace("_", " "), _value(row), _count(row)] for row in rows]
    shown = table(["language", "loyalty to the teacher", "value", "n"], cells, right=(2, 3))
    return f"How closely it follows its teacher, measured when it was made:\n\n{shown}"


def eval_results(facts: Facts) -> list[Any]:
    """The model's scores as the Hub's `EvalResult`s, times 100, with split, interval and normalisation in the name."""
    from huggingface_hub.repocard_data import EvalResult

    found = []
    for row in facts.newest.scores:
        value = number(row.get("value"))
        if value is None:
            continue
        task, language, asked = (plain(row.get(key) or "", 60) for key in ("task", "language", "question_language"))
        interval, split = bounds(row.get("interval")), plain(row.get("split"), 60)
        name = f"{metric_name(row)}, {_language(row)}, {split}"
        if told_of(facts.newest).files:
            name += f", {plain(_file(row), 60)}"
        if interval:
            name += f", 95% interval {100 * interval[0]:.2f} to {100 * interval[1]:.2f}"
        details = {"n": number(row.get("n")), "data_sha256": plain(row.get("data_hash") or "", 64) or None}
        found.append(
            EvalResult(
                task_type=task_head(task) or facts.head or "other",
                task_name=task,
                dataset_type=task or "unknown",
                dataset_name=f"{task} ({_language(row)})",
                dataset_config=f"{asked}-{language}" if asked else language,
                dataset_split=split,
                metric_type=plain(row.get("metric"), 60),
                metric_value=round(100 * value, 4),
                metric_name=name,
                metric_args={key: known for key, known in details.items() if known is not None},
            )
        )
    return found
