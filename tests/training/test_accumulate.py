"""A step's batch in parts: the loss and the gradients of the whole batch, in less memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from configs import finetune, finetune_config

from polydistill.distill.loss import DistilLoss
from polydistill.distill.objectives.base import Weighted
from polydistill.distill.objectives.hidden import HiddenStates
from polydistill.distill.objectives.labels import HardLabels
from polydistill.distill.objectives.logits import Logits
from polydistill.distill.teachers.frozen import FrozenTeacher
from polydistill.evaluation.heads import new_head
from polydistill.methods.bistil.stages import _parts
from polydistill.progress import SILENT
from polydistill.training.loop import Curves, Schedule, collator, train

TAGS = ("O", "B-PER", "I-PER")
BATCH = 4


def feature(number: int, length: int, labelled: int) -> dict[str, Any]:
    """An input of which the first tokens have a label."""
    ids = [5 + (7 * number + 3 * i) % 60 for i in range(length)]
    labels = [(number + i) % 3 if i < labelled else -100 for i in range(length)]
    words = [i if i < labelled else -1 for i in range(length)]
    return {
        "input_ids": ids,
        "attention_mask": [1] * length,
        "labels": labels,
        "word_ids": words,
        "example": number,
        "example_id": number,
    }


# Of very different lengths, and with 1 to 12 labels, so that the mean of the parts' means is another number.
FEATURES = [feature(i, *sizes) for i, sizes in enumerate([(12, 12), (9, 1), (5, 5), (3, 1)])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return tiny.model_folder("bert", "base", tmp_path_factory.mktemp("m") / "m", config=sizes)


def objectives(by_first: bool) -> Weighted:
    parts = {"labels": (HardLabels(), 1.0), "logits": (Logits(), 0.5), "hidden": (HiddenStates(((0, 0),)), 0.3)}
    return Weighted(parts, by_first=by_first)


def one_step(
    folder: Path, work: Path, parts: int, *, by_first: bool = False
) -> tuple[dict[str, torch.Tensor], Curves, list[int]]:
    """(what a step of gradient descent takes off each parameter, the curves, rows of each forward pass)."""
    model = new_head(folder, "tagging", TAGS, seed=1)
    asked = objectives(by_first)
    taught = new_head(folder, "tagging", TAGS, seed=2).network
    with torch.no_grad():
        for parameter in taught.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    teacher = FrozenTeacher(taught, asked.needs.teacher)
    loss = DistilLoss(model.network, asked, teacher, None)
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    rows: list[int] = []
    model.network.register_forward_pre_hook(
        lambda module, args, given: rows.append(len(given["input_ids"])), with_kwargs=True
    )
    schedule = Schedule(1, 1.0, BATCH, warmup=0.0, checks=1, accumulate=parts, clip=1e9)
    optimizer = torch.optim.SGD(model.network.parameters(), lr=1.0)
    curves = train(
        model.network,
        model.tokenizer,
        FEATURES,
        lambda network: 1.0,
        schedule,
        work,
        SILENT,
        step_loss=loss,
        optimizer=optimizer,
    )
    loss.close()
    return {name: before[name] - p.detach() for name, p in model.network.named_parameters()}, curves, rows


@pytest.mark.parametrize("by_first", [False, True])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(by_first: bool, folder: Path, tmp_path: Path) -> None:
    whole, curves, rows = one_step(folder, tmp_path / "whole", 1, by_first=by_first)
    assert rows == [BATCH] and any(gradient.abs().max() > 1e-3 for gradient in whole.values())
    for parts in (2, 4):
        split, seen, sizes = one_step(folder, tmp_path / f"split{parts}", parts, by_first=by_first)
        assert set(sizes) == {BATCH // parts}  # never more rows than that in memory
        assert len(sizes) == parts * (1 + by_first)
        for name, gradient in whole.items():
            assert torch.allclose(split[name], gradient, atol=1e-5), name
        assert seen.steps == curves.steps == 1
        assert seen.terms[0] == pytest.approx(curves.terms[0], rel=1e-4)
        assert seen.loss == [(1, pytest.approx(curves.loss[0][1], rel=1e-4))]


def test_the_gradient_is_that_of_the_mean_over_all_labels(folder: Path, tmp_path: Path) -> None:
    """Against torch's own loss of the whole batch."""
    model = new_head(folder, "tagging", TAGS, seed=1)
    batch = collator(model.tokenizer)(FEATURES)
    model.network(**batch).loss.backward()
    network = new_head(folder, "tagging", TAGS, seed=1).network
    parts = [collator(model.tokenizer, about=True)(FEATURES[i : i + 2]) for i in (0, 2)]
    split = DistilLoss(network, Weighted({"labels": (HardLabels(), 1.0)}), None, None)
    split.begin_step(network, parts, lambda value: value)
    for part in parts:
        (split(network, part, lambda value: value)[0] / len(parts)).backward()
    for (name, own), (_, wanted) in zip(network.named_parameters(), model.network.named_parameters(), strict=True):
        assert own.grad is None or torch.allclose(own.grad, wanted.grad, atol=1e-6), name


def test_parts_are_those_of_the_batches_that_an_unsplit_run_has(folder: Path, tmp_path: Path) -> None:
    seen = []
    for parts in (1, 2):
        examples: list[int] = []

        class Watched(HardLabels):
            def __call__(self, student: Any, teacher: Any, batch: Any, seen: list[int] = examples) -> Any:
                seen.extend(batch["example_id"].tolist())
                return super().__call__(student, teacher, batch)

        model = new_head(folder, "tagging", TAGS, seed=1)
        loss = DistilLoss(model.network, Weighted({"labels": (Watched(), 1.0)}), None, None)
        features = [feature(i, 3 + i % 9, 1 + i % 3) for i in range(13)]
        schedule = Schedule(2, 1e-9, BATCH, checks=1, accumulate=parts)
        train(
            model.network,
            model.tokenizer,
            features,
            lambda network: 1.0,
            schedule,
            tmp_path / str(parts),
            SILENT,
            step_loss=loss,
        )
        loss.close()
        seen.append([sorted(examples[i : i + BATCH]) for i in range(0, len(examples), BATCH)])
    assert seen[0] == seen[1] and len(seen[0]) == 8


def test_the_loss_of_held_out_batches_does_not_depend_on_their_size(folder: Path) -> None:
    model = new_head(folder, "tagging", TAGS, seed=1)
    loss = DistilLoss(model.network, Weighted({"labels": (HardLabels(), 1.0)}), None, None)
    collate = collator(model.tokenizer, about=True)
    values = [
        loss.mean(model.network, [collate(FEATURES[i : i + size]) for i in range(0, BATCH, size)]) for size in (1, 2, 4)
    ]
    assert values == pytest.approx([values[0]] * 3, rel=1e-5)
    with torch.no_grad():
        whole = collator(model.tokenizer)(FEATURES)
        assert values[0] == pytest.approx(float(model.network.eval()(**whole).loss), rel=1e-5)


def test_finetune_in_parts_learns_the_same(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "ner/en").mkdir(parents=True)
    sentences = ["Ana B-PER\nsees O\n", "the O\nred O\nhouse O\nin O\nCluj B-LOC\n", "Acme B-ORG\n", "a O\nletter O\n"]
    for split in ("train", "dev"):
        (tmp_path / f"ner/en/{split}.conll").write_text("\n".join(2 * sentences))
    results = [
        finetune(
            finetune_config(
                model=str(folder),
                task="ner",
                languages=("en",),
                data_dir=tmp_path,
                epochs=1,
                lr=1e-3,
                batch_size=4,
                max_length=32,
                checks=1,
                accumulate=parts,
                output=tmp_path / f"out{parts}",
            )
        )
        for parts in (1, 2)
    ]
    whole, split_up = (result.facts["curves"]["loss"] for result in results)
    assert [step for step, _ in whole] == [1, 2] and results[1].settings["accumulate"] == 2
    assert [loss for _, loss in split_up] == pytest.approx([loss for _, loss in whole], rel=1e-3)


def test_the_teachers_batch_is_split_into_no_fewer_parts_than_asked_for() -> None:
    assert [_parts(16, asked) for asked in (1, 2, 3, 9, 64)] == [1, 2, 4, 16, 16]
