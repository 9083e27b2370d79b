"""What a stack's folder says of itself and of the models it stands on; without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import orjson

from polydistill.errors import PolydistillError, library_said
from polydistill.files.inside import inside
from polydistill.files.jsonfiles import read_json
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.door import check_folder
from polydistill.models.folder import STACK, model_folder
from polydistill.models.refs import ModelRef, ResolvedModel, resolve

CONFIG, FORMAT = "config.json", 1
ENCODER, LLM = "encoder", "llm"
POOLINGS, DTYPES = ("mean", "first", "last"), ("float32", "bfloat16")
LONG = ("window", "refuse")  # what is done with a text that is longer than a stack takes
SAYS_NOTHING = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")


@dataclass(frozen=True)
class Parent:
    """A model that a stack stands on.

    Attributes:
        name: What resolves to it: `org/name`, `org/name@commit`, or a folder; of a whole stack, the folder inside it.
        source: What records call it.
        weights_hash: Of its weights.
        config_hash: Of its config.json, but for what says nothing of the network.
        parameters: Number of its stored values.
        bytes: Of its weights.
        dtype: In which it runs: `float32` or `bfloat16`.
        half: Whether it is the encoder alone of an encoder-decoder.
    """

    name: str
    source: str
    weights_hash: str
    config_hash: str
    parameters: int
    bytes: int
    dtype: str = "float32"
    half: bool = False

    @classmethod
    def of(cls, resolved: ResolvedModel, dtype: str) -> Parent:
        """The parent that a model makes."""
        folder, ref = model_folder(resolved.folder), resolved.ref
        checkpoint = Checkpoint.open(folder)
        name = str(ref.path.resolve()) if ref.path else f"{ref.name}@{resolved.revision or ''}".rstrip("@")
        return cls(
            name,
            resolved.source,
            checkpoint.weights_hash,
            config_hash(folder),
            checkpoint.parameters,
            checkpoint.nbytes,
            dtype,
        )


@dataclass(frozen=True)
class Description:
    """A stack's config.json.

    Attributes:
        encoder: None for the LLM alone.
        llm: None for a linear map.
        whole: Whether both lie in the folder, or will once it is saved.
        widths: Of the encoder's states, of the LLM's inputs, of the vectors.
        lora: `r`, `alpha`, `dropout`; None where nothing was added, or where it is merged.
        pooling: How states become a vector.
        max_length: Most tokens of an input that both models take.
        labels: Of the head, in its order; empty without one.
        task: What the head was learnt for.
    """

    encoder: Parent | None
    llm: Parent | None
    widths: tuple[int, int, int]
    lora: Mapping[str, float] | None
    max_length: int
    whole: bool = False
    pooling: str = "mean"
    labels: tuple[str, ...] = ()
    task: str | None = None

    @property
    def parts(self) -> dict[str, Parent]:
        """Role -> the model in it."""
        return {role: part for role, part in ((ENCODER, self.encoder), (LLM, self.llm)) if part}

    def with_parts(self, parts: Mapping[str, Parent]) -> Description:
        """The same with other models in the roles that `parts` names."""
        return replace(self, encoder=parts.get(ENCODER, self.encoder), llm=parts.get(LLM, self.llm))

    def write(self, folder: Path) -> None:
        """Writes the config.json of a folder."""
        values = {"model_type": STACK, "format": FORMAT, **asdict(self)}
        (folder / CONFIG).write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2) + b"\n")

    @classmethod
    def read(cls, folder: Path) -> Description:
        """Reads a stack's folder.

        Raises:
            PolydistillError: It is none, or is broken.
        """
        if not folder.is_dir():
            raise PolydistillError(f"There is no folder {folder}.", "Give the folder of a stack.")
        values = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        if values.pop("model_type", None) != STACK or values.pop("format", None) != FORMAT:
            raise PolydistillError(f"{folder} is not a stack of this version.", "Make one with `polydistill stack`.")
        try:
            for role in (ENCODER, LLM):
                values[role] = Parent(**values[role]) if values[role] else None
            found = cls(**{**values, "widths": tuple(values["widths"]), "labels": tuple(values["labels"])})
            if wrong := next(found._wrong(), None):
                raise ValueError(f"{wrong[0]}: {wrong[1]!r}")
            return found
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PolydistillError(
                f"{folder / CONFIG} is broken ({library_said(error)}).", "Make the stack again."
            ) from error

    def _wrong(self) -> Iterator[tuple[str, object]]:
        """Names and values that no stack has; the file may have been changed by hand."""
        if not self.parts:
            yield "encoder", None
        for role, part in self.parts.items():
            values = asdict(part)
            yield from (
                (f"{role}.{f.name}", values[f.name]) for f in fields(part) if type(values[f.name]).__name__ != f.type
            )
            if part.dtype not in DTYPES:
                yield f"{role}.dtype", part.dtype
        if self.pooling not in POOLINGS:
            yield "pooling", self.pooling
        if type(self.max_length) is not int or self.max_length < 1:
            yield "max_length", self.max_length
        if [type(width) for width in self.widths] != [int, int, int]:
            yield "widths", self.widths
        if not all(isinstance(label, str) for label in self.labels):
            yield "labels", self.labels
        if self.lora is not None:
            rank, alpha, dropout = (self.lora[name] for name in ("r", "alpha", "dropout"))
            if type(rank) is not int or rank < 1 or alpha <= 0 or not 0 <= dropout < 1:
                yield "lora", self.lora


def find_parent(folder: Path, role: str, description: Description, given: Path | None = None) -> Path:
    """The folder of a model that a stack stands on, after a look at its weights.

    Args:
        folder: The stack's.
        role: `encoder` or `llm`.
        description: The stack's.
        given: Where it is, if not at its place.

    Raises:
        PolydistillError: It is not there, or has other weights.
    """
    part = description.parts[role]
    article = "encoder" if role == ENCODER else "LLM"
    if given is not None:
        place = given
    elif description.whole:
        place = inside(folder, role, folder / CONFIG)
    else:
        try:
            place = resolve(ModelRef.parse(part.name)).folder
        except PolydistillError as error:
            raise PolydistillError(
                f"The stack {folder} stands on the {article} {part.source}, which was not found: {error.message}",
                "Bring it back to that place, or make the stack again with `whole`, which needs neither of its models.",
            ) from error
    check_parent(place, part, f"The {article} in {place}", f"the one that the stack {folder} was made with")
    return place


def check_parent(place: Path, part: Parent, what: str, other: str) -> None:
    """Refuses a model that is not the one that a stack was made with.

    Raises:
        PolydistillError: Its weights or its configuration are others, or broken.
    """
    check_folder(place, tokenizer=False)
    inner = model_folder(place)
    differs = None
    if Checkpoint.open(inner).weights_hash != part.weights_hash:
        differs = f"other weights than {other} ({part.source}, sha256 {part.weights_hash[:12]})"
    elif config_hash(inner) != part.config_hash:
        differs = f"another config.json than {other} ({part.source})"
    if differs:
        raise PolydistillError(f"{what} has {differs}.", "Bring that one back, or make the stack again.")


def config_hash(folder: Path) -> str:
    """Hash of a model's config.json, but for what says nothing of the network."""
    values = read_json(folder / CONFIG)
    kept = {key: value for key, value in values.items() if key not in SAYS_NOTHING}
    return hashlib.sha256(orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)).hexdigest()


def sizes(folder: Path) -> tuple[int, int]:
    """(parameters, bytes) of a stack: what it added and the models that it stands on."""
    own, parts = Checkpoint.open(folder), Description.read(folder).parts.values()
    return own.parameters + sum(p.parameters for p in parts), own.nbytes + sum(p.bytes for p in parts)
