"""A stack in a folder: written as config.json and safetensors, loaded with one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from polydistill.catalog import Language
from polydistill.errors import PolydistillError, UsageError, library_said
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.door import check_folder
from polydistill.models.folder import model_folder
from polydistill.models.loading import load_tokenizer, positions_of, quiet_transformers
from polydistill.stacks.description import ENCODER, LLM, LONG, Description, Parent, config_hash, find_parent
from polydistill.stacks.network import Stack
from polydistill.stacks.parts import (
    INT8,
    add_lora,
    input_width,
    on_device,
    open_encoder,
    open_llm,
    states_width,
    without_embeddings,
)
from polydistill.stacks.reading import Reader
from polydistill.training.batching import run

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class LoadedStack:
    """A stack that can be asked for vectors.

    Attributes:
        network: Encoder, projection, LLM and head.
        reader: Makes token ids of text.
        description: What its folder says.
    """

    network: Stack
    reader: Reader
    description: Description

    def encode(
        self,
        texts: Sequence[str],
        *,
        language: str | Language | None = None,
        batch_size: int = 32,
        long: str = "window",
        bf16: bool = False,
        done: Callable[[int], object] = lambda n: None,
    ) -> np.ndarray:
        """(n, H) float32 vectors of texts.

        Args:
            texts: In one language.
            language: Which; needed at each call by encoders that have a code for each, such as NLLB.
            batch_size: Inputs at once.
            long: What is done with a text that is longer than the encoder takes: `window` cuts it into pieces, whose
                vectors are averaged with their numbers of tokens as weights; `refuse` refuses it.
            bf16: Whether to multiply in bfloat16.
            done: Called with the number of inputs just done.

        Raises:
            PolydistillError: The language is missing or has no code, a text is too long and that is refused, or a
                single text was given.
        """
        if isinstance(texts, str):
            raise UsageError("One text was given, not a list of texts.", "Put it in a list.")
        if long not in LONG:
            raise UsageError(f"long={long!r} is unknown.", f"Choose among: {', '.join(LONG)}.")
        if self.reader.codes:
            self.reader.read_language(language)
        if not texts:
            return np.zeros((0, self.description.widths[2]), np.float32)
        inputs, owners = self.reader.windows(texts)
        pieces = np.bincount(owners)
        if long == "refuse" and pieces.max() > 1:
            first = int(np.argmax(pieces > 1))
            raise PolydistillError(
                f"Text {first + 1} has {self.reader.length(texts[first]):,} tokens, and the stack takes "
                f"{self.reader.max_length:,}.",
                "Shorten it, or read it in pieces: `long=window`.",
            )
        network = on_device(self.network)
        rows = run(
            network, self.reader, inputs, batch_size, lambda o: [o.vectors], positions=False, bf16=bf16, done=done
        )
        found = np.zeros((len(texts), self.description.widths[2]), np.float32)
        weights = np.zeros((len(texts), 1), np.float32)
        for owner, item, (vector,) in zip(owners, inputs, rows, strict=True):
            found[owner] += len(item["input_ids"]) * vector
            weights[owner] += len(item["input_ids"])
        return found / weights

    def classify(
        self,
        texts: Sequence[str] | Sequence[tuple[str, str]],
        *,
        language: str | Language | None = None,
        batch_size: int = 32,
    ) -> list[str]:
        """The likeliest label of each text or pair of texts, of a stack that has learnt a task.

        Args:
            texts: Each one text, or (premise, hypothesis), as it has learnt them; in one language. What is too long is
                cut, of a pair the longer text.
            language: Which; as in `encode`.
            batch_size: Inputs at once.

        Raises:
            UsageError: The stack has no head.
            PolydistillError: The language is missing or has no code.
        """
        labels = self.description.labels
        if not labels:
            raise UsageError(
                "This stack gives vectors, not labels: it has not learned a task.",
                "Call encode, or teach it a task: `polydistill stack ENCODER LLM stack=... task=nli`.",
            )
        if self.reader.codes:
            self.reader.read_language(language)
        if not texts:
            return []
        together = [(text,) if isinstance(text, str) else text for text in texts]
        rows = self.reader(*map(list, zip(*together, strict=True)))
        inputs = [{key: rows[key][i] for key in rows} for i in range(len(texts))]
        network = on_device(self.network)
        found = run(network, self.reader, inputs, batch_size, lambda o: [o.logits], positions=False)
        return [labels[int(np.argmax(logits))] for (logits,) in found]

    def as_sentence_transformer(self, language: str | Language | None = None) -> Any:
        """The same network as a `SentenceTransformer`, for everything that takes one.

        It is made of modules of this package, so sentence-transformers cannot load it from a folder of its own. Like
        any other it cuts texts that are too long, where `encode` reads them in windows.

        Args:
            language: Of the texts, where the encoder needs one.
        """
        from polydistill.stacks.sentences import StackModule, StackTransformer

        reader = self.reader.copy()
        if language is not None:
            reader.read_language(language)
        return StackTransformer(StackModule(self.network, reader))

    def merged(self) -> LoadedStack:
        """The same stack with LoRA added to the LLM's weights, which makes it as fast as the LLM alone.

        The weights are shared: the stack that it was made of is of no more use.
        """
        llm = self.network.llm
        if self.description.lora is None:
            return self
        assert llm is not None
        old = self.network
        network = Stack(old.encoder, old.projection, llm.merge_and_unload(), old.head, old.pooling)
        return replace(self, network=network, description=replace(self.description, lora=None, whole=True))


def build(
    description: Description,
    encoder: Path | None,
    llm: Path | None,
    max_length: int | None = None,
    tokenizer: Path | None = None,
) -> LoadedStack:
    """The network of a description, with its trained parts still as they are made: noise, or nothing added.

    Args:
        description: What to build; its widths are set to those of the models.
        encoder: Folder of the encoder.
        llm: Folder of the LLM.
        max_length: Most tokens of an input, if less than description and models allow.
        tokenizer: Folder of the tokenizer; that of the model that reads, if not given.

    Raises:
        PolydistillError: A model cannot be used in its role.
    """
    left: Any = None
    if encoder and description.encoder:
        left = open_encoder(encoder, description.encoder.dtype, half=description.encoder.half)
    right = open_llm(llm, description.llm.dtype) if llm and description.llm else None
    first, place = (right, llm) if left is None else (left, encoder)
    assert first is not None and place is not None
    with quiet_transformers():  # which does not know the model_type of a stack's folder
        reader = Reader.open(tokenizer or model_folder(place), first.config, description.max_length)
    if right is not None:
        reader.max_length = min(reader.max_length, positions_of(right.config))
        right = right if left is None else without_embeddings(right)  # vectors go into it
    made = replace(description, max_length=reader.max_length)
    reader.max_length = min(reader.max_length, max_length or reader.max_length)
    if right is not None and description.lora:
        right = add_lora(right, **_lora_options(description.lora))
    projection, widths = None, description.widths
    if left is not None:
        inner = input_width(right) if right is not None else widths[1]
        widths = (states_width(left), inner, states_width(right) if right is not None else inner)
        projection = nn.Linear(widths[0], widths[1])
    else:
        widths = (0, 0, states_width(right))
    head = nn.Linear(widths[2], len(description.labels), bias=False) if description.labels else None
    return LoadedStack(Stack(left, projection, right, head, made.pooling), reader, replace(made, widths=widths))


def load_stack(
    folder: Path | str,
    max_length: int | None = None,
    dtype: str | None = None,
    *,
    encoder: Path | None = None,
    llm: Path | None = None,
) -> LoadedStack:
    """Loads a stack, and the models that it stands on.

    Args:
        folder: What `polydistill stack` wrote.
        max_length: Most tokens of an input, if less than the stack's own.
        dtype: Of the models' weights, in place of the one that the stack was made with.
        encoder: Folder of the encoder, if it is no longer at its place.
        llm: Folder of the LLM, likewise.

    Raises:
        PolydistillError: It is no stack, is broken, or a model that it stands on is missing or has changed.
    """
    folder = Path(folder).expanduser()
    if folder.is_dir():
        check_folder(folder)
    description = Description.read(folder)
    given = {ENCODER: encoder, LLM: llm}
    places = {role: find_parent(folder, role, description, given[role]) for role in description.parts}
    if dtype is not None:
        description = description.with_parts({r: replace(p, dtype=dtype) for r, p in description.parts.items()})
    made = build(description, places.get(ENCODER), places.get(LLM), max_length, folder)
    try:
        state = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise PolydistillError(
            f"{folder / WEIGHTS} cannot be read ({library_said(error)}).", "Make the stack again."
        ) from error
    wanted = trained_state(made.network)
    for name, tensor in wanted.items():
        if name not in state or state[name].shape != tensor.shape:
            found = tuple(state[name].shape) if name in state else "missing"
            raise PolydistillError(
                f"{folder} does not fit the models that it stands on: {name} is {found}, and {tuple(tensor.shape)} is "
                "needed.",
                "Bring back the models that it was made with, or make the stack again.",
            )
    made.network.load_state_dict({name: state[name] for name in wanted}, strict=False)
    made.network.eval()
    return made


def load_head(folder: Path) -> nn.Linear:
    """The head of a stack's folder, without its models."""
    weight = load_file(folder / WEIGHTS)["head.weight"]
    head = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        head.weight.copy_(weight)
    return head


def load_reader(folder: Path) -> Reader:
    """The reader of a stack's folder, without its models."""
    with quiet_transformers():
        return Reader(load_tokenizer(folder), None, Description.read(folder).max_length)


def save_stack(stack: LoadedStack, folder: Path, *, whole: bool = False) -> None:
    """Writes a stack into an existing, empty folder.

    Args:
        stack: What to write.
        folder: Where.
        whole: Whether to write both models too, as they are here: the LLM behind an encoder has no embedding matrix.
            LoRA is merged, and `stack` is of no more use then.

    Raises:
        PolydistillError: LoRA is merged, and a folder that refers to the LLM would have lost it.
    """
    network = stack.network
    used_up = stack.description.lora is not None and not any(".lora_" in name for name, _ in network.named_parameters())
    if not whole and (used_up or stack.description.whole):
        raise PolydistillError(
            "This stack's LLM is no longer the one that it was made with: LoRA is part of its weights.",
            "Save it with whole=True.",
        )
    # Matrices in 8 bits save memory in training; who reads the stack need not have what makes them.
    parts = stack.description.parts
    description = stack.description.with_parts(
        {role: replace(part, dtype="float32") for role, part in parts.items() if part.dtype == INT8}
    )
    if whole:
        network = stack.merged().network
        written: dict[str, Parent] = {}
        for role, module in ((ENCODER, network.encoder), (LLM, network.llm)):
            if module is not None:
                written[role] = _write_part(module, folder / role, description.parts[role])
        description = replace(description.with_parts(written), whole=True, lora=None)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in trained_state(network).items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    stack.reader.save(folder)
    description.write(folder)


def trained_state(network: Stack) -> dict[str, torch.Tensor]:
    """What a stack adds to its parents: projection, LoRA, head."""
    found = {f"projection.{k}": v for k, v in (network.projection.state_dict() if network.projection else {}).items()}
    if network.head is not None:
        found["head.weight"] = network.head.weight
    if network.llm is not None:
        found |= {f"llm.{name}": tensor for name, tensor in network.llm.named_parameters() if ".lora_" in name}
    return found


def _write_part(module: Any, folder: Path, part: Parent) -> Parent:
    """Writes one of the models of a whole stack, with the name of its folder."""
    from transformers import MODEL_MAPPING

    with quiet_transformers():
        module.save_pretrained(folder)
    checkpoint = Checkpoint.open(folder)
    return replace(
        part,
        name=folder.name,
        weights_hash=checkpoint.weights_hash,
        config_hash=config_hash(folder),
        parameters=checkpoint.parameters,
        bytes=checkpoint.nbytes,
        half=type(module) is not MODEL_MAPPING.get(type(module.config), None),
    )


def _lora_options(lora: Any) -> dict[str, Any]:
    return {"rank": int(lora["r"]), "alpha": int(lora["alpha"]), "dropout": float(lora["dropout"])}
