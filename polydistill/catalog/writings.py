"""The scripts that one language is written in, and codes that name a language with its script or country."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from polydistill.catalog.tables import Table

_SUBTAGS = re.compile("(?P<language>.+?)(-(?P<script>[a-z]{4}))?(-(?P<region>[a-z]{2}|[0-9]{3}))?")


@dataclass(frozen=True)
class Corpus:
    """Where text of a language can be streamed from on the Hub."""

    dataset: str
    config: str | None = None
    split: str = "train"
    column: str = "text"
    revision: str | None = None

    @classmethod
    def from_table(cls, table: Table) -> Corpus:
        """Reads a `[[corpora]]` section."""
        corpus = cls(
            dataset=table.text("dataset"),
            config=table.optional_text("config"),
            split=table.text("split", "train"),
            column=table.text("column", "text"),
            revision=table.optional_text("revision"),
        )
        table.finish()
        return corpus


@dataclass(frozen=True, kw_only=True)
class Written:
    """What differs between the scripts of a language.

    Attributes:
        letters: Main exemplar characters, lower-case (add the other case); some have several code points.
        auxiliary: Characters of loanwords and foreign names.
        punctuation: Punctuation marks in use.
        digits: Native digits in use beside the ASCII ones.
        flores: FLORES-200 / NLLB codes, the commonest script first; empty if those lack the language.
        corpora: Text on the Hub, the best first.
        wordfreq: Code of its list in the package `wordfreq`, or None.
    """

    letters: tuple[str, ...]
    auxiliary: tuple[str, ...] = ()
    punctuation: tuple[str, ...] = ()
    digits: tuple[str, ...] = ()
    flores: tuple[str, ...] = ()
    corpora: tuple[Corpus, ...] = ()
    wordfreq: str | None = None

    @staticmethod
    def read(table: Table) -> dict[str, Any]:
        """The values of these fields in a TOML table."""
        return {
            "letters": table.symbols("letters"),
            **{name: table.symbols(name, "") for name in ("auxiliary", "punctuation", "digits")},
            "flores": table.texts("flores", ()),
            "corpora": tuple(Corpus.from_table(corpus) for corpus in table.tables("corpora")),
            "wordfreq": table.optional_text("wordfreq"),
        }


@dataclass(frozen=True, kw_only=True)
class Writing(Written):
    """A language in one of its scripts.

    Attributes:
        script: ISO 15924 code.
        regions: Codes of the countries that use this script and not the language's usual one.
    """

    script: str
    regions: tuple[str, ...] = ()

    @classmethod
    def from_table(cls, table: Table) -> Writing:
        """Reads a `[[writings]]` section."""
        writing = cls(script=table.file_name("script"), regions=table.texts("regions", ()), **cls.read(table))
        table.finish()
        return writing


class Subtags(NamedTuple):
    """A code such as `sr-Latn`, `srp_Latn` or `zh-TW`, in its parts."""

    language: str
    script: str | None
    region: str | None


def subtags(code: str) -> Subtags:
    """The parts of a code, whatever their case and the signs between them."""
    match = _SUBTAGS.fullmatch(code.strip().casefold().replace("_", "-"))
    if match is None:
        return Subtags(code, None, None)
    script, region = match["script"], match["region"]
    return Subtags(match["language"], script and script.title(), region and region.upper())
