"""`polydistill embed`: one vector a text, from a stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from polydistill.catalog import user_files
from polydistill.devices import AUTO, FLOAT32, PRECISIONS, multiplies_in_bfloat16, using
from polydistill.errors import UsageError
from polydistill.files.outputs import check_file, check_outside
from polydistill.models.folder import is_stack
from polydistill.models.refs import ModelRef, resolve
from polydistill.options.settings import MOST_BATCH, Options, device_setting, setting
from polydistill.progress import SILENT, Progress
from polydistill.stacks.description import LONG
from polydistill.texts.lines import LONGEST_TEXT

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class EmbedOptions(Options):
    """The configuration of an embedding; its fields are options of the command line."""

    model: str
    language: str | None = setting(
        None,
        "Language of the texts, where the encoder has to know it: its own code, such as swh_Latn, or any name.",
        "Text",
        metavar="LANG",
    )
    long: str = setting(
        "window",
        "A text longer than the stack takes: window (the mean of its pieces) or refuse.",
        "Text",
        metavar="HOW",
        choices=LONG,
    )
    batch_size: int = setting(32, "Inputs at once.", "Speed", metavar="N", least=1, most=MOST_BATCH)
    precision: str = setting(
        FLOAT32,
        "Precision of matrix products: float32, bfloat16, or auto for the faster one, measured on one product.",
        "Speed",
        metavar="TYPE",
        choices=(AUTO, *PRECISIONS),
    )
    device: str = device_setting("Speed")
    include_path: tuple[Path, ...] = setting((), "Folder with your own languages/ TOML files.", "Text", metavar="DIR")
    output: Path | None = setting(
        None, "Write the vectors here. [default: standard output]", "Output", metavar="FILE.npy"
    )
    overwrite: bool = setting(False, "Replace that file if it exists.", "Output")


def _reads(config: EmbedOptions) -> list[str | Path]:
    """What an output must not be: the stack, TOML files of the user's own, a file that is standard input."""
    return [config.model, *user_files(config.include_path), "/dev/stdin"]


def embed(config: EmbedOptions, texts: Sequence[str], progress: Progress = SILENT) -> np.ndarray:
    """Vectors of texts.

    Args:
        config: Of which stack, and how.
        texts: In one language.
        progress: Where to report.

    Returns:
        (n, H) float32.

    Raises:
        PolydistillError: The stack cannot be loaded, the language is missing, or a text is too long.
    """
    config.check()
    if config.output:
        check_file(config.output, overwrite=config.overwrite, reads=_reads(config))
    if not texts:
        raise UsageError("There is no text.", "Give some on standard input, one a line: polydistill embed DIR < texts")
    longest = max(range(len(texts)), key=lambda i: len(texts[i]))
    if len(texts[longest]) > LONGEST_TEXT:
        raise UsageError(
            f"Text {longest + 1} has {len(texts[longest]):,} characters, and {LONGEST_TEXT:,} is the most.", "Split it."
        )
    folder = resolve(ModelRef.parse(config.model), progress=progress.note).folder
    if not is_stack(folder):
        raise UsageError(f"{config.model} is not a stack.", "Other models are read by sentence-transformers.")

    if config.output:
        check_outside(config.output, folder, "the stack")

    with using(config.device):
        return _vectors(config, folder, texts, progress)


def _vectors(config: EmbedOptions, folder: Path, texts: Sequence[str], progress: Progress) -> np.ndarray:
    from polydistill.stacks.folder import load_stack

    stack, bf16 = load_stack(folder), multiplies_in_bfloat16(config.precision)
    language = stack.reader.read_language(config.language, config.include_path)
    with progress.bar("vectors", None, "input") as done:
        return stack.encode(
            texts, language=language, batch_size=config.batch_size, long=config.long, bf16=bf16, done=done
        )
