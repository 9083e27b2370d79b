"""Several teachers: balanced, each for what it knows best, and one in two parts."""

from __future__ import annotations

import pytest
import torch

from polydistill.distill.signals import LOGITS, Batch, Signal, Signals
from polydistill.distill.teachers.balanced import Balanced, equal_temperatures, moved
from polydistill.distill.teachers.base import Teacher
from polydistill.distill.teachers.partition import chosen
from polydistill.distill.teachers.parts import InParts


class Says(Teacher):
    """Says the same of every text."""

    def __init__(self, *logits: float) -> None:
        self.needs, self._logits = frozenset({Signal(LOGITS)}), torch.tensor(logits)

    def signals(self, batch: Batch) -> Signals:
        return {Signal(LOGITS): self._logits.expand(len(batch["input_ids"]), -1)}


def test_weights_of_balanced_teachers_by_hand() -> None:
    found = moved(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.8]), torch.tensor([2.0, 1.0]))
    assert found.tolist() == pytest.approx([0.497115, 0.502885], abs=1e-6)


def test_temperatures_that_make_teachers_equally_uncertain() -> None:
    sure, unsure = torch.tensor([[4.0, 0, 0]]), torch.tensor([[1.0, 0, 0]])
    assert equal_temperatures([sure, unsure]) == pytest.approx([4, 1], abs=1e-5)
    assert equal_temperatures([sure[:0], unsure[:0]]) == [1, 1]


def test_balanced_teachers_turn_to_the_one_that_the_student_is_far_from() -> None:
    """The student agrees with the first from the second step on; what is kept goes on where it was."""
    balanced, batch = (
        Balanced([(Says(3.0, 0.0), 1), (Says(0.0, 3.0), 1)]),
        {"input_ids": torch.zeros(2, 4), "attention_mask": torch.ones(2, 4)},
    )
    for own in ([0.0, 0.0], [3.0, 0.0], [3.0, 0.0]):
        said = balanced.signals(batch)[Signal(LOGITS)]
        balanced.compare({Signal(LOGITS): torch.tensor([own, own])}, batch)
        balanced.on_step()
    first, second = balanced.weights.tolist()
    assert first < 0.5 < second and first + second == pytest.approx(1)
    assert said.softmax(-1).sum(-1).tolist() == pytest.approx([1, 1])
    resumed = Balanced([(Says(3.0, 0.0), 1), (Says(0.0, 3.0), 1)])
    resumed.module.load_state_dict(balanced.module.state_dict())
    assert resumed.weights.tolist() == [first, second]


def shares(*given: float) -> torch.Tensor:
    """(3, 2) logits of texts that are of class 0 with these probabilities."""
    p = torch.tensor(given)
    return torch.stack([p, 1 - p], -1).log()


def test_each_text_follows_whoever_knows_it_best() -> None:
    """The gold class has .9, .2, .6 of the teacher and .5, .7, .6 of the student: teacher, student, student."""
    teacher, start = shares(0.9, 0.2, 0.6), shares(0.5, 0.7, 0.6)
    batch = {"attention_mask": torch.ones(3, 4), "labels": torch.zeros(3, dtype=torch.long)}
    assert torch.equal(chosen([teacher], start, batch), torch.stack([teacher[0], start[1], start[2]]))
    unlabelled = {**batch, "labels": torch.full((3,), -100)}  # whoever is surest: .9 to .5, .8 to .7, .6 to .6
    assert torch.equal(chosen([teacher], start, unlabelled), torch.stack([teacher[0], teacher[1], start[2]]))
    better = shares(0.1, 0.8, 0.99)
    assert torch.equal(chosen([teacher, better], start, batch), torch.stack([teacher[0], better[1], better[2]]))


def test_each_end_of_an_answer_follows_whoever_knows_it_best_and_padding_counts_for_nothing() -> None:
    teacher, start = torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)
    teacher[0, 0, 1], teacher[0, 1, 3], start[0, 1, 2] = 5, 50, 1  # the last place is padding
    batch = {"attention_mask": torch.tensor([[1, 1, 1, 0]]), "input_ids": torch.zeros(1, 4)}
    found = chosen([teacher], start, batch)
    assert found[0, :, :3].tolist() == [[0, 5, 0], [0, 0, 1]]
    gold = {**batch, "start_positions": torch.tensor([0]), "end_positions": torch.tensor([0])}
    assert chosen([teacher], start, gold)[0, :, :3].tolist() == [[0, 0, 0], [0, 0, 0]]


def test_a_teacher_in_two_parts_counts_the_second_from_0() -> None:
    class Numbers(Teacher):
        def __init__(self, base: int) -> None:
            self.needs, self._base = frozenset({Signal(LOGITS)}), base

        def signals(self, batch: Batch) -> Signals:
            return {Signal(LOGITS): batch["example_id"] + self._base}

    teacher = InParts(Numbers(100), Numbers(200), 5)
    found = [teacher.signals({"example_id": torch.tensor(ids)})[Signal(LOGITS)].tolist() for ids in ([0, 4], [5, 7])]
    assert found == [[100, 104], [200, 202]]
