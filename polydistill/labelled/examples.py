"""The kinds of labelled examples, one for each kind of task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TextExample:
    """A text and the name of its class (kind `classification`)."""

    id: str
    text: str
    label: str

    @property
    def texts(self) -> tuple[str, ...]:
        """What a model reads."""
        return (self.text,)


@dataclass(frozen=True)
class PairExample:
    """Two texts and the name of the relation between them (kind `classification`, with `pairs`)."""

    id: str
    premise: str
    hypothesis: str
    label: str

    @property
    def texts(self) -> tuple[str, ...]:
        """What a model reads."""
        return self.premise, self.hypothesis


@dataclass(frozen=True)
class TaggedExample:
    """A sentence in words with one IOB2 tag (kind `tagging`) or one class (kind `word-tagging`) per word."""

    id: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class QuestionExample:
    """A question and the paragraph that answers it (kind `span-extraction`).

    Args:
        id: The question's id, the same in all languages of a parallel set.
        question: The question.
        context: The paragraph.
        answers: (text, start) of each reference; `context[start:start + len(text)] == text`, in code points.
        language: Code of the context's language.
        question_language: Code of the question's.
    """

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...]
    language: str
    question_language: str


@dataclass(frozen=True)
class AlignedExample:
    """A sentence and its translation (kind `retrieval`)."""

    id: str
    source: str
    target: str


@dataclass(frozen=True)
class RatedExample:
    """Two sentences and how similar people found them (kind `similarity`)."""

    id: str
    first: str
    second: str
    score: float


ClassifiedExample = TextExample | PairExample
Example = ClassifiedExample | TaggedExample | QuestionExample | AlignedExample | RatedExample


@dataclass(frozen=True)
class LabelledSplit:
    """The examples of one split of a task in one language.

    Args:
        task: The task's name.
        language: Language code.
        split: `train`, `dev`, `test`, or the name that the user gave.
        examples: In the order of the file.
        where: The file or Hub data set; goes into records.
        sha256: Hash of the examples' content, the same for every file format.
        ignored: Entity type that the task does not score -> how many gold entities became O.
        skipped: Why -> how many rows were left out.
        mended: What -> how many words, answers or entities were read differently from how they are written.
    """

    task: str
    language: str
    split: str
    examples: tuple[Any, ...]
    where: str
    sha256: str
    ignored: Mapping[str, int] = field(default_factory=dict, hash=False)
    skipped: Mapping[str, int] = field(default_factory=dict, hash=False)
    mended: Mapping[str, int] = field(default_factory=dict, hash=False)

    def facts(self) -> dict[str, Any]:
        """What records say of it."""
        return {
            "language": self.language,
            "where": self.where,
            "split": self.split,
            "examples": len(self.examples),
            "sha256": self.sha256,
            "ignored": dict(self.ignored),
            "skipped": dict(self.skipped),
            "mended": dict(self.mended),
        }


def units_of(examples: Sequence[Any]) -> tuple[str, ...]:
    """The bootstrap unit of each example: questions about one paragraph are drawn together.

    Returns:
        The example's id (the row's number if the data has no ids), or that of the paragraph's first question.
        Translations of a test set share their ids.
    """
    first: dict[str, str] = {}
    for example in examples:
        if isinstance(example, QuestionExample):
            first[example.context] = min(first.get(example.context, example.id), example.id)
    return tuple(first[e.context] if isinstance(e, QuestionExample) else e.id for e in examples)
