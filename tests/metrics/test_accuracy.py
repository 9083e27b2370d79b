from __future__ import annotations

import subprocess
import sys

import pytest

from polydistill.errors import PolydistillError
from polydistill.metrics.accuracy import accuracy


def test_accuracy_is_the_share_of_right_labels() -> None:
    found = accuracy(["yes", "no", "no", "maybe"], ["yes", "no", "yes", "no"])
    assert (found.value, found.metric, found.normalisation) == (0.5, "accuracy", None)
    assert found.items.tolist() == [[1, 1], [1, 1], [0, 1], [0, 1]]


@pytest.mark.parametrize(("gold", "predicted"), [([], []), (["a"], []), (["a"], ["a", "a"])])
def test_labels_that_do_not_pair_up_are_refused(gold: list[str], predicted: list[str]) -> None:
    with pytest.raises(PolydistillError, match="gold and predicted labels"):
        accuracy(gold, predicted)


def test_metrics_import_neither_torch_nor_scipy() -> None:
    code = (
        "import sys, polydistill.metrics.answers, polydistill.metrics.accuracy, polydistill.metrics.entities,"
        " polydistill.metrics.similarity, polydistill.metrics.loyalty, polydistill.metrics.paired\n"
        "print(sorted({'scipy', 'torch', 'datasets'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
