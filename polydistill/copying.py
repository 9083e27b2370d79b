"""Copies a model's folder, or all of it but the model: no link is followed out of it, and no code is taken along."""

from __future__ import annotations

from pathlib import Path

from polydistill.checkpoint import PICKLE_SUFFIXES, copy_file
from polydistill.inside import files_below, links_out
from polydistill.modelfolder import MODULES
from polydistill.source import CONFIG, GENERATION, Source
from polydistill.vocab import OWNED_NAMES, sentencepiece_model

# Other formats of the weights, which would keep the whole vocabulary, and what is written anew.
LEFT_OUT_SUFFIXES = (*PICKLE_SUFFIXES, ".onnx", ".gguf", ".xml", ".tflite", ".ot", ".py", ".lock")
LEFT_OUT_NAMES = (
    "README.md", "polydistill.json", "polydistill-source.json", "model.safetensors.index.json",
    "stage.json", "losses.jsonl", "whole.json",  # of a stage of a run, see `stages.ABOUT`
)  # fmt: skip
LEFT_OUT_FOLDERS = ("onnx", "openvino", "original", "coreml", "stages")  # the last: what our own runs leave
SPARSE_FILES = "difference*.safetensors"  # they fit the weights that they lie beside, and no others


def copy_model(source: Source, out: Path) -> None:
    """Copies a model as it is, without what else lies in its folder: records, stages, other formats.

    Args:
        source: The model.
        out: An existing folder.
    """
    copy_rest(source, out, vocabulary=True)
    target = source.place_in(out)
    index = [path] if (path := source.model / "model.safetensors.index.json").is_file() else []
    for path in (source.model / CONFIG, *source.checkpoint.files, *index):
        copy_file(path, target / path.name)


def copy_rest(source: Source, out: Path, *, vocabulary: bool = False) -> list[str]:
    """Copies everything but weights and config.json: modules, prompts, licences.

    Args:
        source: The model.
        out: An existing folder.
        vocabulary: Whether what has to do with the vocabulary is copied too: the tokenizer, generation_config.json.

    Returns:
        What the user should know.
    """
    written = {source.model / CONFIG, *source.checkpoint.files}
    if not vocabulary:
        written |= {source.model / name for name in (GENERATION, *OWNED_NAMES)}
        written |= set(sentencepiece_model.files(source.model))
    # Folders of a training run or of an earlier trim; parts of a sentence-transformers model are listed, and stay.
    configs = [] if (source.folder / MODULES).is_file() else source.folder.rglob(f"*/{CONFIG}")
    others = {config.parent for config in configs}
    for path in files_below(source.folder):
        inside = path.relative_to(source.folder)
        if _is_hidden(inside) or path in written or path.name in LEFT_OUT_NAMES:
            continue
        if not others.isdisjoint(path.parents) or path.match(SPARSE_FILES):
            continue
        if path.suffix not in LEFT_OUT_SUFFIXES:
            copy_file(path, out / inside)
    links = [inside for path in links_out(source.folder) if not _is_hidden(inside := path.relative_to(source.folder))]
    return [f"{str(link)!a} was not copied: it is a link that leads out of {source.folder}." for link in links]


def _is_hidden(inside: Path) -> bool:
    """Whether something in a model's folder is no part of the model, by the names of the folders above it."""
    return any(part.startswith(".") or part in LEFT_OUT_FOLDERS for part in inside.parts)
