"""A model's folder, opened: its architecture, weights, tokenizer and configuration, each read when first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from polydistill.catalog import Arch, arch
from polydistill.errors import PolydistillError
from polydistill.files.inside import leads_out
from polydistill.files.jsonfiles import Part, read_json
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.configuration import check_config, check_ids
from polydistill.models.files import GENERATION, OwnFiles, own_files
from polydistill.models.folder import is_stack, model_folder, model_type
from polydistill.models.refs import ResolvedModel
from polydistill.vocab import Vocabulary, open_vocabulary

CONFIG = "config.json"


@dataclass(frozen=True)
class Source:
    """A model folder that can be trimmed.

    Args:
        resolved: Where it came from.
        folder: The whole folder.
        model: The part of it with config.json, tokenizer and weights (a sub-folder in some sentence-transformers).
        arch: Its architecture.
        checkpoint: Its weights.
    """

    resolved: ResolvedModel
    folder: Path
    model: Path
    arch: Arch
    checkpoint: Checkpoint

    @classmethod
    def open(cls, resolved: ResolvedModel, include: Sequence[Path] = ()) -> Source:
        """Opens a folder without reading its weights.

        Raises:
            PolydistillError: Something is missing, broken, or of an unknown kind.
        """
        model = model_folder(resolved.folder)
        name = model_type(model)
        if is_stack(model):
            raise PolydistillError(
                f"{resolved.ref} is a stack of two models, not one.",
                "To make a stack smaller, trim its two models before you stack them.",
            )
        architecture = arch(name, include)
        if "trim" not in architecture.supports:
            raise PolydistillError(
                f"{architecture.name} models cannot be trimmed.", "See `polydistill ls architectures`."
            )
        return cls(resolved, resolved.folder, model, architecture, Checkpoint.open(model))

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Its tokenizer, parsed when first asked for.

        Raises:
            PolydistillError: There is none, or one of a kind that cannot be trimmed.
        """
        return open_vocabulary(self.model)

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json."""
        return check_config(self.model)

    @cached_property
    def generation(self) -> dict[str, Any]:
        """generation_config.json, {} if there is none."""
        generation = Part(self.model / GENERATION, read_json(self.model / GENERATION, optional=True))
        check_ids(generation)
        found: dict[str, Any] = generation.value
        return found

    @cached_property
    def own_files(self) -> OwnFiles:
        """The files of its folder, apart from weights and config.json: those that are its own, and the others."""
        return own_files(self.folder, self.model, self.checkpoint.files)

    @property
    def inner(self) -> Path:
        """Where `model` lies below `folder`."""
        return self.model.relative_to(self.folder)

    def place_in(self, copy: Path) -> Path:
        """Where `model` lies in a copy of `folder`; it is made if it is not there.

        Raises:
            PolydistillError: It would lie outside the copy.
        """
        place = copy / self.inner
        if ".." in self.inner.parts or leads_out(place, copy):
            raise PolydistillError(f"The model of {self.folder} lies outside it.", "Put its files into the folder.")
        place.mkdir(parents=True, exist_ok=True)
        return place

    @property
    def rows(self) -> int:
        """Rows of the embedding matrix (of the source's, where there are two)."""
        for name, tensor in self.checkpoint.tensors.items():
            spec = self.arch.vocabulary_tensor(name)
            if spec and spec.role == "embedding" and spec.space == 0:
                return tensor.shape[spec.axis]
        raise PolydistillError(
            f"{self.model} has none of the embedding tensors that a {self.arch.name} model has.",
            "Check model_type in its config.json, or describe the model in a TOML file (`include_path`).",
        )

    @property
    def nbytes(self) -> int:
        """Bytes of weights, those of modules too, and of the tokenizer; what else lies in its folder does not count."""
        return self.checkpoint.nbytes + self.own_files.nbytes
