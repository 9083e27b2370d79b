"""Characters that stay whatever the text shows."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from polydistill.catalog import Language, language
from polydistill.vocab import Vocabulary, open_vocabulary
from polydistill.vocab.bpe import BPE
from polydistill.vocab.keep import KeepSet
from polydistill.vocab.letters import characters, required_letters, unwritten
from polydistill.vocab.unigram import Unigram
from polydistill.vocab.wordpiece import WordPiece

MADE_UP = Language(
    code="xx",
    name="Made-up",
    native_name="made-up",
    scripts=("Latn",),
    iso639_3="xxx",
    letters=("a", "ș", "ß", "dž", "ı"),
    punctuation=("¿", "—"),
    digits=("٣",),
    variants={"ș": "ş"},
)


def test_letters_of_both_cases_variants_digits_and_punctuation() -> None:
    found = set(characters([MADE_UP]))
    assert {"ș", "Ș", "ş", "Ş", "ß", "SS", "Ss", "dž", "DŽ", "Dž", "ı", "I", "¿", "—", "٣"} <= found
    assert set(string.ascii_letters + string.digits + string.punctuation) <= found
    assert {"\n", "\t", "  ", "€", "„", "\u00a0", "42", "99"} <= found
    assert "ț" not in found


def test_languages_add_up() -> None:
    assert set(characters([language("ro"), language("ru")])) == set(characters([language("ro")])) | set(
        characters([language("ru")])
    )
    assert {"ă", "Ă", "ș", "ş", "Ț", "Ţ"} <= set(characters([language("ro")]))
    assert "ж" in set(characters([language("ru")])) - set(characters([language("ro")]))


class Space:
    def __init__(self, model, tokens) -> None:
        self.ids = {t: i for i, t in enumerate(tokens)}
        self.forms = model.forms


@pytest.mark.parametrize(
    ("model", "tokens", "expected"),
    [
        (Unigram({"vocab": []}), ["ș", "▁ș", "▁", "ж", "▁a", "șa", "▁Ș"], ["ș", "▁ș", "▁a", "▁Ș"]),
        (WordPiece({"vocab": {}}), ["##ș", "ș", "##ж", "a", "##a", "[UNK]", "Ș"], ["##ș", "ș", "a", "##a", "Ș"]),
        (BPE({"vocab": {}}, False), ["ș", "▁ș", "ж", "▁a", "a", "ab"], ["ș", "▁ș", "▁a", "a"]),
        # ș is the bytes C8 99, which byte-level BPE writes as ÈĻ; a space is Ġ.
        (BPE({"vocab": {}}, True), ["ÈĻ", "ĠÈĻ", "Ġa", "ĠÐ", "Ċ", "ĠÐ¶", "a"], ["ÈĻ", "ĠÈĻ", "Ġa", "Ċ", "a"]),
    ],
    ids=["unigram", "wordpiece", "pieces", "bytes"],
)
def test_each_letter_stays_as_it_stands_in_a_word_and_at_its_start(model, tokens, expected) -> None:
    space = Space(model, tokens)
    kept = required_letters(space, [MADE_UP])
    assert set(kept.values()) == {"letters"}
    assert [t for t in tokens if space.ids[t] in kept and t != "▁"] == expected
    assert len(KeepSet.of(kept, len(tokens))) == len(kept)


def test_languages_whose_letters_became_unknown(tmp_path: Path) -> None:
    """A vocabulary of whole characters: what each language loses can be counted by hand."""

    def vocabulary(name: str, letters: str) -> Vocabulary:
        tokenizer = Tokenizer(models.WordPiece({t: i for i, t in enumerate(["[UNK]", *letters])}, unk_token="[UNK]"))
        (tmp_path / name).mkdir()
        tokenizer.save(str(tmp_path / name / "tokenizer.json"))
        (tmp_path / name / "tokenizer_config.json").write_text('{"unk_token": "[UNK]"}')
        return open_vocabulary(tmp_path / name)

    ab, cyrillic = (
        Language(code=code, name="", native_name="", scripts=(script,), iso639_3="xxx", letters=tuple(letters))
        for code, script, letters in (("ab", "Latn", "abc"), ("cy", "Cyrl", "жш"))
    )
    before, after = vocabulary("before", "abABcжшЖШ"), vocabulary("after", "abABж")
    assert unwritten(before, after, [ab, cyrillic]) == {
        "ab": {"script": "Latn", "before": 1 / 6, "after": 2 / 6},
        "cy": {"script": "Cyrl", "before": 0.0, "after": 3 / 4},
    }
    assert unwritten(before, before, [ab, cyrillic]) == {}
