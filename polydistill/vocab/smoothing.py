"""Expected counts of tokens in text that was not counted: Good-Turing's estimate, given what a token looks like.

A vocabulary of all tokens seen cannot choose among the tokens that happened not to occur. Good and
Turing: in more text of the same kind, all tokens never seen so far together occur about as often as there are
tokens seen exactly once, so that each unseen token has the expected count n1 / n0. That ratio is not the same
for all tokens: a piece made of the language's usual letter sequences is likelier than a piece of another
language. A logistic regression that tells tokens seen once from tokens never seen has n1(x) / n0(x) as its
odds, where x are features of the token: how often its letter sequences occur in the words of the text,
whether its other spellings (case, diacritics, inside or at the start of a word) occur, its place in the
vocabulary (most tokenizers are built from frequent to rare), its shape. The features of a token seen once
leave out its own occurrence, or they would give away that it was seen. Nothing is tokenized: the cost follows the
vocabulary and the number of distinct words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from polydistill.vocab.bpe import byte_alphabet

ORDERS = 5
"""Letter sequences of 1 to this many letters are looked up."""

BUCKETS_LOG2 = 20
"""The counts of the letter sequences of one length are hashed into 2 to this power cells."""

MAX_LETTERS = 4_000_000
"""Letters of the words that are read: a language without spaces must not cost its whole corpus."""

MAX_SAMPLE = 30_000
"""Unseen tokens that the regression is fitted on."""

MIN_EXAMPLES = 20
"""Fewer tokens than this in a class fit nothing."""

_RIDGE = 3.0
_SPACE = ord(" ")
_FLOOR = 1e-9
"""Expected count of a token with a letter that the text does not have: above nothing, below everything else."""


def expected_counts(
    surfaces: Sequence[str],
    words: Collection[str],
    counts: np.ndarray,
    *,
    evidence: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Expected counts of every token in as much new text of the same kind; sort by them to choose a vocabulary.

    Tokens seen keep the order of their counts and come before those not seen. With `evidence` (counts from another
    source, such as a list of frequent words) the tokens seen up to three times are estimated anew as well, and the
    two may mix.

    Args:
        surfaces: The text of each token in id order, with a leading space where it begins a word (see `surfaces_of`).
        words: The distinct words of the text.
        counts: (V,) counts of the tokens in the text: raw, so that "seen once" means it; weights are for the result.
            Fractions count as the next whole number.
        evidence: (V,) counts from another source, of a similar or a higher total (fractions are welcome).
        seed: Of the sample of unseen tokens that is fitted on.

    Returns:
        (V,) float64, non-negative, of the same total as `counts`.
    """
    seen = np.ceil(np.asarray(counts, np.float64))
    result = seen.copy()
    result[seen == 0] = _FLOOR / (1 + np.flatnonzero(seen == 0))
    features = _Features(surfaces, words, seen, evidence)
    rng = np.random.default_rng(seed)
    for times in range(4 if evidence is not None else 1):
        lower = np.flatnonzero(features.counts == times)
        upper = np.flatnonzero(features.counts == times + 1)
        if min(len(lower), len(upper)) < MIN_EXAMPLES:
            continue
        matrix = features.matrix(leave_out=times + 1)
        sample = lower if len(lower) <= MAX_SAMPLE else np.sort(rng.choice(lower, MAX_SAMPLE, replace=False))
        log_odds = _logistic(matrix[sample], matrix[upper], matrix[lower])
        rate = (times + 1) * len(sample) / len(lower) * np.exp(np.clip(log_odds, -30.0, 5.0))
        # Above this the regression is too sure of itself: held-out text shows the likeliest unseen at 0.6-0.9.
        result[features.ids[lower]] = np.minimum(rate, times + 0.9)
    total = float(np.sum(counts))
    return result * (total / result.sum()) if total else np.zeros(len(seen))


def unseen_share(counts: np.ndarray) -> float:
    """Share of new text's tokens that were not seen: n1 / N (Good 1953).

    Args:
        counts: (V,) counts of the tokens in the text.
    """
    return float((counts == 1).sum() / max(counts.sum(), 1))


def surfaces_of(tokens: Sequence[str]) -> list[str]:
    """The text that each token stands for, with a leading space where it begins a word.

    Args:
        tokens: Vocabulary in id order, of SentencePiece (`▁a`), byte-level BPE (`Ġa`) or WordPiece (`a`, `##a`).

    Returns:
        One string per token. Bytes that are not a whole UTF-8 character become U+FFFD.
    """
    # The most frequent marker tells the family: each marker is an ordinary character in some other vocabulary.
    sample = tokens[:: 1 + len(tokens) // 20_000]
    marker = max(("▁", "Ġ", "##"), key=lambda mark: sum(token.startswith(mark) for token in sample))
    if marker == "##":
        return [token[2:] if token.startswith("##") else " " + token for token in tokens]
    if marker == "Ġ":
        table = {ord(c): b for b, c in byte_alphabet().items()}
        return [t.translate(table).encode("latin-1", "replace").decode("utf-8", "replace") for t in tokens]
    return [token.replace("▁", " ") for token in tokens]


class _Strings:
    """Strings as one array of code points, so that all are worked on at once."""

    def __init__(self, strings: Sequence[str]) -> None:
        self.length = np.fromiter(map(len, strings), np.int64, len(strings))
        text = "".join(strings).encode("utf-32-le", "surrogatepass")
        self._set(np.frombuffer(text, np.uint32).astype(np.int64))

    def _set(self, codes: np.ndarray) -> None:
        self.codes = codes
        self.start = np.cumsum(self.length) - self.length
        self.position = np.arange(len(codes)) - np.repeat(self.start, self.length)
        self.left = np.repeat(self.length, self.length) - self.position

    def take(self, keep: np.ndarray) -> _Strings:
        """Only the strings where `keep` (n,) holds."""
        new = object.__new__(_Strings)
        new.length = self.length[keep]
        new._set(self.codes[np.repeat(keep, self.length)])
        return new

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sum over each string of a value for each code point; also right for empty strings."""
        total = np.concatenate([[0], np.cumsum(values)])
        return total[self.start + self.length] - total[self.start]


class _Features:
    """Features of the tokens whose letters all occur in the text."""

    def __init__(
        self, surfaces: Sequence[str], words: Collection[str], counts: np.ndarray, evidence: np.ndarray | None
    ) -> None:
        text = _text(words)
        strings = _Strings(surfaces)
        known = np.bincount(text, minlength=0x110000) >= 2
        possible = (strings.sum(~known[strings.codes]) == 0) & (strings.sum(strings.codes != _SPACE) > 0)
        self.ids = np.flatnonzero(possible)
        self.counts = counts[self.ids]
        strings = strings.take(possible)
        self.sequences = _rarest_sequences(strings, text) if len(self.ids) else []
        self.columns = self._shape(strings) if len(self.ids) else []
        if evidence is not None:
            self.columns.append(np.log(np.asarray(evidence)[self.ids] + 0.1))

    def matrix(self, leave_out: int) -> np.ndarray:
        """(tokens, features); a token seen `leave_out` times does as if it had been seen once less."""
        own = self.counts == leave_out
        grams = [np.log(np.maximum(least - own, 0) + 0.5) for least in self.sequences]
        return np.stack([*grams, *self.columns], axis=1).astype(np.float64)

    def _shape(self, strings: _Strings) -> list[np.ndarray]:
        folded, is_upper, is_lower, is_digit = _letter_tables(strings.codes)
        starts = strings.codes[strings.start] == _SPACE
        length = strings.length - starts
        upper, lower, digits = (strings.sum(table[strings.codes]) for table in (is_upper, is_lower, is_digit))
        first = np.minimum(strings.start + starts, len(strings.codes) - 1)
        title = is_upper[strings.codes[first]] & (upper == 1) & (lower > 0)
        rank = np.log(self.ids + 100.0)
        relatives = self._relatives(strings, folded[strings.codes], starts)
        shape = [starts, title, title & starts, (upper > 1) & (lower == 0), digits > 0, (digits > 0) & starts]
        return [*shape, upper + lower == length, np.log1p(length), rank, rank**2, np.log(relatives + 0.5)]

    def _relatives(self, strings: _Strings, folded: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Count of the other tokens that are the same but for case, diacritics and the leading space."""
        position = strings.position - np.repeat(starts, strings.length)
        powers = np.cumprod(np.full(max(1, int(strings.length.max())), 6364136223846793005, np.uint64))
        value = (folded + 1).astype(np.uint64) * powers[np.maximum(position, 0)]
        value[position < 0] = 0
        key = np.add.reduceat(value, strings.start)
        group = np.unique(key, return_inverse=True)[1]
        return np.bincount(group, self.counts)[group] - self.counts


def _text(words: Collection[str]) -> np.ndarray:
    """Code points of the words, each after a space; evenly spread words of a list that is too long."""
    step = 1 + sum(map(len, words)) // MAX_LETTERS
    joined = " ".join(["", *(word.strip() for word in list(words)[::step])])
    return np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)


def _hashes(codes: np.ndarray) -> Iterator[np.ndarray]:
    """Cells of the windows of 1, 2, ... ORDERS code points that begin at each position."""
    padded = np.concatenate([codes, np.zeros(ORDERS, np.int64)]).astype(np.uint64)
    value = np.zeros(len(codes), np.uint64)
    for order in range(ORDERS):
        value = (value + padded[order : order + len(codes)] + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        value ^= value >> np.uint64(29)
        yield (value & np.uint64((1 << BUCKETS_LOG2) - 1)).astype(np.int64)


def _rarest_sequences(strings: _Strings, text: np.ndarray) -> list[np.ndarray]:
    """For each length, how often the text has each string's rarest letter sequence of that length.

    A string that is shorter has its value for the whole string.
    """
    rarest: list[np.ndarray] = []
    for order, (cells, windows) in enumerate(zip(_hashes(text), _hashes(strings.codes), strict=True), start=1):
        found = np.bincount(cells, minlength=1 << BUCKETS_LOG2)[windows].astype(np.float64)
        found[strings.left < order] = np.inf
        least = np.minimum.reduceat(found, strings.start)
        rarest.append(np.where(strings.length < order, rarest[-1], least) if rarest else least)
    return rarest


def _letter_tables(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """By code point: in lower case without diacritics, is upper case, is lower case, is a digit."""
    used = np.flatnonzero(np.bincount(codes))
    folded = np.zeros(used[-1] + 1, np.int64)
    is_upper, is_lower, is_digit = (np.zeros(used[-1] + 1, bool) for _ in range(3))
    for code in used.tolist():
        letter = chr(code)
        folded[code] = ord(unicodedata.normalize("NFD", letter.lower())[0])
        is_upper[code], is_lower[code], is_digit[code] = letter.isupper(), letter.islower(), letter.isdigit()
    return folded, is_upper, is_lower, is_digit


def _logistic(negatives: np.ndarray, positives: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Log odds of `targets` (t, f) under a logistic regression with a ridge, by Newton's method with step halving."""
    examples = np.concatenate([negatives, positives])
    label = np.repeat([0.0, 1.0], [len(negatives), len(positives)])
    mean, deviation = examples.mean(axis=0), examples.std(axis=0) + 1e-9

    def prepare(rows: np.ndarray) -> np.ndarray:
        scaled = np.clip((rows - mean) / deviation, -5.0, 5.0)
        return np.concatenate([np.ones((len(rows), 1)), scaled], axis=1)

    design = prepare(examples)
    weights = np.zeros(design.shape[1])
    weights[0] = np.log(len(positives) / len(negatives))
    ridge = np.full(len(weights), _RIDGE)
    ridge[0] = 1e-6

    def loss(weights: np.ndarray) -> float:
        score = design @ weights
        return float(np.logaddexp(0.0, score).sum() - score @ label + 0.5 * (ridge * weights * weights).sum())

    current = loss(weights)
    for _ in range(30):
        chance = 1.0 / (1.0 + np.exp(-np.clip(design @ weights, -30.0, 30.0)))
        curvature = (design * (chance * (1.0 - chance))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(curvature, design.T @ (label - chance) - ridge * weights)
        while (new := loss(weights + step)) > current and np.abs(step).max() > 1e-6:
            step /= 2.0
        if current - new < 0.01:
            break
        weights, current = weights + step, new
    return prepare(targets) @ weights
