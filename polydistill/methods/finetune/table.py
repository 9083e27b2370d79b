"""The readable form of what a fine-tuning did."""

from __future__ import annotations

from polydistill.runs.result import Result
from polydistill.runs.tables import columns


def table(result: Result) -> str:
    """Data, sizes, losses and the dev score."""
    chosen, losses = result.selection, [loss for _, loss in result.facts["curves"]["loss"]]
    assert chosen is not None
    examples, parameters = result.facts["examples"], result.parameters
    rows = [
        ["model", result.model],
        ["task", f"{result.task}, {', '.join(result.languages)}"],
        ["examples", f"{examples['train']:,} to train on, {examples['dev']:,} to choose by"],
        ["parameters", f"{parameters['total']:,}, {parameters['trained']:,} of them trained"],
        ["steps", f"{result.facts['steps']:,}, the best after {chosen['step']:,}"],
        ["loss", f"{losses[0]:.4f} at first, {losses[-1]:.4f} at last" if losses else "-"],
        [f"dev {chosen['metric']}", f"{100 * chosen['value']:.2f} on {', '.join(chosen['languages'])}"],
    ]
    return columns(rows)
