"""Groups of options that methods share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from polydistill.devices import AUTO, FLOAT32, PRECISIONS
from polydistill.options.settings import (
    Options,
    data_dir_setting,
    dev_data_setting,
    device_setting,
    seed_setting,
    setting,
)


@dataclass(frozen=True)
class Place(Options):
    """Where the result of a run goes."""

    resume: bool = setting(False, "Continue a run that was stopped.", "Output", decides=False)
    output: Path | None = setting(
        None,
        "Folder to write. [default: polydistill-out/ and a name made of model, languages and task]",
        "Output",
        metavar="DIR",
        reads=False,
        decides=False,
    )
    overwrite: bool = setting(False, "Replace the output folder if it exists.", "Output", decides=False)

    @property
    def minutes(self) -> float | None:
        """How long the run may train in all; None for as long as it takes."""
        return None

    @property
    def computes_on(self) -> str | None:
        """One of `devices.DEVICES`; None where torch computes nothing."""
        return None


@dataclass(frozen=True)
class TrainingPlace(Place):
    """Where the result of a run goes, where it is trained, and how long that may take."""

    max_minutes: float | None = setting(
        None,
        "Stop training after so long, shared between the stages, and finish with what was learnt.",
        "Training",
        metavar="N",
        above=0,
        decides=False,
    )
    device: str = device_setting("Training")

    @property
    def minutes(self) -> float | None:
        """How long the run may train in all; None for as long as it takes."""
        return self.max_minutes

    @property
    def computes_on(self) -> str | None:
        """One of `devices.DEVICES`."""
        return self.device


class Placed(Options):
    """The options of a method: a dataclass with a field `place`, a `group` of `Place` or `TrainingPlace`."""

    place: Place


@dataclass(frozen=True)
class Labelled(Options):
    """Labelled data to learn from and to choose the checkpoint by."""

    data_dir: Path | None = data_dir_setting("Data")
    train_split: tuple[str, ...] = setting(
        (), "Split to train on. Repeat to join several. [default: train]", "Data", metavar="NAME"
    )
    dev_split: str = setting("dev", "Split that chooses the best checkpoint.", "Data", metavar="NAME")
    data: Path | None = setting(
        None,
        "Your own file to train on, in place of a split; its labels become the model's.",
        "Data",
        metavar="FILE",
        decides=False,
        objects=True,
    )
    dev_data: Path | None = dev_data_setting("Data")
    limit: int | None = setting(None, "Use at most this many examples of each split.", "Data", metavar="N", least=1)


@dataclass(frozen=True)
class Precise(Options):
    """How a training computes, and what is random in it."""

    precision: str = setting(
        FLOAT32,
        "Precision of matrix products: float32, bfloat16, or auto for the faster one, measured in a few steps.",
        "Training",
        metavar="TYPE",
        choices=(AUTO, *PRECISIONS),
    )
    seed: int = seed_setting("Seed for data order, masking, dropout and a new head.", "Training")


@dataclass(frozen=True)
class Computing(Precise):
    """How a training computes, what is random in it, and whether its batches are split."""

    accumulate: int = setting(
        1, "Split each step's batch into this many parts: less memory.", "Training", metavar="N", least=1
    )
