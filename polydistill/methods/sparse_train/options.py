"""The options of `polydistill sparse train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from polydistill.models.default import DEFAULT_MODEL
from polydistill.options.groups import Computing, Placed, TrainingPlace
from polydistill.options.settings import MOST_BATCH, group, include_setting, setting


@dataclass(frozen=True)
class SparseTrainOptions(Placed):
    """The options of a sparse language fine-tuning."""

    model: str = setting(DEFAULT_MODEL, "Folder, org/name or org/name@revision.", "Model", metavar="M")
    density: float = setting(
        0.043, "Share of the model's parameters that changes.", "Model", metavar="SHARE", above=0, most=1
    )
    include_path: tuple[Path, ...] = include_setting("Model")
    language: str = setting("", "The language.", "Data", metavar="LANG")
    text: tuple[str, ...] = setting(
        (),
        "Text of it, as `polydistill trim` takes it. Repeat for several. [default: the language's corpus on the Hub]",
        "Data",
        metavar="PATH",
        reads=True,
        decides=False,
    )
    steps: int | None = setting(
        None, "Steps of each of the two stages. [default: 1500]", "Training", metavar="N", least=1, decides=False
    )
    epochs: float | None = setting(
        None,
        "Passes over the text in each stage, in place of `steps`.",
        "Training",
        metavar="N",
        above=0,
        decides=False,
    )
    lr: float = setting(5e-5, "Highest learning rate.", "Training", metavar="X", above=0)
    batch_size: int = setting(8, "Blocks a step.", "Training", metavar="N", least=1, most=MOST_BATCH)
    max_length: int = setting(256, "Tokens of a block.", "Training", metavar="N", least=8)
    warmup: float = setting(
        0.06, "Share of the steps in which the learning rate rises.", "Training", metavar="SHARE", least=0, most=1
    )
    computing: Computing = group(Computing)
    place: TrainingPlace = group(TrainingPlace)
