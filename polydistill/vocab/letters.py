"""Characters that a language's model must be able to write, whatever the text at hand shows."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence

from polydistill.catalog import Language
from polydistill.vocab.keep import IdSpace

COMMON_PUNCTUATION = "«»‘’‚“”„–—…·•°€£§©®™×÷±½¼¾¡¿‹›′″−→№\u00a0"
WHITE_SPACE = ("\n", "\n\n", "\n\n\n", "\t", "\t\t", *(" " * n for n in range(1, 9)), "\r\n", "\r")
NUMBERS = tuple(str(n) for n in range(100))


def characters(languages: Sequence[Language]) -> Iterator[str]:
    """Yields the languages' letters in both cases, digits and punctuation, and what all text has in common.

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
    """Ids of the languages' characters, each as it stands inside a word and at its start.

    Args:
        space: The id space; its `forms` says how a character stands in it.
        languages: The languages.

    Returns:
        Old id -> "letters".
    """
    found = (space.ids.get(form) for character in characters(languages) for form in space.forms(character))
    return {i: "letters" for i in found if i is not None}
