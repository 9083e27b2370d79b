"""Augmentations: mixtures, other words, and which batches are changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from polydistill.distill.augmentation.base import AUGMENTED, Augmentation, Augmenting
from polydistill.distill.augmentation.contextual import Contextual, ContextualOptions
from polydistill.distill.augmentation.hard import CANDIDATES, Hard, HardOptions
from polydistill.distill.augmentation.mixup import MIXED, SHARE, Mixup
from polydistill.distill.augmentation.words import Words, WordsOptions
from polydistill.distill.loss import DistilLoss
from polydistill.distill.objectives.base import Weighted
from polydistill.distill.objectives.logits import Logits
from polydistill.distill.observer import Observer
from polydistill.distill.signals import LOGITS, Batch, Signal, Signals
from polydistill.distill.teachers.base import Teacher
from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation import tagging
from polydistill.evaluation.heads import TaskModel, new_head
from polydistill.labelled.examples import TaggedExample
from polydistill.models.loading import load_tokenizer
from polydistill.training.loop import collator

TAGS = ("O", "B-PER", "I-PER")
TEXTS = tiny.sentences("en", "sw", count=12)


@pytest.fixture(scope="module", params=["xlm-roberta", "bert"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TaskModel:
    folder = tmp_path_factory.mktemp(request.param) / "m"
    tiny.model_folder("bert", "base", folder, tokenizer=request.param)
    return new_head(folder, "tagging", TAGS, seed=0)


def batch_of(model: TaskModel) -> dict[str, Any]:
    words = [tuple(text.split()) for text in TEXTS]
    examples = [TaggedExample(str(i), w, tuple(TAGS[j % 3] for j in range(len(w)))) for i, w in enumerate(words)]
    features = [{**f, "example_id": i} for i, f in enumerate(tagging.training_features(model, examples))]
    return collator(model.tokenizer, about=True)(features)


def pairs(model: TaskModel, batch: dict[str, Any], row: int) -> list[tuple[str, int]]:
    """(a word's tokens, its tag) of each word, in order."""
    count = int(batch["attention_mask"][row].sum())
    ids, words, labels = (batch[key][row][:count].tolist() for key in ("input_ids", "word_ids", "labels"))
    found: list[tuple[str, int]] = []
    for token, word, label in zip(ids, words, labels, strict=True):
        piece = str(token)
        if word >= 0:
            found.append((piece, label))
        elif found and token not in model.tokenizer.all_special_ids:
            found[-1] = (f"{found[-1][0]} {piece}", found[-1][1])
    return found


def test_words_go_with_their_tags(model: TaskModel) -> None:
    batch = batch_of(model)
    kept = {key: value.clone() for key, value in batch.items() if isinstance(value, torch.Tensor)}
    changed = Words(WordsOptions(delete=0.3, swap=0.5), tokenizer=model.tokenizer)(batch, np.random.default_rng(0))
    assert all(torch.equal(batch[key], value) for key, value in kept.items())  # the given one stays
    assert not torch.equal(changed["input_ids"], batch["input_ids"])
    for row in range(len(TEXTS)):
        before, after = pairs(model, batch, row), pairs(model, changed, row)
        assert 1 <= len(after) <= len(before) and set(after) <= set(before)
        ids, count = changed["input_ids"][row], int(changed["attention_mask"][row].sum())
        old, length = batch["input_ids"][row], int(batch["attention_mask"][row].sum())
        assert (ids[0], ids[count - 1]) == (old[0], old[length - 1])  # special tokens stay at the ends
        assert (ids[count:] == model.tokenizer.pad_token_id).all()


def test_nothing_changes_with_no_chance(model: TaskModel) -> None:
    batch = batch_of(model)
    same = Words(WordsOptions(delete=0, swap=0), tokenizer=model.tokenizer)(batch, np.random.default_rng(0))
    assert torch.equal(same["input_ids"], batch["input_ids"]) and torch.equal(same["labels"], batch["labels"])


class Linear(torch.nn.Module):
    """A model whose probabilities are linear in its embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = torch.nn.Embedding(2, 2)
        self.embeddings.weight.data = torch.tensor([[0.9, 0.1], [0.2, 0.8]])

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.embeddings

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> Any:
        return type("Output", (), {"logits": self.embeddings(input_ids).mean(1)})


def test_a_linear_model_says_the_mixture_of_what_it_says() -> None:
    """By hand, for a share of .3: .3 (.9, .1) + .7 (.2, .8) = (.41, .59)."""
    observer = Observer(Linear(), frozenset({Signal(LOGITS)}))
    batch = {"input_ids": torch.tensor([[0], [1]]), "attention_mask": torch.ones(2, 1, dtype=torch.long)}
    mixed = {**batch, MIXED: torch.tensor([1, 0]), SHARE: torch.tensor([0.3, 1.0])}
    found = observer(mixed)[Signal(LOGITS)]
    assert found[0].tolist() == pytest.approx([0.41, 0.59]) and found[1].tolist() == pytest.approx([0.2, 0.8])
    assert observer(batch)[Signal(LOGITS)][0].tolist() == pytest.approx([0.9, 0.1])  # and nothing is left behind


def test_a_mixture_has_the_positions_of_both(model: TaskModel) -> None:
    batch = batch_of(model)
    mixed = Mixup(tokenizer=model.tokenizer)(batch, np.random.default_rng(3))
    other = mixed[MIXED]
    assert sorted(other.tolist()) == list(range(len(TEXTS))) and ((mixed[SHARE] >= 0) & (mixed[SHARE] <= 1)).all()
    longest = torch.maximum(batch["attention_mask"].sum(1), batch["attention_mask"].sum(1)[other])
    assert torch.equal(mixed["attention_mask"].sum(1), longest)


class Shout(Augmentation):
    """Of a test: all tokens become one."""

    def __call__(self, batch: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
        return {**batch, "input_ids": torch.full_like(batch["input_ids"], 7)}


def test_some_batches_are_changed_and_lose_their_labels(model: TaskModel) -> None:
    features = [{**f, "example_id": i} for i, f in enumerate(tagging.training_features(model, []))]
    words = [tuple(text.split()) for text in TEXTS]
    examples = [TaggedExample(str(i), w, ("O",) * len(w)) for i, w in enumerate(words)]
    features = [{**f, "example_id": i} for i, f in enumerate(tagging.training_features(model, examples))]
    epoch = [0]
    plain = collator(model.tokenizer, about=True)
    collate = Augmenting(plain, [Shout(tokenizer=model.tokenizer)], 0.5, lambda: epoch[0], 0)

    def changed() -> list[bool]:
        found = []
        for start in range(len(features)):
            batch = collate(features[start : start + 1])
            found.append(AUGMENTED in batch)
            assert (
                (AUGMENTED in batch) == bool((batch["labels"] == -100).all()) == bool((batch["input_ids"] == 7).all())
            )
        return found

    first = changed()
    assert 0 < sum(first) < len(first) and changed() == first
    epoch[0] = 1
    assert changed() != first


def test_masked_words_are_filled_in_by_a_masked_language_model(tmp_path: Path, model: TaskModel) -> None:
    folder = tiny.model_folder("xlm-roberta", "masked-lm", tmp_path / "mlm")
    tokenizer = load_tokenizer(folder)
    batch = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    contextual = Contextual(ContextualOptions(model=str(folder), share=0.5), tokenizer=tokenizer)
    changed = contextual(dict(batch), np.random.default_rng(0))["input_ids"]
    special = torch.isin(batch["input_ids"], torch.tensor(tokenizer.all_special_ids))
    assert torch.equal(changed[special], batch["input_ids"][special])
    assert 0.1 < (changed != batch["input_ids"])[~special].float().mean() <= 0.7
    assert not torch.isin(changed[~special], torch.tensor(tokenizer.all_special_ids)).any()
    with pytest.raises(UsageError, match="has no model"):
        Contextual(tokenizer=tokenizer)
    bare = tiny.model_folder("xlm-roberta", "base", tmp_path / "bare")
    with pytest.raises(PolydistillError, match="no head for masked tokens"):
        Contextual(ContextualOptions(model=str(bare)), tokenizer=tokenizer)
    with pytest.raises(PolydistillError, match="another vocabulary"):
        Contextual(ContextualOptions(model=str(folder)), tokenizer=_cut(tokenizer))


class _Cut:
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def get_vocab(self) -> dict[str, int]:
        return {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _cut(tokenizer: Any) -> Any:
    return _Cut(tokenizer)


class Says(Teacher):
    """Likes class 0 the more, the larger the first token."""

    needs = frozenset({Signal(LOGITS)})

    def signals(self, batch: Batch) -> Signals:
        first = 3 * batch["input_ids"][:, :1].float()
        return {Signal(LOGITS): torch.cat([first, torch.zeros_like(first)], 1)}


def test_the_hardest_of_several_changes_is_trained_on() -> None:
    """The student says the same of everything, so that it differs most where the teacher is surest: at token 1."""
    network = Linear()
    network.embeddings.weight.data.zero_()
    loss = DistilLoss(network, Weighted({"logits": (Logits(), 1.0)}), Says(), None)
    mask = torch.ones(1, 1, dtype=torch.long)
    zero, one = ({"input_ids": torch.tensor([[i]]), "attention_mask": mask} for i in (0, 1))
    found = loss._hardest(network, {**zero, CANDIDATES: [one, dict(zero)]})
    assert torch.equal(found["input_ids"], one["input_ids"]) and CANDIDATES not in found


def test_all_that_are_tried_lose_their_labels(model: TaskModel) -> None:
    hard = Hard(HardOptions(tries=3), tokenizer=model.tokenizer)
    collate = Augmenting(lambda features: batch_of(model), [hard], 1.0, lambda: 0, 0)
    batch = collate([])
    assert len(batch[CANDIDATES]) == 2
    for one in (batch, *batch[CANDIDATES]):
        assert one[AUGMENTED] and (one["labels"] == -100).all()
    with pytest.raises(UsageError, match="hardest of the hardest"):
        Hard(HardOptions(change="hard"), tokenizer=model.tokenizer)
