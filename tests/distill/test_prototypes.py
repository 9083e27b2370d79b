"""Prototypes and the objectives that stand on them: values by hand, and what must hold for any numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from objective_cases import begun, tensor, value
from torch import Tensor

from polydistill.distill.objectives.alignment import NO_TAG, AlignmentOptions, PrototypeAlignment
from polydistill.distill.objectives.probabilities import Probabilities, ProbabilitiesOptions
from polydistill.distill.objectives.pseudo_labels import STUDENT, PseudoLabels, PseudoLabelsOptions, least_of
from polydistill.distill.prototypes import MovingPrototypes, alignment, class_means, classes_of, nearness, rectified
from polydistill.distill.signals import HIDDEN, LOGITS, Signal
from polydistill.distill.unlabelled import Prototypes

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
SOURCE, SOURCE_CLASSES = tensor([1, 0], [1, 0.2], [0, 1], [0.2, 1]), torch.tensor([0, 0, 1, 1])
TARGET, TARGET_CLASSES = tensor([0.8, 0.2], [0.3, 0.7], [0.1, 0.9]), torch.tensor([0, 1, 1])
OF_SOURCE, OF_TARGET = tensor([1, 0.1], [0.1, 1]), tensor([0.8, 0.2], [0.2, 0.8])
BOTH = torch.tensor([True, True])


# --- values by hand


def test_classes_of_tags() -> None:
    assert classes_of(LABELS, "type") == (("O", "PER", "LOC"), (0, 1, 1, 2, 2))
    assert classes_of(LABELS, "tag") == (LABELS, (0, 1, 2, 3, 4))
    assert classes_of(("I-LOC", "O", "B-LOC"), "type") == (("LOC", "O"), (0, 1, 0))


def test_means_by_hand() -> None:
    means, numbers = class_means(SOURCE, SOURCE_CLASSES, 3)
    assert means[:2].allclose(OF_SOURCE) and means[2].tolist() == [0, 0] and numbers.tolist() == [2, 2, 0]
    assert class_means(TARGET, TARGET_CLASSES, 2)[0].allclose(OF_TARGET)


def test_moving_averages_by_hand() -> None:
    moving = MovingPrototypes(3, 2, momentum=0.9)
    assert moving(SOURCE, SOURCE_CLASSES)[:2].allclose(OF_SOURCE)  # the first value is the first batch's
    moved = moving(TARGET[1:], TARGET_CLASSES[1:])
    assert moved[1].allclose(tensor(0.11, 0.98)) and moved[0].allclose(OF_SOURCE[0])  # absent: it stays
    assert moving.seen.tolist() == [True, True, False] and moving.values.equal(moved)
    moving.eval()
    moving(SOURCE, SOURCE_CLASSES)
    assert moving.values.equal(moved)


def test_gradients_go_through_the_batch_alone() -> None:
    moving, features = MovingPrototypes(2, 2, momentum=0.9), SOURCE.clone().requires_grad_()
    moving(SOURCE.clone().requires_grad_(), SOURCE_CLASSES)
    moving(features, SOURCE_CLASSES)[0].sum().backward()
    assert features.grad is not None
    assert features.grad.allclose(tensor([0.05, 0.05], [0.05, 0.05], [0, 0], [0, 0]))  # 0.1 of a mean of two
    assert not moving.values.requires_grad


@pytest.mark.parametrize(("temperature", "by_hand"), [(1.0, 0.419508), (0.1, 0.001479)])
def test_alignment_by_hand(temperature: float, by_hand: float) -> None:
    cosines = torch.nn.functional.cosine_similarity(OF_TARGET.unsqueeze(1), OF_SOURCE.unsqueeze(0), dim=-1)
    assert cosines.diagonal().allclose(tensor(0.989461, 0.989461), atol=1e-6)
    assert cosines[0, 1] == pytest.approx(0.337865, abs=1e-6)
    assert float(alignment(OF_TARGET, OF_SOURCE, BOTH, temperature)) == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize(
    ("temperature", "by_hand"), [(1.0, (0.530617, 0.469383)), (0.5, (0.460030, 0.539970)), (0.1, (0.081438, 0.918562))]
)
def test_rectified_labels_by_hand(temperature: float, by_hand: tuple[float, float]) -> None:
    near = nearness(tensor([0.4, 0.6]), OF_TARGET, temperature)
    assert rectified(tensor([0.6, 0.4]), near, torch.tensor([0, 1]))[0].tolist() == pytest.approx(by_hand, abs=1e-6)


def test_tags_of_one_type_share_its_nearness() -> None:
    near = nearness(tensor([0.4, 0.6]), OF_TARGET, 0.5)
    found = rectified(tensor([0.5, 0.3, 0.2]), near, torch.tensor([0, 1, 1]))[0]
    assert float(found[1] / found[2]) == pytest.approx(1.5)
    assert float(found[0] / found[1]) == pytest.approx(5 / 3 * float((near[0, 0] - near[0, 1]).exp()))


def test_unit_distances_leave_lengths_out() -> None:
    once, longer = (nearness(k * tensor([0.4, 0.6]), OF_TARGET, 0.3, "unit") for k in (1, 7))
    assert once.allclose(longer, atol=1e-6)
    assert not nearness(7 * tensor([0.4, 0.6]), OF_TARGET, 0.3).allclose(once)


def test_nothing_is_near_to_a_class_without_a_prototype() -> None:
    three = torch.cat([OF_TARGET, torch.full((1, 2), torch.nan)])
    near = nearness(tensor([0.4, 0.6]), three, 0.5)
    assert near[:, :2].allclose(nearness(tensor([0.4, 0.6]), OF_TARGET, 0.5)) and near[0, 2] == -torch.inf
    found = rectified(tensor([0.3, 0.2, 0.5]), near, torch.tensor([0, 1, 2]))[0]
    assert found[2] == 0 and float(found.sum()) == pytest.approx(1)
    unit = nearness(tensor([0.4, 0.6]), three, 0.5, "unit")
    assert unit[0, 2] == -torch.inf and unit[:, :2].isfinite().all()


def logits(values: Tensor) -> dict[Signal, Tensor]:
    return {Signal(LOGITS): values}


@pytest.mark.parametrize(
    ("options", "by_hand"),
    [({}, 0.031606), ({"temperature": 2.0}, 0.007694), ({"temperature": 2.0, "squared": True}, 4 * 0.007694)],
)
def test_probabilities_by_hand(options: dict[str, Any], by_hand: float) -> None:
    """The second position begins no word."""
    student, teacher = tensor([[1, 1, 0], [9, 0, 0]]), tensor([[2, 1, 0], [0, 9, 0]])
    batch = {"word_ids": torch.tensor([[0, -1]])}
    assert value(
        Probabilities(ProbabilitiesOptions(**options)), logits(student), logits(teacher), batch
    ) == pytest.approx(by_hand, abs=2e-6)


# --- objectives


def pseudo(prototypes: Tensor | None = None, ramp: float = 0.0, **options: Any) -> PseudoLabels:
    """As it is at the first of ten steps."""
    given = PseudoLabelsOptions(temperature=0.5, distance="euclidean", ramp=ramp, **options)
    found: PseudoLabels = begun(
        PseudoLabels(given, outside=0, prototypes=prototypes, class_of=(0, 1), layer=1, outputs=2)
    )
    return found


ONE_WORD = {"word_ids": torch.tensor([[0]])}


def of_teacher(probabilities: tuple[float, float] = (0.6, 0.4)) -> dict[Signal, Tensor]:
    return {Signal(LOGITS): tensor([probabilities]).log(), Signal(HIDDEN, 1): tensor([[0.4, 0.6]])}


@pytest.mark.parametrize(
    ("options", "by_hand", "changed"),
    [
        ({}, -0.6 * np.log(0.25) - 0.4 * np.log(0.75), 0),
        ({"form": "hard"}, -np.log(0.25), 0),
        ({"prototypes": OF_TARGET}, -0.460030 * np.log(0.25) - 0.539970 * np.log(0.75), 1),
        ({"prototypes": OF_TARGET, "form": "hard"}, -np.log(0.75), 1),
        ({"ramp": 0.4}, (-0.6 * np.log(0.25) - 0.4 * np.log(0.75)) / 4, 0),
    ],
)
def test_pseudo_labels_by_hand(options: dict[str, Any], by_hand: float, changed: int) -> None:
    objective, student = pseudo(**options), logits(tensor([[0.25, 0.75]]).log())
    assert value(objective, student, of_teacher(), ONE_WORD) == pytest.approx(by_hand, abs=1e-6)
    assert objective.noted == {"changed": changed, "entities": changed}
    assert objective.needs.teacher == frozenset(of_teacher() if options.get("prototypes") is not None else student)


def test_the_ramp_ends() -> None:
    objective, student = pseudo(ramp=0.4), logits(tensor([[0.25, 0.75]]).log())
    seen = []
    for step in range(6):
        seen.append(value(objective, student, of_teacher(), ONE_WORD))
        objective.on_step(step + 1, {})
    assert [x / seen[-1] for x in seen] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_the_surest_words_of_each_tag_count() -> None:
    """Of three words of tag 0 the two surest, rounded up from 1.5; of one of tag 1 that one."""
    said = tensor([0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.45, 0.55])
    assert least_of(said, 0.5).tolist() == pytest.approx([0.8, 0.55])
    assert least_of(said, 1.0).tolist() == pytest.approx([0.6, 0.55])
    assert least_of(said[:3], 0.01).tolist() == pytest.approx([0.9, 0])
    objective, words = pseudo(keep=0.5), {"word_ids": torch.tensor([[0, 1, 2, 3]])}
    assert objective.looks and not pseudo().looks
    teacher, student = logits(said.log()[None]), logits(tensor([[0.5, 0.5]] * 4).log())
    objective.look(teacher, words)
    objective.end_look()
    expected = 3 / 4 * np.log(2)  # three of four words count, and the mean is over four
    assert value(objective, student, teacher, words) == pytest.approx(expected, abs=1e-6)


def test_prototypes_of_the_student_s_features_are_renewed_every_epoch() -> None:
    objective = pseudo(prototypes=OF_TARGET, features=STUDENT, refresh="epoch")
    assert objective.prototypes is not None
    student = {**logits(tensor([[0.25, 0.75]]).log()), Signal(HIDDEN, 1): tensor([[0.4, 0.6]])}
    objective.begin_epoch(0)
    for features in ([[0.4, 0.6]], [[0.0, 1.0]]):
        objective({**student, Signal(HIDDEN, 1): tensor(features)}, of_teacher(), ONE_WORD)
        assert objective.prototypes.values.equal(OF_TARGET)
    objective.learns = False
    objective(student, of_teacher(), ONE_WORD)
    objective.begin_epoch(1)
    assert objective.prototypes.values.allclose(tensor([0.2, 0.8], OF_TARGET[1].tolist()))  # the teacher says class 0
    objective.begin_epoch(2)
    assert objective.prototypes.values.allclose(tensor([0.2, 0.8], OF_TARGET[1].tolist()))


def test_without_prototypes_yet_nothing_is_rectified() -> None:
    unknown = torch.full((2, 2), torch.nan)
    objective = pseudo(prototypes=unknown, features=STUDENT, refresh="epoch")
    student = {**logits(tensor([[0.25, 0.75]]).log()), Signal(HIDDEN, 1): tensor([[0.4, 0.6]])}
    by_hand = -0.6 * np.log(0.25) - 0.4 * np.log(0.75)
    assert value(objective, student, of_teacher(), ONE_WORD) == pytest.approx(by_hand, abs=1e-6)


def test_the_student_s_own_features_move_its_prototypes() -> None:
    objective = pseudo(prototypes=OF_TARGET, features=STUDENT)
    student = {**logits(tensor([[0.25, 0.75]]).log()), Signal(HIDDEN, 1): tensor([[0.4, 0.6]]).requires_grad_()}
    found = objective(student, of_teacher(), ONE_WORD)
    assert objective.prototypes is not None
    assert objective.prototypes.values.allclose(tensor([0.76, 0.24], [0.2, 0.8]))  # the teacher says class 0
    assert not found["pseudo_labels"].total.requires_grad  # features say where a token lies, and are not pulled there
    assert Signal(HIDDEN, 1) in objective.needs.student and Signal(HIDDEN, 1) not in objective.needs.teacher


def aligned(**options: Any) -> PrototypeAlignment:
    """As it is at the first of ten steps."""
    given = AlignmentOptions(**{"temperature": 1.0, "warmup": 0.0, **options})
    found: PrototypeAlignment = begun(
        PrototypeAlignment(given, classes=("O", "PER"), class_of=(0, 1), layer=1, width=2)
    )
    return found


def both_languages(confidence: float = 0.9) -> tuple[dict[Signal, Tensor], dict[str, Tensor]]:
    """The source's four tokens in one row, the target's three and one of padding in the other."""
    hidden = torch.stack([SOURCE, torch.cat([TARGET, tensor([7, 7])])])
    other = 1 - confidence
    says = tensor([confidence, other], [other, confidence], [other, confidence], [confidence, other]).log()
    outputs = torch.stack([torch.zeros(4, 2), says])
    tags = torch.tensor([SOURCE_CLASSES.tolist(), [NO_TAG] * 3 + [-100]])
    return {Signal(HIDDEN, 1): hidden.requires_grad_(), Signal(LOGITS): outputs}, {"feature_tags": tags}


def test_the_objective_aligns_gold_of_the_source_with_guesses_of_the_target() -> None:
    student, batch = both_languages()
    objective = aligned()
    assert value(objective, student, {}, batch) == pytest.approx(0.419508, abs=1e-6)
    assert objective.source_prototypes.values.allclose(OF_SOURCE)
    assert objective.target_prototypes.values.allclose(OF_TARGET)
    assert objective.noted["target_O"] == 1 and objective.noted["target_PER"] == 2
    drift = (0.8**2 + 0.2**2) ** 0.5
    assert objective.noted["target_drift"] == pytest.approx(drift)
    symmetric = value(aligned(symmetric=True), student, {}, batch)
    assert symmetric == pytest.approx(0.419508, abs=1e-6)  # this example is its own mirror image
    lopsided = {**student, Signal(HIDDEN, 1): student[Signal(HIDDEN, 1)] * tensor([1, 1], [1, 0.3]).view(2, 1, 2)}
    assert value(aligned(symmetric=True), lopsided, {}, batch) != pytest.approx(value(aligned(), lopsided, {}, batch))


@pytest.mark.parametrize("options", [{"confidence": 0.95}, {"warmup": 0.2}])
def test_target_tokens_that_do_not_count_yet(options: dict[str, Any]) -> None:
    student, batch = both_languages()
    objective = aligned(**options)
    assert value(objective, student, {}, batch) == 0
    assert not objective.target_prototypes.seen.any() and objective.source_prototypes.seen.all()
    objective.on_step(2, {})
    assert (value(objective, student, {}, batch) > 0) == ("warmup" in options)


def test_what_a_checkpoint_keeps_is_all_that_an_objective_knows() -> None:
    student, batch = both_languages()
    first, second = aligned(warmup=0.1), aligned(warmup=0.1)
    for step in (1, 2):
        value(first, student, {}, batch)
        first.on_step(step, {})
    second.module.load_state_dict(first.module.state_dict())
    assert value(first, student, {}, batch) == value(second, student, {}, batch)
    assert first.target_prototypes.values.equal(second.target_prototypes.values)


def test_a_batch_without_a_token_changes_nothing() -> None:
    student, batch = both_languages()
    objective = aligned()
    value(objective, student, {}, batch)
    before = objective.target_prototypes.values
    value(objective, student, {}, {"feature_tags": torch.full((2, 4), -100)})
    assert objective.target_prototypes.values.equal(before)
    nothing = {"word_ids": torch.full((1, 1), -1)}
    assert value(pseudo(), logits(tensor([[1, 2]])), of_teacher(), nothing) == 0


# --- what must hold for any numbers

POINTS = arrays(np.float64, (6, 3), elements=st.floats(-5, 5, width=32))


@given(POINTS, st.lists(st.integers(0, 3), min_size=6, max_size=6), st.floats(0, 0.99))
def test_moving_averages_stay_among_the_points(points: np.ndarray, classes: list[int], momentum: float) -> None:
    moving, found = MovingPrototypes(4, 3, momentum), torch.tensor(classes)
    features = torch.tensor(points, dtype=torch.float32)
    for _ in range(3):
        moved = moving(features, found)
    for k in set(classes):
        own = features[found == k]
        assert ((moved[k] >= own.min(0).values - 1e-4) & (moved[k] <= own.max(0).values + 1e-4)).all()
    order = torch.randperm(6)
    assert class_means(features[order], found[order], 4)[0].allclose(class_means(features, found, 4)[0], atol=1e-5)


@given(POINTS, st.floats(0.05, 5))
def test_rectified_labels_are_probabilities(points: np.ndarray, temperature: float) -> None:
    features = torch.tensor(points, dtype=torch.float32)
    near = nearness(features[:3], features[3:], temperature)
    guessed = features[:3].softmax(-1)
    found = rectified(guessed, near, torch.tensor([0, 1, 2]))
    assert found.sum(-1).allclose(torch.ones(3), atol=1e-5) and (found >= 0).all()
    same = rectified(guessed, torch.zeros(3, 3), torch.tensor([0, 1, 2]))  # equally far from all: no change
    assert same.allclose(guessed, atol=1e-5)


@given(POINTS, st.floats(0.05, 5), st.floats(0.1, 10))
def test_alignment_is_of_directions_and_never_negative(points: np.ndarray, temperature: float, scale: float) -> None:
    ours, theirs = (torch.tensor(p, dtype=torch.float64) for p in (points[:3], points[3:]))
    assume(min(ours.norm(dim=1).min(), theirs.norm(dim=1).min()) > 1e-3)
    here = torch.ones(3, dtype=torch.bool)
    loss = alignment(ours, theirs, here, temperature)
    assert float(loss) >= 0
    assert float(alignment(scale * ours, theirs, here, temperature)) == pytest.approx(float(loss), abs=1e-6)


def test_similarity_counts_what_is_not_found() -> None:
    """A teacher that finds one class alone is no good one, however near that class is."""
    found = Prototypes(("O", "PER"), (0, 1), OF_SOURCE, OF_SOURCE, {"source": [2, 2], "target": [5, 0]})
    assert found.similarity == pytest.approx(0.5) and found.absent == ["PER"]
    whole = Prototypes(("O", "PER"), (0, 1), OF_SOURCE, OF_TARGET, {"source": [2, 2], "target": [5, 1]})
    cosine = 0.82 / (1.01 * 0.68) ** 0.5  # both classes alike: (1, .1) and (.8, .2)
    assert whole.similarity == pytest.approx(cosine)
    assert Prototypes(("O",), (0,), OF_SOURCE[:1], OF_SOURCE[:1], {"source": [0], "target": [3]}).similarity == 0
