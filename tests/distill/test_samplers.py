"""Samplers and batches: one language each, exact proportions, the same for every process and when resumed."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from polydistill.distill.batches import GroupBatches, MixedBatches, PairedBatches
from polydistill.distill.samplers.base import Losses, Sampler
from polydistill.distill.samplers.ddk import Ddk, DdkOptions
from polydistill.distill.samplers.even import Even
from polydistill.distill.samplers.size import Size, SizeOptions
from polydistill.errors import PolydistillError

GROUPS = {"en": range(10), "sw": range(10, 37)}


def language(batch: list[int]) -> str:
    (found,) = {"en" if i % 37 < 10 else "sw" for i in batch}
    return found


SIZES = {"en": 10, "sw": 27}


def test_weights_by_hand() -> None:
    assert Even({"a": 1, "b": 9}).weights() == {"a": 0.5, "b": 0.5}
    for exponent, small in ((1, 0.2), (0.5, 1 / 3), (0, 0.5)):
        shares = Size({"a": 1, "b": 4}, SizeOptions(exponent)).weights()
        assert shares == pytest.approx({"a": small, "b": 1 - small})
    assert Size({"a": 1, "b": 16}).weights() == pytest.approx({"a": 0.303, "b": 0.697}, abs=1e-3)  # 16^.3 = 2.297


def test_ddk_by_hand() -> None:
    sampler = Ddk({"a": 1, "b": 9})
    assert sampler.weights() == {"a": 0.5, "b": 0.5}
    losses = {"a": Losses(4.0, 2.0), "b": Losses(2.0, 2.0)}
    for share in (0.731059, 0.690399):
        sampler.update(losses)
        assert sampler.weights() == pytest.approx({"a": share, "b": 1 - share}, abs=1e-6)
    resumed = Ddk({"a": 1, "b": 9})
    resumed.restore(json.loads(json.dumps(sampler.state())))
    assert resumed.weights() == sampler.weights()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0.01, 1e3)), min_size=2, max_size=5), st.floats(0, 1))
def test_ddk_leaves_no_group_out(found: list[tuple[float, float]], alpha: float) -> None:
    names = [str(i) for i in range(len(found))]
    sampler = Ddk(dict.fromkeys(names, 1), DdkOptions(alpha=alpha))
    for _ in range(4):
        sampler.update({name: Losses(*losses) for name, losses in zip(names, found, strict=True)})
    shares = sampler.weights()
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) >= (1 - alpha) / len(names) - 1e-9
    if alpha == 0:
        assert list(shares.values()) == pytest.approx([1 / len(names)] * len(names))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(0, 5), st.integers(0, 3))
def test_even_batches_differ_by_one_at_most(steps: int, epoch: int, seed: int) -> None:
    batches = GroupBatches(GROUPS, Even(SIZES), 4, steps, seed=seed)
    batches.set_epoch(epoch)
    found = list(batches)
    assert len(found) == len(batches) == steps and {len(b) for b in found} == {4}
    counts = Counter(map(language, found))
    assert abs(counts["en"] - counts["sw"]) <= 1


class Follows(Sampler):
    """Gives each group its share of the students' losses, asked for every ten batches."""

    every = 10

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__(sizes)
        self.shares, self.asked = {"en": 0.5, "sw": 0.5}, 0

    def weights(self) -> dict[str, float]:
        self.asked += 1
        return self.shares

    def update(self, losses: Mapping[str, Losses]) -> None:
        total = sum(loss.student for loss in losses.values())
        self.shares = {group: loss.student / total for group, loss in losses.items()}

    def state(self) -> dict[str, Any]:
        return {"shares": self.shares}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.shares = dict(state["shares"])


MORE_ENGLISH = {"en": Losses(3.0, 1.0), "sw": Losses(1.0, 1.0)}


def test_a_sampler_is_asked_for_weights_every_so_many_batches() -> None:
    sampler = Follows(SIZES)
    batches = GroupBatches(GROUPS, sampler, 2, 25)
    drawn = iter(batches)
    assert Counter(map(language, itertools.islice(drawn, 10))) == {"en": 5, "sw": 5}
    sampler.update(MORE_ENGLISH)
    assert Counter(map(language, drawn)) == {"en": 11, "sw": 4}  # of 15: 7.5 and 2.5, then 3.75 and 1.25 with the rest
    assert sampler.asked == 3
    sampler.update({"en": Losses(1.0, 1.0), "sw": Losses(3.0, 1.0)})
    assert Counter(map(language, batches)) == {"en": 16, "sw": 9}  # an epoch that was drawn is drawn again as it was
    batches.set_epoch(1)
    assert Counter(map(language, batches)) == {"en": 6, "sw": 19}


def test_batches_of_a_run_that_goes_on_are_those_of_the_whole_run() -> None:
    whole, stopped, resumed = (GroupBatches(GROUPS, Follows(SIZES), 2, 40, seed=4) for _ in range(3))
    expected = []
    for batches in (whole, stopped):
        batches.set_epoch(2)
        drawn, found = iter(batches), []
        for block in range(4):
            found += list(itertools.islice(drawn, 10))
            batches._sampler.update(MORE_ENGLISH if block % 2 else {"en": Losses(1, 1), "sw": Losses(4, 1)})
            if batches is stopped and block == 1:
                break
        expected.append(found)
    resumed.restore(json.loads(json.dumps(stopped.state())))
    resumed.set_epoch(2)
    drawn = iter(resumed)
    rest = list(itertools.islice(drawn, 20))
    assert rest == expected[1] == expected[0][:20]
    rest += list(itertools.islice(drawn, 10))
    resumed._sampler.update({"en": Losses(1, 1), "sw": Losses(4, 1)})
    assert rest + list(drawn) == expected[0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(1, 7), st.integers(1, 40))
def test_rounding_never_loses_a_batch(shares: list[float], every: int, steps: int) -> None:
    """Over all blocks a group has its share of the batches, to within one or two."""
    waiting = iter(shares * 40)

    class Changing(Even):
        def weights(self) -> dict[str, float]:
            share = next(waiting)
            wanted.append(share)
            return {"en": share, "sw": 1 - share}

    wanted: list[float] = []
    sampler = Changing(SIZES)
    sampler.every = every
    found = Counter(map(language, GroupBatches(GROUPS, sampler, 1, steps)))
    assert found.total() == steps
    sizes = [min(every, steps - start) for start in range(0, steps, every)]
    assert abs(found["en"] - sum(s * w for s, w in zip(sizes, wanted, strict=True))) <= 1


def test_a_group_is_seen_whole_before_it_begins_again() -> None:
    found = list(GroupBatches(GROUPS, Even(SIZES), 5, 40, seed=1))
    laps = [list(itertools.chain(*(b for b in found if language(b) == "en")))[i * 10 : i * 10 + 10] for i in range(10)]
    assert all(sorted(lap) == list(range(10)) for lap in laps)
    assert len({tuple(lap) for lap in laps}) == 10


def test_order_follows_from_seed_and_epoch() -> None:
    def listed(seed: int, epoch: int) -> list[list[int]]:
        batches = GroupBatches(GROUPS, Even(SIZES), 4, 12, seed=seed)
        batches.set_epoch(epoch)
        return list(batches)

    assert listed(0, 0) == listed(0, 0)
    assert len({str(listed(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    languages = list(map(language, listed(0, 0)))
    assert languages != sorted(languages)


def test_turns_number_every_time_that_a_group_begins() -> None:
    batches = GroupBatches(GROUPS, Even(SIZES), 5, 16, turns=True)
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
    whole = list(GroupBatches(groups, Even(dict.fromkeys(groups, 1)), 8, 6, seed=3))
    batches = GroupBatches(groups, Even(dict.fromkeys(groups, 1)), 8, 6, seed=3, parts=parts)
    found = list(batches)
    assert len(found) == len(batches) == 6 * parts and batches.batch_size == 8 // parts
    together = [list(itertools.chain(*found[i : i + parts])) for i in range(0, len(found), parts)]
    assert together == whole


def test_an_empty_group_is_refused() -> None:
    with pytest.raises(PolydistillError, match="nothing of sw"):
        GroupBatches({"en": range(3), "sw": range(0)}, Even(SIZES), 2, 2)


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
    batches = GroupBatches(GROUPS, Even(SIZES), 6, 9, turns=True)
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
    plain = GroupBatches(GROUPS, Even(SIZES), 6, 9, turns=True)
    plain.set_epoch(epoch)
    assert list(plain) == expected


def test_a_run_goes_on_in_the_middle_of_an_epoch() -> None:
    from accelerate import skip_first_batches

    whole = loader(1, 0)
    whole.set_epoch(1)
    rest = skip_first_batches(whole, 4)
    rest.set_epoch(1)
    assert [b.tolist() for b in rest] == [b.tolist() for b in whole][4:]


# --- labelled examples and text


def mixed(share: float, *, parts: int = 1, seed: int = 0) -> MixedBatches:
    """Ten labelled examples at 0 to 9, thirteen of English text at 10 to 22, and twenty of Swahili at 23 to 42."""
    texts = {"en": [3] * 13, "sw": list(range(1, 21))}
    return MixedBatches([5] * 10, texts, share, Even({"en": 13, "sw": 20}), 4, seed=seed, parts=parts)


def group_of(batch: list[int]) -> str:
    (found,) = {"labelled" if i < 10 else "en" if i < 23 else "sw" for i in batch}
    return found


@pytest.mark.parametrize(("share", "expected"), [(0.5, (3, 1, 2)), (0.75, (3, 4, 5)), (0, (3, 0, 0))])
def test_an_epoch_goes_once_through_what_is_labelled(share: float, expected: tuple[int, ...]) -> None:
    """Three batches of four hold ten examples; at a half there are three of text, at three quarters nine."""
    batches = mixed(share)
    for epoch in range(3):
        batches.set_epoch(epoch)
        found = list(batches)
        assert len(found) == len(batches) and {len(batch) for batch in found} == {4}
        counts = Counter(map(group_of, found))
        assert counts["labelled"] == expected[0] and counts.total() == sum(expected)
        assert abs(counts["en"] - counts["sw"]) <= 1
        assert {i for batch in found for i in batch if i < 10} == set(range(10))


def test_an_epoch_has_another_part_of_the_text() -> None:
    batches, seen = mixed(0.5), []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        seen.append(list(batches))
    assert seen[0] == seen[2] != seen[1] and list(mixed(0.5, seed=1)) != seen[0]


def test_parts_of_a_mixed_batch_make_up_the_whole_one() -> None:
    whole, halves = list(mixed(0.5)), list(mixed(0.5, parts=2))
    assert [a + b for a, b in zip(halves[::2], halves[1::2], strict=True)] == whole


def test_text_that_is_used_up_begins_again() -> None:
    found = [i for batch in mixed(0.95) for i in batch if 10 <= i < 23]
    assert len(found) > 2 * 13 and set(found) == set(range(10, 23))
