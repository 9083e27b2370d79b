"""Word lists of the package `wordfreq`: what a language's text looks like where there is no text.

The lists are folded: lower case, and every digit of a longer number replaced by 0. Text is not, so each word is
put back into the forms it has in text, and each folded number into the numbers it stands for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata, util

from polydistill.catalog import Language
from polydistill.errors import PolydistillError

# Shares of a word's occurrences, rounded from what running text of several languages has.
_LOWER, _TITLE, _UPPER = 0.85, 0.13, 0.02
_UPPER_LETTERS, _UPPER_FREQUENCY = 4, 1e-4  # longer and rarer words are hardly ever all capitals
_MAIN, _VARIANT = 0.7, 0.3  # of a word with letters that are spelt in two ways
_RAREST_NUMBER = 1e-8
_DOTTED_I = {"tr", "az", "crh", "tt"}


@dataclass(frozen=True)
class WordList:
    """Words with their shares of running text.

    Attributes:
        words: Distinct words in the forms they have in text, the most frequent first.
        weights: Their shares, which sum to 1.
        source: The package and list they come from.
    """

    words: tuple[str, ...]
    weights: tuple[float, ...]
    source: str

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return zip(self.words, self.weights, strict=True)

    def __len__(self) -> int:
        return len(self.words)

    def as_dict(self) -> dict[str, float]:
        """Word -> share."""
        return dict(self)

    @cached_property
    def bytes(self) -> int:
        """Size of the words in UTF-8, each with a line end."""
        return sum(len(word.encode()) + 1 for word in self.words)

    @cached_property
    def sha256(self) -> str:
        """Hash of the words and their weights."""
        digest = hashlib.sha256()
        for word, weight in self:
            digest.update(f"{word}\t{weight!r}\n".encode())
        return digest.hexdigest()


def installed() -> bool:
    """Whether the package `wordfreq` is there."""
    return util.find_spec("wordfreq") is not None


def word_list(language: Language) -> WordList:
    """Make a language's word list.

    Args:
        language: A language whose file names a list of `wordfreq`.

    Raises:
        PolydistillError: The package is not installed, or it has no such list.
    """
    if not installed():
        raise PolydistillError(
            "The package wordfreq, which has the word lists, is not installed.",
            "Install it with: pip install 'polydistill[offline]', or give text with --corpus.",
        )
    import wordfreq

    # Asked for a language it lacks, wordfreq may give a similar one's list.
    if language.wordfreq not in wordfreq.available_languages():
        raise PolydistillError(f"wordfreq has no word list for {language.name}.", "Give text with --corpus.")
    folded = wordfreq.get_frequency_dict(language.wordfreq)
    shares: dict[str, float] = {}
    for word, frequency in folded.items():
        for form, share in _forms(word, frequency, language):
            shares[form] = shares.get(form, 0.0) + frequency * share
    for number, frequency in _numbers(folded):
        shares[number] = shares.get(number, 0.0) + frequency
    total = sum(shares.values())
    ordered = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    source = f"wordfreq=={metadata.version('wordfreq')} ({language.wordfreq})"
    return WordList(tuple(word for word, _ in ordered), tuple(share / total for _, share in ordered), source)


def _forms(word: str, frequency: float, language: Language) -> Iterator[tuple[str, float]]:
    """Yield a word's forms in text and their shares: its cases, times the spellings of its letters."""
    if any(char.isdecimal() for char in word) and len(word) > 1:
        return  # a folded number, or a word made with one: `_numbers` has those
    for spelling, share in _spellings(word, language):
        for form, part in _cases(spelling, frequency, language):
            yield form, share * part


def _spellings(word: str, language: Language) -> list[tuple[str, float]]:
    """The word with the language's main letters and with their variants: lists follow either habit."""
    variants = str.maketrans(language.variants)
    mains = str.maketrans({other: main for main, other in language.variants.items() if len(other) == 1})
    main = word.translate(mains)
    variant = main.translate(variants)
    return [(main, 1.0)] if main == variant else [(main, _MAIN), (variant, _VARIANT)]


def _cases(word: str, frequency: float, language: Language) -> Iterator[tuple[str, float]]:
    capitals = word
    if language.code in _DOTTED_I:
        capitals = word.replace("i", "İ")
    title, upper = capitals[:1].upper() + word[1:], capitals.upper()
    if title == word:  # a script without cases, or a word that does not begin with a letter
        yield word, 1.0
        return
    whole = len(word) > 1 and (len(word) <= _UPPER_LETTERS or frequency >= _UPPER_FREQUENCY)
    yield word, _LOWER + (0 if whole else _UPPER)
    yield title, _TITLE
    if whole:
        yield upper, _UPPER


def _numbers(folded: dict[str, float]) -> Iterator[tuple[str, float]]:
    """Yield the numbers of two to four digits with the frequencies that wordfreq gives them (it favours years)."""
    from wordfreq.numbers import digit_freq

    for digits in (2, 3, 4):
        together = folded.get("0" * digits, 0.0)
        for value in range(10**digits):
            number = f"{value:0{digits}d}"
            frequency = together * digit_freq(number)
            if frequency >= _RAREST_NUMBER:
                yield number, frequency
