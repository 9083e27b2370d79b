"""Whether a folder is a whole model, and which weights in it are the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from polydistill.errors import PolydistillError
from polydistill.files.jsonfiles import read_json
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.door import check_folder
from polydistill.models.files import DIFFERENCES, LINEAR_MAPS, pickled
from polydistill.models.folder import (
    MODULES,
    MODULES_WITH_WEIGHTS,
    WEIGHTS,
    is_stack,
    model_folder,
    modules_of,
    tokenizer_files,
)
from polydistill.records.record import RunRecord
from polydistill.stacks.description import Description


def check_complete(folder: Path, found: Sequence[str]) -> set[str]:
    """Configuration, tokenizer and every weight file that an index names are there and whole.

    Returns:
        The paths of the weights: the model's, its modules', those of the models that a stack stands on, and
        differences.

    Raises:
        PolydistillError: Something is missing or broken.
    """
    check_folder(folder)
    inner = model_folder(folder)
    for index in inner.glob("*.index.json"):
        named = read_json(index).get("weight_map")
        for shard in sorted({str(name) for name in named.values()} if isinstance(named, dict) else ()):
            path = str(PurePosixPath(inner.relative_to(folder).as_posix()) / shard)
            if path not in found:
                raise PolydistillError(
                    f"{index} names {shard}, which is not among the files to publish.", "Save the model again."
                )
    if unread := next(iter(pickled(folder)), None):
        raise PolydistillError(
            f"{unread} is a pickle, which is not sent, and the model needs it.",
            "Load the folder once with sentence-transformers (SentenceTransformer) and write it with save_pretrained.",
        )
    weights = [*Checkpoint.open(inner).files, *inner.glob(DIFFERENCES), *_weights_beside(folder)]
    if is_stack(folder):
        weights += _check_parents(folder)
    return {path.relative_to(folder).as_posix() for path in weights}


def _weights_beside(folder: Path) -> list[Path]:
    """The weights of modules behind the model, and of linear maps beside it."""
    modules = modules_of(folder) if (folder / MODULES).is_file() else []
    own = [module.place / WEIGHTS for module in modules if module.name in MODULES_WITH_WEIGHTS]
    return own + [folder / f"{name}.safetensors" for name in LINEAR_MAPS]


def _check_parents(folder: Path) -> list[Path]:
    """The models that a stack stands on are sent with it, or are on the Hub.

    Returns:
        The weights that are sent with it.

    Raises:
        PolydistillError: It is a folder of this machine, or not whole.
    """
    description, weights = Description.read(folder), list[Path]()
    for role, part in description.parts.items():
        if description.whole:
            check_folder(folder / role, tokenizer=False)
            weights += Checkpoint.open(folder / role).files
        elif "@" not in part.name or Path(part.name).is_absolute():  # a folder, or weights that came from a package
            raise PolydistillError(
                f"The stack {folder} stands on {part.source}, which is not on the Hub.",
                "Make it with `polydistill stack ENCODER LLM whole=True`, which puts both models into the folder.",
            )
    return weights


def check_exported(folder: Path, record: RunRecord, found: Sequence[str]) -> set[str]:
    """Configuration, tokenizer and every ONNX file that the record names are there.

    Returns:
        The paths of these files, of the files beside them with parts of their weights, and of the weights of modules.

    Raises:
        PolydistillError: One is missing.
    """
    inner = model_folder(folder)
    named = _paths_of(record.result) or ["onnx/model.onnx"]
    missing = [name for name in named if name not in found]
    missing += [] if tokenizer_files(inner) else ["a tokenizer"]
    if missing:
        raise PolydistillError(f"{folder} is incomplete: it lacks {missing[0]}.", "Export the model again.")
    beside = {path.relative_to(folder).as_posix() for path in _weights_beside(folder)}
    return beside | onnx_of({"files": [{"path": name} for name in named]}, found)


def onnx_of(exported: Any, found: Sequence[str]) -> set[str]:
    """The files that an export reported, with those that hold parts of their weights."""
    return {path for path in found if path.startswith(tuple(_paths_of(exported)))}


def _paths_of(exported: Any) -> list[str]:
    """The paths of the files that an export reported; a record may have been changed by hand."""
    files = exported.get("files") if isinstance(exported, dict) else None
    return [str(part["path"]) for part in files or [] if isinstance(part, dict) and part.get("path")]
