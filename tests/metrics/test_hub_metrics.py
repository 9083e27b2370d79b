from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from polydistill.errors import UsageError
from polydistill.metrics.hub_metrics import Accuracy, AnswerScores, EntityF1


def test_accuracy_in_batches(tmp_path: Path) -> None:
    metric = Accuracy(cache_dir=str(tmp_path))
    metric.add_batch(predictions=["a", "b"], references=["a", "a"])
    metric.add(prediction="a", reference="a")
    assert metric.compute() == {"accuracy": pytest.approx(2 / 3)}


def test_entities_in_both_scorings(tmp_path: Path) -> None:
    tags = {"references": [["B-PER", "I-PER", "O", "B-LOC"]], "predictions": [["I-PER", "I-PER", "O", "B-LOC"]]}
    assert EntityF1(cache_dir=str(tmp_path)).compute(**tags) == {"f1": 1}
    assert EntityF1("strict-iob2", cache_dir=str(tmp_path)).compute(**tags) == {"f1": pytest.approx(2 / 3)}


def test_answers_in_both_normalisations(tmp_path: Path) -> None:
    answers = {"predictions": ["der alte Mann"], "references": [["Mann", "alte Mann"]]}
    assert AnswerScores(cache_dir=str(tmp_path)).compute(**answers) == {"exact_match": 0, "f1": pytest.approx(0.8)}
    assert AnswerScores("mlqa", "de", cache_dir=str(tmp_path)).compute(**answers) == {"exact_match": 1, "f1": 1}


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="'strict'"):
        EntityF1("strict")
    with pytest.raises(UsageError, match="'v2'"):
        AnswerScores("v2")


def test_only_this_module_imports_evaluate_and_scipy_waits_until_it_is_needed() -> None:
    code = (
        "import sys, polydistill.metrics.answers, polydistill.metrics.accuracy, polydistill.metrics.entities,"
        " polydistill.metrics.similarity, polydistill.metrics.loyalty, polydistill.metrics.paired\n"
        "print(sorted({'evaluate', 'scipy', 'torch', 'datasets'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
