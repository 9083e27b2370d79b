"""Which tokens stay: ranking, closure, caps, reasons, refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import CASES

from polydistill.errors import UsageError
from polydistill.vocab.keep import Evidence, KeepRule, KeepSet, select, tokens_by_id


@dataclass
class Space:
    """Tokens named t0, t1, ..., of which some need others."""

    size: int
    needs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    guarded: Sequence[int] = ()
    holes: Sequence[int] = ()

    @property
    def ids(self) -> dict[str, int]:
        return {f"t{i}": i for i in range(self.size) if i not in self.holes}

    @property
    def tokens(self) -> list[str]:
        return tokens_by_id(self.ids, self.size)

    def guards(self) -> list[int]:
        return list(self.guarded)

    def dependencies(self, token: str) -> Sequence[str]:
        return self.needs.get(token, ())

    def forms(self, text: str) -> list[str]:
        return [text]


def seen(
    *counts: float, language: str = "xx", weight: float = 1.0, expected: Sequence[float] | None = None
) -> Evidence:
    return Evidence(language, np.array(counts), np.array(expected if expected is not None else counts, float), weight)


def kept(space: Space, evidence: Sequence[Evidence], required: Mapping[int, str] | None = None, **rule) -> list[int]:
    return select(space, required or {}, evidence, KeepRule(**rule)).ids.tolist()


# ---- KeepSet ----


def test_new_ids_follow_the_order_of_the_old_ones() -> None:
    keep = KeepSet.of({7: "corpus", 2: "special", 4: "closure"}, 9)
    assert keep.ids.tolist() == [2, 4, 7] and len(keep) == 3
    assert keep.table.tolist() == [-1, -1, 0, -1, 1, -1, -1, 2, -1]
    assert [keep.new(i) for i in (2, 4, 7)] == [0, 1, 2]
    assert 7 in keep and 3 not in keep and -1 not in keep and 9 not in keep and 10**9 not in keep
    assert keep.count_reasons() == {"special": 1, "corpus": 1, "closure": 1}
    assert keep.vocabulary({"g": 7, "e": 4, "c": 2, "a": 0}) == {"c": 0, "e": 1, "g": 2}
    assert list(keep.vocabulary({"g": 7, "e": 4, "c": 2, "a": 0})) == ["c", "e", "g"]


@pytest.mark.parametrize("old", [0, 3, 8, -1, 9])
def test_a_dropped_id_has_no_new_one(old: int) -> None:
    with pytest.raises(KeyError):
        KeepSet.of({7: "corpus", 2: "special", 4: "closure"}, 9).new(old)


def test_everything_is_the_identity_and_nothing_is_empty() -> None:
    keep = KeepSet.everything(5)
    assert keep.table.tolist() == keep.ids.tolist() == [0, 1, 2, 3, 4]
    assert len(KeepSet.of({}, 5)) == 0 and 0 not in KeepSet.of({}, 5)


def test_an_unknown_reason_is_a_mistake_of_the_program() -> None:
    with pytest.raises(KeyError):
        KeepSet.of({1: "because"}, 5)


# ---- KeepRule ----


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"coverage": 0.9, "vocab_size": 10},
        {"min_count": 1, "vocab_size": 10},
        {"coverage": 0.9, "vocab_size": 10, "min_count": 1},
        {"coverage": 0.0},
        {"coverage": -0.5},
        {"coverage": 1.01},
        {"coverage": 99.99},
        {"coverage": float("nan")},
        {"vocab_size": 0},
        {"vocab_size": -3},
        {"min_count": 0},
        {"min_count": -1},
        {"min_share": 0.0},
        {"min_share": 1.5},
        {"min_share": float("nan")},
        {"min_share": 1e-6, "coverage": 0.9},
    ],
    ids=str,
)
def test_rules_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError) as caught:
        KeepRule(**wrong)
    assert "`" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_rule_may_be_as_loose_or_strict_as_can_be() -> None:
    assert KeepRule(coverage=1).coverage == 1
    assert KeepRule(coverage=1e-9).vocab_size is None
    assert KeepRule(vocab_size=1).vocab_size == KeepRule(min_count=1).min_count == 1


# ---- ranking ----


def test_ties_go_to_the_lower_id() -> None:
    space = Space(6)
    evidence = [seen(1, 3, 2, 3, 2, 3)]
    assert [kept(space, evidence, vocab_size=n) for n in range(1, 7)] == [
        [1],
        [1, 3],
        [1, 3, 5],
        [1, 2, 3, 5],
        [1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5],
    ]


def test_many_ties_go_to_the_lower_ids() -> None:
    space, evidence = Space(2000), [seen(*(i % 3 for i in range(2000)))]
    ranked = sorted(range(2000), key=lambda i: (-(i % 3), i))
    assert kept(space, evidence, vocab_size=900) == sorted(ranked[:900])
    assert kept(space, evidence, coverage=0.4) == sorted(ranked[:400])


def test_smoothing_decides_the_order_and_counts_what_was_seen() -> None:
    evidence = seen(0, 5, 5, 0, expected=[0.5, 1.0, 4.0, 0.1])
    assert kept(Space(4), [evidence], vocab_size=1) == [2]
    keep = select(Space(4), {}, [evidence], KeepRule(vocab_size=3))
    assert keep.ids.tolist() == [0, 1, 2]
    assert keep.count_reasons() == {"corpus": 2, "spelling": 1}


def test_weights_and_unequal_texts() -> None:
    # The second text is a hundred times longer; without weights each language counts the same.
    short, long = (3, 1, 0, 0), (0, 0, 200, 300)
    space = Space(4)
    assert kept(space, [seen(*short), seen(*long)], vocab_size=2) == [0, 3]
    assert kept(space, [seen(*short), seen(*long)], vocab_size=3) == [0, 2, 3]
    assert kept(space, [seen(*short, weight=4), seen(*long)], vocab_size=3) == [0, 1, 3]
    assert kept(space, [seen(*short, weight=4), seen(*long)], vocab_size=2) == [0, 1]


def test_a_language_without_text_does_not_matter() -> None:
    assert kept(Space(3), [seen(0, 0, 0), seen(0, 2, 1)], vocab_size=1) == [1]
    assert kept(Space(3), [seen(0, 0, 0)], {2: "special"}, coverage=0.5) == [2]
    assert kept(Space(3), [seen(0, 0, 0)], vocab_size=2) == [0, 1]
    assert kept(Space(3), [], vocab_size=2) == [0, 1]


def test_min_count_is_of_one_language_not_of_the_sum() -> None:
    evidence = [seen(2, 1, 0, 3), seen(0, 1, 2, 0)]
    assert kept(Space(4), evidence, min_count=2) == [0, 2, 3]
    assert kept(Space(4), evidence, min_count=3) == [3]
    assert kept(Space(4), evidence, min_count=1) == [0, 1, 2, 3]
    assert kept(Space(4), evidence, min_count=4) == []


def test_min_share_is_of_each_language_by_its_own_text() -> None:
    # A text of 10 tokens and one of 1,000: what counts is the share, whatever the length.
    evidence = [seen(5, 4, 1, 0, 0), seen(1, 0, 499, 499, 1)]
    assert kept(Space(5), evidence, min_share=0.499) == [0, 2, 3]
    assert kept(Space(5), evidence, min_share=0.4) == [0, 1, 2, 3]
    assert kept(Space(5), evidence, min_share=0.001) == [0, 1, 2, 3, 4]
    assert kept(Space(5), evidence, min_share=0.5) == [0]
    assert kept(Space(5), evidence, min_share=1) == []


def test_a_share_keeps_what_has_exactly_that_share_and_nothing_unseen() -> None:
    assert kept(Space(3), [seen(1, 999_999, 0)], min_share=1e-6) == [0, 1]
    assert kept(Space(3), [seen(1, 1_000_000, 0)], min_share=1e-6) == [1]
    assert kept(Space(3), [seen(3, 7, 0, expected=[3.0, 7.0, 5.0])], min_share=1e-9) == [0, 1]
    assert kept(Space(2), [seen(0, 0), seen(0, 3)], min_share=1e-6) == [1]
    for n in (3, 7, 10, 49, 1_001):  # one n-th of n tokens, in floating point
        assert len(kept(Space(n), [seen(*[3] * n)], min_share=1 / n)) == n


# ---- coverage ----


@CASES
@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0.0, 0.25, 0.5])), min_size=1, max_size=30),
    st.sampled_from([0.1, 0.25, 0.5, 0.9, 0.999, 1.0]),
)
def test_coverage_keeps_the_shortest_prefix(pairs: list[tuple[int, float]], coverage: float) -> None:
    counts = np.array([n for n, _ in pairs])
    expected = counts + np.array([extra for _, extra in pairs])
    found = kept(Space(len(pairs)), [Evidence("xx", counts, expected)], coverage=coverage)
    order = sorted(range(len(pairs)), key=lambda i: (-expected[i], i))
    total = int(counts.sum())
    shortest = next(n for n in range(len(order) + 1) if counts[order[:n]].sum() >= coverage * total - 1e-9)
    assert found == sorted(i for i in order[:shortest] if expected[i] > 0)


def test_coverage_holds_in_every_language_whatever_its_weight() -> None:
    first, second = seen(90, 9, 1, 0, 0), seen(0, 0, 50, 30, 20, weight=1e-6)
    assert kept(Space(5), [first, second], coverage=0.9) == [0, 2, 3, 4]
    assert kept(Space(5), [first, second], coverage=0.8) == [0, 2, 3]
    assert kept(Space(5), [first, second], coverage=1.0) == [0, 1, 2, 3, 4]


# ---- what must stay ----


def test_required_tokens_stay_with_the_strongest_reason_and_what_they_need() -> None:
    space = Space(8, {"t5": ("t3", "t4"), "t3": ("t1",)}, guarded=[7])
    keep = select(
        space, {5: "requested", 0: "special", 3: "letters"}, [seen(0, 0, 9, 0, 0, 0, 0, 0)], KeepRule(min_count=1)
    )
    assert keep.ids.tolist() == [0, 1, 2, 3, 4, 5, 7]
    assert keep.count_reasons() == {"special": 1, "letters": 1, "requested": 1, "guard": 1, "corpus": 1, "closure": 2}


def test_what_a_token_needs_comes_before_it_under_a_cap() -> None:
    space = Space(5, {"t4": ("t2", "t3")})
    evidence = [seen(0, 2, 0, 0, 9)]
    assert [kept(space, evidence, vocab_size=n) for n in (1, 2, 3, 4, 5)] == [
        [2],
        [2, 3],
        [2, 3, 4],
        [1, 2, 3, 4],
        [0, 1, 2, 3, 4],
    ]


def test_dropped_tokens_go_although_they_were_seen_or_required() -> None:
    keep = select(Space(4), {0: "special", 1: "special"}, [seen(1, 1, 9, 1)], KeepRule(min_count=1), frozenset({1, 2}))
    assert keep.ids.tolist() == [0, 3]
    filled = select(Space(4), {0: "special"}, [], KeepRule(vocab_size=2), frozenset({1, 2}))
    assert filled.ids.tolist() == [0, 3] and filled.count_reasons() == {"special": 1, "filling": 1}


def test_rows_without_a_token_come_last() -> None:
    keep = KeepSet.of({1: "special", 4: "corpus"}, 5).with_rows([9, 3], 12)
    assert keep.ids.tolist() == [1, 4, 3, 9] and keep.tokens.tolist() == [1, 4] and keep.size == 12
    assert [keep.new(i) for i in (1, 4, 3, 9)] == [0, 1, 2, 3] and 10 not in keep
    assert keep.vocabulary({"a": 1, "b": 2, "c": 4}) == {"a": 0, "c": 1}
    assert keep.count_reasons() == {"special": 3, "corpus": 1}


def test_ids_without_a_token_are_never_chosen() -> None:
    space = Space(5, holes=[1, 2])
    assert kept(space, [], vocab_size=3) == [0, 3, 4]
    with pytest.raises(UsageError, match=r"A `vocab_size` of 4 is more than the 3 tokens that can stay"):
        kept(space, [], vocab_size=4)


def test_a_size_below_what_must_stay_says_the_least_that_works() -> None:
    space = Space(3000, {"t9": ("t8",)}, guarded=[2999])
    required = dict.fromkeys(range(1500), "special")
    with pytest.raises(UsageError, match=r"A `vocab_size` of 1,500 is too small: 1,501 tokens must stay") as caught:
        kept(space, [], required, vocab_size=1500)
    assert "1,501 or more" in caught.value.hint
    assert len(kept(space, [], required, vocab_size=1501)) == 1501


def test_a_size_above_the_vocabulary_says_how_many_there_are() -> None:
    with pytest.raises(UsageError, match=r"A `vocab_size` of 11 is more than the 10 tokens"):
        kept(Space(10), [], vocab_size=11)
    with pytest.raises(UsageError, match=r"more than the 8 tokens"):
        select(Space(10), {}, [], KeepRule(vocab_size=9), frozenset({0, 1}))


@CASES
@given(st.data())
def test_any_selection_is_closed_and_the_same_again(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 15))
    # What a token needs is listed with all that it needs in turn, as merge paths are.
    needs: dict[str, tuple[str, ...]] = {}
    for i in range(1, size):
        parts = data.draw(st.lists(st.integers(0, i - 1), max_size=2, unique=True))
        path = dict.fromkeys(t for p in parts for t in (*needs.get(f"t{p}", ()), f"t{p}"))
        needs[f"t{i}"] = tuple(path)
    space = Space(size, needs, data.draw(st.lists(st.integers(0, size - 1), max_size=1)))
    evidence = [seen(*data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)))]
    required = dict.fromkeys(data.draw(st.sets(st.integers(0, size - 1), max_size=3)), "special")
    least = len(select(space, required, [], KeepRule(min_count=1)))
    for rule in (KeepRule(coverage=0.8), KeepRule(vocab_size=data.draw(st.integers(max(1, least), size)))):
        keep = select(space, required, evidence, rule)
        assert all(int(n[1:]) in keep for i in keep.ids.tolist() for n in needs.get(f"t{i}", ()))
        assert all(i in keep for i in (*required, *space.guarded))
        assert len(keep) == (rule.vocab_size or len(keep))
        again = select(space, dict(reversed(required.items())), evidence, rule)
        assert (again.ids.tolist(), again.reasons.tolist()) == (keep.ids.tolist(), keep.reasons.tolist())
