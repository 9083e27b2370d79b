from __future__ import annotations

import sys
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

from polydistill.catalog import language
from polydistill.errors import PolydistillError
from polydistill.models.offline import words
from polydistill.progress import Progress
from polydistill.trimming.counting import count_word_lists
from polydistill.vocab import open_vocabulary

RO = language("ro")


def characters(texts: list[str]) -> list[list[int]]:
    """One token a character, but `București` is a single one."""
    return [[0] if text.strip() == "București" else [ord(c) for c in text] for text in texts]


def test_cased_forms_by_hand() -> None:
    forms = words.cased_forms({"țară": 4e-6, "bucurești": 2e-6, "rar": 1e-6}, characters)
    assert forms == pytest.approx(
        {
            " țară": 4 * 0.85,
            " Țară": 4 * 0.15,
            " tara": 4 * 0.005,
            " ȚARĂ": 4 * 0.005,
            "Țară": 4 * 0.03,
            " bucurești": 2 * 0.2,
            " București": 2 * 0.8,
            " bucuresti": 2 * 0.005,
            " rar": 0.85 + 0.005,
            " Rar": 0.15,
        }
    )


def test_numbers_of_a_shape() -> None:
    numbers = words._numbers("00,0")
    assert len(numbers) == 1000 and sum(numbers.values()) == pytest.approx(1)
    assert numbers["10,0"] == pytest.approx(3 * numbers["11,1"]) and numbers["10,0"] > 5 * numbers["90,0"]
    years = words._numbers("0000")
    assert len(years) == 10_000 and years["1987"] > 10 * years["2987"]
    assert len(words._numbers("000.000")) == 1000


def test_shapes_become_numbers_and_attached_signs() -> None:
    forms = words.cased_forms({"a": 1e-2, "00": 1e-3, "3d": 1e-4}, characters)
    total = Counter[str]()
    for form, count in forms.items():
        total["%" if form.endswith("%") else "number" if form.strip().isdigit() else "other"] += count
    assert total["number"] == pytest.approx(10) and total["%"] == pytest.approx(0.5)
    assert " 3d" in forms and " 00:00" in forms


def test_only_the_most_frequent_words_of_a_long_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "MAX_WORDS", 2)
    forms = words.cased_forms({"unu": 1e-6, "doi": 4e-7, "trei": 8e-7}, characters)
    assert {form.strip().lower() for form in forms} == {"unu", "trei"}
    assert forms[" trei"] == pytest.approx(0.85 + 0.005)
    assert words.cased_forms({}, characters) == {}


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, float]], None]:
    """Puts a small list in place of the package `wordfreq`."""

    def use(frequencies: dict[str, float]) -> None:
        package = types.ModuleType("wordfreq")
        package.get_frequency_dict = lambda code: frequencies  # type: ignore[attr-defined]
        package.available_languages = lambda: {"ro": "", "tr": ""}  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "wordfreq", package)
        monkeypatch.setattr(words, "installed", lambda: True)
        monkeypatch.setattr(words, "metadata", types.SimpleNamespace(version=lambda name: "9"))

    return use


def test_both_spellings_of_a_letter(lists: Callable[[dict[str, float]], None]) -> None:
    for listed in ("și", "şi"):  # whichever of the two the list has
        lists({listed: 1e-3})
        forms = words.word_list(RO, characters).forms
        assert {" și", " şi", " Și", " Şi", " ȘI", " ŞI", "Și", "Şi"} < set(forms)
        assert forms[" şi"] / forms[" și"] == pytest.approx(0.1 / 0.9)


def test_words_without_case_and_turkish(lists: Callable[[dict[str, float]], None]) -> None:
    lists({"的": 0.5, "iki": 0.5})
    forms = words.word_list(language("tr"), characters).forms
    assert {" iki", " İki", " İKİ", " 的"} < set(forms) and " Iki" not in forms
    assert forms[" 的"] == pytest.approx(1 + 0.005 + 0.005)  # all of its forms are the same


def test_word_list_hash_and_source(lists: Callable[[dict[str, float]], None]) -> None:
    lists({"a": 0.5, "b": 0.5})
    first = words.word_list(RO, characters)
    assert first.source == "wordfreq==9 (ro)"
    assert first.sha256 == words.word_list(RO, characters).sha256
    assert first.bytes == sum(len(form.encode()) + 1 for form in first.forms)
    lists({"a": 0.5, "b": 0.6})
    assert first.sha256 != words.word_list(RO, characters).sha256


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "installed", lambda: False)
    with pytest.raises(PolydistillError, match="not installed"):
        words.word_list(RO, characters)


def test_real_word_list() -> None:
    pytest.importorskip("wordfreq")
    forms = words.word_list(RO, characters).forms
    assert forms[" și"] > forms[" şi"] > 0 and forms[" București"] > forms[" bucurești"]
    assert forms[" 1995"] > forms[" 1395"]
    with pytest.raises(PolydistillError, match="no word list for Swahili"):
        words.word_list(language("sw"), characters)


def test_word_lists_are_counted_for_the_languages_that_have_one(
    lists: Callable[[dict[str, float]], None], tmp_path: Path
) -> None:
    lists({"casa": 0.5, "și": 0.25})
    vocabulary = open_vocabulary(tiny.tokenizer_files("unigram", tmp_path))
    console = Notes()
    counted = count_word_lists(vocabulary, [RO, language("sw")], console)
    assert list(counted) == ["ro"] and counted["ro"].wordlist
    counts = counted["ro"].spaces[vocabulary.spaces[0].name]
    expected = words.word_list(RO, vocabulary.spaces[0].encoders[0]).forms
    total = sum(
        max(1, round(n)) * len(ids)
        for (form, n) in expected.items()
        for ids in vocabulary.spaces[0].encoders[0]([form])
    )
    assert counts.sum() == total
    assert "no list of Swahili words" in console.warnings[0]


class Notes(Progress):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)
