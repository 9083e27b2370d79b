"""From rows to examples: every label is known, every tag follows IOB2, every answer stands where it should."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from polydistill.errors import PolydistillError
from polydistill.labelled.examples import (
    AlignedExample,
    ClassifiedExample,
    Example,
    PairExample,
    QuestionExample,
    RatedExample,
    TaggedExample,
    TextExample,
)
from polydistill.labelled.formats import Row
from polydistill.task import (
    CLASSIFICATION,
    PAIR,
    RETRIEVAL,
    SIMILARITY,
    SPAN_EXTRACTION,
    TAGGING,
    TEXT,
    Task,
)

WRONG_ANSWERS = 0.05  # of the questions: more than so many, and the file's offsets are of another kind than ours
NO_GOLD = ("-", "-1", "")  # SNLI's mark for annotators who disagreed, the Hub's for hidden labels
MISPLACED = "answer not at its offset"


class Builder:
    """Makes a task's examples from rows and keeps account of what was left out.

    Args:
        task: The task.
        language: Code of the data's language.
        mend: Whether known faults of the data are put right; see `HubSource.mend`.

    Attributes:
        skipped: Why -> how many rows were left out.
        mended: What -> how many words or answers were put right.
    """

    def __init__(self, task: Task, language: str, *, mend: bool = False) -> None:
        self.task = task
        self.language = language
        self.mend = mend
        self.skipped: Counter[str] = Counter()
        self.mended: Counter[str] = Counter()
        self._labels = {label_key(label): label for label in task.labels}
        self._left_out = frozenset() if task.own else frozenset(task.not_scored)
        self._types = frozenset(task.entity_types) | frozenset(task.not_scored)
        self._own_types = {label_key(kind): kind for kind in self._types}

    def build(self, rows: Iterable[Row]) -> list[Any]:
        """Make the examples of all rows.

        Raises:
            PolydistillError: A row is wrong; the message says which and why.
        """
        make = _MAKERS[self.task.kind]
        return [example for number, row in enumerate(rows) if (example := make(self, number, row)) is not None]

    def classified(self, number: int, row: Row) -> ClassifiedExample | None:
        """A text, or two, and the class."""
        label = self._own_label(row) if self.task.own else self._gold(row)
        if label is None:
            self.skipped["no gold label"] += 1
            return None
        fields = TEXT if "text" in row.values else PAIR
        if self.task.own and any(row.values.get(name) is None or not str(row.values[name]).strip() for name in fields):
            self.skipped["no text"] += 1
            return None
        if not (fields == PAIR if self.task.own else self.task.pairs):
            return TextExample(str(number), _text(row, "text"), label)
        return PairExample(str(number), _text(row, "premise"), _text(row, "hypothesis"), label)

    def _gold(self, row: Row) -> str | None:
        """The task's label of a row, None where there is none."""
        label = row.values.get("label")
        if label is None or str(label) in NO_GOLD:
            return None
        known = self._labels.get(label_key(label)) if isinstance(label, str) else None
        if known is None:
            raise PolydistillError(
                f"{row.where()}: the label {label!r} is not one of the task {self.task.name}'s.",
                f"It has {', '.join(self.task.labels)}.",
            )
        return known

    def _own_label(self, row: Row) -> str | None:
        """The label of a row, whatever it is, as it was first spelt; None where there is none."""
        value = row.values.get("label")
        if isinstance(value, float) and value.is_integer():  # a column of whole numbers in which some are missing
            value = int(value)
        if isinstance(value, bool):
            value = str(value).lower()
        if value is not None and not isinstance(value, (str, int)):
            raise PolydistillError(
                f"{row.where()}: the label {str(value)[:40]} is {type(value).__name__}, and no name of a class.",
                "Give a name or a whole number for each class.",
            )
        label = "" if value is None else str(value).strip()
        return self._spelt(self._labels, label) if label else None

    def _spelt(self, known: dict[str, str], name: str) -> str:
        """A label or type as it was first spelt; one that is not known yet becomes known."""
        found = known.setdefault(label_key(name), name)
        if found != name:
            self.mended[f"times {name!r} was taken for the label {found!r}"] += 1
        return found

    def sentence(self, number: int, row: Row) -> TaggedExample:
        """Words and their tags, as they are in the data."""
        tokens, tags = row.values["tokens"], list(row.values["tags"])
        before = "O"
        for word, tag in enumerate(tags):
            if self.task.own and tag[:2] in ("B-", "I-") and tag[2:]:
                tag = tags[word] = tag[:2] + self._spelt(self._own_types, tag[2:])
            kind = tag[2:]
            known = bool(kind) if self.task.own else kind in self._types
            if tag != "O" and (tag[:2] not in ("B-", "I-") or not known):
                types = "any type" if self.task.own else ", ".join(sorted(self._types))
                raise PolydistillError(
                    f"{row.where(word)}: the tag {tag!r} is not one of the task {self.task.name}'s.",
                    f"It has O, and B- and I- of {types}.",
                )
            if tag[0] == "I" and before[2:] != kind:
                if not self.mend:
                    raise PolydistillError(
                        f"{row.where(word)}: the tag {tag} follows {before}, which IOB2 does not allow.",
                        f"Let the entity begin with B-{kind}.",
                    )
                self.mended["I- tags that begin an entity became B-"] += 1
                tags[word] = f"B-{kind}"
            before = tag
        return TaggedExample(str(number), tuple(tokens), tuple(tags))

    def question(self, number: int, row: Row) -> QuestionExample | None:
        """A question, if it has answers and they stand where they should."""
        context = _text(row, "context")
        answers = [_answer(row, answer) for answer in row.values["answers"]]
        if not answers:
            self.skipped["no answer"] += 1
            return None
        if self.mend:
            answers = [self._mended_answer(context, *answer) for answer in answers]
        if not all(_stands_at(context, *answer) for answer in answers):
            self.skipped[MISPLACED] += 1
            return None
        question, id_ = _text(row, "question"), str(row.values["id"])
        return QuestionExample(id_, question, context, tuple(answers), self.language, self.language)

    def _mended_answer(self, context: str, text: str, start: int) -> tuple[str, int]:
        """The answer at the place nearest to its offset, if it stands anywhere."""
        if _stands_at(context, text, start) or not text:
            return text, start
        places = [match.start() for match in re.finditer(f"(?={re.escape(text)})", context)]
        if not places:
            return text, start
        self.mended["answers were looked for in their paragraph"] += 1
        return text, min(places, key=lambda place: abs(place - start))

    def aligned(self, number: int, row: Row) -> AlignedExample:
        """A sentence and its translation."""
        return AlignedExample(str(number), _text(row, "source"), _text(row, "target"))

    def rated(self, number: int, row: Row) -> RatedExample:
        """Two sentences and their similarity."""
        try:
            score = float(row.values["score"])
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise PolydistillError(
                f"{row.where()}: the score {row.values['score']!r} is not a number.",
                "Write first sentence, second sentence and score, with tabs between them.",
            )
        return RatedExample(str(number), _text(row, "first"), _text(row, "second"), score)

    def is_scored(self, tag: str) -> bool:
        """Whether a tag is part of an entity that counts."""
        return tag != "O" and tag[2:] not in self._left_out

    def without_unscored(self, examples: Iterable[TaggedExample]) -> tuple[list[TaggedExample], dict[str, int]]:
        """Turn entities that are not scored into O, in whole examples, and count them by type."""
        ignored: Counter[str] = Counter()
        kept = []
        for example in examples:
            ignored.update(tag[2:] for tag in example.tags if tag[0] == "B" and not self.is_scored(tag))
            tags = tuple(tag if self.is_scored(tag) else "O" for tag in example.tags)
            kept.append(TaggedExample(example.id, example.tokens, tags))
        return kept, dict(sorted(ignored.items()))


def label_key(label: str) -> str:
    """What labels are told apart by: neither case, blanks around them, nor how a character is composed."""
    return unicodedata.normalize("NFC", label).strip().casefold()


def _stands_at(context: str, text: str, start: int) -> bool:
    return bool(text) and start >= 0 and context[start : start + len(text)] == text


def _text(row: Row, name: str) -> str:
    value = row.values.get(name)
    if not isinstance(value, str):
        problem = "has no" if value is None else f"has {type(value).__name__} instead of text as its"
        raise PolydistillError(f"{row.where()} {problem} {name}.", f"Give the {name} as a string.")
    return value


def _answer(row: Row, answer: Any) -> tuple[str, int]:
    try:
        text, start = answer["text"], answer["answer_start"]
    except (KeyError, TypeError):
        text, start = None, None
    if not isinstance(text, str) or not isinstance(start, int):
        raise PolydistillError(
            f"{row.where()} has an answer without text or answer_start.", "Each answer has both in SQuAD's format."
        )
    return text, start


_MAKERS: dict[str, Callable[[Builder, int, Row], Example | None]] = {
    CLASSIFICATION: Builder.classified,
    TAGGING: Builder.sentence,
    SPAN_EXTRACTION: Builder.question,
    RETRIEVAL: Builder.aligned,
    SIMILARITY: Builder.rated,
}
