"""`polydistill plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from polydistill.card import human_bytes
from polydistill.cli.options import SectionedCommand, build_config, common_options, config_file_option, config_options
from polydistill.cli.output import Console
from polydistill.methods.plan import PlanOptions, PlanResult, plan
from polydistill.runs.tables import columns

EPILOG = """\b
Examples:
  polydistill plan en sw
  polydistill plan en sw --layers 3 --text en=en.txt --text sw=sw.txt --json
  polydistill plan en ro --task ner --data-dir DATA --train-split train_wikineural
  polydistill plan en ro --layers 5 --init bottom --vocab-size 20000 --no-measure
"""
EXCLUSIVE = (("min_share", "vocab_size"),)
PARTS = {"embeddings": "embeddings", "rest": "layers and the rest", "head": "head", "total": "all parameters"}
PHASES = {"general": "phase 1", "teacher": "its teacher, unless given", "tuning": "phase 2"}
UNITS = (("days", 86_400), ("h", 3_600), ("min", 60))


@click.command("plan", cls=SectionedCommand, epilog=EPILOG)
@click.argument("source")
@click.argument("target")
@config_options(PlanOptions)
@config_file_option
@common_options
@click.pass_context
def command(
    ctx: click.Context, config_file: Path | None, as_json: bool, quiet: bool, verbose: bool, **values: Any
) -> None:
    """Say how large a bilingual student will be, and how long `bistil` takes to train it on this machine.

    Nothing is trained or written. Steps with the real sizes are measured for some seconds in float32 and bfloat16.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    result = plan(build_config(PlanOptions, ctx, values, config_file, EXCLUSIVE), console)
    for note in result.notes:
        console.note(note)
    console.result(result.to_json(), lambda: table(result))


def table(result: PlanResult) -> str:
    """The readable form of the result."""
    teacher, student = result.parameters["teacher"], result.parameters["student"]
    rows = [["", "teacher", "student", ""]]
    for key, label in PARTS.items():
        if teacher[key] or student[key]:
            rows.append([label, f"{teacher[key]:,}", f"{student[key]:,}", f"{100 * student[key] / teacher[key]:.1f} %"])
    rows.append(["tokens", *(f"{result.vocabulary[who]:,}" for who in ("teacher", "student")), ""])
    share = 100 * result.bytes["student"] / result.bytes["teacher"]
    rows.append(["size on disk", *(human_bytes(result.bytes[w]) for w in ("teacher", "student")), f"{share:.1f} %"])
    parts = [columns(rows, right=(1, 2, 3)), f"Layers of the teacher, from 0: {', '.join(map(str, result.layers))}."]
    if result.presets:
        parts += [columns(_times(result), right=(2, 3, 4, 5)), "Training steps alone, in the faster precision."]
    return "\n\n".join(parts)


def _times(result: PlanResult) -> list[list[str]]:
    rows = [["preset", "", "tokens", "float32 tokens/s", "bfloat16 tokens/s", "time"]]
    for name, times in result.presets.items():
        for key, label in PHASES.items():
            if (phase := times[key]) is not None:
                tokens = "?" if phase["tokens"] is None else f"{phase['tokens']:,}"
                rates = [f"{phase['tokens_per_second'][p]:,.0f}" for p in ("float32", "bfloat16")]
                rows.append([name if key == "general" else "", label, tokens, *rates, _duration(phase["seconds"])])
    return rows


def _duration(seconds: float | None) -> str:
    """5400 -> '1.5 h'."""
    if seconds is None:
        return "?"
    unit, size = next(((unit, size) for unit, size in UNITS if seconds >= size), ("s", 1))
    return f"{seconds / size:,.1f} {unit}"
