"""Inputs to compare networks on: a user's text, a task's, or a few sentences that come with the package."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from polydistill.catalog import Language
from polydistill.labelled.examples import LabelledSplit, TaggedExample, TextExample
from polydistill.texts.sources import first_lines
from polydistill.training.batching import MODEL_KEYS, Feature

INPUTS = 64
LONGEST = 512  # tokens of an input; longer ones take long and show nothing new
SENTENCES = {
    "ar": "يغادر القطار في السابعة صباحا.|أين وضعت أختي الكتاب الأزرق؟|كان الجو باردا، لكن الأطفال لعبوا في الحديقة.",
    "de": "Der Zug fährt um sieben Uhr ab.|Wo hat Anna das blaue Buch hingelegt?|Es war kalt, aber die Kinder spielten "
    "im Garten.",
    "en": "The train leaves at seven in the morning.|Where did Anna put the blue book?|It was cold, but the children "
    "played in the garden.",
    "es": "El tren sale a las siete de la mañana.|¿Dónde puso Ana el libro azul?|Hacía frío, pero los niños jugaban en "
    "el jardín.",
    "fr": "Le train part à sept heures du matin.|Où Anne a-t-elle mis le livre bleu ?|Il faisait froid, mais les "
    "enfants jouaient dans le jardin.",
    "hi": "रेलगाड़ी सुबह सात बजे जाती है।|नीली किताब कहाँ है?|ठंड थी, लेकिन बच्चे बगीचे में खेल रहे थे।",
    "it": "Il treno parte alle sette di mattina.|Dove ha messo Anna il libro blu?|Faceva freddo, ma i bambini "
    "giocavano in giardino.",
    "pt": "O trem parte às sete da manhã.|Onde Ana colocou o livro azul?|Fazia frio, mas as crianças brincavam no "
    "jardim.",
    "ro": "Trenul pleacă la șapte dimineața.|Unde a pus Ana cartea albastră?|Era frig, dar copiii se jucau în grădină.",
    "ru": "Поезд уходит в семь часов утра.|Куда Анна положила синюю книгу?|Было холодно, но дети играли в саду.",
    "sw": "Treni inaondoka saa moja asubuhi.|Anna aliweka wapi kitabu cha bluu?|Kulikuwa na baridi, lakini watoto "
    "walicheza bustanini.",
    "tr": "Tren sabah yedide kalkıyor.|Ayşe mavi kitabı nereye koydu?|Hava soğuktu ama çocuklar bahçede oynadı.",
    "zh": "火车早上七点出发。|安娜把蓝色的书放在哪里了？|天气很冷，但是孩子们在花园里玩。",
}

Texts = list[tuple[str, str | None]]


@dataclass(frozen=True)
class Sample:
    """Texts to compare networks on.

    Args:
        texts: Each one text, or two that are read together.
        facts: What a record says of where they are from.
    """

    texts: Texts
    facts: list[dict[str, Any]]


def sample_of(
    paths: Sequence[str], splits: Sequence[LabelledSplit], languages: Sequence[Language], *, pairs: bool
) -> Sample:
    """At most 64 texts: of the user's files if there are any, else of a task's data, else those of the package.

    Args:
        paths: Files of text, as `polydistill trim` takes them.
        splits: Data of a task.
        languages: What the model is for; those that the package has no sentences in are shown by their letters, and a
            model that is for none in particular is shown all sentences.
        pairs: Whether the model reads two texts together; each line is then read with the next.

    Raises:
        PolydistillError: A file cannot be read.
    """
    if splits and not paths:
        texts = [text for split in splits for text in _spread([_text(e, pairs) for e in split.examples])]
        data = [split.facts() for split in splits]
        return Sample(_spread(texts), data)
    groups = [("und", path, first_lines(path)) for path in paths]
    if not groups:
        codes = [language.code for language in languages] or list(SENTENCES)
        groups = [(code, "sentences of polydistill", SENTENCES[code].split("|")) for code in codes if code in SENTENCES]
        others = [language for language in languages if language.code not in SENTENCES]
        groups += [(lang.code, "its letters", _letters(lang)) for lang in others]
    lines = _spread([line for _, _, found in groups for line in found if line.strip()])
    return Sample(
        [(a, b if pairs else None) for a, b in zip(lines, [*lines[1:], *lines[:1]], strict=True)],
        [
            {
                "language": code,
                "where": where,
                "lines": len(found),
                "bytes": sum(len(x.encode()) + 1 for x in found),
                "sha256": hashlib.sha256("\n".join(found).encode()).hexdigest(),
            }
            for code, where, found in groups
        ],
    )


def _letters(language: Language) -> list[str]:
    """Its name for itself, and its letters in groups, as words are."""
    letters = list(language.letters)
    words = ["".join(letters[i : i + 4]) for i in range(0, len(letters), 4)]
    return [language.native_name, *(" ".join(words[i : i + 6]) for i in range(0, len(words), 6))]


def _spread(items: Sequence[Any]) -> list[Any]:
    """At most 64 of them, evenly spread."""
    places = np.linspace(0, len(items) - 1, min(INPUTS, len(items))).astype(int)
    return [items[i] for i in places]


def _text(example: Any, pairs: bool) -> tuple[str, str | None]:
    """What a model reads of an example: one text, or two."""
    if isinstance(example, TaggedExample):
        return " ".join(example.tokens), None
    if isinstance(example, TextExample):
        return example.text, None
    _, first, second, *_ = astuple(example)
    return first, second if pairs else None


def features_of(tokenizer: Any, sample: Sample, longest: int) -> list[Feature]:
    """The inputs of a sample.

    Args:
        tokenizer: The model's.
        sample: The texts.
        longest: Most tokens of an input.
    """
    options = {"truncation": True, "max_length": min(longest, LONGEST), "verbose": False}
    return [dict(tokenizer(*filter(None, text), **options)) for text in sample.texts]


def extremes_of(features: Sequence[Feature], longest: int) -> list[Feature]:
    """The shortest and the longest input that a model takes, of the tokens of others: one token, and all there can be.

    Args:
        features: Inputs, at least one of them with a token.
        longest: Most tokens of an input.
    """
    joined = {key: [i for f in features for i in f[key]] for key in MODEL_KEYS if key in features[0]}
    most = min(longest, LONGEST)
    rows = {key: (values * (most // len(values) + 1))[:most] for key, values in joined.items()}
    return [{key: values[:1] for key, values in rows.items()}, rows]
