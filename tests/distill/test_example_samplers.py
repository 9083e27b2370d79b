"""Which examples an epoch uses: random parts, differences, and robust active distillation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from polydistill.distill.samplers.active import Active, ActiveOptions, probabilities
from polydistill.distill.samplers.difference import Difference, DifferenceOptions
from polydistill.distill.samplers.examples import ExampleSampler, Told
from polydistill.distill.samplers.rs2 import Rs2, Rs2Options


def told(student: list[float], teacher: list[float] | None = None, margin: list[float] | None = None) -> Told:
    zeros = [0.0] * len(student)
    return Told(np.array(student), np.array(teacher or zeros), np.array(margin or zeros))


def test_all_examples() -> None:
    assert ExampleSampler(size=4, seed=0).places(3).tolist() == [0, 1, 2, 3]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 50), st.floats(0.01, 1), st.integers(0, 3))
def test_every_epoch_has_a_random_part_of_its_own(size: int, share: float, seed: int) -> None:
    sampler = Rs2(Rs2Options(share=share), size=size, seed=seed)
    epochs = [sampler.places(epoch).tolist() for epoch in range(6)]
    assert all(len(set(places)) == len(places) == sampler.count == max(1, round(share * size)) for places in epochs)
    assert epochs == [Rs2(Rs2Options(share=share), size=size, seed=seed).places(epoch).tolist() for epoch in range(6)]
    if 8 < sampler.count < size - 8:
        assert len({tuple(places) for places in epochs}) == 6


def test_differences_by_hand() -> None:
    """Reference 3, 2.5, 2, 4 less teacher 2.5, 2.4, 2.1, 2: .5, .1, -.1, 2."""
    sampler = Difference(DifferenceOptions(share=0.5), size=4, seed=0)
    sampler.told(told([3, 2.5, 2, 4], [2.5, 2.4, 2.1, 2]))
    assert sampler.places(0).tolist() == sampler.places(5).tolist() == [0, 3]
    shifted = Difference(DifferenceOptions(share=0.5), size=4, seed=0)
    shifted.told(told([13, 12.5, 12, 14], [2.5, 2.4, 2.1, 2]))  # a constant added to one model changes nothing
    assert shifted.places(0).tolist() == [0, 3]


def test_probabilities_of_active_distillation_by_hand() -> None:
    assert probabilities(np.array([1, 0.5, 0.25]), 1) == pytest.approx([1 / 3, 2 / 3, 0])
    assert probabilities(np.array([0.25, 1, 0.5]), 1) == pytest.approx([0, 1 / 3, 2 / 3])
    assert probabilities(np.array([0.5, 1, 0.25]), 0) == pytest.approx([0, 1, 0])  # nobody errs: the best alone


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.05, 1), min_size=2, max_size=7), st.integers(0, 5))
def test_probabilities_are_those_of_the_game(gains: list[float], errors: int) -> None:
    """The value of the game as a linear program, and equal gains wherever something is drawn."""
    g, errors = np.array(gains), min(errors, len(gains) - 1)
    found = probabilities(g, errors)
    assert found.sum() == pytest.approx(1) and (found >= 0).all()
    drawn = (found * g)[found > 0]
    assert drawn == pytest.approx(np.full(len(drawn), drawn[0]))
    value = sum(sorted(found * g)[: len(g) - errors])  # the adversary spoils the largest
    subsets = list(itertools.combinations(range(len(g)), errors))
    above = [[*(0.0 if i in spoilt else -g[i] for i in range(len(g))), 1.0] for spoilt in subsets]
    best = linprog(
        [*([0.0] * len(g)), -1.0],
        A_ub=above,
        b_ub=[0.0] * len(subsets),
        A_eq=[[*([1.0] * len(g)), 0.0]],
        b_eq=[1.0],
        bounds=[*([(0, None)] * len(g)), (None, None)],
    )
    assert value == pytest.approx(-best.fun, abs=1e-6)


def test_active_draws_what_the_student_is_unsure_of() -> None:
    sampler = Active(ActiveOptions(share=0.5, errors=0.1), size=10, seed=1)
    sampler.told(told([0.0] * 10, margin=[0.0] * 5 + [0.999] * 5))
    assert {tuple(sorted(sampler.places(epoch))) for epoch in range(4)} == {(0, 1, 2, 3, 4)}
    even = Active(ActiveOptions(share=0.5), size=10, seed=1)
    even.told(told([0.0] * 10))
    assert len({tuple(even.places(epoch)) for epoch in range(4)}) == 4
