"""`polydistill finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from polydistill.card import human_bytes
from polydistill.cli.options import SectionedCommand, build_config, common_options, config_file_option, config_options
from polydistill.cli.output import Console, columns
from polydistill.methods.finetune.method import FinetuneConfig, FinetuneResult, finetune

EPILOG = """\b
Examples:
  polydistill finetune --task ner --lang en --data-dir DATA --train-split train_wikineural
  polydistill finetune --model polydistill-out/multilingual-e5-small-en-sw --task nli --lang en --lr 1e-4
  polydistill finetune --task qa --lang en --freeze-embeddings --resume
"""


@click.command("finetune", cls=SectionedCommand, epilog=EPILOG)
@config_options(FinetuneConfig)
@config_file_option
@common_options
@click.pass_context
def command(
    ctx: click.Context, config_file: Path | None, as_json: bool, quiet: bool, verbose: bool, **values: Any
) -> None:
    """Tune a model for a task on labelled text of a source language.

    A head that the model already has is reused: its labels are matched with the task's by name, and those that are new
    or dropped are listed. The checkpoint with the best dev score is kept. After Ctrl-C or a kill the same command with
    --resume goes on, with the same losses.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    result = finetune(build_config(FinetuneConfig, ctx, values, config_file), console)
    console.result(result.to_json(), lambda: table(result))


def table(result: FinetuneResult) -> str:
    """The readable form of the result."""
    chosen, losses = result.selection, [loss for _, loss in result.curves["loss"]]
    rows = [
        ["model", result.model],
        ["task", f"{result.task}, {', '.join(result.languages)}"],
        ["examples", f"{result.examples['train']:,} to train on, {result.examples['dev']:,} to choose by"],
        ["parameters", f"{result.parameters['total']:,}, {result.parameters['trained']:,} of them trained"],
        ["steps", f"{result.steps:,}, the best after {chosen['step']:,}"],
        ["loss", f"{losses[0]:.4f} at first, {losses[-1]:.4f} at last" if losses else "-"],
        [f"dev {chosen['metric']}", f"{100 * chosen['value']:.2f} on {', '.join(chosen['languages'])}"],
    ]
    place = f"Written to {result.output} in {result.seconds:.0f} s"
    return f"{columns(rows)}\n\n{place}, peak memory {human_bytes(result.peak_memory_bytes)}."
