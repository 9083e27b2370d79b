"""`polydistill evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from polydistill.cli.messages import with_flags
from polydistill.cli.options import SectionedCommand, build_config, common_options, config_file_option, config_options
from polydistill.cli.output import Console
from polydistill.evaluation.evaluate import EvaluateOptions, Evaluation, evaluate
from polydistill.records.record import Score
from polydistill.runs.tables import columns

EPILOG = """\b
Examples:
  polydistill evaluate --model polydistill-out/multilingual-e5-small-ner-en --task ner --lang en --lang sw
  polydistill evaluate --model STUDENT --teacher TEACHER --task xnli --lang sw --latency -o run.json
  polydistill evaluate --model MODEL --task qa --lang ro --data my-questions.json --json
  polydistill evaluate --model MODEL --task xquad --lang en --lang es --lang zh --g-xlt
  polydistill evaluate --model MODEL --task bitext --lang sw --data-dir DATA --prompt 'query: '
"""


@click.command("evaluate", cls=SectionedCommand, epilog=EPILOG)
@config_options(EvaluateOptions)
@config_file_option
@common_options
@click.pass_context
def command(
    ctx: click.Context, config_file: Path | None, as_json: bool, quiet: bool, verbose: bool, **values: Any
) -> None:
    """Score models on a task in one or more languages, with 95% intervals.

    Predictions are kept, so scoring again costs nothing, and a run that was stopped continues at the language where it
    stopped. The scores also go into the polydistill.json of each model that has one.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    result = evaluate(build_config(EvaluateOptions, ctx, values, config_file, (("data", "data_dir"),)), console)
    console.result(result.to_json(), lambda: table(result))


def table(result: Evaluation) -> str:
    """The readable form of the result: a line a model and language, a column a metric."""
    metrics = list(dict.fromkeys((s.metric, s.normalisation) for s in result.scores))
    rows = [["model", "language", "n", *(f"{m} ({n})" if n else m for m, n in metrics)]]
    cells: dict[tuple[str, str], dict[Any, Score]] = {}
    for score in result.scores:
        asked = f" asked in {score.question_language}" if score.question_language else ""
        cells.setdefault((score.model, score.language + asked), {})[score.metric, score.normalisation] = score
    for (model, language), found in cells.items():
        shown = [_value(found[m].value, found[m].interval) for m in metrics]
        rows.append([model, language, f"{next(iter(found.values())).n:,}", *shown])
    means: dict[tuple[str, str], dict[Any, str]] = {}
    for mean in result.averages:
        shown_mean = _value(mean["value"], mean["interval"])
        means.setdefault((mean["model"], mean["average"]), {})[mean["metric"], mean["normalisation"]] = shown_mean
    rows += [[model, name, "", *(found[m] for m in metrics)] for (model, name), found in means.items()]
    parts = [columns(rows, right=range(2, len(rows[0])))]
    if result.loyalty:
        parts.append(_loyalty(result.loyalty))
    if result.latency:
        parts.append(_latency(result.latency))
    ignored = sorted({label for data in result.data for label in data["not_scored"]})
    if ignored:
        parts.append(f"Not scored: {', '.join(ignored)}.")
    parts += map(with_flags, result.notes)
    return "\n\n".join(parts)


def _value(value: float, interval: tuple[float, float] | None = None) -> str:
    span = f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""
    return f"{100 * value:.2f}{span}"


def _loyalty(loyalty: dict[str, Any]) -> str:
    rows = [["model", "language", "measure", ""]]
    for found in [*loyalty["scores"], *loyalty["averages"]]:
        of = " ".join(filter(None, (found["metric"], found.get("of"), found["normalisation"])))
        value = "-" if found["value"] is None else _value(found["value"], found["interval"])
        rows.append([found["model"], found.get("average") or found["language"], of, value])
    return f"Beside the teacher {loyalty['teacher']}:\n" + columns(rows, right=(3,))


def _latency(latency: dict[str, Any]) -> str:
    rows = [["model", "ms at batch 1", "inputs/s at batch 32", "ratio", "ratio", "peak memory, MB"]]
    for found in latency["models"]:
        ratios = [_ratio(found[key]) for key in ("latency_ratio", "throughput_ratio")]
        rows.append(
            [
                found["model"],
                f"{found['latency_ms']:.1f}",
                f"{found['throughput']:.1f}",
                *ratios,
                f"{found['peak_memory_bytes'] / 1e6:.0f}",
            ]
        )
    on = f"On {latency['inputs']} inputs ({latency['language']}), {latency['processes']} processes"
    return f"{on}:\n" + columns(rows, right=range(1, 6))


def _ratio(ratio: dict[str, Any] | None) -> str:
    """`0.55 [0.50, 0.61]`; 1 for the model that the others are beside."""
    if ratio is None:
        return "1"
    between = " [{:.2f}, {:.2f}]".format(*ratio["interval"]) if ratio["interval"] else ""
    return f"{ratio['value']:.2f}{between}"
