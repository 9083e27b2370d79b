"""WikiANN's files write the language's code before every word, as in `sw:Dodoma`; it is not part of the word."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from polydistill.errors import PolydistillError
from polydistill.labelled.rows import Row

_CODED = re.compile(r"([a-z]{2,3}(?:-[a-z]+){0,2}|simple):")  # Wikipedia's codes: sw, zh-min-nan, simple
_MOST = 0.5  # if more words than this have a code, all should have it


def without_codes(rows: Sequence[Row]) -> tuple[Sequence[Row], Mapping[str, int]]:
    """Removes the language's code from the words of all sentences, if every word has it.

    Args:
        rows: All sentences of a file or data set; each has `tokens`.

    Returns:
        The sentences, and the removed code -> from how many words.

    Raises:
        PolydistillError: Most words have the code but not all, or a word is only the code.
    """
    counts: Counter[str] = Counter()
    total = 0
    for row in rows:
        for token in row.values["tokens"]:
            total += 1
            if found := _CODED.match(token):
                counts[found[0]] += 1
    code, count = counts.most_common(1)[0] if counts else ("", 0)
    if count <= _MOST * total or not count:
        return rows, {}
    kept = [replace(row, values={**row.values, "tokens": _shortened(row, code)}) for row in rows]
    return kept, {f"words have lost the {code} before them, the code of their language": count}


def _shortened(row: Row, code: str) -> list[str]:
    for word, token in enumerate(row.values["tokens"]):
        if not token.startswith(code) or token == code:
            raise PolydistillError(
                f"{row.where(word)}: most words begin with the code {code} of their language, but {token!r} does not.",
                "Write it before every word, or before none.",
            )
    return [token.removeprefix(code) for token in row.values["tokens"]]
