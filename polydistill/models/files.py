"""Which files of a model's folder are the model's own, by name and place.

All others may be right or not once a model was cut or trained: weights in another format, or tokenizers that only other
programs read. So a copy has the model's own files, and the rest is named.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container
from dataclasses import dataclass, field
from pathlib import Path

from polydistill.files.inside import files_below
from polydistill.models.folder import (
    INDEX,
    MODULES,
    MODULES_WITH_WEIGHTS,
    PICKLE,
    WEIGHTS,
    Module,
    is_tokenizer_file,
    modules_of,
)

GENERATION = "generation_config.json"
LEGAL = re.compile(
    r"(LICEN[CS]ES?|NOTICES?|COPYING|COPYRIGHT|CITATION|USE_POLICY|(\w+_)?TERMS|AUTHORS|NOTES?|CHANGELOG)([._-].*)?",
    re.IGNORECASE,
)
CARD = "README.md"
# What sentence-transformers and processors of transformers read beside the model; none of it has token ids.
SETTINGS = re.compile(
    r"modules\.json|config_sentence_transformers\.json|sentence_\w+_config\.json|(pre)?processor_config\.json|"
    r"chat_template\.(json|jinja)"
)
TEMPLATES = "additional_chat_templates"
MODULE_SETTINGS = re.compile(r"(\w+_)?config\.json")
LINEAR_MAPS = ("colbert_linear", "sparse_linear")  # of BGE-M3: from the encoder's states to sparse and to many vectors
# What commands of polydistill write anew, or beside a model: never copied, and not worth a word.
OURS = (CARD, "polydistill.json", "polydistill-source.json", "stage.json", "losses.jsonl", "whole.json")
STAGES = "stages"
DIFFERENCES = "difference*.safetensors"  # they fit the weights that they lie beside, and no others


@dataclass
class OwnFiles:
    """The files of a model's folder, apart from its weights and config.json.

    Attributes:
        rest: What is right whatever becomes of vocabulary and weights: settings, modules, licences, chat templates.
        vocabulary: The tokenizer's files and generation_config.json.
        pickles: Pickles of modules -> the safetensors, below the folder, that stand for them.
        foreign: All others, below the folder; of a folder that has nothing of the model, only its name with a slash.
    """

    rest: list[Path] = field(default_factory=list)
    vocabulary: list[Path] = field(default_factory=list)
    pickles: dict[Path, Path] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)

    @property
    def module_bytes(self) -> int:
        """Bytes of the weights of modules."""
        weights = [path for path in self.rest if path.suffix == ".safetensors"]
        return sum(path.stat().st_size for path in (*weights, *self.pickles))

    @property
    def nbytes(self) -> int:
        """Bytes of the tokenizer and of the weights of modules; settings have next to none."""
        tokenizer = [path for path in self.vocabulary if path.name != GENERATION]
        return self.module_bytes + sum(path.stat().st_size for path in tokenizer)


def own_files(folder: Path, model: Path, weights: Container[Path]) -> OwnFiles:
    """Tells the files of a model's folder apart.

    Args:
        folder: The whole folder.
        model: The part of it with config.json.
        weights: The model's own weights.

    Raises:
        PolydistillError: modules.json is broken.
    """
    found, foreign = OwnFiles(pickles=pickled(folder)), dict[str, None]()
    modules = {module.place for module in _modules(folder)} - {folder, model}
    places = {folder, model, *modules}
    known = {model / "config.json", model / INDEX, *found.pickles}
    for path in files_below(folder):
        inside = path.relative_to(folder)
        if path in known or path in weights or is_ours(inside):
            continue
        if _is_right(path, folder, model, modules):
            found.rest.append(path)
        elif path.parent in (folder, model) and (path.name == GENERATION or is_tokenizer_file(path.name)):
            found.vocabulary.append(path)
        else:
            foreign[_called(path, folder, places)] = None
    found.foreign = list(foreign)
    return found


def pickled(folder: Path) -> dict[Path, Path]:
    """Pickles of a folder that are read, as tensors only -> the safetensors, below the folder, that stand for them.

    They are the weights of modules of sentence-transformers, and the linear maps of BGE-M3.

    Raises:
        PolydistillError: modules.json is broken.
    """
    modules = [m.place for m in _modules(folder) if m.name in MODULES_WITH_WEIGHTS]
    found = {place / PICKLE: place.relative_to(folder) / WEIGHTS for place in modules}
    found |= {folder / f"{name}.pt": Path(f"{name}.safetensors") for name in LINEAR_MAPS}
    return {file: new for file, new in found.items() if file.is_file() and not (folder / new).is_file()}


def _modules(folder: Path) -> list[Module]:
    return modules_of(folder) if (folder / MODULES).is_file() else []


def is_ours(inside: Path) -> bool:
    """Whether it is hidden, or something that polydistill writes beside a model."""
    hidden = any(part.startswith(".") or part == STAGES for part in inside.parts)
    return hidden or inside.name in OURS or inside.match(DIFFERENCES)


def _is_right(path: Path, folder: Path, model: Path, modules: Container[Path]) -> bool:
    """Whether a file is right whatever becomes of vocabulary and weights."""
    if path.parent in modules:
        return path.name == WEIGHTS or MODULE_SETTINGS.fullmatch(path.name) is not None
    if path.parent in (folder, model):
        linear = path.parent == folder and path.name in [f"{name}.safetensors" for name in LINEAR_MAPS]
        return linear or bool(SETTINGS.fullmatch(path.name) or LEGAL.fullmatch(path.name))
    if path.parent in (folder / TEMPLATES, model / TEMPLATES):
        return path.suffix == ".jinja"
    return LEGAL.fullmatch(path.relative_to(folder).parts[0]) is not None


def _called(path: Path, folder: Path, places: Collection[Path]) -> str:
    """What is said of a file that is not the model's: the uppermost folder that has nothing of the model, or itself."""
    inside = path.relative_to(folder)
    above = [parent for parent in path.parents if folder in parent.parents]
    for parent in reversed(above):
        if not any(place == parent or parent in place.parents for place in places):
            return f"{parent.relative_to(folder).as_posix()}/"
    return inside.as_posix()
