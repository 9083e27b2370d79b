"""Tables of bilingual students: scores beside the teacher's, stages, bars."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import measure

COST = (
    "student",
    "parameters, ratio",
    "bytes, ratio",
    "ms at batch 1, teacher",
    "student",
    "ratio",
    "inputs/s at batch 32, teacher",
    "student",
    "ratio",
    "peak memory, ratio",
)


def retained(own: dict[str, Any], teacher: dict[str, Any]) -> tuple[float, tuple[float, float]]:
    """The student's score over the teacher's, and its 95% interval: the ratio on the same draws of the items."""
    import numpy as np

    from polydistill.evaluation.cache import Items
    from polydistill.metrics.paired import resampled
    from polydistill.records.record import Score

    known = Items()
    items = [known.of(Score.from_json(score)) for score in (own, teacher)]
    if None in items:
        sys.exit("bistil.py: predictions that were made just now are not in the cache.")
    draws = resampled([found for found in items if found is not None])
    ratios = np.divide(draws[0], draws[1], out=np.full(draws.shape[1], np.nan), where=draws[1] > 0)
    low, high = np.nanquantile(ratios, [0.025, 0.975]) if np.isfinite(ratios).any() else (np.nan, np.nan)
    return own["value"] / teacher["value"] if teacher["value"] else float("nan"), (float(low), float(high))


def pairs_of(evaluation: dict[str, Any], folder: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(the student's score, the teacher's) for each metric."""
    what = ("metric", "normalisation")
    teachers = {tuple(s[k] for k in what): s for s in evaluation["scores"] if s["model"] != str(folder)}
    own = [s for s in evaluation["scores"] if s["model"] == str(folder)]
    return [(score, teachers[tuple(score[k] for k in what)]) for score in own]


def percent(value: float, interval: tuple[float, float] | list[float] | None, signed: bool = False) -> str:
    form = "+.1f" if signed else ".1f"
    spread = f" [{', '.join(f'{100 * bound:{form}}' for bound in interval)}]" if interval else ""
    return f"{100 * value:{form}}{spread}"


def metric(score: dict[str, Any]) -> str:
    return f"{score['metric']} ({score['normalisation']})" if score["normalisation"] else score["metric"]


def parameters(evaluation: dict[str, Any], folder: Path) -> tuple[dict[str, int], int]:
    """(the student's parameters, all of the teacher's)."""
    found = {m["model"] == str(folder): m["parameters"] for m in evaluation["models"]}
    return found[True], sum(found[False].values())


def score_table(evaluations: list[dict[str, Any]], folder: Path) -> str:
    rows = []
    for evaluation in evaluations:
        loyal = [
            f"{row['metric'].replace('_', ' ')} {percent(row['value'], row['interval'])}"
            for row in evaluation["loyalty"]["scores"]
            if row["metric"] != "retention"
        ]
        for i, (own, teacher) in enumerate(pairs_of(evaluation, folder)):
            rows.append(
                [
                    own["language"],
                    own["split"],
                    f"{own['n']:,}",
                    metric(own),
                    percent(teacher["value"], teacher["interval"]),
                    percent(own["value"], own["interval"]),
                    percent(*retained(own, teacher)),
                    "; ".join(loyal) if i == 0 else "",
                ]
            )
    return measure.table(["language", "split", "n", "metric", "teacher", "student", "retained, %", "loyalty"], rows)


def rows_of(file: Path, section: str, name: str) -> list[list[str]]:
    """The rows that a section of a file has of a model, as they stand: its run was on another machine, say."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    lines = text.partition(f"<!-- {section}: start -->")[2].partition(f"<!-- {section}: end -->")[0].splitlines()
    return [line[2:-2].split(" | ") for line in lines if line.startswith(f"| {name} | ")]


def stage_table(stages: list[dict[str, Any]]) -> str:
    rows = []
    for stage in stages:
        loss = stage["loss"]
        terms = "; ".join(f"{term} {first:.4g} to {loss['last'][term]:.4g}" for term, first in loss["first"].items())
        facts, seen = stage["facts"], ""
        if facts.get("validation"):
            seen = f"validation loss {facts['validation'][0][1]:.4g} to {min(v for _, v in facts['validation']):.4g}"
        elif "best" in facts:
            best = facts["best"]  # a loss is kept with its sign turned
            what = facts.get("metric", "loss" if best < 0 else "score").replace("_", " ")
            seen = f"dev {what} {abs(best):.4f} at step {facts['best_step']:,}"
        elif "vocabulary" in facts:
            seen = f"{facts['vocabulary']['before']:,} to {facts['vocabulary']['after']:,} tokens"
        precision = facts.get("precision", "")
        rows.append([stage["name"], f"{stage['steps']:,}", f"{stage['seconds']:,.0f}", precision, terms, seen])
    head = ["stage", "steps", "seconds", "precision", "loss, first to last 20 steps", "seen"]
    return measure.table(head, rows)


def against(bar: float | None, value: float, how: str) -> str:
    if bar is None:
        return ""
    met = value <= bar if how == "at most" else value >= bar
    return f" ({how} {100 * bar:.0f}: {'yes' if met else 'no'})"


def cost_cells(run: dict[str, Any], folder: Path) -> list[str]:
    """The cells of a student under `COST`, after its name; the evaluation has measured time and memory."""
    teacher, own = sorted(run["latency"]["models"], key=lambda model: model["model"] == str(folder))
    size = {m["model"]: (sum(m["parameters"].values()), m["bytes"]) for m in run["models"]}
    ratios = [a / b for a, b in zip(size[own["model"]], size[teacher["model"]], strict=True)]
    spread = [
        f"{ratio['value']:.2f} [{ratio['interval'][0]:.2f}, {ratio['interval'][1]:.2f}]"
        for ratio in (own["latency_ratio"], own["throughput_ratio"])
    ]
    memory = own["peak_memory_bytes"] / teacher["peak_memory_bytes"]
    return [
        *(f"{ratio:.3f}" for ratio in ratios),
        f"{teacher['latency_ms']:.1f}",
        f"{own['latency_ms']:.1f}",
        spread[0],
        f"{teacher['throughput']:.1f}",
        f"{own['throughput']:.1f}",
        spread[1],
        f"{memory:.2f}",
    ]
