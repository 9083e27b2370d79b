"""The options of `polydistill sparse apply` and `polydistill sparse remove`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from polydistill.options.settings import Options, group, setting


@dataclass(frozen=True)
class Written(Options):
    """Where the changed model goes."""

    output: Path | None = setting(None, "Folder to write.", "Output", metavar="DIR", reads=False, decides=False)
    overwrite: bool = setting(False, "Replace the folder if it exists.", "Output", decides=False)


@dataclass(frozen=True)
class ApplyOptions(Options):
    """What is added to which model."""

    model: str
    differences: tuple[Path, ...]
    force: bool = setting(False, "Also to other weights than those that it was made on; shapes must agree.", "Model")
    place: Written = group(Written)


@dataclass(frozen=True)
class RemoveOptions(Options):
    """What is taken off which model."""

    model: str
    difference: Path | None = None
    approximate: bool = setting(
        False, "Subtract it where what it overwrote was not kept: right up to rounding.", "Model"
    )
    place: Written = group(Written)
