"""What teaches a stack: least squares, the share of variance left unexplained, losses, vectors kept on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from polydistill.distill.loss import DistilLoss, label_loss
from polydistill.distill.stacking import (
    input_means,
    least_squares,
    text_features,
    unexplained_variance,
    vector_loss,
    vectors,
)
from polydistill.models.pooling import mean_pooled, pooled
from polydistill.progress import SILENT
from polydistill.stacks.folder import LoadedStack
from polydistill.stacks.network import Stack, StackOutput
from polydistill.training.facts import TrainingFacts


def test_pooling_by_hand() -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]], [[5.0, 6.0], [7.0, 8.0], [9.0, 1.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert torch.equal(mean_pooled(hidden, mask), torch.tensor([[2.0, 3.0], [7.0, 5.0]]))
    assert torch.equal(pooled(hidden, mask, "mean"), mean_pooled(hidden, mask))
    assert torch.equal(pooled(hidden, mask, "first"), torch.tensor([[1.0, 2.0], [5.0, 6.0]]))
    assert torch.equal(pooled(hidden, mask, "last"), torch.tensor([[3.0, 4.0], [9.0, 1.0]]))


def test_unexplained_variance_by_hand() -> None:
    wanted = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]], np.float32)  # variance: 4 x (1 + 1) = 8
    assert unexplained_variance(wanted, wanted) == 0
    assert unexplained_variance(np.ones_like(wanted), wanted) == 1  # as good as the mean
    off = wanted.copy()
    off[0] = (1.0, 1.0)
    assert unexplained_variance(off, wanted) == 0.25


def test_least_squares_finds_a_linear_map() -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(5, 3)), rng.normal(size=3)
    inputs = rng.normal(size=(400, 5)) * [1, 2, 3, 0.5, 1] + 7
    wanted = inputs @ weight + bias
    found = least_squares(inputs[:300], wanted[:300], inputs[300:], wanted[300:])
    assert found.penalty == 1e-6  # nothing to shrink
    assert found.unexplained < 1e-6
    assert np.allclose(found.weight, weight, atol=1e-3) and np.allclose(found.bias, bias, atol=1e-2)
    network = Stack(None, torch.nn.Linear(5, 3), None)
    network.begin_with(found.weight, found.bias)
    states = torch.tensor(inputs, dtype=torch.float32)[:, None]
    with torch.no_grad():
        through = network.through(states, torch.ones(len(inputs), 1))[:, 0]
    assert np.allclose(through.numpy(), wanted, atol=1e-2)


def test_the_penalty_is_chosen_on_held_out_rows() -> None:
    rng = np.random.default_rng(1)
    inputs, noise = rng.normal(size=(60, 40)), rng.normal(size=(60, 2))  # nothing to learn, and little to learn it from
    found = least_squares(inputs[:45], noise[:45], inputs[45:], noise[45:])
    assert found.penalty >= 1.0
    plain = np.linalg.lstsq(inputs[:45], noise[:45], rcond=None)[0]
    assert found.unexplained < unexplained_variance(inputs[45:] @ plain, noise[45:])


class _Fixed(torch.nn.Module):
    """Gives the same vectors and logits for any batch."""

    def __init__(self, vectors: list[list[float]], logits: list[list[float]]) -> None:
        super().__init__()
        self.vectors, self.logits = torch.nn.Parameter(torch.tensor(vectors)), torch.tensor(logits)

    def forward(self, **_: Any) -> StackOutput:
        return StackOutput(self.vectors, self.logits)


def test_vector_loss_by_hand() -> None:
    batch = {
        "input_ids": torch.zeros(2, 1),
        "attention_mask": torch.ones(2, 1),
        "example": torch.tensor([2, 0]),
        "labels": torch.tensor([0, 1]),
    }
    wanted = np.array([[0.0, 0.0], [9.0, 9.0], [2.0, 2.0], [1.0, 1.0]], np.float32)  # mean 3; variance 2 x 50 / 4 = 25
    network = _Fixed([[2.0, 3.0], [1.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]])
    loss = of_vectors(network, wanted)
    value, terms = loss(network, batch, lambda value: value)
    assert value.item() == pytest.approx((1 + (1 + 4)) / 2 / 25)  # row 2 is off by (0, 1), row 0 by (1, 2)
    assert terms == {"vectors": pytest.approx(value.item())}
    value.backward()
    assert network.vectors.grad is not None and float(network.vectors.grad[0, 0]) == 0
    assert {name: float(value) for name, value in loss.state().items() if "variance" in name} == {
        "objectives/vectors.variance": pytest.approx(25)
    }
    value, terms = label_loss(network)(network, batch, lambda value: value)
    assert value.item() == pytest.approx(np.log(2)) and set(terms) == {"labels"}


def of_vectors(network: Any, wanted: np.ndarray) -> DistilLoss:
    """The loss as it is when training begins; it has looked at the teacher's vectors in batches of three."""
    loss = vector_loss(LoadedStack(network, None, None), wanted)  # type: ignore[arg-type]
    loss.begin(TrainingFacts(1, 1))
    loss.look({"example": places} for places in torch.arange(len(wanted)).split(3))
    return loss


def test_vectors_that_are_all_the_same_have_the_variance_1() -> None:
    network = _Fixed([[0.1, 0.2], [0.1, 0.2]], [[0.0, 0.0], [0.0, 0.0]])
    loss = of_vectors(network, np.full((7, 2), 0.1, np.float32))
    batch = {"input_ids": torch.zeros(2, 1), "attention_mask": torch.ones(2, 1), "example": torch.tensor([2, 0])}
    assert float(loss(network, batch, lambda value: value)[0]) == pytest.approx(0.01)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An LLM alone."""
    from polydistill.models.refs import ModelRef, resolve
    from polydistill.stacks.description import Description, Parent
    from polydistill.stacks.folder import build

    folder = tiny.model_folder("bert", "base", tmp_path_factory.mktemp("llm") / "llm")
    part = Parent.of(resolve(ModelRef.parse(str(folder))), "float32")
    return build(Description(None, part, (0, 0, 0), None, 64), None, folder)


def test_vectors_are_kept_under_what_they_depend_on(
    alone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path))
    texts = ["The red house.", "A letter from London", "42 apples!"]
    features = text_features(alone, texts)
    first = vectors(alone, features, facts={"llm": "a"}, progress=SILENT)
    kept = list((tmp_path / "vectors").iterdir())
    assert len(kept) == 1 and kept[0].stat().st_size == 32 + first.nbytes
    whole, other = kept[0].read_bytes(), (first + 1).astype(np.float32).tobytes()
    kept[0].write_bytes(hashlib.sha256(other).digest() + other)
    assert np.array_equal(vectors(alone, features, facts={"llm": "a"}, progress=SILENT), first + 1)  # it was read
    for others, facts in ((features, {"llm": "b"}), (features[::-1], {"llm": "a"}), (features[:2], {"llm": "a"})):
        found = vectors(alone, others, facts=facts, progress=SILENT)
        wanted = vectors(alone, others, progress=SILENT)
        assert np.array_equal(found, wanted)
    flipped = bytes([*whole[:50], whole[50] ^ 1, *whole[51:]])
    for broken in (b"abc", whole[: len(whole) // 2], b"", flipped, whole[:32] + other):  # it is made again
        kept[0].write_bytes(broken)
        assert np.array_equal(vectors(alone, features, facts={"llm": "a"}, progress=SILENT), first)


def test_vectors_are_means_of_states_and_of_embeddings(alone: Any) -> None:
    features = text_features(alone, ["The red house.", "A letter from London with bread and milk"])
    llm = alone.network.llm
    for feature, vector, mean in zip(
        features, vectors(alone, features, progress=SILENT), input_means(llm, features), strict=True
    ):
        ids = torch.tensor([feature["input_ids"]])
        with torch.no_grad():
            states = llm(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        assert np.allclose(vector, states.mean(0).numpy(), atol=1e-5)
        assert np.allclose(mean, llm.embeddings.word_embeddings.weight[ids[0]].mean(0).detach().numpy(), atol=1e-6)
