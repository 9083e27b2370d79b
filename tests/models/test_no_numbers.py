"""NaN and infinity, wherever they come from, end in one sentence: they are equal to nothing and no label."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from polydistill.distill.loss import label_loss
from polydistill.distill.signals import HIDDEN, LOGITS, Signal
from polydistill.distill.stacking import least_squares
from polydistill.distill.teachers.frozen import FrozenTeacher
from polydistill.errors import PolydistillError
from polydistill.evaluation import classification, retrieval
from polydistill.evaluation.heads import TaskModel, new_head
from polydistill.labelled.examples import PairExample
from polydistill.progress import SILENT
from polydistill.training.batching import run
from polydistill.training.loop import Schedule, train

TEXTS = tiny.sentences("en", count=4)
PAIRS = [PairExample(str(i), text, "Nobody wants it.", "ab"[i % 2]) for i, text in enumerate(TEXTS)]
BROKEN = pytest.mark.parametrize("value", [np.nan, np.inf])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model_folder("bert", "base", tmp_path_factory.mktemp("m") / "m", size=120)


def broken_model(folder: Path, value: float) -> TaskModel:
    """A model of pairs with one weight that is no number."""
    model = new_head(folder, "classification", ("a", "b"), seed=0)
    with torch.no_grad():
        model.network.classifier.weight[0, 0] = value
    return model


@BROKEN
def test_a_model_that_computes_no_numbers_gives_no_labels(value: float, folder: Path) -> None:
    with pytest.raises(PolydistillError, match="outputs are not numbers") as stop:
        classification.predict(broken_model(folder, value), PAIRS, batch_size=4)
    assert stop.value.hint


def test_minus_infinity_is_what_a_model_never_says(folder: Path) -> None:
    model = broken_model(folder, 0.0)
    features = classification.features(model, PAIRS)

    def masked(output: Any) -> list[torch.Tensor]:
        return [output.logits.masked_fill(torch.tensor([True, False]), -torch.inf)]

    rows = run(model.network, model.tokenizer, features, 4, masked, positions=False)
    assert all(row[0] == -np.inf and np.isfinite(row[1]) for (row,) in rows)


@BROKEN
def test_sentence_vectors_that_are_no_numbers_are_neither_near_nor_far(value: float) -> None:
    network = SimpleNamespace(device=torch.device("cpu"), encode=lambda texts, **_: np.full((len(texts), 3), value))
    with pytest.raises(PolydistillError, match="outputs are not numbers"):
        retrieval.vectors(TaskModel(network, None, (), 8), ["a", "b"], 2)


@pytest.mark.parametrize("signal", [Signal(HIDDEN, 1), Signal(LOGITS)])
def test_nothing_is_learnt_from_a_teacher_that_computes_no_numbers(signal: Signal, folder: Path) -> None:
    model = broken_model(folder, np.nan)
    with torch.no_grad():
        model.network.bert.encoder.layer[0].output.dense.bias[0] = torch.nan
    teacher = FrozenTeacher(model.network, [signal], labels=model.labels, wanted=("a", "b"))
    batch = model.tokenizer(["Nobody sees."], return_tensors="pt")
    with pytest.raises(PolydistillError, match=f"The teacher's {signal.kind} is NaN"):
        teacher.signals(dict(batch))


@BROKEN
@pytest.mark.parametrize("which", range(4))
def test_a_linear_map_is_not_fitted_to_what_is_no_number(which: int, value: float) -> None:
    rows = [np.random.default_rng(i).normal(size=(6, 3)) for i in range(4)]
    rows[which][2, 1] = value
    with pytest.raises(PolydistillError, match="NaN or infinite"):
        least_squares(*rows)


def test_a_training_that_begins_with_no_numbers_stops_at_its_first_step(folder: Path, tmp_path: Path) -> None:
    model = broken_model(folder, np.nan)
    features = classification.training_features(model, PAIRS)
    with pytest.raises(PolydistillError, match=r"not a number from the first step on: its term .* is nan") as stop:
        train(
            model.network,
            model.tokenizer,
            features,
            lambda _: pytest.fail("it was scored"),
            Schedule(epochs=1, lr=1e-3, batch_size=2),
            tmp_path / "work",
            SILENT,
            step_loss=label_loss(model.network),
        )
    assert "fetch or save it again" in stop.value.hint


def test_a_training_whose_loss_is_lost_on_the_way_says_so(folder: Path, tmp_path: Path) -> None:
    model = broken_model(folder, 0.0)
    features = classification.training_features(model, PAIRS)
    with pytest.raises(PolydistillError, match=r"no longer a number: its term .* is nan\. The last good"):
        train(
            model.network,
            model.tokenizer,
            features,
            lambda _: 0.0,
            Schedule(epochs=3, lr=1e38, batch_size=2, warmup=0.0, checks=1),
            tmp_path / "work",
            SILENT,
            step_loss=label_loss(model.network),
        )
