"""Looking at models: `polydistill info` and `polydistill diff`. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polydistill.card.lineage import lineage_line
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.progress import SILENT, Progress
from polydistill.records.record import RunRecord
from polydistill.texts.sources import first_lines
from polydistill.trimming import surgery
from polydistill.vocab import Vocabulary
from polydistill.vocab.counts import at_once, fertility

EXAMPLES = 10


@dataclass(frozen=True)
class InfoReport:
    """What `info` prints.

    Attributes:
        model: Where the model came from.
        architecture: Its model type.
        vocabulary: Number of tokens.
        rows: Rows of the embedding matrix.
        parameters: Stored values.
        embedding_share: Share of the parameters in tensors with a vocabulary axis.
        bytes: Bytes of the weights (including those of modules) and the tokenizer.
        added_tokens: The tokens that `drop_added` of a trim can name.
        lineage: One line for each run that made the model, newest first.
        texts: For each text its words, tokens, fertility, unknown rate and share of the vocabulary in use.
    """

    model: str
    architecture: str
    vocabulary: int
    rows: int
    parameters: int
    embedding_share: float
    bytes: int
    added_tokens: tuple[str, ...]
    lineage: tuple[str, ...]
    texts: dict[str, dict[str, float]]

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {"command": "info", **asdict(self)}


def info(
    model: str, texts: Sequence[str] = (), include: Sequence[Path] = (), progress: Progress = SILENT
) -> InfoReport:
    """Describes a model without building it.

    Args:
        model: Folder, `org/name` or `org/name@revision`.
        texts: Text files (or anything else that `polydistill trim` takes) to measure the tokenizer on.
        include: Folders with the user's own architectures.
        progress: Where to report.

    Raises:
        PolydistillError: The model or a text cannot be read.
    """
    source = Source.open(resolve(ModelRef.parse(model), progress=progress.note), include)
    vocabulary, checkpoint = source.vocabulary, source.checkpoint
    tokens = sum(len(set(space.ids.values())) for space in vocabulary.spaces)
    record = RunRecord.load(source.folder)
    return InfoReport(
        model=source.resolved.source,
        architecture=source.arch.model_type,
        vocabulary=tokens,
        rows=source.rows,
        parameters=checkpoint.parameters,
        embedding_share=surgery.embedding_parameters(checkpoint, source.arch) / checkpoint.parameters,
        bytes=source.nbytes,
        added_tokens=tuple(vocabulary.added),
        lineage=tuple(map(lineage_line, record.lineage())) if record else (),
        texts={text: _measure(vocabulary, text, tokens) for text in texts},
    )


def _measure(vocabulary: Vocabulary, text: str, tokens: int) -> dict[str, float]:
    space = vocabulary.spaces[0]
    unknown = frozenset(space.ids[t] for t in vocabulary.unknown() if t in space.ids)
    measured = fertility(space.encoders[0], first_lines(text), unknown)
    return {
        "words": measured.words,
        "tokens": measured.tokens,
        "fertility": measured.fertility,
        "unknown_rate": measured.unknown_rate,
        "vocabulary_in_use": measured.types / tokens,
    }


@dataclass(frozen=True)
class DiffReport:
    """What `diff` prints.

    Attributes:
        sentences: Number of sentences.
        identical: How many tokenize to the same tokens.
        tokens: Token occurrences of the original.
        lost: How many of them are of lost tokens.
        lost_tokens: The lost tokens, by frequency: token -> occurrences.
        examples: Sentences that differ, with both tokenizations.
    """

    sentences: int
    identical: int
    tokens: int
    lost: int
    lost_tokens: dict[str, int]
    examples: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {"command": "diff", **asdict(self)}


def diff(
    model: str, trimmed: str, texts: Sequence[str], include: Sequence[Path] = (), progress: Progress = SILENT
) -> DiffReport:
    """Compares the tokenizations of two models by their tokens' texts.

    Args:
        model: The original.
        trimmed: The trimmed model.
        texts: Text files (or anything else that `polydistill trim` takes).
        include: Folders with the user's own architectures.
        progress: Where to report.
    """
    old, new = (_vocabulary(name, include, progress) for name in (model, trimmed))
    lines = [line for text in texts for line in first_lines(text)]
    before, after = (_tokens(v, lines) for v in (old, new))
    kept = new.spaces[0].ids
    lost = Counter(token for row in before for token in row if token not in kept)
    different = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    examples = tuple({"text": lines[i], "before": before[i], "after": after[i]} for i in different[:EXAMPLES])
    return DiffReport(
        sentences=len(lines),
        identical=len(lines) - len(different),
        tokens=sum(map(len, before)),
        lost=lost.total(),
        lost_tokens=dict(sorted(lost.items(), key=lambda item: (-item[1], item[0]))),
        examples=examples,
    )


def _vocabulary(name: str, include: Sequence[Path], progress: Progress) -> Vocabulary:
    return Source.open(resolve(ModelRef.parse(name), progress=progress.note), include).vocabulary


def _tokens(vocabulary: Vocabulary, lines: list[str]) -> list[list[str]]:
    space = vocabulary.spaces[0]
    names = {i: token for token, i in space.ids.items()}
    rows = (row for part in at_once(lines) for row in space.encoders[0](lines[part]))
    return [[names[i] for i in row] for row in rows]
