"""`polydistill stack`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from polydistill.card import human_bytes
from polydistill.cli.bistil import score_rows, stage_rows
from polydistill.cli.options import SectionedCommand, build_config, common_options, config_file_option, config_options
from polydistill.cli.output import Console, columns
from polydistill.methods.stack.method import StackConfig, StackResult, stack

EPILOG = """\b
Examples:
  polydistill stack intfloat/multilingual-e5-small sentence-transformers/all-MiniLM-L6-v2 --text en.txt
  polydistill stack ENCODER LLM --text en.txt --task nli --data-dir DATA --lang en --lang sw
  polydistill stack facebook/nllb-200-distilled-600M Qwen/Qwen3-0.6B --preset paper --bf16 --frozen bfloat16
  polydistill stack ENCODER LLM --text en.txt --baseline linear
"""


@click.command("stack", cls=SectionedCommand, epilog=EPILOG)
@click.argument("encoder")
@click.argument("llm")
@config_options(StackConfig)
@config_file_option
@common_options
@click.pass_context
def command(
    ctx: click.Context, config_file: Path | None, as_json: bool, quiet: bool, verbose: bool, **values: Any
) -> None:
    """Give an English LLM the languages of a multilingual encoder (MT-LLM).

    The text goes through the frozen ENCODER, one linear layer, and the LLM, which reads it in both directions with
    low-rank updates of its weights. Stage 1 needs plain English text: the stack's vectors become those that the LLM
    has of the same text. Stage 2 does so with an LLM that has learnt a task from English labels. Every stage goes on
    with --resume.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    result = stack(build_config(StackConfig, ctx, values, config_file), console)
    console.result(result.to_json(), lambda: table(result))


def table(result: StackResult) -> str:
    """The readable form of the result."""
    parts = [columns(stage_rows(result.stages), right=(1, 2, 4, 5))]
    if left := result.unexplained_variance:
        first, last = (f"{100 * left[when]:.1f} %" for when in ("first", "last"))
        parts.append(f"Of the LLM's variance {first} was unexplained at first, {last} is now.")
    if result.scores:
        parts.append(columns(score_rows(result.scores), right=(4, 5)))
    sizes = (
        f"{result.parameters['student'] / 1e6:.1f} M parameters, {result.parameters['trained'] / 1e6:.2f} M of its own"
    )
    place = f"Written to {result.output} in {result.seconds:.0f} s"
    parts.append(f"{place}: {sizes}; peak memory {human_bytes(result.peak_memory_bytes)}.")
    return "\n\n".join(parts)
