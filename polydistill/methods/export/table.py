"""The readable form of what an export did."""

from __future__ import annotations

from typing import Any

from polydistill.card.text import human_bytes
from polydistill.runs.result import Result
from polydistill.runs.tables import columns

NAMES = {"torch": "torch", "onnx": "ONNX", "int8": "ONNX, 8 bits"}


def table(result: Result) -> str:
    """The readable form of the result: a column for torch and for each file."""
    facts, agreement = result.facts, result.facts["agreement"]
    timed = {row["model"]: row for row in facts["latency"]["models"]}
    kept = [name for name in NAMES if name in timed]
    first = facts["bytes"]["safetensors"]
    sizes = {"torch": first, **facts["bytes"]}
    rows = [
        ["", *(NAMES[name] for name in kept)],
        ["weights", *(_share(human_bytes(sizes[n]), sizes[n] / first, n) for n in kept)],
        ["ms, one input", *(_ratio(timed[n], "latency_ms", "latency_ratio") for n in kept)],
        ["inputs a second, 32", *(_ratio(timed[n], "throughput", "throughput_ratio") for n in kept)],
        ["largest difference", *("" if n == "torch" else f"{facts['difference'][n]:.2g}" for n in kept)],
        [f"same {agreement['onnx']['of']}, %", "", *(f"{100 * agreement[n]['share']:.2f}" for n in kept[1:])],
        *_scores(result, len(kept)),
    ]
    pooled = f"\nNot in the graph, and yours to do: {', '.join(facts['pooling'])}." if facts["pooling"] else ""
    inside = ", ".join(file["path"] for file in facts["files"])
    said = f"For {facts['head']}: {', '.join(facts['inputs'])} -> {', '.join(facts['outputs'])}.{pooled}"
    return f"{columns(rows, right=range(1, len(rows[0])))}\n\n{said}\nFiles: {inside}."


def _share(shown: str, share: float, name: str) -> str:
    return shown if name == "torch" else f"{shown} ({100 * share:.1f} %)"


def _ratio(row: dict[str, Any], key: str, ratio: str) -> str:
    return f"{row[key]:.1f}" + (f" (x {row[ratio]['value']:.2f})" if row[ratio] else "")


def _scores(result: Result, width: int) -> list[list[str]]:
    """A line a language and metric; the scores of torch come first, then those of the files."""
    found: dict[str, list[str]] = {}
    for score in result.scores:
        rule = f" ({score['normalisation']})" if score["normalisation"] else ""
        low, high = score["interval"]
        shown = f"{100 * score['value']:.2f} [{100 * low:.1f}, {100 * high:.1f}]"
        asked = f" asked in {score['question_language']}" if score["question_language"] else ""
        found.setdefault(f"{score['language']}{asked} {score['metric']}{rule}", []).append(shown)
    return [[name, *values] for name, values in found.items() if len(values) == width]
