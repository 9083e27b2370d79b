"""A model to score: where it is, what identifies it, and its network once it is needed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from polydistill.card.lineage import lineage_line
from polydistill.catalog import Task
from polydistill.catalog.task import TAGGING
from polydistill.evaluation.custom_labels import output_names
from polydistill.evaluation.heads import VECTOR_KINDS, TaskModel, open_model, tagger_tags
from polydistill.evaluation.kinds import kind_of
from polydistill.files.hashing import file_sha256
from polydistill.files.inside import files_below
from polydistill.labelled.schemes import IOB2
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.files import pickled
from polydistill.models.folder import is_stack, tokenizer_files
from polydistill.models.refs import ResolvedModel
from polydistill.models.source import Source
from polydistill.records.record import NAME as RECORD
from polydistill.records.record import RunRecord
from polydistill.stacks.description import Description, sizes
from polydistill.trimming.surgery import embedding_parameters


@dataclass(frozen=True)
class Settings:
    """How models are scored.

    Args:
        batch_size: Inputs at once; decides no score.
        max_length: Most tokens of an input; the kind's own if None.
        bf16: Multiply in bfloat16.
        prompt: Text before every sentence; the model's own if None.
        seed: Of the bootstrap intervals.
        whole: All examples of a split are scored, so the scores may stand in records.
        fresh: Predict again what was predicted before.
        include_path: Folders with more languages, tasks and architectures.
    """

    batch_size: int = 32
    max_length: int | None = None
    bf16: bool = False
    prompt: str | None = None
    seed: int = 0
    whole: bool = True
    fresh: bool = False
    include_path: tuple[Path, ...] = ()


@dataclass
class Subject:
    """A model to score, loaded when it is first needed.

    Args:
        name: What its scores call it.
        resolved: Where it is.
        wanted: The task.
        settings: How to score it.
    """

    name: str
    resolved: ResolvedModel
    wanted: Task
    settings: Settings

    @cached_property
    def is_stack(self) -> bool:
        """Whether it is an encoder on a language model, and no model of transformers."""
        return is_stack(self.resolved.folder)

    def check(self) -> None:
        """Looks at the folder without loading weights.

        Raises:
            PolydistillError: Something in it is missing, broken, or of an unknown kind.
        """
        if self.is_stack:
            Description.read(self.resolved.folder)
        else:
            _ = self.source

    @cached_property
    def source(self) -> Source:
        """The folder, without its weights."""
        return Source.open(self.resolved, self.settings.include_path)

    @cached_property
    def weights_hash(self) -> str:
        """Hash of its weights; of a stack, of what it added and of the models that it stands on."""
        if not self.is_stack:
            return self.source.checkpoint.weights_hash
        parts = (part.weights_hash for part in Description.read(self.resolved.folder).parts.values())
        own = Checkpoint.open(self.resolved.folder).weights_hash
        return hashlib.sha256("".join([own, *parts]).encode()).hexdigest()

    @cached_property
    def files_hash(self) -> str:
        """Hash of all files that decide the predictions, but for the weights."""
        folder = self.resolved.folder if self.is_stack else self.source.model
        files = [folder / "config.json", *tokenizer_files(folder)]
        if self.wanted.kind in VECTOR_KINDS:
            # What a sentence-transformers folder has beside the encoder: pooling, prompts, layers with weights.
            beside = [f for f in files_below(self.resolved.folder) if f.suffix in (".json", ".safetensors")]
            files += sorted(f for f in beside if f.name != RECORD and (f.parent != folder or f.suffix == ".json"))
            files += sorted(pickled(self.resolved.folder))
        return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()

    @cached_property
    def record(self) -> RunRecord | None:
        """The record of its folder."""
        return RunRecord.load(self.resolved.folder)

    @cached_property
    def loaded(self) -> TaskModel:
        """The model with the head of the task's kind."""
        kind = kind_of(self.wanted)
        return open_model(
            self.resolved.folder,
            self.wanted.kind,
            self.wanted.labels,
            not_scored=self.wanted.not_scored,
            max_length=self.settings.max_length or kind.MAX_LENGTH,
            prompt=self.settings.prompt,
            own=self.wanted.own,
        )

    @cached_property
    def tag_scheme(self) -> str | None:
        """The scheme of a tagger's tags; None for IOB2, and for models of other kinds."""
        if self.wanted.kind != TAGGING or self.is_stack or not (names := self.source.config.get("id2label")):
            return None
        named = [names[i] for i in sorted(names, key=int)]
        scheme = tagger_tags(named, self.wanted.labels, self.wanted.not_scored, self.name, own=self.wanted.own).scheme
        return None if scheme == IOB2 else scheme

    def facts(self) -> dict[str, Any]:
        """What a run's file says of the model."""
        if self.is_stack:
            embedding = 0  # not told apart
            parameters, nbytes = sizes(self.resolved.folder)
        else:
            embedding = embedding_parameters(self.source.checkpoint, self.source.arch)
            parameters, nbytes = self.source.checkpoint.parameters, self.source.nbytes
        return {
            "model": self.name,
            "source": self.resolved.source,
            "weights_hash": self.weights_hash,
            "parameters": {"embedding": embedding, "rest": parameters - embedding},
            "bytes": nbytes,
            "lineage": [lineage_line(step) for step in self.record.lineage()] if self.record else [],
            "languages": list(self.record.result.get("languages", ())) if self.record else [],
            **({"tag_scheme": self.tag_scheme} if self.tag_scheme else {}),
            **({"labels": output_names(self.resolved.folder)} if self.wanted.own else {}),
        }
