"""How well sentence vectors find translations (accuracy at 1) and follow people's ratings (Spearman)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from polydistill.errors import PolydistillError
from polydistill.metrics.items import Measured, check_aligned, finite, mean_of

BLOCK_ROWS = 1024  # rows of similarities at a time, so memory grows with n, not with n squared


def retrieval(
    source: npt.ArrayLike, target: npt.ArrayLike, texts: Sequence[tuple[str, str]]
) -> tuple[Measured, Measured]:
    """Accuracy at 1 of finding each sentence's translation by cosine, in both directions.

    Args:
        source: (n, d) vectors of the sentences in one language.
        target: (n, d) vectors of their translations, in the same order.
        texts: (source, target) texts of each pair.

    Returns:
        As `translations_found`.

    Raises:
        PolydistillError: There are no pairs, the shapes differ, or a vector has values that are not finite.
    """
    return translations_found(*nearest(source, target), texts)


def nearest(source: npt.ArrayLike, target: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(n,) row of the target nearest by cosine to each source, and of the source nearest to each target.

    Args:
        source: (n, d) vectors.
        target: (n, d) vectors.

    Raises:
        PolydistillError: There are no vectors, the shapes differ, or a value is not finite.
    """
    first, second = _directions(source), _directions(target)
    check_aligned(first, second, "source and target sentences")
    if first.shape != second.shape:
        raise PolydistillError(
            f"The vectors have {first.shape[1]} and {second.shape[1]} dimensions.", "Embed both with the same model."
        )
    return _nearest(first, second)


def translations_found(
    forth: npt.ArrayLike, back: npt.ArrayLike, texts: Sequence[tuple[str, str]]
) -> tuple[Measured, Measured]:
    """Accuracy at 1 of the rows that were found, in both directions.

    A found text is a hit if the data align it with the sentence anywhere: if a sentence occurs twice, with one
    translation or with two, each of them is right.

    Args:
        forth: (n,) row found for each source.
        back: (n,) row found for each target.
        texts: (source, target) texts of each pair.

    Returns:
        `accuracy_at_1` from source to target, and `accuracy_at_1_back` from target to source; rows are (hit, 1).

    Raises:
        PolydistillError: There are not as many rows as texts.
    """
    rows = [np.asarray(forth, dtype=np.int64), np.asarray(back, dtype=np.int64)]
    for found in rows:
        check_aligned(texts, found, "pairs of texts and sentences found")
    aligned = set(texts)
    hits = (
        [(own[0], texts[row][1]) in aligned for own, row in zip(texts, rows[0], strict=True)],
        [(texts[row][0], own[1]) in aligned for own, row in zip(texts, rows[1], strict=True)],
    )
    return mean_of("accuracy_at_1", None, hits[0]), mean_of("accuracy_at_1_back", None, hits[1])


def _directions(vectors: npt.ArrayLike) -> np.ndarray:
    """(n, d) vectors of length 1, in at least single precision; a zero vector stays one."""
    raw = finite(vectors, "sentence vectors", dimensions=2)
    rows = raw.astype(np.result_type(raw.dtype, np.float32), copy=False)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def _nearest(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) nearest row of the second for each of the first, and the other way round; the lower row wins a tie."""
    forth, back = np.empty(len(first), dtype=np.int64), np.zeros(len(second), dtype=np.int64)
    best = np.full(len(second), -np.inf)
    columns = np.arange(len(second))
    for start in range(0, len(first), BLOCK_ROWS):
        cosines = first[start : start + BLOCK_ROWS] @ second.T
        forth[start : start + BLOCK_ROWS] = cosines.argmax(axis=1)
        rows = cosines.argmax(axis=0)
        top = cosines[rows, columns]
        better = top > best
        back[better], best[better] = start + rows[better], top[better]
    return forth, back


def spearman(predicted: npt.ArrayLike, gold: npt.ArrayLike) -> Measured:
    """Spearman's rank correlation; equal scores share their mean rank.

    Args:
        predicted: (n,) scores, such as cosines.
        gold: (n,) ratings.

    Returns:
        `spearman`, from -1 to 1, 0 if all predictions are equal; the rows are (predicted, gold).

    Raises:
        PolydistillError: There are fewer than two pairs, not as many predictions, all ratings are equal, or a score is
            not finite.
    """
    own = finite(predicted, "similarities", dimensions=1).astype(np.float64)
    true = finite(gold, "gold scores", dimensions=1).astype(np.float64)
    check_aligned(true, own, "gold and predicted similarities")
    if (true == true[0]).all():
        raise PolydistillError(
            "All gold scores are equal, so no correlation with them is defined.", "Give more pairs, with their scores."
        )
    return Measured("spearman", None, np.stack([own, true], axis=1), rank_correlation, sums=False)


def rank_correlation(items: np.ndarray) -> np.ndarray:
    """(..., n, 2) scores -> (...) Spearman's correlation, 0 if one of the two is constant."""
    from scipy.stats import rankdata

    ranks = rankdata(items, axis=-2)
    ranks -= (items.shape[-2] + 1) / 2
    first, second = ranks[..., 0], ranks[..., 1]
    products = np.sqrt((first**2).sum(-1) * (second**2).sum(-1))
    together = np.asarray((first * second).sum(-1))
    return np.divide(together, products, out=np.zeros_like(together), where=products > 0)
