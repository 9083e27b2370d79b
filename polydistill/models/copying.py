"""Copies a model's folder, or all of it but the model: what is known to fit the result, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from polydistill.files.inside import links_out
from polydistill.models.checkpoint import INDEX_NAME, Checkpoint, copy_file
from polydistill.models.files import GENERATION, LEGAL, LINEAR_MAPS, OwnFiles, is_ours, own_files
from polydistill.models.source import CONFIG, Source


def copy_model(source: Source, out: Path) -> list[str]:
    """Copies a model as it is, without what else lies in its folder: records, stages, other formats.

    Args:
        source: The model.
        out: An existing folder.

    Returns:
        What the user should know.
    """
    notes = copy_rest(source, out, vocabulary=True)
    target = source.place_in(out)
    index = [path] if (path := source.model / INDEX_NAME).is_file() else []
    for path in (source.model / CONFIG, *source.checkpoint.files, *index):
        copy_file(path, target / path.name)
    return notes


def copy_rest(source: Source, out: Path, *, vocabulary: bool = False) -> list[str]:
    """Copies everything of a model but weights and config.json: modules, prompts, licences.

    Pickles of modules become safetensors, for which torch is loaded. Weights in other formats, and what is not known to
    fit the result, are left out; see `ownfiles`.

    Args:
        source: The model.
        out: An existing folder.
        vocabulary: Whether what has to do with the vocabulary is copied too: the tokenizer, generation_config.json.

    Returns:
        What the user should know.

    Raises:
        PolydistillError: A pickle holds anything but named tensors.
    """
    own = source.own_files
    for path in (*own.rest, *(own.vocabulary if vocabulary else ())):
        copy_file(path, out / path.relative_to(source.folder))
    if own.pickles:
        from polydistill.models.pickles import to_safetensors

        for path, new in own.pickles.items():
            (out / new).parent.mkdir(parents=True, exist_ok=True)
            to_safetensors(path, out / new)
    return [*_said_of_pickles(source.folder, own), *said_of_foreign(own.foreign), *_said_of_links(source.folder)]


def copy_beside(folder: Path, checkpoint: Checkpoint, out: Path) -> list[str]:
    """Copies what goes with a model under a new head: the tokenizer, chat templates, licences.

    Args:
        folder: The whole folder of the model.
        checkpoint: Its weights, in the part of the folder with config.json.
        out: An existing folder.

    Returns:
        What the user should know.
    """
    own = own_files(folder, checkpoint.folder, checkpoint.files)
    named = [path for path in own.rest if LEGAL.fullmatch(path.name) or path.name.startswith("chat_template")]
    for path in (*named, *(path for path in own.vocabulary if path.name != GENERATION)):
        copy_file(path, out / path.name)
    return said_of_foreign(own.foreign)


def _said_of_pickles(folder: Path, own: OwnFiles) -> list[str]:
    notes = []
    for path, new in own.pickles.items():
        note = f"{path.relative_to(folder)} was read as tensors only and written as {new}"
        if path.stem in LINEAR_MAPS:
            note += "; FlagEmbedding, which uses it, reads only the former: save it there again for that library"
        notes.append(f"{note}.")
    return notes


def said_of_foreign(names: Sequence[str]) -> list[str]:
    """The note that names what was left out of a copy, if there is anything."""
    if not names:
        return []
    shown = ", ".join(name if name.isprintable() else ascii(name) for name in sorted(names))
    return [f"Left out, as only what is known to fit the new model is copied: {shown}."]


def _said_of_links(folder: Path) -> list[str]:
    links = [inside for path in links_out(folder) if not is_ours(inside := path.relative_to(folder))]
    return [f"{str(link)!a} was not copied: it is a link that leads out of {folder}." for link in links]
