"""Characters that a language's model must be able to write, whatever is in the text."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from polydistill.catalog import Language
from polydistill.vocab.keep import IdSpace

if TYPE_CHECKING:
    from polydistill.vocab import Vocabulary

COMMON_PUNCTUATION = "«»‘’‚“”„–—…·•°€£§©®™×÷±½¼¾¡¿‹›′″−→№\u00a0"
WHITE_SPACE = ("\n", "\n\n", "\n\n\n", "\t", "\t\t", *(" " * n for n in range(1, 9)), "\r\n", "\r")
NUMBERS = tuple(str(n) for n in range(100))


def characters(languages: Sequence[Language]) -> Iterator[str]:
    """Yields the languages' letters in both cases, digits and punctuation, and the characters common to all text.

    Source: the main exemplar characters, digits and punctuation of CLDR, ASCII, and the other spellings
    (`variants`) of a language's letters.
    """
    yield from string.ascii_letters + string.digits + string.punctuation + COMMON_PUNCTUATION
    yield from WHITE_SPACE
    yield from NUMBERS
    for language in languages:
        for letter in language.letters:
            spellings = {letter, "".join(language.variants.get(c, c) for c in letter)}
            for spelling in sorted(spellings):
                yield from dict.fromkeys((spelling, spelling.upper(), spelling.capitalize()))
        yield from language.punctuation
        yield from language.digits


def required_letters(space: IdSpace, languages: Sequence[Language]) -> dict[int, str]:
    """Ids of the languages' characters, inside a word and at its start.

    Args:
        space: The id space; its `forms` says how a character stands in it.
        languages: The languages.

    Returns:
        Old id -> "letters".
    """
    found = (space.ids.get(form) for character in characters(languages) for form in space.forms(character))
    return {i: "letters" for i in found if i is not None}


def unwritten(before: Vocabulary, after: Vocabulary, languages: Sequence[Language]) -> dict[str, dict[str, Any]]:
    """Languages whose letters a vocabulary writes worse than the original one.

    Args:
        before: The original vocabulary.
        after: The smaller one.
        languages: Those to try, in both cases of their letters.

    Returns:
        Code -> `script` and the share of its letters, `before` and `after`, that can only be written as the unknown
        token or as bytes; only languages of which that share rose.
    """
    own = {lang.code: sorted({*lang.letters, *(letter.upper() for letter in lang.letters)}) for lang in languages}
    every = sorted({letter for letters in own.values() for letter in letters})
    lost = [_unwritten(vocabulary, every) for vocabulary in (before, after)]
    found = {}
    for lang in languages:
        letters = own[lang.code]
        shares = [sum(letter in side for letter in letters) / max(len(letters), 1) for side in lost]
        if shares[1] > shares[0]:
            found[lang.code] = {"script": lang.scripts[0], "before": shares[0], "after": shares[1]}
    return found


def _unwritten(vocabulary: Vocabulary, letters: list[str]) -> set[str]:
    """The letters that are not written with a token of their own or of a part of them."""
    space = vocabulary.spaces[0]
    unknown = {space.ids[token] for token in vocabulary.unknown() if token in space.ids}
    return {letter for letter, ids in zip(letters, space.encoders[0](letters), strict=True) if unknown & set(ids)}
