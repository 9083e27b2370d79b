"""Counting tokens of text, each distinct word encoded once; counts of shards add up."""

from __future__ import annotations

import itertools
import re
import string
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from polydistill.errors import PolydistillError, UsageError

Encode = Callable[[list[str]], list[list[int]]]

FORMAT = 2
WORDS_KEPT = 100_000  # most frequent words that counts keep, for smoothing
HELD_OUT_EVERY, HELD_OUT_LINES = 50, 500
PENDING_UNITS, PENDING_CHARACTERS = 1_000_000, 64 << 20
ENCODE_AT_ONCE, CHARACTERS_AT_ONCE = 20_000, 1_000_000
UNITS_JOINED, LONGEST_JOINED = 32, 32
# Han, kana, Thai, Lao, Tibetan, Burmese, Khmer: written without spaces between words.
UNSEGMENTED = re.compile("[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")
SAMPLE_LINES, SAMPLE_CHARACTERS = 60, 200  # that tell how lines may be cut
# White space other than single spaces between words: such a line is encoded whole.
IRREGULAR = re.compile(r"[^\S ]|  |^ | $|[\u2581\u0300-\u036f\u200d\ufe0f]")
# Where Python splits a line and tokenizers may not, even those that treat all white space alike: control characters,
# and wide spaces that are one character with what follows. One set in front, so that the search is fast.
SEPARATORS = re.compile(
    "[\x0b\x0c\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]"
    "(?:(?<=[\x0b-\x85])|(?=[\u0300-\u036f\u0900-\u0dff\u200c\u200d\ufe00-\ufe0f]))"
)
# ASCII punctuation as spaces.
BARE = bytes(32 if chr(byte) in string.punctuation else byte for byte in range(256))
NO_PUNCTUATION = bytes(byte for byte in range(256) if chr(byte) not in string.punctuation)
# How the sample's words are joined to see what a tokenizer makes of other white space than the sample has.
ODD_SPACES = ("  ", "\t", "\u00a0", "\u2003", "\u2028", "\u3000", " \u2581 ")


@dataclass(frozen=True)
class Text:
    """One source of counted text: where it came from and what was read of it."""

    where: str
    lines: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class LanguageCounts:
    """The counts of one language's text.

    Args:
        spaces: Name of an id space -> (size,) occurrences of its tokens.
        words: The most frequent words with their occurrences.
        texts: Where the text came from.
        held_out: Lines of it that stand for new text in estimates; they are counted like the others.
        wordlist: Whether the "text" is a list of words with frequencies instead of running text.
    """

    spaces: dict[str, np.ndarray] = field(hash=False)
    words: dict[str, int] = field(hash=False)
    texts: tuple[Text, ...]
    held_out: tuple[str, ...]
    wordlist: bool = False

    def __add__(self, other: LanguageCounts) -> LanguageCounts:
        words = Counter(self.words)
        words.update(other.words)
        return LanguageCounts(
            {name: counts + other.spaces[name] for name, counts in self.spaces.items()},
            dict(words.most_common(WORDS_KEPT)),
            self.texts + other.texts,
            (self.held_out + other.held_out)[:HELD_OUT_LINES],
            self.wordlist or other.wordlist,
        )

    def without_held_out(self, spaces: Sequence[Any]) -> LanguageCounts:
        """The counts without the held-out lines, for which those lines are new text.

        Args:
            spaces: The id spaces that were counted for.
        """
        lines = Counter(self.held_out)
        fewer = {
            space.name: np.maximum(
                self.spaces[space.name]
                - sum(np.rint(tally(encode, lines, space.size)) for encode in space.counting_encoders),
                0,
            ).astype(np.int64)
            for space in spaces
        }
        words = Counter(self.words)
        for word in " ".join(self.held_out).split():
            if word in words:
                words[word] -= 1
            else:  # counted by words without punctuation, and by its signs
                words.subtract(word.encode().translate(BARE).decode().split())
                words.subtract(sign for sign in word if sign in string.punctuation)
        return replace(self, spaces=fewer, words=dict(+words), held_out=())


@dataclass(frozen=True)
class TokenCounts:
    """Counts of one tokenizer over one or more languages; shards add up with `+`.

    Args:
        tokenizer: Hash of the vocabulary that counted.
        languages: Code -> counts.
        template: Ids of the chat template's own words.
    """

    tokenizer: str
    languages: dict[str, LanguageCounts] = field(hash=False)
    template: tuple[int, ...] = ()

    def __add__(self, other: TokenCounts) -> TokenCounts:
        if self.tokenizer != other.tokenizer:
            raise UsageError("The counts come from different tokenizers.", "Count all shards with the same model.")
        merged = dict(self.languages)
        for code, counts in other.languages.items():
            merged[code] = merged[code] + counts if code in merged else counts
        return replace(self, languages=merged, template=self.template or other.template)

    def without_held_out(self, spaces: Sequence[Any]) -> TokenCounts:
        """See `LanguageCounts.without_held_out`."""
        fewer = {code: counts.without_held_out(spaces) for code, counts in self.languages.items()}
        return replace(self, languages=fewer)

    def to_bytes(self) -> bytes:
        """JSON: sparse counts by language and id space."""
        languages = {code: _pack(counts) for code, counts in self.languages.items()}
        return orjson.dumps(
            {
                "polydistill_counts": FORMAT,
                "tokenizer": self.tokenizer,
                "template": self.template,
                "languages": languages,
            }
        )

    def save(self, path: Path) -> None:
        """Writes them to a file."""
        path.write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> TokenCounts:
        """Reads what `save` wrote.

        Raises:
            PolydistillError: The file is missing or something else.
        """
        try:
            data = orjson.loads(path.read_bytes())
            if data["polydistill_counts"] != FORMAT:
                raise ValueError("another version of polydistill wrote it")
            languages = {code: _unpack(value) for code, value in data["languages"].items()}
            return cls(data["tokenizer"], languages, tuple(data["template"]))
        except FileNotFoundError as error:
            raise PolydistillError(f"There is no file {path}.", "Make it with `polydistill count`.") from error
        except OSError as error:
            raise PolydistillError(f"{path} cannot be read: {error.strerror}.", "Give a file of counts.") from error
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise PolydistillError(
                f"{path} does not hold token counts.", "Make it with `polydistill count`."
            ) from error


def _pack(counts: LanguageCounts) -> dict[str, Any]:
    spaces = {}
    for name, values in counts.spaces.items():
        ids = np.flatnonzero(values)
        spaces[name] = {"size": len(values), "ids": ids.tolist(), "counts": values[ids].tolist()}
    return {
        "spaces": spaces,
        "words": counts.words,
        "texts": counts.texts,
        "held_out": counts.held_out,
        "wordlist": counts.wordlist,
    }


def _unpack(data: Mapping[str, Any]) -> LanguageCounts:
    spaces = {}
    for name, sparse in data["spaces"].items():
        spaces[name] = np.zeros(sparse["size"], np.int64)
        spaces[name][sparse["ids"]] = sparse["counts"]
    texts = tuple(Text(**t) for t in data["texts"])
    return LanguageCounts(spaces, data["words"], texts, tuple(data["held_out"]), data["wordlist"])


def at_once(texts: Sequence[str], most: int = ENCODE_AT_ONCE) -> Iterator[slice]:
    """Yields the texts to encode together: a number of them, or a million characters, which can take 150 MB."""
    start = size = 0
    for end, text in enumerate(texts):
        if end - start == most or (size + len(text) > CHARACTERS_AT_ONCE and end > start):
            yield slice(start, end)
            start, size = end, 0
        size += len(text)
    if start < len(texts):
        yield slice(start, len(texts))


def tally(encode: Encode, units: Mapping[str, float], size: int, glue: str | None = None) -> np.ndarray:
    """Encodes each text once and counts its tokens as often as the text occurs.

    Args:
        encode: Texts -> ids.
        units: Text -> occurrences.
        size: Number of ids.
        glue: Text that joins units of equal frequency into longer texts, which encode faster; None for no joining.

    Returns:
        (size,) float64 occurrences of each id.
    """
    total = np.zeros(size)
    texts, weights = _joined(units, glue) if glue is not None else (list(units), list(units.values()))
    for part in at_once(texts):
        ids = encode(texts[part])
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        flat = np.fromiter(itertools.chain.from_iterable(ids), np.int64, int(lengths.sum()))
        repeated = np.repeat(np.array(weights[part], np.float64), lengths)
        total += np.bincount(flat, repeated, minlength=size)[:size]
    return total


def _joined(units: Mapping[str, float], glue: str) -> tuple[list[str], list[float]]:
    """Texts of 32 units of equal frequency, with their weights; long units gain nothing and stay as they are.

    ASCII is joined to ASCII, which is faster for some encoders.
    """
    alike: dict[tuple[float, bool], list[str]] = {}
    texts: list[str] = []
    weights: list[float] = []
    for unit, n in units.items():
        if len(unit) <= LONGEST_JOINED:
            alike.setdefault((n, unit.isascii()), []).append(unit)
        else:
            texts.append(unit)
            weights.append(n)
    for (n, _), group in alike.items():
        joined = [glue.join(group[i : i + UNITS_JOINED]) for i in range(0, len(group), UNITS_JOINED)]
        texts += joined
        weights += [n] * len(joined)
    return texts, weights


class Cut(NamedTuple):
    """A way to cut lines into units that are encoded once each.

    Args:
        name: What the units are.
        units: Lines -> units with their occurrences: those that can be joined, and those that cannot.
        glue: Text between joined units; None for no joining.
    """

    name: str
    units: Callable[[Sequence[str]], tuple[Counter[str], Counter[str]]]
    glue: str | None

    def word(self, word: str) -> str:
        """The unit of a word inside a line."""
        return " " + word if self.name == "spaced words" else word


def _words(lines: Sequence[str]) -> tuple[Counter[str], Counter[str]]:
    """Words between white space, for tokenizers that treat a word alike wherever it stands."""
    text = "\n".join(lines)
    return _words_apart(SEPARATORS, lines) if SEPARATORS.search(text) else (Counter(text.split()), Counter())


def _regular_words(lines: Sequence[str]) -> tuple[Counter[str], Counter[str]]:
    """Words between single spaces, for tokenizers that give other white space tokens of its own."""
    return _words_apart(IRREGULAR, lines)


def _words_apart(odd: re.Pattern[str], lines: Sequence[str]) -> tuple[Counter[str], Counter[str]]:
    """The words of the lines without a match of `odd`; alone stay the other lines."""
    alone = [line for line in lines if odd.search(line)]
    regular = [line for line in lines if not odd.search(line)] if alone else lines
    return Counter("\n".join(regular).split()), Counter(alone)


def _spaced_words(lines: Sequence[str]) -> tuple[Counter[str], Counter[str]]:
    """Words with the space before them; alone stay the first word of each line, and lines with other white space."""
    odd = [line for line in lines if IRREGULAR.search(line)]
    regular = [line for line in lines if not IRREGULAR.search(line)] if odd else lines
    alone = Counter(line.split(" ", 1)[0] for line in regular)
    words = Counter(" ".join(regular).split(" ") if regular else ())
    words.subtract(alone)
    alone.update(odd)
    return Counter({" " + word: n for word, n in words.items() if n > 0}), alone


def _bare_words(apart: Collection[str], lines: Sequence[str]) -> tuple[Counter[str], Counter[str]]:
    """Words and ASCII punctuation, for tokenizers that split at both; alone stay the lines with a text of `apart`."""
    text = "\n".join(lines)
    alone: Sequence[str] = ()
    if SEPARATORS.search(text) or any(part in text for part in apart):
        odd = re.compile("|".join([SEPARATORS.pattern, *map(re.escape, apart)]))
        alone = [line for line in lines if odd.search(line)]
        text = "\n".join(line for line in lines if not odd.search(line))
    content = text.encode()
    found = Counter(content.translate(BARE).split())
    words = Counter(dict(zip(map(bytes.decode, found), found.values(), strict=True)))
    signs = content.translate(None, NO_PUNCTUATION)
    words.update({sign: signs.count(sign.encode()) for sign in string.punctuation if sign.encode() in signs})
    return words, Counter(alone)


def bare_words(apart: Collection[str]) -> Cut:
    """Words and ASCII punctuation by themselves, but for lines that have a text of `apart` (special tokens)."""
    return Cut("words without punctuation", partial(_bare_words, apart), " ")


def _lines(lines: Sequence[str]) -> tuple[Counter[str], Counter[str]]:
    """Lines as they are, for tokenizers whose tokens may cross spaces."""
    return Counter(), Counter(lines)


WORDS, REGULAR_WORDS = Cut("words", _words, " "), Cut("regular words", _regular_words, " ")
SPACED_WORDS, LINES = Cut("spaced words", _spaced_words, ""), Cut("lines", _lines, "")


class TextCounter:
    """Counts one language's text for one vocabulary.

    How lines may be cut into units is found on the first lines: the coarsest cut that gives exactly the counts of
    whole lines is used for the rest.

    Args:
        spaces: The id spaces, each with its `encoders`.
        seed: Chooses which of every 50 lines is held out: kept, besides being counted.
    """

    def __init__(self, spaces: Sequence[Any], seed: int = 0) -> None:
        self._spaces = spaces
        self._offset = seed % HELD_OUT_EVERY
        self._counts = {space.name: np.zeros(space.size) for space in spaces}
        self._pending: Counter[str] = Counter()
        self._alone: Counter[str] = Counter()
        self._characters = 0
        self._words: Counter[str] = Counter()
        self._lines = 0
        self._held_out: list[str] = []
        self._first: list[str] = []

    def add(self, lines: list[str]) -> None:
        """Counts lines, and holds some of them out."""
        self._hold_out(lines)
        self._lines += len(lines)
        if not lines:
            return
        if not self._first:
            self._first = [line[:SAMPLE_CHARACTERS] for line in lines[:SAMPLE_LINES]]
        words, alone = self._cut.units(lines)
        self._pending.update(words)
        self._alone.update(alone)
        self._characters += sum(map(len, lines))
        if len(self._pending) + len(self._alone) > PENDING_UNITS or self._characters > PENDING_CHARACTERS:
            self._flush()

    def add_words(self, forms: Mapping[str, float]) -> None:
        """Counts a list of words: form -> occurrences, with a space before a form that stands inside a line."""
        self._first = self._first or [" ".join(form.strip() for form in itertools.islice(forms, 200))]
        for form, n in forms.items():
            units, unit = (self._pending, self._cut.word(form[1:])) if form[0] == " " else (self._alone, form)
            units[unit] += max(1, round(n))
        self._flush()

    def result(self, texts: Sequence[Text], *, wordlist: bool = False) -> LanguageCounts:
        """The counts of everything that was added."""
        self._flush()
        return LanguageCounts(
            {name: np.rint(counts).astype(np.int64) for name, counts in self._counts.items()},
            dict(self._words.most_common(WORDS_KEPT) if len(self._words) > WORDS_KEPT else self._words),
            tuple(texts),
            tuple(self._held_out),
            wordlist,
        )

    def _hold_out(self, lines: list[str]) -> None:
        if self._lines + len(lines) >= HELD_OUT_EVERY:
            taken = lines[(self._offset - self._lines) % HELD_OUT_EVERY :: HELD_OUT_EVERY]
            self._held_out += taken[: HELD_OUT_LINES - len(self._held_out)]

    @cached_property
    def _cut(self) -> Cut:
        text = "".join(self._first)
        if 2 * len(UNSEGMENTED.findall(text)) > len(text):
            return LINES  # hardly any two of these units are equal: there is nothing to gain
        if len(self._spaces) == 1 and self._spaces[0].cut:
            return self._spaces[0].cut
        lines = self._sample_counts(LINES)
        for cut in (WORDS, REGULAR_WORDS, SPACED_WORDS):
            # Joining few words may give back the line that they came from, so each must be right by itself.
            if self._treats_spaces(cut) and all(
                np.array_equal(self._sample_counts(c), lines) for c in (cut._replace(glue=None), cut)
            ):
                return cut
        return LINES

    def _sample_counts(self, cut: Cut) -> np.ndarray:
        units = cut.units(self._first)
        return np.concatenate([self._tally(space, cut, *units) for space in self._spaces])

    def _treats_spaces(self, cut: Cut) -> bool:
        """Whether a cut is right for white space that the first lines happen to lack."""
        words = [word[:12] for word in " ".join(self._first).split()[:3]]
        for line in [sign.join(words) for sign in ODD_SPACES] + [" ".join(("", *words)), " ".join((*words, "")), "  "]:
            units = [unit for part in cut.units([line]) for unit in part.elements()]
            for encode in (encode for space in self._spaces for encode in space.counting_encoders):
                if Counter(itertools.chain(*encode(units))) != Counter(encode([line])[0]):
                    return False
        return True

    def _tally(self, space: Any, cut: Cut, words: Counter[str], alone: Counter[str]) -> np.ndarray:
        parts = [
            part
            for encode in space.counting_encoders
            for part in (tally(encode, words, space.size, cut.glue), tally(encode, alone, space.size))
        ]
        return np.sum(parts, axis=0)

    def _flush(self) -> None:
        if not self._pending and not self._alone:
            return
        for space in self._spaces:
            self._counts[space.name] += self._tally(space, self._cut, self._pending, self._alone)
        self._remember_words()
        self._pending.clear()
        self._alone.clear()
        self._characters = 0

    def _remember_words(self) -> None:
        """Keeps the most frequent words, without the space that the cut leaves in front of them."""
        spaced = self._cut is SPACED_WORDS
        self._words.update({unit[1:]: n for unit, n in self._pending.items()} if spaced else self._pending)
        for unit, n in self._alone.items():
            for word in unit.split():
                self._words[word] += n
        if len(self._words) > 2 * WORDS_KEPT:
            self._words = Counter(dict(self._words.most_common(WORDS_KEPT)))


@dataclass(frozen=True)
class Fertility:
    """How a tokenizer treats running text.

    Args:
        words: Number of words between white space.
        tokens: Number of tokens.
        unknown: Number of unknown tokens, or of single bytes where a model falls back to them.
        types: Number of different tokens.
    """

    words: int
    tokens: int
    unknown: int
    types: int

    @property
    def fertility(self) -> float:
        """Tokens per word."""
        return self.tokens / max(self.words, 1)

    @property
    def unknown_rate(self) -> float:
        """Share of tokens that are unknown."""
        return self.unknown / max(self.tokens, 1)


def fertility(encode: Encode, lines: list[str], unknown: frozenset[int]) -> Fertility:
    """Measures a tokenizer on text.

    Args:
        encode: Texts -> ids, without special tokens.
        lines: The text.
        unknown: Ids for text that the vocabulary cannot write.
    """
    words = sum(len(line.split()) for line in lines)
    ids = Counter(itertools.chain.from_iterable(row for part in at_once(lines) for row in encode(lines[part])))
    return Fertility(words, ids.total(), sum(n for i, n in ids.items() if i in unknown), len(ids))
