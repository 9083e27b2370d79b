from __future__ import annotations

import orjson
import pytest

from polydistill.errors import PolydistillError
from polydistill.metrics.accuracy import accuracy
from polydistill.metrics.answers import answer_scores
from polydistill.metrics.entities import entity_f1
from polydistill.metrics.items import Measured
from polydistill.metrics.loyalty import label_loyalty, probability_loyalty, regression_loyalty
from polydistill.metrics.paired import interval, paired_difference
from polydistill.metrics.similarity import spearman, translations_found
from polydistill.metrics.stored import restore

TAGS = [["B-A", "I-A"], ["O", "I-B"], ["O"]], [["I-A", "I-A"], ["O", "B-B"], ["B-B"]]
TEXTS = [("a", "A"), ("b", "B"), ("c", "C")]
EVERY = [
    accuracy(["a", "b", "b"], ["a", "a", "b"]),
    entity_f1(*TAGS, "conlleval"),
    entity_f1(*TAGS, "strict-iob2"),
    *answer_scores(["a b", "c"], [["b c"], ["c"]], "ro", "squad"),
    *answer_scores(["a b", "c"], [["b c"], ["c"]], "ro", "mlqa"),
    *translations_found([1, 1, 2], [0, 2, 0], TEXTS),
    spearman([0.1, 0.2, 0.4, 0.3], [1, 2, 3, 4]),
    label_loyalty(["a", "b"], ["a", "a"]),
    probability_loyalty([[0.9, 0.1], [0.5, 0.5]], [[0.6, 0.4], [0.5, 0.5]]),
    regression_loyalty([1, 2, 3], [1, 3, 2]),
]


@pytest.mark.parametrize("measured", EVERY, ids=lambda m: f"{m.metric}-{m.normalisation}")
def test_a_metric_comes_back_from_its_numbers_as_json(measured: Measured) -> None:
    stored = orjson.loads(orjson.dumps(measured.items.tolist()))
    back = restore(measured.metric, measured.normalisation, stored)
    assert (back.value, back.sums) == (measured.value, measured.sums)
    assert (back.metric, back.normalisation) == (measured.metric, measured.normalisation)
    assert interval(back, resamples=100) == interval(measured, resamples=100)
    assert paired_difference(back, measured, resamples=100).interval == (0, 0)
    assert -1 <= measured.value <= 1


@pytest.mark.parametrize(
    "rows", [[], [[1, 1, 1]], [1, 1], [[1, float("nan")]], [[1, 1], [1]], [["a", "b"]], [[None, 1]], {}, None]
)
def test_damaged_numbers_are_refused(rows: object) -> None:
    with pytest.raises(PolydistillError, match="numbers of accuracy are damaged"):
        restore("accuracy", None, rows)  # type: ignore[arg-type]


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(PolydistillError, match="'bleu'"):
        restore("bleu", None, [[1, 1]])
