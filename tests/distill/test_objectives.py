"""Objectives: values by hand, what must hold for all of them, and what does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from objective_cases import (
    BY_POSITION,
    CASES,
    LENGTHS,
    PAIRS,
    TAUGHT,
    Seen,
    begun,
    example,
    hidden_example,
    logits,
    relations_of,
    tensor,
    total,
    value,
    watched,
)
from torch import Tensor

from polydistill.distill.objectives.attention import AttentionProbabilities
from polydistill.distill.objectives.base import Objective, Weighted
from polydistill.distill.objectives.cosine import Cosine
from polydistill.distill.objectives.hidden import HiddenStates
from polydistill.distill.objectives.labels import HardLabels
from polydistill.distill.objectives.logits import Logits, LogitsOptions
from polydistill.distill.objectives.mi_alpha import MiAlpha, information
from polydistill.distill.objectives.mlm import MaskedTokens
from polydistill.distill.objectives.pooled import PooledVectors
from polydistill.distill.objectives.relations import Relations, RelationsOptions
from polydistill.distill.objectives.scores import AttentionScores
from polydistill.distill.signals import ATTENTION, HIDDEN, POOLED, SCORES, Signal
from polydistill.errors import PolydistillError, UsageError

LAST = ((0, 0),)

# --- values by hand


def test_hidden_states_by_hand() -> None:
    example = hidden_example()
    assert value(HiddenStates(((0, 1),)), *example) == pytest.approx((13 / 4 + 2 / 4) / 2)
    # The teacher's mean squares are 17/4 and 4.
    assert value(HiddenStates(((0, 1),), relative=True), *example) == pytest.approx((13 / 17 + 0.5 / 4) / 2)


@pytest.mark.parametrize(
    ("objective", "kind"), [(AttentionProbabilities, ATTENTION), (AttentionScores, SCORES)], ids=["attention", "scores"]
)
def test_attention_by_hand(objective: Callable[..., Objective], kind: str) -> None:
    """Two heads; two positions and one of padding: errors .1, .1, 0, 0 and .3, .3, .2, .2 in one layer, 0 elsewhere."""
    student = tensor([[[0.5, 0.5, 9], [1, 0, 9], [9, 9, 9]], [[0.3, 0.7, 9], [0.2, 0.8, 9], [9, 9, 9]]])
    teacher = tensor([[[0.6, 0.4, 0], [1, 0, 0], [0, 0, 0]], [[0.6, 0.4, 0], [0, 1, 0], [0, 0, 0]]])
    same = torch.ones(1, 2, 3, 3)
    own, theirs = {Signal(kind, 0): student, Signal(kind, 1): same}, {Signal(kind, 1): teacher, Signal(kind, 3): same}
    batch = {"attention_mask": torch.tensor([[1, 1, 0]])}
    by_hand = (0.02 + 0.18 + 0.08) / (2 * 4)  # over heads and the four pairs of positions
    found = objective(PAIRS)(own, theirs, batch)
    assert list(found) == [kind] and float(found[kind].weight) == 4
    assert float(found[kind].value) == pytest.approx(by_hand / 2)
    square = (0.36 + 0.16 + 1 + 0.36 + 0.16 + 1) / (2 * 4)
    assert value(objective(PAIRS, relative=True), own, theirs, batch) == pytest.approx(by_hand / square / 2, rel=1e-5)


def test_relations_by_hand() -> None:
    batch = {"attention_mask": torch.tensor([[1, 1, 0]])}
    some, none = tensor([1], [0], [5]), tensor([0], [0], [3])
    for teacher, terms in (((some, none, none), (1, 0, 0)), ((some, some, some), (1, 1, 1))):
        found = Relations(RelationsOptions(heads=1), pairs=LAST)(relations_of(none), relations_of(*teacher), batch)
        assert list(found) == ["relations_q", "relations_k", "relations_v"]
        assert [float(mean.value) for mean in found.values()] == pytest.approx([0.055472 * n for n in terms], abs=1e-6)
    assert sum(float(mean.value) for mean in found.values()) == pytest.approx(0.166416, abs=1e-6)


def test_relations_of_several_heads_and_widths_by_hand() -> None:
    batch = {"attention_mask": torch.tensor([[1, 1]])}
    student = relations_of(torch.zeros(2, 6))
    # Two heads of two: in the first the score of the first position with itself is 4 / sqrt(2), all others are 0.
    p = math.exp(4 / 2**0.5) / (math.exp(4 / 2**0.5) + 1)
    divergence = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    teacher = relations_of(tensor([2, 0, 0, 0], [0, 0, 0, 0]))
    assert value(Relations(RelationsOptions(heads=2), pairs=LAST), student, teacher, batch) == pytest.approx(
        3 * divergence / (2 * 2)
    )


@pytest.mark.parametrize(
    ("teacher", "student", "heads"), [(768, 384, 48), (1024, 384, 64), (384, 384, 24), (768, 300, 12), (8, 4, 1)]
)
def test_relation_heads_by_default(teacher: int, student: int, heads: int) -> None:
    torch.manual_seed(0)
    batch = {"attention_mask": torch.ones(1, 4)}
    own, theirs = relations_of(torch.randn(4, student)), relations_of(torch.randn(4, teacher))
    given = value(Relations(RelationsOptions(heads=heads), pairs=LAST), own, theirs, batch)
    assert value(Relations(pairs=LAST), own, theirs, batch) == pytest.approx(given)
    other = 2 if heads == 1 else 1
    assert value(Relations(RelationsOptions(heads=other), pairs=LAST), own, theirs, batch) != pytest.approx(given)


SOFT = [
    ({"squared": False}, 1.006318),
    ({"squared": False, "form": "kl"}, 0.030990),
    ({"form": "kl"}, 0.123962),
    ({}, 4 * 1.006318),
]


# Of p_T = (.9, .1) and p_S = (.6, .4), at temperature 1.
DIVERGENCES = [
    ({"form": "kl"}, 0.226289),
    ({"form": "reverse-kl"}, 0.311239),
    ({"form": "jsd", "beta": 0.5}, 0.063288),
    ({"form": "jsd", "beta": 0.1}, 0.020737),
    ({"form": "jsd", "beta": 0.0}, 0.226289),
    ({"form": "jsd", "beta": 1.0}, 0.311239),
    ({"form": "total-variation"}, 0.3),
    ({"form": "skew-kl"}, 0.190174),
    ({"form": "skew-reverse-kl"}, 0.226634),
    ({"form": "skew-kl", "skew": 0.0}, 0.226289),
    ({"form": "skew-kl", "skew": 1.0}, 0.0),
]


@pytest.mark.parametrize(("options", "by_hand"), DIVERGENCES, ids=str)
def test_divergences_by_hand(options: dict[str, Any], by_hand: float) -> None:
    teacher, student = tensor([0.9, 0.1]).log(), tensor([0.6, 0.4]).log()
    objective, batch = Logits(LogitsOptions(temperature=1.0, **options)), {"attention_mask": torch.ones(1, 3)}
    assert value(objective, *logits(student, teacher), batch) == pytest.approx(by_hand, abs=2e-6)
    turned = (one.flip(-1) for one in (student, teacher))  # classes in another order
    assert value(objective, *logits(*turned), batch) == pytest.approx(by_hand, abs=2e-6)
    assert value(objective, *logits(teacher, teacher), batch) == pytest.approx(0, abs=1e-6)
    swapped = value(objective, *logits(teacher, student), batch)
    symmetric = options["form"] == "total-variation" or options.get("beta") == 0.5
    assert (swapped == pytest.approx(by_hand, abs=2e-6)) == (symmetric or options.get("skew") == 1.0)
    # An answer counts its start and its end; padding says nothing.
    answers = (torch.full((1, 2, 3), -9e9) for _ in range(2))
    one, other = (a.clone() for a in answers)
    one[0, :, :2], other[0, :, :2] = student[0], teacher[0]
    mask = {"attention_mask": torch.tensor([[1, 1, 0]])}
    assert value(objective, *logits(one, other), mask) == pytest.approx(2 * by_hand, abs=4e-6)


@pytest.mark.parametrize(("alpha", "by_hand"), [(0, 1.386294), (0.5, 0.826679), (1, 0.470004)])
def test_mutual_information_by_hand(alpha: float, by_hand: float) -> None:
    """Three texts, e^f = 4 on the diagonal and 1 elsewhere, no baseline."""
    scores = torch.zeros(3, 3).fill_diagonal_(math.log(4))
    assert float(information(scores, torch.zeros(3), alpha)) == pytest.approx(by_hand, abs=2e-6)
    order = torch.tensor([2, 0, 1])
    mixed, baseline = torch.randn(3, 3), torch.randn(3)
    found = float(information(mixed, baseline, alpha))
    assert float(information(mixed[order][:, order], baseline[order], alpha)) == pytest.approx(found, abs=1e-5)
    if alpha == 0:
        assert float(information(mixed + 2, baseline + 2, alpha)) == pytest.approx(found, abs=1e-5)


def test_critics_are_trained_and_need_three_texts() -> None:
    objective = begun(MiAlpha(pairs=((0, 1),), widths=(4, 6)))
    student = {Signal(HIDDEN, 1): torch.randn(3, 5, 4, requires_grad=True)}
    teacher = {Signal(HIDDEN, 2): torch.randn(3, 5, 6)}
    assert objective.needs.student == frozenset(student) and objective.needs.teacher == frozenset(teacher)
    batch = {"attention_mask": torch.ones(3, 5)}
    objective(student, teacher, batch)["mi_alpha"].value.backward()
    assert all(parameter.grad is not None for parameter in objective.module.parameters())
    few = ({signal: tensor[:2] for signal, tensor in seen.items()} for seen in (student, teacher))
    with pytest.raises(PolydistillError, match="at least 3 texts at once"):
        objective(*few, batch)


@pytest.mark.parametrize(("options", "by_hand"), SOFT)
def test_logits_by_hand(options: dict[str, Any], by_hand: float) -> None:
    one, other, far = tensor(1, 0, 0), tensor(2, 0, 0), tensor(0, 0, 9)
    objective, mask = Logits(LogitsOptions(**options)), torch.tensor([[1, 1, 1, 0]])
    classes = logits(torch.stack([one]), torch.stack([other]))
    assert value(objective, *classes, {"attention_mask": mask}) == pytest.approx(by_hand, abs=4e-6)
    # Tags: the second position has a label; without labels all three positions of the text count.
    tags = logits(torch.stack([one, one, one, one])[None], torch.stack([far, other, other, far])[None])
    labels = torch.tensor([[-100, 2, -100, -100]])
    assert value(objective, *tags, {"attention_mask": mask, "labels": labels}) == pytest.approx(by_hand, abs=4e-6)
    words = torch.tensor([[-1, 0, -1, -1]])  # without labels, words count where they are known
    assert value(objective, *tags, {"attention_mask": mask, "word_ids": words}) == pytest.approx(by_hand, abs=4e-6)
    first = logits(one[None], far[None])
    both = (value(objective, *first, {"attention_mask": mask}) + 2 * by_hand) / 3
    assert value(objective, *tags, {"attention_mask": mask}) == pytest.approx(both, abs=4e-6)
    # An answer: the start and the end as above, with a fourth position of padding.
    answers = logits(tensor([[1, 0, 0, 5], [1, 0, 0, 5]]), tensor([[2, 0, 0, 6], [2, 0, 0, 6]]))
    assert value(objective, *answers, {"attention_mask": mask}) == pytest.approx(2 * by_hand, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.01, 1e5])
def test_padding_of_answers_has_no_probability_at_any_temperature(temperature: float) -> None:
    mask = torch.tensor([[1, 1, 1, 0]])
    short = logits(tensor([[1, 0, 0], [0, 1, 2]]), tensor([[2, 0, 0], [0, 0, 1]]))
    long = logits(tensor([[1, 0, 0, -1e4], [0, 1, 2, -1e4]]), tensor([[2, 0, 0, -1e4], [0, 0, 1, -1e4]]))
    objective = Logits(LogitsOptions(temperature=temperature, squared=False))
    without = value(objective, *short, {"attention_mask": mask[:, :3]})
    assert value(objective, *long, {"attention_mask": mask}) == pytest.approx(without)


def test_cosines_by_hand() -> None:
    """45 degrees at one position, 90 at the other."""
    own, theirs = tensor([1, 0], [0, 3], [1, 0]), tensor([2, 2], [5, 0], [-1, 0])
    batch = {"attention_mask": torch.tensor([[1, 1, 0]])}
    states = {Signal(HIDDEN, 2): own[None]}, {Signal(HIDDEN, 4): theirs[None]}
    assert value(Cosine(PAIRS), *states, batch) == pytest.approx((1 - 0.5**0.5 + 1) / 2)
    vectors = {Signal(POOLED): own[:2]}, {Signal(POOLED): theirs[:2]}
    batch = {"attention_mask": torch.ones(2, 3)}
    assert value(PooledVectors(), *vectors, batch) == pytest.approx((1 - 0.5**0.5 + 1) / 2)


def test_gold_labels_by_hand() -> None:
    right = math.log(1 + 2 * math.exp(-2))  # of 2, 0, 0 where the first is right
    wrong = 2 + right
    mask = torch.tensor([[1, 1, 1, 0]])
    rows, labels = tensor([2, 0, 0], [2, 0, 0]), torch.tensor([0, 1])
    batch = {"attention_mask": torch.ones(2, 4), "labels": labels}
    assert value(HardLabels(), *logits(rows), batch) == pytest.approx((right + wrong) / 2)
    tags = logits(tensor([[2, 0, 0], [2, 0, 0], [0, 0, 9], [0, 0, 9]]))
    batch = {"attention_mask": mask, "labels": torch.tensor([[0, 1, -100, -100]])}
    for objective, term in ((HardLabels(), "labels"), (MaskedTokens(), "mlm")):
        found = objective(*tags, batch)
        assert list(found) == [term] and float(found[term].value) == pytest.approx((right + wrong) / 2)
    places = {"start_positions": torch.tensor([0]), "end_positions": torch.tensor([1])}
    answers = logits(tensor([[2, 0, 0, 9], [2, 0, 0, 9]]))
    assert value(HardLabels(), *answers, {"attention_mask": mask, **places}) == pytest.approx(right + wrong)


# --- what holds for all


@pytest.mark.parametrize("name", TAUGHT)
def test_it_is_least_where_the_student_is_the_teacher(name: str) -> None:
    objective, student, teacher, batch = example(name)
    pairs = zip(sorted(objective.needs.student), sorted(objective.needs.teacher), strict=True)
    student = watched({own: teacher[theirs] for own, theirs in pairs})
    best = total(objective(student, teacher, batch))
    best.backward()
    assert all(float(x.grad.abs().max()) < 1e-6 for x in student.values() if x.grad is not None)
    if name.startswith("logits") and name != "logits-text":
        assert best.item() > 0.1  # cross-entropy: the teacher's own entropy is left
    else:
        assert abs(best.item()) < 1e-6
    for size in (0.01, 1):
        torch.manual_seed(5)
        near = {signal: x.detach() + size * torch.randn_like(x) for signal, x in student.items()}
        assert total(objective(near, teacher, batch)).item() > best.item() + 1e-7


@pytest.mark.parametrize("name", CASES)
def test_gradients_reach_the_student_alone(name: str) -> None:
    objective, student, teacher, batch = example(name)
    student, teacher = watched(student), watched(teacher)
    total(objective(student, teacher, batch)).backward()
    assert all(x.grad is not None and float(x.grad.abs().sum()) > 0 for x in student.values())
    assert all(x.grad is None for x in teacher.values())


def spoilt(seen: Seen, mask: Tensor, junk: float) -> Seen:
    """The same with junk at every padded position."""
    found = {}
    for signal, x in seen.items():
        pad = mask == 0
        if signal.kind in (ATTENTION, SCORES):
            pad = (pad[:, :, None] | pad[:, None, :]).unsqueeze(1)
        elif x.shape[1] == mask.shape[1]:
            pad = pad.unsqueeze(-1)
        else:
            pad = pad.unsqueeze(1)
        found[signal] = x.masked_fill(pad, junk)
        assert not torch.equal(found[signal], x)
    return found


@pytest.mark.parametrize("junk", [-3.0, 1e30, math.inf, math.nan])
@pytest.mark.parametrize("name", BY_POSITION)
def test_padding_never_counts(name: str, junk: float) -> None:
    objective, student, teacher, batch = example(name)
    clean = watched(student)
    expected = total(objective(clean, teacher, batch))
    expected.backward()
    dirty = watched(spoilt(student, batch["attention_mask"], junk))
    found = total(objective(dirty, spoilt(teacher, batch["attention_mask"], -2 * junk), batch))
    found.backward()
    assert found.item() == expected.item()
    assert all(torch.equal(dirty[signal].grad, clean[signal].grad) for signal in clean)  # 0 at padding, never NaN


def alone(x: Tensor, row: int, n: int, most: int) -> Tensor:
    """A row without its padding, whatever axes positions lie along."""
    x = x[row : row + 1]
    for axis in range(1, x.ndim):
        if x.shape[axis] == most:
            x = x.narrow(axis, 0, n)
    return x


@pytest.mark.parametrize("name", CASES)
def test_a_batch_is_the_weighted_mean_of_its_texts(name: str) -> None:
    objective, student, teacher, batch = example(name)
    whole = objective(student, teacher, batch)
    most = max(LENGTHS)
    parts = [
        objective(*({k: alone(x, row, n, most) for k, x in each.items()} for each in (student, teacher, batch)))
        for row, n in enumerate(LENGTHS)
    ]
    for term, mean in whole.items():
        assert float(mean.total) == pytest.approx(sum(float(part[term].total) for part in parts), rel=1e-5)
        assert float(mean.weight) == sum(float(part[term].weight) for part in parts) > 0
        assert float(objective.weight(batch)) == float(mean.weight)  # which the batch alone tells


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_losses_are_float32_whatever_the_models_compute_in(name: str, autocast: bool) -> None:
    objective, student, teacher, batch = example(name)
    student, teacher = ({k: x.bfloat16() for k, x in each.items()} for each in (student, teacher))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        found = objective(student, teacher, batch)
    exact = objective(*({k: x.double() for k, x in each.items()} for each in (student, teacher)), batch)
    for term, mean in found.items():
        assert mean.total.dtype == torch.float32
        assert float(mean.value) == pytest.approx(float(exact[term].value), rel=1e-5)


@pytest.mark.parametrize("name", ["logits-tags", "mlm", "labels-tags"])
def test_a_batch_without_a_label_is_zero(name: str) -> None:
    objective, student, teacher, batch = example(name)
    student = watched(student)
    batch["labels"] = torch.full_like(batch["labels"], -100)
    loss, values = Weighted({"x": (objective, 2.0)})(student, teacher, batch)
    loss.backward()
    assert loss.item() == 0 == next(iter(values.values()))
    assert all(float(x.grad.abs().sum()) == 0 for x in student.values())


# --- what does not fit


@pytest.mark.parametrize(
    ("name", "cut", "message"),
    [
        ("hidden", (-1, 4), "`hidden` needs as many columns .* 4 and 8.*`relations`"),
        ("cosine", (-1, 4), "`cosine` needs as many columns .* 4 and 8.*`relations`"),
        ("pooled", (-1, 4), "`pooled` needs as many columns .* 4 and 8"),
        ("attention", (1, 1), "`attention` needs as many heads .* 1 and 2.*`relations`"),
        ("scores", (1, 1), "`scores` needs as many heads .* 1 and 2.*`relations`"),
        ("logits-classes", (-1, 3), "`logits` needs as many outputs .* 3 and 5.*same labels"),
        ("logits-tags", (-1, 3), "`logits` needs as many outputs .* 3 and 5.*same labels"),
    ],
)
def test_models_of_different_sizes_are_refused(name: str, cut: tuple[int, int], message: str) -> None:
    objective, student, teacher, batch = example(name)
    student = {signal: x.narrow(cut[0], 0, cut[1]) for signal, x in student.items()}
    with pytest.raises(PolydistillError, match=message):
        objective(student, teacher, batch)


def test_options_that_make_no_sense() -> None:
    for layers in ((0,), (0, 1, 2), (-1, 0)):
        with pytest.raises(UsageError, match="does not name two layers"):
            Relations(RelationsOptions(layers=layers), pairs=LAST)
    with pytest.raises(UsageError, match=r"student's \(0 to 1\) and the teacher's \(0 to 3\), such as 1,3"):
        Relations(RelationsOptions(layers=(2, 3)), pairs=LAST, depths=(2, 4))
    batch = {"attention_mask": torch.ones(1, 2)}
    with pytest.raises(PolydistillError, match=r"5 relation heads do not divide the widths 12 and 18\..*divisor of 6"):
        Relations(RelationsOptions(heads=5), pairs=LAST)(
            relations_of(torch.ones(2, 12)), relations_of(torch.ones(2, 18)), batch
        )
