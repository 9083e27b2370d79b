"""Pairs of texts as XNLI, MultiNLI, SNLI and ANLI publish them: their field names, and files of many languages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from polydistill.errors import PolydistillError
from polydistill.labelled.rows import Row

# Our field -> its name in MultiNLI, SNLI and XNLI.
_MULTINLI = {"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"}
_ANLI = {"e": "entailment", "n": "neutral", "c": "contradiction"}


def as_pair(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row with our field names, if it has those of a published set."""
    found = dict(values)
    if "sentence1" in found and "sentence2" in found:
        for ours, theirs in _MULTINLI.items():
            if ours not in found and theirs in found:
                found[ours] = found.pop(theirs)
    elif {"uid", "context", "hypothesis"} <= found.keys() and "premise" not in found:
        found["premise"] = found.pop("context")
        if isinstance(label := found.get("label"), str):
            found["label"] = _ANLI.get(label, label)
    return found


def in_language(rows: Iterable[Row], code: str, others: Counter[str]) -> Iterator[Row]:
    """Yield the rows whose field `language` names a language, or that have no such field.

    Args:
        rows: The rows of a file.
        code: The language's code.
        others: Counts the rows of each other language.

    Raises:
        PolydistillError: All rows are of other languages.
    """
    place, found = "", False
    for row in rows:
        named = row.values.get("language")
        if not isinstance(named, str) or _code(named) == code:
            found = True
            yield row
        else:
            place = row.place
            others[named] += 1
    if others and not found:
        raise PolydistillError(
            f"{place} has no row in the language {code}: the field language says {', '.join(list(others)[:20])}.",
            "Ask for one of those, or take the field out of the rows.",
        )


@cache
def _code(name: str) -> str:
    from polydistill.catalog import language

    try:
        return language(name).code
    except PolydistillError:
        return name
