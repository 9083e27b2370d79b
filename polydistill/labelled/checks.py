"""From rows to examples: every label is known, every tag follows IOB2, every answer is at its offset."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from polydistill.catalog.task import (
    CLASSIFICATION,
    PAIR,
    RETRIEVAL,
    SIMILARITY,
    SPAN_EXTRACTION,
    TAGGING,
    TEXT,
    WORD_TAGGING,
    Task,
)
from polydistill.errors import PolydistillError
from polydistill.labelled import schemes
from polydistill.labelled.codes import without_codes
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
from polydistill.labelled.nli import in_language
from polydistill.labelled.rows import Row

WRONG_ANSWERS = 0.05  # share of the questions; beyond it the file counts its offsets in another unit than ours
NO_AGREEMENT = "-"  # SNLI's mark for annotators who disagreed
NO_GOLD = (NO_AGREEMENT, "-1", "")  # and the Hub's for hidden labels
# What a scheme of tags cannot express.
_LOSS = {schemes.IO: ", where neighbours of one type are one entity"}
_NEARLY = re.compile("o|([bi])[-_](.+)|(.+)[-_]([bi])", re.IGNORECASE)  # almost tags, such as B_PER
NO_CLASS = "_"  # of contractions, in data made of CoNLL-U
MISPLACED = "answer not at its offset"


class Builder:
    """Makes a task's examples from rows, and counts what was left out.

    Args:
        task: The task.
        language: Code of the data's language.
        mend: Whether known faults of the data are repaired; see `HubSource.mend`.

    Attributes:
        skipped: Why -> how many rows were left out.
        mended: What -> how many words, answers or entities were read differently from how they are written.
        others: Another language -> how many rows of it were left out.
    """

    def __init__(self, task: Task, language: str, *, mend: bool = False) -> None:
        self.task = task
        self.language = language
        self.mend = mend
        self.skipped: Counter[str] = Counter()
        self.mended: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self._labels = {label_key(label): label for label in task.labels}
        self._left_out = frozenset() if task.own else frozenset(task.not_scored)
        self._types = frozenset(task.entity_types) | frozenset(task.not_scored)
        self._own_types = {label_key(kind): kind for kind in task.entity_types}

    def build(self, rows: Iterable[Row]) -> list[Any]:
        """Make the examples of all rows.

        Raises:
            PolydistillError: A row is wrong; the message says which and why.
        """
        make = _MAKERS[self.task.kind]
        if self.task.kind == TAGGING:
            rows = self._in_iob2(list(rows))
        if self.task.kind == CLASSIFICATION:
            rows = in_language(rows, self.language, self.others)
        return [example for number, row in enumerate(rows) if (example := make(self, number, row)) is not None]

    def classified(self, number: int, row: Row) -> ClassifiedExample | None:
        """One or two texts and their class."""
        fields = TEXT if "text" in row.values else PAIR
        label = self._own_label(row, fields) if self.task.own else self._gold(row)
        if label is None:
            self.skipped["no gold label"] += 1
            return None
        if self.task.own and any(row.values.get(name) is None or not str(row.values[name]).strip() for name in fields):
            self.skipped["no text"] += 1
            return None
        if not (fields == PAIR if self.task.own else self.task.pairs):
            return TextExample(str(number), _text(row, "text"), label)
        return PairExample(str(number), _text(row, "premise"), _text(row, "hypothesis"), label)

    def _gold(self, row: Row) -> str | None:
        """The task's label of a row, None if it has none."""
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

    def _own_label(self, row: Row, fields: Sequence[str]) -> str | None:
        """The label of a row, as it was first spelt; None if it has none.

        For pairs and tasks with fixed labels `-` means no label; a class of single texts may have that name.
        """
        value = row.values.get("label")
        if isinstance(value, float) and value.is_integer():  # a column of whole numbers in which some are missing
            value = int(value)
        if isinstance(value, bool):
            value = str(value).lower()
        if value is not None and not isinstance(value, (str, int)):
            raise PolydistillError(
                f"{row.where()}: the label {str(value)[:40]} is {type(value).__name__}, not the name of a class.",
                "Give a name or a whole number for each class.",
            )
        label = "" if value is None else str(value).strip()
        if not label or (label == NO_AGREEMENT and (fields == PAIR or self.task.labels)):
            return None
        return self._spelt(self._labels, label)

    def _spelt(self, known: dict[str, str], name: str) -> str:
        """A label or type as it was first spelt; a new one is remembered."""
        found = known.setdefault(label_key(name), name)
        if found != name:
            self.mended[f"labels written {name!r} are read as {found!r}"] += 1
        return found

    def _in_iob2(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Tagged sentences without language codes before their words, with IOB2 tags of the task's types."""
        rows, taken = without_codes(rows)
        self.mended.update(taken)
        types = {tag: self._entity_type(row, word, tag) for tag, (row, word) in _first_places(rows).items()}
        named = [replace(row, values={**row.values, "tags": _with_types(row.values["tags"], types)}) for row in rows]
        known = set(filter(None, types.values())) if self.task.own else self._types
        scheme = schemes.recognise(named, known, mend=self.mend)
        for row, before in zip(named, rows, strict=True):
            tags = schemes.to_iob2(row.values["tags"], scheme)
            for tag, old in zip(tags, before.values["tags"], strict=True):
                kind = schemes.parts(old)[1]
                if tag[0] == "B" and scheme != schemes.IOB2:
                    self.mended[f"entities tagged in {scheme} are read in IOB2{_LOSS.get(scheme, '')}"] += 1
                if tag[0] == "B" and kind != types[old]:
                    self.mended[f"entities of the type {kind} are read as {types[old]}"] += 1
            yield replace(row, values={**row.values, "tags": tags})

    def _entity_type(self, row: Row, word: int, tag: str) -> str:
        """What the task calls a tag's type."""
        kind = schemes.parts(tag)[1] if isinstance(tag, str) else str(tag)
        if self.task.own:
            if kind == tag:
                _refuse_near(row, word, tag)
            return self._own_types.setdefault(label_key(kind), kind) if kind else ""
        known = schemes.known_type(kind, self._types)
        if kind and known is None:
            raise PolydistillError(
                f"{row.where(word)}: the tag {tag!r} is not one of the task {self.task.name}'s.",
                f"It has O, and B- and I- of {', '.join(sorted(self._types))}.",
            )
        return known or ""

    def sentence(self, number: int, row: Row) -> TaggedExample:
        """Words and their tags in IOB2."""
        tags = list(row.values["tags"])
        before = "O"
        for word, tag in enumerate(tags):
            if tag[0] == "I" and before[2:] != tag[2:]:  # only where such faults are put right
                self.mended["I- tags that begin an entity became B-"] += 1
                tags[word] = f"B-{tag[2:]}"
            before = tag
        return TaggedExample(str(number), tuple(row.values["tokens"]), tuple(tags))

    def words(self, number: int, row: Row) -> TaggedExample | None:
        """Words and their classes, without the words of class _: contractions whose parts follow."""
        tokens, classes = [], []
        for word, (token, tag) in enumerate(zip(row.values["tokens"], row.values["tags"], strict=True)):
            known = self._labels.get(label_key(tag)) if isinstance(tag, str) else None
            if self.task.own and isinstance(tag, str) and tag != NO_CLASS:
                known = self._spelt(self._labels, tag)
            if known is None and tag == NO_CLASS:
                self.mended["words without a class (_) are left out"] += 1
            elif known is None:
                raise PolydistillError(
                    f"{row.where(word)}: the class {tag!r} is not one of the task {self.task.name}'s.",
                    f"It has {', '.join(self.task.labels)}.",
                )
            else:
                tokens.append(token)
                classes.append(known)
        if not tokens:
            self.skipped["no gold label"] += 1
            return None
        return TaggedExample(str(number), tuple(tokens), tuple(classes))

    def question(self, number: int, row: Row) -> QuestionExample | None:
        """A question, if it has answers and they are at their offsets."""
        context = _text(row, "context")
        answers = [_answer(row, answer) for answer in row.values["answers"]]
        if not answers:
            self.skipped["no answer"] += 1
            return None
        answers = [self._as_spelt(context, *answer) for answer in answers]
        if self.mend:
            answers = [self._mended_answer(context, *answer) for answer in answers]
        if not all(_stands_at(context, *answer) for answer in answers):
            self.skipped[MISPLACED] += 1
            return None
        question, id_ = _text(row, "question"), str(row.values["id"])
        return QuestionExample(id_, question, context, tuple(answers), self.language, self.language)

    def _as_spelt(self, context: str, text: str, start: int) -> tuple[str, int]:
        """The answer as its paragraph spells it, if one of them is composed and the other decomposed (NFC, NFD)."""
        if _stands_at(context, text, start) or start < 0 or text.isascii():
            return text, start
        wanted, end, size = unicodedata.normalize("NFD", text), start, 0
        while end < len(context) and size < len(wanted):
            size += len(unicodedata.normalize("NFD", context[end]))
            end += 1
        if unicodedata.normalize("NFD", context[start:end]) != wanted:
            return text, start
        self.mended["answers are spelt as in their paragraph (NFC or NFD)"] += 1
        return context[start:end], start

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


def _refuse_near(row: Row, word: int, tag: str) -> None:
    """Refuses tags such as `B_PER`, `b-per` and `o`, which would count as entity types of their own."""
    if found := _NEARLY.fullmatch(tag):
        meant = "O" if tag == "o" else f"{found[1] or found[4]}-{found[2] or found[3]}".upper()
        raise PolydistillError(
            f"{row.where(word)}: the tag {tag!r} belongs to no scheme; did you mean {meant}?",
            "Write B- or I- before the type of an entity, and O outside.",
        )


def label_key(label: str) -> str:
    """The key that labels are compared by: case, blanks around them and Unicode composition do not count."""
    return unicodedata.normalize("NFC", label).strip().casefold()


def _first_places(rows: Iterable[Row]) -> dict[str, tuple[Row, int]]:
    """Tag -> the first word that has it."""
    found: dict[str, tuple[Row, int]] = {}
    for row in rows:
        for word, tag in enumerate(row.values["tags"]):
            found.setdefault(tag, (row, word))
    return found


def _with_types(tags: Iterable[str], types: Mapping[str, str]) -> list[str]:
    """Tags with their types renamed; O has none."""
    prefixes = ((schemes.parts(tag)[0], types[tag]) for tag in tags)
    return ["O" if prefix == "O" else f"{prefix}-{kind}" if prefix else kind for prefix, kind in prefixes]


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
    WORD_TAGGING: Builder.words,
    SPAN_EXTRACTION: Builder.question,
    RETRIEVAL: Builder.aligned,
    SIMILARITY: Builder.rated,
}
