from __future__ import annotations

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
