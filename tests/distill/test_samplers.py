"""Samplers and batches: one language each, exact proportions, the same for every process and when resumed."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from polydistill.distill.samplers import Even, GroupBatches, PairedBatches, Proportional, Sampler
from polydistill.errors import PolydistillError

GROUPS = {"en": range(10), "sw": range(10, 37)}


def language(batch: list[int]) -> str:
    (found,) = {"en" if i % 37 < 10 else "sw" for i in batch}
    return found


def test_weights_by_hand() -> None:
    assert Even(["a", "b"]).weights() == {"a": 0.5, "b": 0.5}
    assert Proportional({"a": 1, "b": 3}).weights() == {"a": 0.25, "b": 0.75}
    assert Proportional({"a": 1, "b": 16}, 0.5).weights() == pytest.approx({"a": 0.2, "b": 0.8})
    assert Proportional({"a": 1, "b": 16}, 0).weights() == {"a": 0.5, "b": 0.5}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(0, 5), st.integers(0, 3))
def test_even_batches_differ_by_one_at_most(steps: int, epoch: int, seed: int) -> None:
    batches = GroupBatches(GROUPS, Even(list(GROUPS)), 4, steps, seed=seed)
    batches.set_epoch(epoch)
    found = list(batches)
    assert len(found) == len(batches) == steps and {len(b) for b in found} == {4}
    counts = Counter(map(language, found))
    assert abs(counts["en"] - counts["sw"]) <= 1


def test_batches_follow_the_weights_of_the_moment() -> None:
    class Follows:
        def __init__(self) -> None:
            self.shares = {"en": 0.5, "sw": 0.5}

        def weights(self) -> dict[str, float]:
            return self.shares

        def update(self, losses: Mapping[str, float]) -> None:
            self.shares = {group: loss / sum(losses.values()) for group, loss in losses.items()}

        def state_dict(self) -> dict[str, Any]:
            return self.shares

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            self.shares = dict(state)

    sampler: Sampler = Follows()
    batches = GroupBatches(GROUPS, sampler, 2, 20)
    assert Counter(map(language, batches)) == {"en": 10, "sw": 10}
    sampler.update({"en": 3.0, "sw": 1.0})
    assert Counter(map(language, batches)) == {"en": 15, "sw": 5}


def test_a_group_is_seen_whole_before_it_begins_again() -> None:
    found = list(GroupBatches(GROUPS, Even(list(GROUPS)), 5, 40, seed=1))
    laps = [list(itertools.chain(*(b for b in found if language(b) == "en")))[i * 10 : i * 10 + 10] for i in range(10)]
    assert all(sorted(lap) == list(range(10)) for lap in laps)
    assert len({tuple(lap) for lap in laps}) == 10


def test_order_follows_from_seed_and_epoch() -> None:
    def listed(seed: int, epoch: int) -> list[list[int]]:
        batches = GroupBatches(GROUPS, Even(list(GROUPS)), 4, 12, seed=seed)
        batches.set_epoch(epoch)
        return list(batches)

    assert listed(0, 0) == listed(0, 0)
    assert len({str(listed(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    languages = list(map(language, listed(0, 0)))
    assert languages != sorted(languages)


def test_turns_number_every_time_that_a_group_begins() -> None:
    batches = GroupBatches(GROUPS, Even(list(GROUPS)), 5, 16, turns=True)
    turns = set()
    for epoch in range(3):
        batches.set_epoch(epoch)
        seen = [i for batch in batches for i in batch if i % 37 < 10]
        laps = [{i // 37 for i in seen[start : start + 10]} for start in range(0, 40, 10)]
        assert all(len(lap) == 1 for lap in laps)
        turns |= {next(iter(lap)) for lap in laps}
        assert sorted(i % 37 for i in seen[:10]) == list(range(10))
    assert len(turns) == 12 and min(turns) == 0


@pytest.mark.parametrize("parts", [2, 4])
def test_the_parts_of_a_step_are_of_one_group(parts: int) -> None:
    groups = {"a": range(12), "b": range(12, 40)}
    whole = list(GroupBatches(groups, Even(("a", "b")), 8, 6, seed=3))
    batches = GroupBatches(groups, Even(("a", "b")), 8, 6, seed=3, parts=parts)
    found = list(batches)
    assert len(found) == len(batches) == 6 * parts and batches.batch_size == 8 // parts
    together = [list(itertools.chain(*found[i : i + parts])) for i in range(0, len(found), parts)]
    assert together == whole


def test_an_empty_group_is_refused() -> None:
    with pytest.raises(PolydistillError, match="nothing of sw"):
        GroupBatches({"en": range(3), "sw": range(0)}, Even(["en", "sw"]), 2, 2)


# ---- two groups in a batch ----


@pytest.mark.parametrize(("first", "second"), [(10, 4), (10, 27), (3, 50)])
def test_each_batch_has_as_many_of_both_groups(first: int, second: int) -> None:
    batches = PairedBatches(range(first), range(second), 4, seed=5)
    assert len(batches) == -(-first // 4)
    seen: list[list[int]] = []
    for epoch in range(3):
        batches.set_epoch(epoch)
        found = list(batches)
        assert found == list(batches) and len(found) == len(batches)
        ours = [[i for i in batch if i < first] for batch in found]
        theirs = [[i for i in batch if i >= first] for batch in found]
        assert sorted(itertools.chain(*ours)) == list(range(first))
        assert all(len(b) == 4 for b in theirs) and max(itertools.chain(*theirs)) < first + second
        laps = list(itertools.chain(*theirs))[:second]
        assert len(set(laps)) == len(laps)  # none comes twice before all have come
        seen.append(laps)
    assert second == 4 or len(set(map(tuple, seen))) > 1  # four of them are one batch, the longest first


def test_inputs_of_like_length_come_together() -> None:
    lengths = [1, 9] * 40
    batches = PairedBatches(lengths, lengths, 4, seed=0)
    pure = [len({lengths[i % 80] for i in batch[:4]}) == 1 for batch in batches]
    assert sum(pure) == len(pure)


# ---- several processes ----


class Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 37

    def __getitem__(self, index: int) -> int:
        return index


def loader(processes: int, process: int) -> Any:
    batches = GroupBatches(GROUPS, Even(list(GROUPS)), 6, 9, turns=True)
    plain: DataLoader[int] = DataLoader(Numbers(), batch_sampler=batches)
    return prepare_data_loader(
        plain,
        torch.device("cpu"),
        num_processes=processes,
        process_index=process,
        split_batches=True,
        put_on_device=False,
        rng_types=[],
    )


@pytest.mark.parametrize("epoch", [0, 2])
def test_the_parts_of_two_processes_are_the_batch_of_one(epoch: int) -> None:
    whole, *parts = loader(1, 0), loader(2, 0), loader(2, 1)
    for part in (whole, *parts):
        part.set_epoch(epoch)
    expected = [batch.tolist() for batch in whole]
    assert len(expected) == 9
    assert [torch.cat(pair).tolist() for pair in zip(*parts, strict=True)] == expected
    plain = GroupBatches(GROUPS, Even(list(GROUPS)), 6, 9, turns=True)
    plain.set_epoch(epoch)
    assert list(plain) == expected


def test_a_run_goes_on_in_the_middle_of_an_epoch() -> None:
    from accelerate import skip_first_batches

    whole = loader(1, 0)
    whole.set_epoch(1)
    rest = skip_first_batches(whole, 4)
    rest.set_epoch(1)
    assert [b.tolist() for b in rest] == [b.tolist() for b in whole][4:]
