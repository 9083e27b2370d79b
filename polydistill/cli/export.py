"""`polydistill export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from polydistill.card import human_bytes
from polydistill.cli.options import SectionedCommand, build_config, common_options, config_file_option, config_options
from polydistill.cli.output import Console, columns
from polydistill.methods.export.method import ExportResult, export
from polydistill.methods.export.plan import ExportConfig

EPILOG = """\b
Examples:
  polydistill export polydistill-out/multilingual-e5-small-ro --onnx --int8
  polydistill export STUDENT --onnx --int8 --task ner --lang sw --data-dir DATA -o student-onnx
  polydistill export STUDENT --onnx --text sw.txt --json
"""
NAMES = {"torch": "torch", "onnx": "ONNX", "int8": "ONNX, 8 bits"}


@click.command("export", cls=SectionedCommand, epilog=EPILOG)
@click.argument("model", metavar="DIR")
@config_options(ExportConfig)
@config_file_option
@common_options
@click.pass_context
def command(
    ctx: click.Context, config_file: Path | None, as_json: bool, quiet: bool, verbose: bool, **values: Any
) -> None:
    """Write a model as ONNX files, which run without torch: in a browser, on a phone, in onnxruntime.

    The file must give torch's outputs, or nothing is written. Sizes, times and, with --task, scores of torch and of
    the files are measured side by side.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    result = export(build_config(ExportConfig, ctx, values, config_file, (("data", "data_dir"),)), console)
    console.result(result.to_json(), lambda: table(result))


def table(result: ExportResult) -> str:
    """The readable form of the result: a column for torch and for each file."""
    timed = {row["model"]: row for row in result.latency["models"]}
    kept = [name for name in NAMES if name in timed]
    first = result.bytes["safetensors"]
    sizes = {"torch": first, **result.bytes}
    rows = [
        ["", *(NAMES[name] for name in kept)],
        ["weights", *(_share(human_bytes(sizes[n]), sizes[n] / first, n) for n in kept)],
        ["ms, one input", *(_ratio(timed[n], "latency_ms", "latency_ratio") for n in kept)],
        ["inputs a second, 32", *(_ratio(timed[n], "throughput", "throughput_ratio") for n in kept)],
        ["largest difference", *("" if n == "torch" else f"{result.difference[n]:.2g}" for n in kept)],
        [
            f"same {result.agreement['onnx']['of']}, %",
            "",
            *(f"{100 * result.agreement[n]['share']:.2f}" for n in kept[1:]),
        ],
        *_scores(result, len(kept)),
    ]
    pooled = f"\nNot in the graph, and yours to do: {', '.join(result.pooling)}." if result.pooling else ""
    inside = ", ".join(file["path"] for file in result.files)
    return (
        f"{columns(rows, right=range(1, len(rows[0])))}\n\nFor {result.head}: {', '.join(result.inputs)} -> "
        f"{', '.join(result.outputs)}.{pooled}\nWritten to {result.output} ({inside}) in {result.seconds:.0f} s, peak "
        f"memory {human_bytes(result.peak_memory_bytes)}."
    )


def _share(shown: str, share: float, name: str) -> str:
    return shown if name == "torch" else f"{shown} ({100 * share:.1f} %)"


def _ratio(row: dict[str, Any], key: str, ratio: str) -> str:
    return f"{row[key]:.1f}" + (f" (x {row[ratio]['value']:.2f})" if row[ratio] else "")


def _scores(result: ExportResult, width: int) -> list[list[str]]:
    """A line a language and metric; the scores of torch come first, then those of the files."""
    found: dict[str, list[str]] = {}
    for score in result.scores:
        rule = f" ({score['normalisation']})" if score["normalisation"] else ""
        low, high = score["interval"]
        shown = f"{100 * score['value']:.2f} [{100 * low:.1f}, {100 * high:.1f}]"
        asked = f" asked in {score['question_language']}" if score["question_language"] else ""
        found.setdefault(f"{score['language']}{asked} {score['metric']}{rule}", []).append(shown)
    return [[name, *values] for name, values in found.items() if len(values) == width]
