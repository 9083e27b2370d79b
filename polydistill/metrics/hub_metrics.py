"""The same metrics for users of the library `evaluate`, whose own `evaluate.load` fetches code from the network.

    EntityF1("strict-iob2").compute(predictions=[["B-PER"]], references=[["B-PER"]])

Only this module imports `evaluate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from polydistill.catalog import Language
from polydistill.errors import UsageError
from polydistill.metrics.accuracy import accuracy
from polydistill.metrics.answers import NORMALISATIONS, answer_scores
from polydistill.metrics.entities import entity_f1
from polydistill.metrics.stored import ENTITY_SCHEMES


def _info(description: str, prediction: Any, reference: Any) -> evaluate.MetricInfo:
    return evaluate.MetricInfo(
        description=description,
        citation="",
        features=datasets.Features({"predictions": prediction, "references": reference}),
    )


def _text() -> Any:
    return datasets.Value("string")


def _texts() -> Any:
    return datasets.Sequence(datasets.Value("string"))


class Accuracy(evaluate.Metric):
    """Accuracy of label names: `{"accuracy": ...}`, from 0 to 1."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("The share of items that get their gold label.", _text(), _text())

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        return {"accuracy": accuracy(references, predictions).value}


class EntityF1(evaluate.Metric):
    """Micro entity F1 of IOB2 tags, one list a sentence: `{"f1": ...}`, from 0 to 1.

    Args:
        scheme: `conlleval` or `strict-iob2`.
        kwargs: What `evaluate.Metric` takes, such as `cache_dir`.

    Raises:
        UsageError: The scheme is unknown.
    """

    def __init__(self, scheme: str = "conlleval", **kwargs: Any) -> None:
        super().__init__(config_name=_known(scheme, ENTITY_SCHEMES, "entity scoring"), **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return _info("Micro-averaged F1 of entities.", _texts(), _texts())

    def _compute(self, predictions: Sequence[list[str]], references: Sequence[list[str]]) -> dict[str, float]:
        return {"f1": entity_f1(references, predictions, self.config_name).value}


class AnswerScores(evaluate.Metric):
    """EM and F1 of extracted answers, a list of references each: `{"exact_match": ..., "f1": ...}`, from 0 to 1.

    Args:
        normalisation: `squad` or `mlqa`.
        language: The context's language, or a name of it.
        kwargs: What `evaluate.Metric` takes, such as `cache_dir`.

    Raises:
        UsageError: The normalisation is unknown.
    """

    def __init__(self, normalisation: str = "squad", language: Language | str = "en", **kwargs: Any) -> None:
        super().__init__(config_name=_known(normalisation, NORMALISATIONS, "normalisation of answers"), **kwargs)
        self.language = language

    def _info(self) -> evaluate.MetricInfo:
        return _info("Exact match and token F1 of answers, the best over the references.", _text(), _texts())

    def _compute(self, predictions: Sequence[str], references: Sequence[list[str]]) -> dict[str, float]:
        exact, overlap = answer_scores(predictions, references, self.language, self.config_name)
        return {"exact_match": exact.value, "f1": overlap.value}


def _known(name: str, names: Sequence[str], what: str) -> str:
    if name not in names:
        raise UsageError(f"Unknown {what} '{name}'.", f"Known are {' and '.join(names)}.")
    return name
