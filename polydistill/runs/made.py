"""What a stage has made, and what stages of several methods write: trained networks and models with fewer tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.models.copying import copy_rest
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.progress import SILENT, Progress
from polydistill.trimming.plan import TrimPlan, apply

if TYPE_CHECKING:
    from polydistill.training.loop import Curves


@dataclass(frozen=True)
class Made:
    """What a stage has made, before it is written.

    Attributes:
        write: Writes the stage's result into an empty folder; returns what else the record says of the stage, as JSON.
        steps: Optimizer steps.
        terms: Term of the loss -> value at every step, in order.
    """

    write: Callable[[Path], Mapping[str, Any]]
    steps: int = 0
    terms: Sequence[Mapping[str, float]] = ()


def save_network(
    network: Any, like: Path, out: Path, include: Sequence[Path] = (), progress: Progress = SILENT
) -> None:
    """Writes a trained network with the tokenizer and everything else of the folder that it came from.

    Args:
        network: A transformers model.
        like: That folder.
        out: An existing folder.
        include: Folders with the user's own architectures.
        progress: Where to report.
    """
    from polydistill.models.loading import quiet_transformers

    source = Source.open(resolve(ModelRef.parse(str(like))), include)
    for note in copy_rest(source, out, vocabulary=True):
        progress.note(note)
    with quiet_transformers():
        network.save_pretrained(source.place_in(out))


def cut_models(plans: Mapping[str, TrimPlan], progress: Progress) -> Made:
    """A stage that cuts models: a folder's name -> its plan."""

    def write(out: Path) -> dict[str, Any]:
        for name, plan in plans.items():
            (out / name).mkdir()
            for note in apply(plan, out / name, progress=progress):
                progress.note(note)
        return {}

    return Made(write)


def chosen_facts(curves: Curves) -> dict[str, Any]:
    """What a stage's facts say of the checkpoint that was kept: every dev score, the best one and its step."""
    return {"dev": curves.dev, "best": curves.best, "best_step": curves.best_step}
