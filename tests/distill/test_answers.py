"""`answers`: how right a teacher is about the place of an answer, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from objective_cases import logits, value

from polydistill.distill.objectives.answers import Answers, AnswersOptions, hits, rightness
from polydistill.distill.objectives.labels import HardLabels, LabelsOptions
from polydistill.distill.signals import LOGITS, Signal
from polydistill.errors import PolydistillError


@pytest.mark.parametrize(
    ("found", "first", "textbook"), [("100", 1, 1), ("011", 0.5, 0.583333), ("001", 1 / 3, 1 / 3), ("000", 0, 0)]
)
def test_rightness_by_hand(found: str, first: float, textbook: float) -> None:
    seen = torch.tensor([int(c) > 0 for c in found])
    assert float(rightness(seen)) == pytest.approx(first, abs=1e-6)
    assert float(rightness(seen, textbook=True)) == pytest.approx(textbook, abs=1e-6)


def test_a_hit_lies_near_the_right_place() -> None:
    """Gold 8: places 3 to 12 are hits, 2 and 13 are not; padding is none, however likely."""
    one = torch.full((1, 2, 20), -9.0)
    for rank, place in enumerate((2, 13, 3, 12, 8)):
        one[0, :, place] = 5.0 - rank
    one[0, 1, 19] = 50.0
    mask = torch.ones(1, 20)
    mask[0, 14:] = 0
    gold = torch.tensor([[8, 8]])
    start, end = hits(one, gold, mask, exact=False)[0].tolist()
    assert start[:5] == [False, False, True, True, True] and end[:6] == [False, *start[:5]]
    assert hits(one, gold, mask, exact=True)[0, 0].tolist()[:5] == [False, False, False, False, True]


def batch(*gold: int, width: int = 12) -> dict[str, torch.Tensor]:
    places = torch.tensor(gold)
    return {
        "attention_mask": torch.ones(len(gold), width, dtype=torch.long),
        "start_positions": places,
        "end_positions": places,
    }


def said(*likeliest: int, width: int = 12) -> torch.Tensor:
    found = torch.zeros(len(likeliest), 2, width)
    for row, place in enumerate(likeliest):
        found[row, :, place] = 3.0
    return found


def test_the_coefficient_is_that_of_the_batch_or_of_each_text() -> None:
    """Of two texts the teacher is exactly right in one, and near in the other."""
    teacher, student = said(3, 7), torch.zeros(2, 2, 12)
    whole = batch(3, 3)
    plain = value(Answers(AnswersOptions(coefficient="one")), *logits(student, teacher), whole)
    for how in ("first-hit", "average-precision", "per-example", "mrr"):
        objective = Answers(AnswersOptions(coefficient=how))
        found = value(objective, *logits(student, teacher), whole)
        assert 0 < float(objective.noted["coefficient"]) <= 1 and found <= plain + 1e-6  # type: ignore[arg-type]
    first = Answers(AnswersOptions())
    assert value(first, *logits(student, teacher), whole) == pytest.approx(plain)  # 3 and 7 both lie near 3
    missed = batch(11, 11)  # 7 lies near 11, 3 does not
    second = value(first, *logits(student, teacher), missed)
    assert second == pytest.approx(plain * float(first.noted["coefficient"]))  # type: ignore[arg-type]


def test_it_is_nothing_where_teacher_and_student_agree_and_padding_says_nothing() -> None:
    teacher = said(3, 5)
    assert value(Answers(), *logits(teacher, teacher.clone()), batch(3, 5)) == pytest.approx(0, abs=1e-6)
    wide = torch.full((2, 2, 15), 7.0)
    wide[:, :, :12] = teacher
    longer = batch(3, 5, width=15)
    longer["attention_mask"][:, 12:] = 0
    own, far = torch.zeros(2, 2, 12), torch.full((2, 2, 15), -3.0)
    far[:, :, :12] = own
    expected = value(Answers(), *logits(own, teacher), batch(3, 5))
    assert value(Answers(), *logits(far, wide), longer) == pytest.approx(expected, abs=1e-5)


def test_windows_without_an_answer_can_be_left_out_of_the_coefficient() -> None:
    teacher, student = said(11, 3), torch.zeros(2, 2, 12)
    some = Answers(AnswersOptions(unanswered=False))
    some({Signal(LOGITS): student}, {Signal(LOGITS): teacher}, batch(0, 3))
    assert some.noted["coefficient"] == pytest.approx(1)
    every = Answers()
    every({Signal(LOGITS): student}, {Signal(LOGITS): teacher}, batch(0, 3))
    assert 0.5 <= float(every.noted["coefficient"]) < 1  # type: ignore[arg-type]


def test_tags_are_no_answers() -> None:
    with pytest.raises(PolydistillError, match="for questions"):
        Answers()(*logits(torch.zeros(1, 4, 3), torch.zeros(1, 4, 3)), {"attention_mask": torch.ones(1, 4)})


def test_smoothed_labels_by_hand() -> None:
    """.9 (-log .7) + .1 times the mean of -log .7, -log .2 and -log .1; padding of an answer gets no share."""
    student = torch.tensor([[0.7, 0.2, 0.1]]).log()
    expected = -0.9 * math.log(0.7) - 0.1 * (math.log(0.7) + math.log(0.2) + math.log(0.1)) / 3
    smooth, words = HardLabels(LabelsOptions(smoothing=0.1)), {"attention_mask": torch.ones(1, 4)}
    gold = {"labels": torch.tensor([0])}
    assert value(smooth, *logits(student), {**words, **gold}) == pytest.approx(expected, abs=1e-6)
    assert value(HardLabels(), *logits(student), {**words, **gold}) == pytest.approx(-math.log(0.7), abs=1e-6)
    answer = torch.full((1, 2, 4), 9.0)
    answer[0, :, :3] = student
    places = batch(0, width=4)
    places["attention_mask"] = torch.tensor([[1, 1, 1, 0]])
    assert value(smooth, *logits(answer), places) == pytest.approx(2 * expected, abs=1e-5)
