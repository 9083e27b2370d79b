"""Word lists of the package `wordfreq`: what a language's text looks like where there is no text.

The lists are folded: lower case, and every digit of a longer number replaced by 0. Text is not, so each word is put
back into the forms it has in text, and each folded number into the numbers it stands for. The shares below were
chosen on development text.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata, util

from polydistill.catalog import Language
from polydistill.errors import PolydistillError

Encode = Callable[[list[str]], Sequence[Sequence[int]]]

MAX_WORDS = 60_000
"""Words of a list that are used, the most frequent ones."""

_WORD_TITLE, _NAME_TITLE = 0.15, 0.8
"""Share of the occurrences of a word, and of a name, that are capitalised."""

_UPPER, _BARE, _FIRST = 0.005, 0.005, 0.03
"""For each occurrence of a word: in upper case, without diacritics, and capitalised at the start of a text."""

_VARIANT = 0.1
"""Share of a word's occurrences that are written with the other spelling of its letters (`variants`)."""

_FREQUENT = 3e-6
"""Words of a lower share have no form in upper case and none at the start of a text: these would only cost time."""

_ATTACHED = {"00%": 0.05, "-00": 0.05, "00:00": 0.02}
"""Shapes of numbers that a list of words does not have, since it splits at signs; as shares of the shape `00`."""

_DOTTED_I = {"tr", "az", "crh", "tt"}


@dataclass(frozen=True)
class WordList:
    """What a list of words stands for in running text.

    Attributes:
        forms: Form -> occurrences in as much text as has the rarest word once. A form begins with a space as it does
            inside a sentence, or with its first letter as it does at the start of a text.
        source: The package and list that it comes from.
    """

    forms: dict[str, float] = field(hash=False)
    source: str

    @cached_property
    def bytes(self) -> int:
        """Size of the forms in UTF-8, each with a line end."""
        return sum(len(form.encode()) + 1 for form in self.forms)

    @cached_property
    def sha256(self) -> str:
        """Hash of the forms and their occurrences."""
        digest = hashlib.sha256()
        for form, occurrences in self.forms.items():
            digest.update(f"{form}\t{occurrences!r}\n".encode())
        return digest.hexdigest()


def installed() -> bool:
    """Whether the package `wordfreq` is there."""
    return util.find_spec("wordfreq") is not None


def word_list(language: Language, encode: Encode) -> WordList:
    """Makes a language's word list.

    Args:
        language: A language whose file names a list of `wordfreq`.
        encode: Token ids of each text given, without special tokens; see `cased_forms`.

    Raises:
        PolydistillError: The package is not installed, or it has no such list.
    """
    if not installed():
        raise PolydistillError(
            "The package wordfreq, which has the word lists, is not installed.",
            "Install it with: pip install 'polydistill[offline]', or give text with `text`.",
        )
    import wordfreq

    # Asked for a language it lacks, wordfreq may give a similar one's list.
    if language.wordfreq not in wordfreq.available_languages():
        raise PolydistillError(f"wordfreq has no word list for {language.name}.", "Give text with `text`.")
    dotted_i = (language.script_of or language.code) in _DOTTED_I and language.scripts[0] == "Latn"
    forms = cased_forms(wordfreq.get_frequency_dict(language.wordfreq), encode, dotted_i=dotted_i)
    source = f"wordfreq=={metadata.version('wordfreq')} ({language.wordfreq})"
    return WordList(_spelt_otherwise(forms, language), source)


def _spelt_otherwise(forms: Mapping[str, float], language: Language) -> dict[str, float]:
    """The forms, each with letters of two spellings divided between them: lists follow either habit, text both."""
    variants = str.maketrans(language.variants)
    mains = str.maketrans({other: main for main, other in language.variants.items() if len(other) == 1})
    divided: dict[str, float] = defaultdict(float)
    for form, occurrences in forms.items():
        main = form.translate(mains)
        other = main.translate(variants)
        divided[main] += occurrences if other == main else occurrences * (1 - _VARIANT)
        if other != main:
            divided[other] += occurrences * _VARIANT
    return dict(divided)


def cased_forms(frequencies: Mapping[str, float], encode: Encode, *, dotted_i: bool = False) -> dict[str, float]:
    """What a list of lower-case words stands for in running text: capitals, spelling without diacritics, numbers.

    Such a list (wordfreq's) has neither capitals nor numbers: `00` is any number of two digits. A word that the
    tokenizer writes with fewer tokens when it is capitalised was mostly capitalised in the text that the tokenizer
    learned from: it is a name.

    Args:
        frequencies: Share of each word in running text.
        encode: Token ids of each text given, without special tokens.
        dotted_i: Whether the capital of i is İ.

    Returns:
        Count of each form in as much text as has the rarest word once. A form begins with a space as it does inside a
        sentence, or with its first letter as it does at the start of a text or after a bracket. Of a long list the
        most frequent words are used.
    """
    frequencies = dict(sorted(frequencies.items(), key=lambda item: -item[1])[:MAX_WORDS])
    unit = min(frequencies.values(), default=1.0)
    words = [" " + word for word in frequencies if word.count("0") < 2]
    capitals = [word.replace("i", "İ").upper() if dotted_i else word.upper() for word in words]
    titles = [capital[:2] + word[2:] for word, capital in zip(words, capitals, strict=True)]
    lengths, title_lengths = ([len(ids) for ids in encode(texts)] for texts in (words, titles))
    forms: dict[str, float] = defaultdict(float)
    for word, upper, title, length, title_length in zip(words, capitals, titles, lengths, title_lengths, strict=True):
        count = frequencies[word[1:]] / unit
        capitalised = _NAME_TITLE if title_length < length else _WORD_TITLE
        forms[word] += count * (1 - capitalised)
        forms[title] += count * capitalised
        forms[_without_marks(word)] += count * _BARE
        if frequencies[word[1:]] >= _FREQUENT:
            forms[upper] += count * _UPPER
            forms[title[1:]] += count * _FIRST
    for number, frequency in _number_forms(frequencies).items():
        forms[" " + number] += frequency / unit
    return dict(forms)


def _number_forms(frequencies: Mapping[str, float]) -> dict[str, float]:
    """Frequency of each number that the shapes among the words stand for."""
    shapes = {shape: frequencies[shape] for shape in frequencies if shape.count("0") >= 2}
    if "00" in shapes:
        shapes = {shape: share * shapes["00"] for shape, share in _ATTACHED.items()} | shapes
    numbers: dict[str, float] = defaultdict(float)
    for shape, frequency in shapes.items():
        for number, share in _numbers(shape).items():
            numbers[number] += frequency * share
    return numbers


def _without_marks(word: str) -> str:
    """`țară` -> `tara`."""
    letters = unicodedata.normalize("NFD", word)
    return unicodedata.normalize("NFC", "".join(c for c in letters if unicodedata.category(c) != "Mn"))


def _numbers(shape: str) -> dict[str, float]:
    """Share of each number among those of a shape such as `00`, `0000` or `00,0`; a thousand where there are more.

    First digits follow Benford's law, round numbers are thrice as frequent, and most bare numbers of four digits
    are years.
    """
    digits = shape.count("0")
    share = {}
    values = range(0, 10**digits, max(1, 10 ** (digits - 3))) if shape != "0000" else range(10**4)
    for value in values:
        number = str(value).zfill(digits)
        weight = math.log10(1 + 1 / int(number[0])) if number[0] != "0" else 0.02
        if shape == "0000":
            weight *= 100 if 1900 <= value < 2030 else 20 if 1800 <= value < 1900 else 1
        filled = iter(number)
        share["".join(next(filled) if c == "0" else c for c in shape)] = weight * (3 if number[-1] == "0" else 1)
    total = sum(share.values())
    return {number: weight / total for number, weight in share.items()}
