"""From text to token counts: what `polydistill count` does, and `trim` when it is given no counts."""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from polydistill.catalog import Language
from polydistill.errors import PolydistillError
from polydistill.files.outputs import write_beside
from polydistill.progress import SILENT, Progress
from polydistill.texts.sources import TextReader, TextSource, assign_corpora, read_words, text_sources
from polydistill.vocab import Vocabulary, collector_paused
from polydistill.vocab.counts import LanguageCounts, Text, TextCounter, TokenCounts

LETTERS_EXPECTED, WORDS_LOOKED_AT = 0.5, 2_000


@collector_paused()
def count(
    vocabulary: Vocabulary,
    languages: Sequence[Language],
    corpora: Sequence[str],
    *,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> TokenCounts:
    """Counts the tokens of each language's text.

    Args:
        vocabulary: The tokenizer.
        languages: The languages.
        corpora: `PATH_OR_HUB_ID`, or `LANG=...` with several languages; languages without one use the text that
            their file in the catalogue names.
        limit: Read at most this many lines of each source.
        seed: Which lines are held out.
        progress: Where to report.

    Raises:
        PolydistillError: A text is missing, empty, binary or in an unknown encoding.
    """
    assigned = assign_corpora(languages, corpora)
    sources = {lang.code: text_sources(lang, assigned[lang.code], progress=progress.warn) for lang in languages}
    counted = {
        lang.code: _count_language(vocabulary, lang, sources[lang.code], limit, seed, progress) for lang in languages
    }
    template: tuple[int, ...] = ()
    if texts := vocabulary.template_texts():
        ids = vocabulary.spaces[0].encoders[0](texts)
        template = tuple(sorted({i for line in ids for i in line}))
    return TokenCounts(vocabulary.fingerprint, counted, template)


def count_word_lists(
    vocabulary: Vocabulary, languages: Sequence[Language], progress: Progress = SILENT
) -> dict[str, LanguageCounts]:
    """Counts the tokens of each language's word list, which tells likely tokens that a small text does not show.

    Returns:
        Language -> counts; a language that has no list is left out, with a warning.

    Raises:
        PolydistillError: The package `wordfreq` is not installed.
    """
    counted = {}
    for language in languages:
        if not language.wordfreq:
            progress.warn(f"wordfreq has no list of {language.name} words, so only its text counts.")
            continue
        counter = TextCounter(vocabulary.spaces)
        words = read_words(language, vocabulary.spaces[0].encoders[0])
        counter.add_words(words.forms)
        text = Text(words.source, len(words.forms), words.bytes, words.sha256)
        counted[language.code] = counter.result([text], wordlist=True)
    return counted


def _count_language(
    vocabulary: Vocabulary,
    language: Language,
    sources: Sequence[TextSource],
    limit: int | None,
    seed: int,
    progress: Progress,
) -> LanguageCounts:
    counter, texts = TextCounter(vocabulary.spaces, seed), []
    for source in sources:
        if source.kind == "wordlist":
            words = read_words(language, vocabulary.spaces[0].encoders[0])
            counter.add_words(words.forms)
            texts.append(Text(words.source, len(words.forms), words.bytes, words.sha256))
            continue
        reader = TextReader(source, limit)
        total = sum(f.stat().st_size for f in source.files) or source.max_bytes
        with progress.bar(f"counting {language.name}", total, "B") as done:
            before = 0
            for lines in reader.blocks():
                counter.add(lines)
                done(reader.bytes - before)
                before = reader.bytes
        texts.append(Text(source.where, reader.lines, reader.bytes, reader.sha256))
    counts = counter.result(texts, wordlist=any(s.kind == "wordlist" for s in sources))
    _warn_of_other_language(language, counts, progress)
    return counts


def _warn_of_other_language(language: Language, counts: LanguageCounts, progress: Progress) -> None:
    """Says so when a text hardly has the language's letters, or many that it does not use."""
    share = letter_share(language, counts.words)
    if share is not None and share < LETTERS_EXPECTED:
        progress.warn(
            f"Only {share:.0%} of the letters in the text given for {language.name} are its own: is it the right text?"
        )
        return
    missing = missing_letters(language, counts.words)
    if missing:
        progress.warn(
            f"The text given for {language.name} never has its letters {' '.join(missing)}: is it the right text?"
        )


def letter_share(language: Language, words: Mapping[str, int]) -> float | None:
    """Share of the letters in the first 2,000 of `words` that the language uses, None where there are no letters."""
    alike: dict[int, list[str]] = {}
    for word, n in itertools.islice(words.items(), WORDS_LOOKED_AT):
        alike.setdefault(n, []).append(word)
    sample = Counter[str]()
    for n, group in alike.items():
        for character, times in Counter(unicodedata.normalize("NFC", "".join(group))).items():
            sample[character] += n * times
    own = {c for letter in (*language.letters, *language.auxiliary) for c in letter + letter.upper()}
    own |= {c for pair in language.variants.items() for part in pair for c in part + part.upper()}
    letters = {c: n for c, n in sample.items() if c.isalpha()}
    return sum(n for c, n in letters.items() if c in own) / sum(letters.values()) if letters else None


def missing_letters(language: Language, words: Mapping[str, int]) -> list[str]:
    """The language's letters beyond ASCII of which a text of some length should have one, if it has none of them."""
    special = [c for c in language.letters if len(c) == 1 and not c.isascii()]
    if not special or len(special) > 100 or len(words) < 500:
        return []
    spellings = {*special, *(language.variants.get(c, c) for c in special)}
    text = unicodedata.normalize("NFC", "\n".join(words)).lower()
    return [] if any(c in text for c in spellings) else special


def save_counts(counts: TokenCounts, path: Path, *, overwrite: bool, option: str) -> None:
    """Writes counts to a file that appears whole or not at all.

    Raises:
        PolydistillError: It exists and may not be replaced, the disk is full, or the place, which the setting
            `option` names, cannot be written.
    """
    write_beside(path, counts.to_bytes(), overwrite=overwrite, option=option)


def load_counts(paths: Sequence[Path], vocabulary: Vocabulary, languages: Sequence[Language]) -> TokenCounts:
    """Adds up counts of shards.

    Raises:
        PolydistillError: They were made with another tokenizer, or lack a language.
    """
    total = TokenCounts.load(paths[0])
    for path in paths[1:]:
        total = total + TokenCounts.load(path)
    if total.tokenizer != vocabulary.fingerprint:
        raise PolydistillError(
            f"The counts in {paths[0]} were made with another tokenizer.", "Count again with the model that you trim."
        )
    missing = [lang.code for lang in languages if lang.code not in total.languages]
    if missing:
        raise PolydistillError(
            f"The counts have {', '.join(sorted(total.languages))} but not {', '.join(missing)}.",
            f"Count it too: `polydistill count languages={missing[0]} ...`.",
        )
    return total
