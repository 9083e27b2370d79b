"""What a tokenizer.json must be before anything reads it: structure, types, ids, sizes.

What passes is read in the same way by the `tokenizers` library, and needs no more memory than its size warrants.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from polydistill.errors import library_errors
from polydistill.files.jsonfiles import Part, short
from polydistill.vocab import charsmap

MOST_IDS = 4_000_000  # four times the largest published vocabulary
LONGEST_TOKEN = 4_096  # characters; putting a BPE token together takes time quadratic in its length
LONGEST_PATTERN = 10_000
MOST_ADDED = 100_000
GROWTH = 1_024  # how many times longer a normaliser's replacements may make a text
PROBE = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 00000000000000000000000000000000!!!!!!!!!!!!!!!!        \n\n é中🙂'll ▁x"
PARTS = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "post_processor": "processors"}


def quoted(token: str) -> str:
    """A token for a message."""
    return short(repr(token))


def check_tokenizer(top: Part, kind: str, beside: Mapping[str, int]) -> None:
    """Refuses a tokenizer.json that is not what the `tokenizers` library writes.

    Args:
        top: Its content.
        kind: Of its model, a key of `tokenizer_json.MODELS`.
        beside: Token -> id, added by the files beside it.

    Raises:
        PolydistillError: Something in it is wrong; the message says what and where.
    """
    model = top["model"]
    ids = check_unigram(model) if kind == "Unigram" else check_ids(model["vocab"])
    if kind == "BPE":
        _check_merges(model["merges"], ids)
    _check_settings(model)
    known = {**beside, **ids, **_check_added(top["added_tokens"], ids)}
    for step in _steps(top["normalizer"], PARTS["normalizer"]):
        _check_charsmap(step)
    for name in PARTS:
        steps = _steps(top[name], PARTS[name])
        _check_growth(top[name], steps)
        for step in steps:
            _check_inserted(step, known)
    _check_padding(top["padding"], known)
    _check_with_library(top, kind)


def check_ids(part: Part) -> dict[str, int]:
    """Token -> id, of a table in JSON.

    Raises:
        PolydistillError: It is not such a table, an id is too large, or two tokens share one.
    """
    table: dict[str, int] = part.of(dict)
    if not table:
        raise part.refuse("has no tokens")
    ids = list(table.values())
    if set(map(type, ids)) != {int} or min(ids) < 0 or max(ids) >= MOST_IDS:
        for token in table:
            part[token].whole_number(0, MOST_IDS - 1)
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        first, second = [token for token, i in table.items() if i == twice][:2]
        raise part.refuse(f"gives the id {twice} to two tokens, {quoted(first)} and {quoted(second)}")
    if max(map(len, table)) > LONGEST_TOKEN:
        raise part.refuse(f"has a token of more than {LONGEST_TOKEN:,} characters")
    return table


def check_unigram(model: Part) -> dict[str, int]:
    """Piece -> id, of the model of a Unigram tokenizer.json.

    Raises:
        PolydistillError: It is not a list of different pieces with their scores.
    """
    vocab = model["vocab"]
    entries: list[Any] = vocab.of(list)
    if not 0 < len(entries) < MOST_IDS:
        raise vocab.wrong(f"a list of 1 to {MOST_IDS - 1:,} pieces")
    if set(map(type, entries)) != {list} or set(map(len, entries)) != {2}:
        i = next(i for i, entry in enumerate(entries) if type(entry) is not list or len(entry) != 2)
        raise vocab[i].wrong("a list of a piece and its score")
    pieces, scores = zip(*entries, strict=True)
    if set(map(type, pieces)) != {str}:
        raise vocab[next(i for i, piece in enumerate(pieces) if type(piece) is not str)][0].wrong("a text")
    if not set(map(type, scores)) <= {int, float} or max(scores) > 1e30 or min(scores) < -1e30:
        i = next(i for i, s in enumerate(scores) if type(s) not in (int, float) or abs(s) > 1e30)
        raise vocab[i][1].wrong("a log-probability")
    ids = dict(zip(pieces, range(len(pieces)), strict=True))
    if len(ids) < len(entries):
        i = next(i for i, piece in enumerate(pieces) if ids[piece] != i)
        raise vocab[i].refuse(f"is the piece {quoted(pieces[i])}, which is there twice")
    if "" in ids or max(map(len, ids)) > LONGEST_TOKEN:
        i = ids.get("", next((i for p, i in ids.items() if len(p) > LONGEST_TOKEN), 0))
        raise vocab[i][0].wrong(f"a text of 1 to {LONGEST_TOKEN:,} characters")
    if model["unk_id"].value is not None:
        model["unk_id"].whole_number(0, len(entries) - 1)
    return ids


def _check_merges(part: Part, ids: Mapping[str, int]) -> None:
    """Every merge joins two tokens to a third."""
    merges: list[Any] = part.of(list)
    pairs = [merge.split(" ") for merge in merges] if set(map(type, merges)) == {str} else merges
    if not merges or (set(map(type, pairs)) == {list} and set(map(len, pairs)) == {2} and _all_known(pairs, ids)):
        return
    kind = type(merges[0]) if type(merges[0]) is str else list
    for i, merge in enumerate(merges):
        pair = merge.split(" ") if type(merge) is kind is str else merge
        if type(merge) is not kind or len(pair) != 2 or not all(type(token) is str for token in pair):
            raise part[i].wrong("two tokens, each merge written like the first")
        for token in (*pair, "".join(pair)):
            if token not in ids:
                raise part[i].refuse(f"needs the token {quoted(token)}, which the vocabulary does not have")


def _all_known(pairs: list[Any], ids: Mapping[str, int]) -> bool:
    """Whether the parts and the results of all merges are tokens."""
    try:
        known = ids.__contains__
        return all(map(known, chain.from_iterable(pairs))) and all(map(known, map("".join, pairs)))
    except TypeError:  # a part that is a list
        return False


def _check_settings(model: Part) -> None:
    """The numbers and texts beside a model's vocabulary."""
    for name in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        if len(model[name].optional(str) or "") > LONGEST_TOKEN:
            raise model[name].wrong(f"a text of at most {LONGEST_TOKEN:,} characters")
    for name in ("byte_fallback", "fuse_unk", "ignore_merges"):
        model[name].optional(bool)
    if model["dropout"].value:
        raise model["dropout"].wrong("null: with dropout a text is cut otherwise every time")
    if model["max_input_chars_per_word"].value is not None:
        model["max_input_chars_per_word"].whole_number(0, 10_000)


def _check_added(part: Part, ids: Mapping[str, int]) -> dict[str, int]:
    """Added token -> id: those of the vocabulary have its ids, the others ids of their own."""
    added: dict[str, int] = {}
    if len(part.optional(list) or ()) > MOST_ADDED:
        raise part.wrong(f"a list of at most {MOST_ADDED:,} tokens")
    taken = {*ids.values()} if part.value else set()
    for token in part.items():
        token.of(dict)
        text, i = token["content"].of(str), token["id"].whole_number(0, MOST_IDS - 1)
        if not 0 < len(text) <= LONGEST_TOKEN:
            raise token["content"].wrong(f"a text of 1 to {LONGEST_TOKEN:,} characters")
        if text in added:
            raise token.refuse(f"is {quoted(text)}, which is there twice")
        if text in ids and ids[text] != i:
            raise token["id"].refuse(f"is {i}, but {quoted(text)} has the id {ids[text]} in the vocabulary")
        if text not in ids and text not in added and i in taken:
            raise token["id"].refuse(f"is {i}, which another token has")
        added[text] = i
        taken.add(i)
    return added


def _steps(part: Part, key: str) -> list[Part]:
    """The steps of a part of a tokenizer, those of a `Sequence` one by one."""
    if part.value is None:
        return []
    part.of(dict)
    if part["type"].of(str) != "Sequence":
        return [part]
    part[key].of(list)
    return [step for member in part[key].items() if member.of(dict) for step in _steps(member, key)]


def _check_charsmap(step: Part) -> None:
    if step["type"].value != "Precompiled":
        return
    try:
        blob = base64.b64decode(step["precompiled_charsmap"].of(str), validate=True)
    except (binascii.Error, ValueError) as error:
        raise step["precompiled_charsmap"].refuse("is not base64") from error
    if why := charsmap.fault(blob):
        raise step["precompiled_charsmap"].refuse(why)


def _check_growth(part: Part, steps: list[Part]) -> None:
    """A chain of replacements must not blow a short text up."""
    growth = 1
    for step in steps:
        if isinstance(step["pattern"].value, dict):
            for pattern in step["pattern"].members():
                if len(pattern.of(str)) > LONGEST_PATTERN:
                    raise pattern.wrong(f"a pattern of at most {LONGEST_PATTERN:,} characters")
        for key in ("content", "prepend"):
            if step[key].value is not None:
                growth *= max(1, len(step[key].of(str)))
    if growth > GROWTH or len(steps) > GROWTH:
        raise part.refuse(f"makes a text more than {GROWTH:,} times as long")


def _check_inserted(step: Part, known: Mapping[str, int]) -> None:
    """The special tokens that a post-processor inserts must be in the vocabulary, with the ids that it says."""
    for key in ("sep", "cls"):
        if step[key].value is not None:
            if len(step[key].of(list)) != 2:
                raise step[key].wrong("a token and its id")
            _check_known(step[key][0], step[key][1], known)
    if step["type"].value != "TemplateProcessing":
        return
    specials = step["special_tokens"].of(dict)
    for special in step["special_tokens"].members():
        special.of(dict)
        if len(special["tokens"].of(list)) != len(special["ids"].of(list)):
            raise special.refuse("needs one id per token")
        for token, i in zip(special["tokens"].items(), special["ids"].items(), strict=True):
            _check_known(token, i, known)
    for form in ("single", "pair"):
        step[form].of(list)
        for piece in step[form].items():
            if len(piece.of(dict)) != 1 or not {"Sequence", "SpecialToken"} & piece.value.keys():
                raise piece.wrong("a Sequence or a SpecialToken")
            for inner in piece.members():
                inner.of(dict)
                if inner["id"].of(str) not in specials and "SpecialToken" in piece.value:
                    raise inner["id"].refuse(f"is {quoted(inner['id'].value)}, which special_tokens does not have")


def _check_known(token: Part, i: Part, known: Mapping[str, int]) -> None:
    if known.get(token.of(str)) is None:
        raise token.refuse(f"is {quoted(token.value)}, which the vocabulary does not have")
    if type(i.value) is not int or i.value != known[token.value]:
        raise i.wrong(f"{known[token.value]}, the id of {quoted(token.value)}")


def _check_padding(part: Part, known: Mapping[str, int]) -> None:
    if part.optional(dict) is None:
        return
    if part["pad_token"].of(str) not in known:
        raise part["pad_token"].refuse(f"is {quoted(part['pad_token'].value)}, which the vocabulary does not have")
    if isinstance(part["strategy"].value, dict) and part["strategy"]["Fixed"].value is not None:
        part["strategy"]["Fixed"].whole_number(0, 1 << 20)


def _check_with_library(top: Part, kind: str) -> None:
    """Lets the library read everything but the vocabulary, and cut a text by its patterns."""
    from tokenizers import Tokenizer

    model = top["model"].value
    small = {"vocab": [["?", 0.0]], "unk_id": None} if kind == "Unigram" else {"vocab": {"?": 0}}
    rest = {**top.value, "model": {**model, **small, **({"merges": []} if kind == "BPE" else {})}}
    with library_errors(f"{top.file} cannot be read", top.hint), _silent():
        tokenizer = Tokenizer.from_buffer(orjson.dumps(rest))
        text = PROBE if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(PROBE)
        if tokenizer.pre_tokenizer is not None:
            tokenizer.pre_tokenizer.pre_tokenize_str(text)


@contextmanager
def _silent() -> Iterator[None]:
    """Hides what a library in Rust prints when it gives up, which is no more than its exception says."""
    try:
        kept = os.dup(2)
    except OSError:  # nobody listens
        yield
        return
    try:
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
