"""Token ids inside config.json, its sub-configurations and generation_config.json.

Keys are told apart by what losing a token would mean: a start token must stay, a suppressed one may go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from polydistill.errors import PolydistillError
from polydistill.models.configuration import CODE_MAPS, NEEDED, SUPPRESSED
from polydistill.vocab.keep import KeepSet


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def needed_ids(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[int, str]]:
    """Yields (id, dotted key) for every id that a configuration cannot do without."""
    for key, value in config.items():
        where = f"{path}{key}"
        if NEEDED.fullmatch(key):
            yield from ((i, where) for i in _flat(value) if _is_id(i))
        elif key == "forced_decoder_ids":
            yield from ((item[1], where) for item in value or [] if _is_id(item[1]))
        elif isinstance(value, dict) and key not in CODE_MAPS and key != "sequence_bias":
            yield from needed_ids(value, where + ".")


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def remap(config: Mapping[str, Any], keep: KeepSet, path: str = "", rows: int = 0) -> dict[str, Any]:
    """A copy with new ids.

    Args:
        config: config.json, a part of it, or generation_config.json.
        keep: The id space that the ids belong to.
        path: Where this part stands, for messages.
        rows: How many of its ids have a row, 0 for all: one beyond them was never used, and stays as it is.

    Raises:
        PolydistillError: An id that is needed was dropped.
    """
    copy: dict[str, Any] = {}
    for key, value in config.items():
        where = f"{path}{key}"
        if NEEDED.fullmatch(key):
            copy[key] = _needed(value, keep, where, rows)
        elif key in SUPPRESSED:
            copy[key] = value and [keep.new(i) if i >= 0 else i for i in value if i < 0 or i in keep]
        elif key == "bad_words_ids":
            copy[key] = value and [w for w in (_word(word, keep) for word in value) if w]
        elif key == "forced_decoder_ids":
            copy[key] = value and [[position, _needed(i, keep, where, rows)] for position, i in value]
        elif key == "sequence_bias":
            copy[key] = _biases(value, keep)
        elif key in CODE_MAPS and isinstance(value, dict):
            copy[key] = {code: keep.new(i) for code, i in value.items() if i in keep}
        elif isinstance(value, dict):
            copy[key] = remap(value, keep, where + ".", rows)
        else:
            copy[key] = value
    return copy


def _needed(value: Any, keep: KeepSet, where: str, rows: int) -> Any:
    if isinstance(value, list):
        return [_needed(item, keep, where, rows) for item in value]
    if not _is_id(value) or value >= min(rows or keep.size, keep.size):
        return value  # None, -1, or an id without a row or beyond the tokenizer, that was never used
    if value not in keep:
        raise PolydistillError(
            f"The configuration needs token {value} ({where}), which would be dropped.", "Leave it out of `drop_added`."
        )
    return keep.new(value)


def _word(word: Sequence[int], keep: KeepSet) -> list[int]:
    """A word as a list of ids, [] when one of its tokens is gone."""
    return [keep.new(i) for i in word] if all(i in keep for i in word) else []


def _biases(value: Any, keep: KeepSet) -> Any:
    """sequence_bias as transformers writes it, a list of [ids, bias]; a dict of tuples cannot stand in JSON."""
    if not isinstance(value, list):
        return value
    return [[_word(ids, keep), bias] for ids, bias in value if _word(ids, keep)]


def set_rows(config: dict[str, Any], keys: Sequence[str], rows: Sequence[int]) -> None:
    """Writes the number of rows where the architecture keeps it.

    Args:
        config: config.json, changed in place.
        keys: Dotted keys; with two id spaces the first is the source's and the second the target's.
        rows: Rows of each id space.
    """
    for i, key in enumerate(keys):
        *parents, last = key.split(".")
        part: Any = config
        for parent in parents:
            part = part.get(parent, {}) if isinstance(part, dict) else {}
        if isinstance(part, dict) and last in part:
            part[last] = rows[min(i, len(rows) - 1)]
