"""Exact match and F1 of extracted answers, and the averages of a matrix of question and context languages.

Two normalisations are in use and every score says which it is. `squad` is SQuAD v1.1's (Rajpurkar et al. 2016), made
for English: lower case, no ASCII punctuation, none of a, an and the. `mlqa` is MLQA's (Lewis et al. 2020): the
context's language decides, all Unicode punctuation goes, and each language's file says in `qa_normaliser` what else:

    words: a an the      these whole words are dropped
    anywhere: ال         these letters become a space wherever they are, within words too
    characters           every character from U+4E00 to U+9FA5 is a token of its own

A language without a rule keeps all its words, and its tokens are separated by spaces.

Both compare composed text (Unicode's NFC), so accents encoded in different ways do not make different answers. The
public scripts compare code points: they give the same scores wherever predictions and references are in NFC already.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from polydistill import catalog
from polydistill.catalog import Language
from polydistill.errors import PolydistillError, UsageError
from polydistill.metrics.items import Measured, check_aligned, mean_of

NORMALISATIONS = ("squad", "mlqa")
Normaliser = Callable[[str], list[str]]


def answer_scores(
    predictions: Sequence[str], references: Sequence[Sequence[str]], language: Language | str, normalisation: str
) -> tuple[Measured, Measured]:
    """Exact match and token F1, each the best over a question's references.

    As in the public scripts, an answer that normalisation leaves empty has F1 0, even against another such answer.

    Args:
        predictions: One answer per question.
        references: The right answers of each question, at least one.
        language: The context's language, or a name of it; `squad` does not look at it.
        normalisation: `squad` or `mlqa`.

    Returns:
        `exact_match` and `f1`, from 0 to 1; the rows are (score, 1).

    Raises:
        PolydistillError: There are no questions, not as many predictions, or a question without a reference.
        UsageError: The normalisation or the language is unknown.
    """
    check_aligned(references, predictions, "questions and predicted answers")
    normalise = normaliser(language, normalisation)
    exact, overlap = [], []
    for number, (prediction, answers) in enumerate(zip(predictions, references, strict=True), 1):
        if not answers:
            raise PolydistillError(f"Question {number} has no reference answer.", "Leave it out of the file.")
        own = normalise(prediction)
        right = [normalise(answer) for answer in answers]
        exact.append(own in right)
        overlap.append(max(_token_f1(own, true) for true in right))
    return mean_of("exact_match", normalisation, exact), mean_of("f1", normalisation, overlap)


def _token_f1(own: list[str], true: list[str]) -> float:
    common = (Counter(own) & Counter(true)).total()
    return 2 * common / (len(own) + len(true)) if common else 0.0


def normaliser(language: Language | str, normalisation: str) -> Normaliser:
    """How answers become tokens.

    Args:
        language: The context's language, or a name of it.
        normalisation: `squad` or `mlqa`.

    Returns:
        text -> tokens; two answers match exactly if their tokens are equal.

    Raises:
        UsageError: The normalisation or the language is unknown.
        PolydistillError: The rule in the language's file cannot be read.
    """
    if normalisation == "squad":
        return lambda text: _squad(_composed(text))
    if normalisation != "mlqa":
        raise UsageError(
            f"Unknown normalisation of answers '{normalisation}'.", f"Known are {' and '.join(NORMALISATIONS)}."
        )
    spoken = catalog.language(language) if isinstance(language, str) else language
    rule = _rule(spoken)
    return lambda text: rule(_without_punctuation(_composed(text).lower()))


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


_ENGLISH_ARTICLES = re.compile(r"\b(a|an|the)\b")
_DROP_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_HAN = re.compile("([\u4e00-\u9fa5])")


def _squad(text: str) -> list[str]:
    return _ENGLISH_ARTICLES.sub(" ", text.lower().translate(_DROP_ASCII_PUNCTUATION)).split()


def _without_punctuation(text: str) -> str:
    """Without Unicode's punctuation and ASCII's, such as $ and +."""
    return "".join(c for c in text if c not in string.punctuation and not unicodedata.category(c).startswith("P"))


def _rule(language: Language) -> Normaliser:
    """What a language's file says beyond lower case and punctuation."""
    if language.qa_normaliser is None:
        return str.split
    kind, _, listed = language.qa_normaliser.partition(":")
    forms = "|".join(re.escape(form) for form in _composed(listed.lower()).split())
    if kind == "words" and forms:
        dropped = re.compile(rf"\b({forms})\b")
        return lambda text: dropped.sub(" ", text).split()
    if kind == "anywhere" and forms:
        dropped = re.compile(forms)
        return lambda text: dropped.sub(" ", text).split()
    if language.qa_normaliser == "characters":
        return lambda text: _HAN.sub(r" \1 ", text).split()
    raise PolydistillError(
        f"The language {language.code} has the unknown qa_normaliser '{language.qa_normaliser}'.",
        "Write 'words: a an the', 'anywhere: ...' or 'characters'.",
    )


def g_xlt(matrix: npt.ArrayLike) -> tuple[float, float]:
    """The two cross-lingual averages of MLQA.

    Args:
        matrix: (L, L) scores; row: the question's language, column: the context's, in the same order.

    Returns:
        XLT, the mean of the diagonal, and G-XLT, the mean of all that lies off it.

    Raises:
        PolydistillError: It is not square, has holes, or has fewer than two languages.
    """
    scores = np.asarray(matrix, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or len(scores) < 2 or not np.isfinite(scores).all():
        raise PolydistillError(
            "G-XLT needs the score of every question language with every context language, at least two of them.",
            "Evaluate the missing pairs.",
        )
    same = np.eye(len(scores), dtype=bool)
    return float(scores[same].mean()), float(scores[~same].mean())
