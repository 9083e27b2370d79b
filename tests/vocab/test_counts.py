"""Counting: by words as by lines, shards that add up, lines held out, files of counts."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import CASES

from polydistill.catalog import language
from polydistill.errors import PolydistillError, UsageError
from polydistill.trimming import counting
from polydistill.vocab import counts, open_vocabulary
from polydistill.vocab.counts import (
    HELD_OUT_EVERY,
    HELD_OUT_LINES,
    LanguageCounts,
    Text,
    TextCounter,
    TokenCounts,
    fertility,
    tally,
)
from polydistill.vocab.keep import Evidence, KeepRule, select

RECIPES = [recipe for recipes in tiny.FAMILIES.values() for recipe in recipes]
# By words, a language code inside a line would lose what it does to the spaces around it.
PLAIN = tiny.sentences(count=40)
ODD_LINES = [
    "  two  spaces ",
    "tab\there\t",
    "nbsp\u00a0here 12\u00a0000",
    "e\u0301 combining a\u0306",
    "a \u0303b \u0301",
    "\u0303x start",
    "👩‍🏫 emoji ❤️ 🏳️‍🌈",
    "",
    "   ",
    "\t",
    " lead",
    "trail ",
    "x\u2003em",
    "a\u200db zero",
    "¨a ´b ˛c",
    "a\x1cb c\x85d",
    "a\u2028b",
    "soft\u00adhyphen",
    "ﬁ ½ ①",
    "a\u3000b",
    "q\u200bz",
    "a\rb",
    "a\x00b",
    "▁ lit ▁▁x x▁",
    "… ‥",
    "\ufeffbom",
    "[MASK] foo[MASK]bar",
    "x\u1680y",
    "\u202fnarrow",
    "don't 'tis  'S",
    "a\x0bb\x0cc",
    "ẛ̣ ſ",
    "،؛ ؟",
    "ﷺ ﷲ",
    "゛ ﾞｶﾞ",
    "学 习",
    "  ",
    "a  \u0301b",
    "ọ\u0300 ṣ\u0301",
]
ODD_TEXT = st.text("ab1'.țé学🙂 \t\r\u00a0\u2009\u3000\u2028\u0301\u200d\ufe0f▁\x1c\x85¨", max_size=12)


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("tokenizers")
    return {recipe: open_vocabulary(tiny.tokenizer_files(recipe, root / recipe)) for recipe in RECIPES}


def by_lines(spaces: Sequence[Any], lines: list[str]) -> dict[str, list[int]]:
    """What whole lines give, without anything of the module under test."""
    found = {}
    for space in spaces:
        totals = Counter(i for encode in space.encoders for ids in encode(lines) for i in ids)
        found[space.name] = [totals[i] for i in range(space.size)]
    return found


def counted(spaces: Sequence[Any], *blocks: list[str], seed: int = 0) -> LanguageCounts:
    counter = TextCounter(spaces, seed)
    for block in blocks:
        counter.add(block)
    return counter.result([])


def check_lines(vocabulary: Any, lines: list[str]) -> None:
    plain = PLAIN[:20]  # so few that none is held out
    result = counted(vocabulary.spaces, plain, lines)
    assert result.held_out == ()
    expected = by_lines(vocabulary.spaces, plain + lines)
    assert {name: found.tolist() for name, found in result.spaces.items()} == expected


# ---- by words as by lines ----


@pytest.mark.parametrize("recipe", RECIPES)
def test_odd_lines_after_plain_ones_count_as_whole_lines_do(recipe: str, vocabularies: dict[str, Any]) -> None:
    """What the first lines show decides how text is cut: what they do not show must not be counted wrongly."""
    for line in ODD_LINES:
        check_lines(vocabularies[recipe], [line])
        check_lines(vocabularies[recipe], [line, f"before {line} after", "plain words"])


@pytest.mark.parametrize("recipe", RECIPES)
def test_random_lines_count_as_whole_lines_do(recipe: str, vocabularies: dict[str, Any]) -> None:
    @settings(CASES, max_examples=25)
    @given(st.lists(ODD_TEXT, min_size=1, max_size=6))
    def check(lines: list[str]) -> None:
        check_lines(vocabularies[recipe], lines)
        result = counted(vocabularies[recipe].spaces, lines)
        expected = by_lines(vocabularies[recipe].spaces, lines)
        assert {name: found.tolist() for name, found in result.spaces.items()} == expected

    check()


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("xlm-roberta", "words"),
        ("bert", "words without punctuation"),
        ("t5", "words"),
        ("gpt2", "spaced words"),
        ("gemma", "spaced words"),
    ],
)
def test_the_fast_cuts_are_used_where_they_are_right(recipe: str, name: str, vocabularies: dict[str, Any]) -> None:
    counter = TextCounter(vocabularies[recipe].spaces)
    counter.add(PLAIN)
    assert counter._cut.name == name


def test_a_tokenizer_whose_tokens_cross_spaces_is_counted_by_lines() -> None:
    class Crossing:
        name, size = "vocabulary", 3
        cut = None
        counting_encoders = [lambda texts: [[0] * t.count("a b") + [1] * t.count("c") for t in texts]]  # noqa: RUF012

    counter = TextCounter([Crossing()])
    counter.add(["a b c", "c a b a b"])
    assert counter._cut.name == "lines"
    assert counter.result([]).spaces["vocabulary"].tolist() == [3, 2, 0]


def test_small_buffers_change_nothing(vocabularies: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = tiny.sentences(count=120)
    for recipe in ("bert", "gpt2", "m2m_100", "marian-separate"):
        spaces = vocabularies[recipe].spaces
        with monkeypatch.context() as patch:
            patch.setattr(counts, "PENDING_UNITS", 7)
            patch.setattr(counts, "ENCODE_AT_ONCE", 3)
            patch.setattr(counts, "UNITS_JOINED", 2)
            small = counted(spaces, *(lines[i : i + 11] for i in range(0, 120, 11)), seed=49)
        large = counted(spaces, lines, seed=49)
        assert all(np.array_equal(small.spaces[s.name], large.spaces[s.name]) for s in spaces)
        assert small.words == large.words and small.held_out == large.held_out


def test_words_are_remembered_with_their_counts(vocabularies: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["the cat the dog", "the cat", "  odd\tline the "]
    for recipe in ("bert", "gpt2", "llama"):
        assert counted(vocabularies[recipe].spaces, lines).words == {"the": 4, "cat": 2, "dog": 1, "odd": 1, "line": 1}
    monkeypatch.setattr(counts, "WORDS_KEPT", 2)
    assert counted(vocabularies["bert"].spaces, lines).words == {"the": 4, "cat": 2}


def test_tally_weighs_each_text() -> None:
    def encode(texts: list[str]) -> list[list[int]]:
        return [[int(c) for c in t if c != " "] for t in texts]

    assert tally(encode, {"01": 2, "1": 0.5, "": 7}, 3).tolist() == [2, 2.5, 0]
    assert tally(encode, {str(n % 3): 1 for n in range(3)} | {"00": 4}, 3, " ").tolist() == [9, 1, 1]
    assert tally(encode, {}, 3, " ").tolist() == [0, 0, 0]


# ---- held-out lines ----


class Numbers:
    """An id space whose tokens are the numbers that a text has."""

    name, size = "vocabulary", 400
    cut = None
    counting_encoders = [lambda texts: [[int(w) for w in t.split() if w.isdigit()] for t in texts]]  # noqa: RUF012


@CASES
@given(st.integers(0, 400), st.integers(0, 120), st.lists(st.integers(1, 130), max_size=12))
def test_one_line_of_fifty_is_held_out_and_counted_like_the_others(total: int, seed: int, cuts: list[int]) -> None:
    lines, blocks = [str(i) for i in range(total)], []
    for cut in cuts:
        blocks.append(lines[:cut])
        lines = lines[cut:]
    result = counted([Numbers()], *blocks, lines, seed=seed)
    held = [int(line) for line in result.held_out]
    assert len(held) <= total // HELD_OUT_EVERY + 1 and (total < 2 * HELD_OUT_EVERY or held)
    assert all(i % HELD_OUT_EVERY == seed % HELD_OUT_EVERY for i in held)
    assert len(set(held)) == len(held)
    assert result.spaces["vocabulary"].tolist() == [int(i < total) for i in range(400)]
    fewer = result.without_held_out([Numbers()])
    assert fewer.spaces["vocabulary"].tolist() == [int(i < total and i not in held) for i in range(400)]
    assert fewer.words == {word: n for word, n in result.words.items() if int(word) not in held}


def test_no_more_lines_are_held_out_than_are_needed(vocabularies: dict[str, Any]) -> None:
    total = HELD_OUT_EVERY * (HELD_OUT_LINES + 20)
    result = counted(vocabularies["bert"].spaces, [f"{i}" for i in range(total)])
    assert len(result.held_out) == HELD_OUT_LINES
    assert sum(result.words.values()) == total


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_counts_without_the_lines_held_out_are_those_of_the_other_lines(
    recipe: str, vocabularies: dict[str, Any]
) -> None:
    spaces, lines = vocabularies[recipe].spaces, tiny.sentences(count=95)
    lines[50] = "Un rând, (rar)!"
    whole = counted(spaces, lines[:70], lines[70:])
    assert whole.held_out == (lines[0], lines[50])
    fewer = whole.without_held_out(spaces)
    others = [line for i, line in enumerate(lines) if i not in (0, 50)]
    assert {name: found.tolist() for name, found in fewer.spaces.items()} == by_lines(spaces, others)
    assert fewer.words == counted(spaces, others).words


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_line_tokenizes_as_before_when_every_token_seen_is_kept(
    recipe: str, vocabularies: dict[str, Any], tmp_path: Path
) -> None:
    vocabulary = vocabularies[recipe]
    lines = [*tiny.sentences(count=57), *ODD_LINES[:6], "quixotic Ẽ ζ zzz", "Ωmega ßtraße"]
    for seed in (0, 55, 57, 64):  # each holds other lines out
        found = counted(vocabulary.spaces, lines, seed=seed)
        keeps = [
            select(
                space,
                space.required(),
                [Evidence("ro", found.spaces[space.name], found.spaces[space.name])],
                KeepRule(min_count=1),
            )
            for space in vocabulary.spaces
        ]
        assert found.held_out
        for space, keep in zip(vocabulary.spaces, keeps, strict=True):
            for encode in space.encoders:
                assert all(i in keep for ids in encode(lines) for i in ids)
    vocabulary.write(tmp_path, keeps, frozenset(), [language("ro")])
    after = open_vocabulary(tmp_path)
    for space, new, keep in zip(vocabulary.spaces, after.spaces, keeps, strict=True):
        for encode, encode_new in zip(space.encoders, new.encoders, strict=True):
            mapped = [[keep.new(i) for i in ids] for ids in encode(lines)]
            assert encode_new(lines) == mapped


# ---- adding up, saving, loading ----

TEXT = Text("a.txt", 3, 30, "ab" * 32)


def language_counts(values: Sequence[int], words: dict[str, int], held: Sequence[str] = (), **more) -> LanguageCounts:
    return LanguageCounts({"vocabulary": np.array(values, np.int64)}, words, (TEXT,), tuple(held), **more)


def as_data(total: TokenCounts) -> Any:
    languages = {
        code: ({n: v.tolist() for n, v in c.spaces.items()}, c.words, c.texts, c.held_out, c.wordlist)
        for code, c in total.languages.items()
    }
    return total.tokenizer, total.template, languages


def test_shards_add_up() -> None:
    first = TokenCounts("h", {"ro": language_counts([1, 0, 2], {"a": 1, "b": 2}, ["x"])}, (1,))
    second = TokenCounts("h", {"ro": language_counts([0, 5, 1], {"b": 3}, ["y"]), "sw": language_counts([1, 1, 1], {})})
    assert as_data(first + second) == (
        "h",
        (1,),
        {
            "ro": ({"vocabulary": [1, 5, 3]}, {"b": 5, "a": 1}, (TEXT, TEXT), ("x", "y"), False),
            "sw": ({"vocabulary": [1, 1, 1]}, {}, (TEXT,), (), False),
        },
    )
    assert first.languages["ro"].spaces["vocabulary"].tolist() == [1, 0, 2], "adding changed a part"
    both = second + first
    assert both.template == (1,) and both.languages["ro"].spaces["vocabulary"].tolist() == [1, 5, 3]
    listed = first + TokenCounts("h", {"ro": language_counts([0, 0, 1], {}, wordlist=True)})
    assert listed.languages["ro"].wordlist


def test_counting_shards_is_counting_all(vocabularies: dict[str, Any]) -> None:
    lines = tiny.sentences(count=49)
    for recipe in ("xlm-roberta", "qwen2", "marian-separate"):
        spaces = vocabularies[recipe].spaces
        whole = counted(spaces, lines[:20], lines[20:])
        parts = counted(spaces, lines[:20]) + counted(spaces, lines[20:])
        assert all(np.array_equal(whole.spaces[s.name], parts.spaces[s.name]) for s in spaces)
        assert whole.words == parts.words


def test_counts_of_other_tokenizers_do_not_add() -> None:
    with pytest.raises(UsageError, match="different tokenizers"):
        TokenCounts("h", {}) + TokenCounts("i", {})


def test_saved_counts_are_read_back(tmp_path: Path, vocabularies: dict[str, Any]) -> None:
    for recipe in ("bert", "marian-separate"):
        spaces = vocabularies[recipe].spaces
        lines = [*tiny.sentences(count=150), 'surrogate-free \u2028 🙂 \\ " line']
        total = TokenCounts(
            vocabularies[recipe].fingerprint, {"ro": counted(spaces, lines), "sw": counted(spaces, [])}, (3, 5)
        )
        total.save(tmp_path / "counts.json")
        read = TokenCounts.load(tmp_path / "counts.json")
        assert as_data(read) == as_data(total)
        assert {v.dtype for c in read.languages.values() for v in c.spaces.values()} == {np.dtype(np.int64)}
        first = (tmp_path / "counts.json").read_bytes()
        read.save(tmp_path / "again.json")
        assert (tmp_path / "again.json").read_bytes() == first


GOOD = {
    "polydistill_counts": 2,
    "tokenizer": "h",
    "template": [],
    "languages": {
        "ro": {
            "spaces": {"vocabulary": {"size": 3, "ids": [1], "counts": [2]}},
            "words": {},
            "texts": [],
            "held_out": [],
            "wordlist": False,
        }
    },
}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"not json",
        b"\x00\xff\xfe",
        b"[]",
        b"3",
        b"null",
        b'"text"',
        b"{}",
        json.dumps({**GOOD, "polydistill_counts": 1}).encode(),
        json.dumps({**GOOD, "languages": []}).encode(),
        json.dumps({**GOOD, "languages": {"ro": 5}}).encode(),
        json.dumps({**GOOD, "template": None}).encode(),
        json.dumps({k: v for k, v in GOOD.items() if k != "tokenizer"}).encode(),
        json.dumps(GOOD).replace("[1]", "[7]").encode(),
        json.dumps(GOOD).replace("[1]", '["x"]').encode(),
        json.dumps(GOOD).replace('"counts": [2]', '"counts": [2, 3]').encode(),
        json.dumps(GOOD).replace('"size": 3', '"size": "x"').encode(),
        json.dumps(GOOD).replace('"size": 3', '"size": -3').encode(),
        json.dumps(GOOD).replace('"texts": []', '"texts": [{"where": "x"}]').encode(),
        json.dumps(GOOD).replace('"held_out": [], ', "").encode(),
        json.dumps(GOOD).encode()[:-20],
    ],
    ids=lambda content: content.decode("latin-1")[:60],
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    path.write_text(json.dumps(GOOD))
    assert TokenCounts.load(path).languages["ro"].spaces["vocabulary"].tolist() == [0, 2, 0]
    path.write_bytes(content)
    with pytest.raises(PolydistillError, match=r"counts\.json does not hold token counts") as caught:
        TokenCounts.load(path)
    assert "polydistill count" in caught.value.hint


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PolydistillError, match="There is no file"):
        TokenCounts.load(tmp_path / "counts.json")
    with pytest.raises(PolydistillError):
        TokenCounts.load(tmp_path)


def test_loading_checks_tokenizer_and_languages(tmp_path: Path, vocabularies: dict[str, Any]) -> None:
    bert, gpt2 = vocabularies["bert"], vocabularies["gpt2"]
    paths = [tmp_path / "1.json", tmp_path / "2.json"]
    for path in paths:
        TokenCounts(bert.fingerprint, {"ro": counted(bert.spaces, ["a b"])}).save(path)
    total = counting.load_counts(paths, bert, [language("ro")])
    assert total.languages["ro"].words == {"a": 2, "b": 2}
    with pytest.raises(PolydistillError, match="made with another tokenizer"):
        counting.load_counts(paths, gpt2, [language("ro")])
    with pytest.raises(PolydistillError, match="have ro but not sw") as caught:
        counting.load_counts(paths, bert, [language("ro"), language("sw")])
    assert "languages=sw" in caught.value.hint


def test_each_vocabulary_has_a_fingerprint_of_its_own(vocabularies: dict[str, Any], tmp_path: Path) -> None:
    assert len({v.fingerprint for v in vocabularies.values()}) == len(vocabularies)
    first, again = (open_vocabulary(tiny.tokenizer_files("gpt2", tmp_path / name)) for name in "ab")
    assert first.fingerprint == again.fingerprint
    changed = first.data["model"]["merges"][::-1]
    (tmp_path / "b" / "tokenizer.json").write_bytes(
        orjson.dumps({**first.data, "model": {**first.data["model"], "merges": changed}})
    )
    assert open_vocabulary(tmp_path / "b").fingerprint != first.fingerprint


# ---- word lists, fertility, the language of a text ----


@pytest.mark.parametrize("recipe", ["xlm-roberta", "gpt2", "gemma", "llama", "bert", "marian"])
def test_a_word_list_counts_as_its_words_in_a_line_do(recipe: str, vocabularies: dict[str, Any]) -> None:
    spaces = vocabularies[recipe].spaces
    words = {"casa": 3, "pâine": 2.4, "și": 0.2, "Watoto": 5}
    counter = TextCounter(spaces)
    counter.add_words({" " + word: n for word, n in words.items()})
    result = counter.result([], wordlist=True)
    assert result.wordlist and result.held_out == ()
    assert result.words == {"casa": 3, "pâine": 2, "și": 1, "Watoto": 5}
    for space in spaces:
        expected = np.zeros(space.size, np.int64)
        for encode in space.encoders:
            start = Counter(encode(["a"])[0])
            for word, n in {"casa": 3, "pâine": 2, "și": 1, "Watoto": 5}.items():
                inside = Counter(encode([f"a {word}"])[0])
                inside.subtract(start)
                for i, times in inside.items():
                    expected[i] += n * times
        assert result.spaces[space.name].tolist() == expected.tolist()


def test_forms_without_a_space_stand_at_the_start_of_a_line(vocabularies: dict[str, Any]) -> None:
    (space,) = vocabularies["gpt2"].spaces
    counter = TextCounter([space])
    counter.add_words({" casa": 2, "Casa": 3})
    expected = Counter(space.encoders[0]([" casa"])[0] * 2 + space.encoders[0](["Casa"])[0] * 3)
    found = counter.result([], wordlist=True).spaces["vocabulary"]
    assert {i: int(found[i]) for i in np.flatnonzero(found)} == expected


def test_fertility_by_hand() -> None:
    def encode(texts: list[str]) -> list[list[int]]:
        return [[ord(c) % 5 for c in t if c != " "] for t in texts]

    found = fertility(encode, ["aa b", "", "  cc  a "], frozenset({ord("c") % 5}))
    assert (found.words, found.tokens, found.unknown, found.types) == (4, 6, 2, 3)
    assert found.fertility == 1.5 and found.unknown_rate == pytest.approx(1 / 3)
    nothing = fertility(encode, [], frozenset())
    assert nothing.fertility == nothing.unknown_rate == 0


def test_the_letters_of_a_text_tell_its_language() -> None:
    ro, ru = language("ro"), language("ru")
    words = {"casă": 3, "și": 1, "123": 50}
    assert counting.letter_share(ro, words) == 1
    assert counting.letter_share(ru, words) == 0
    assert counting.letter_share(ro, {"123": 2}) is None
    assert counting.letter_share(ro, {"ab": 1, "жж": 3}) == pytest.approx(2 / 8)
    plain = {f"cuvant{chr(97 + i // 26)}{chr(97 + i % 26)}": 1 for i in range(600)}
    assert "ă" in counting.missing_letters(ro, plain)
    assert counting.missing_letters(ro, {**plain, "casă": 1}) == []
    assert counting.missing_letters(ro, {**plain, unicodedata.normalize("NFD", "casă"): 1}) == []
    assert counting.letter_share(ru, {unicodedata.normalize("NFD", "йё"): 1}) == 1
    assert counting.missing_letters(ro, {"casa": 9}) == []
