"""`polydistill bistil`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from polydistill.card import human_bytes
from polydistill.cli.options import SectionedCommand, build_config, common_options, config_file_option, config_options
from polydistill.cli.output import Console, columns
from polydistill.methods.bistil.method import BistilConfig, BistilResult, bistil

EPILOG = """\b
Examples:
  polydistill bistil en sw --text en=en.txt --text sw=sw.txt
  polydistill bistil en sw --task ner --data-dir DATA --text en=en.txt --text sw=sw.txt --preset smoke
  polydistill bistil en ro --task nli --teacher my-nli-teacher --layers 3 --vocab-size 20000
  polydistill bistil en sw --objective 1:relations=1 --objective 2:hidden=1 --objective logits=1 --task ner
  polydistill bistil en sw --model my-student --task ner --teacher my-ner-teacher
"""


@click.command("bistil", cls=SectionedCommand, epilog=EPILOG)
@click.argument("source")
@click.argument("target")
@config_options(BistilConfig)
@config_file_option
@common_options
@click.pass_context
def command(
    ctx: click.Context, config_file: Path | None, as_json: bool, quiet: bool, verbose: bool, **values: Any
) -> None:
    """Make a small bilingual model out of a multilingual one (BiStil).

    The vocabulary is cut to both languages and the student gets some of the layers. In phase 1 it learns from the
    whole model on text of both languages. With --task, phase 2 teaches it the task on labelled data of the SOURCE
    language alone, with sparse fine-tuning, and it is scored in both. Every stage goes on with --resume.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    result = bistil(build_config(BistilConfig, ctx, values, config_file, (("min_share", "vocab_size"),)), console)
    console.result(result.to_json(), lambda: table(result))


def table(result: BistilResult) -> str:
    """The readable form of the result."""
    teacher, student = result.parameters["teacher"], result.parameters["student"]
    sizes = [
        ["", "teacher", "student", ""],
        ["parameters", f"{teacher:,}", f"{student:,}", f"{100 * student / teacher:.1f} %"],
        ["size on disk", *(human_bytes(result.bytes[who]) for who in ("teacher", "student")), ""],
    ]
    parts = [columns(sizes, right=(1, 2, 3)), columns(stage_rows(result.stages), right=(1, 2, 4, 5))]
    if result.scores:
        parts.append(columns(score_rows(result.scores), right=(4, 5)))
    place = f"Written to {result.output} in {result.seconds:.0f} s"
    parts.append(f"{place}, peak memory {human_bytes(result.peak_memory_bytes)}.")
    return "\n\n".join(parts)


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
        rows.append(
            [
                Path(score["model"]).name,
                score["language"],
                score["split"],
                score["metric"] + rule,
                f"{100 * score['value']:.2f}",
                f"{100 * low:.1f} to {100 * high:.1f}",
            ]
        )
    return rows
