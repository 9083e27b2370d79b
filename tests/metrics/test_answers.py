from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import CASES

from polydistill import catalog
from polydistill.errors import PolydistillError, UsageError
from polydistill.metrics.answers import answer_scores, g_xlt, normaliser

PIECES = [
    "the",
    "A",
    "an",
    "cat",
    "Cats",
    "$5",
    "x+y",
    "don't",
    "—",
    "«",
    ".",
    ",",
    "été",
    "天氣",
    "3.5",
    "_",
    " ",
    "\t",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=6).map(" ".join) | st.text(max_size=8)


def scores(prediction: str, answers: list[str], language: str, normalisation: str) -> tuple[float, float]:
    exact, overlap = answer_scores([prediction], [answers], language, normalisation)
    return exact.value, overlap.value


@pytest.mark.parametrize(
    ("prediction", "gold", "language", "squad", "mlqa"),
    [
        ("天氣很好", "天氣好", "zh", (0, 0), (0, 0.857143)),
        ("القاهرة", "قاهرة", "ar", (0, 0), (1, 1)),
        ("بالقاهرة", "القاهرة", "ar", (0, 0), (0, 0.666667)),
        ("der alte Mann", "alte Mann", "de", (0, 0.8), (1, 1)),
        ("«der Hund»", "Hund", "de", (0, 0), (1, 1)),
    ],
)
def test_the_two_normalisations_on_the_cases_in_which_they_differ(
    prediction: str, gold: str, language: str, squad: tuple[float, float], mlqa: tuple[float, float]
) -> None:
    assert scores(prediction, [gold], language, "squad") == pytest.approx(squad, abs=1e-6)
    assert scores(prediction, [gold], language, "mlqa") == pytest.approx(mlqa, abs=1e-6)


@CASES
@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_squads_scores_are_the_public_scripts(prediction: str, answers: list[str]) -> None:
    from torchmetrics.functional.text import squad

    asked = [{"prediction_text": prediction, "id": "q"}]
    right = [{"answers": {"text": answers, "answer_start": [0] * len(answers)}, "id": "q"}]
    public = {name: float(value) / 100 for name, value in squad(asked, right).items()}
    exact, overlap = scores(prediction, answers, "en", "squad")
    assert exact == pytest.approx(public["exact_match"], abs=1e-6)
    tokens = normaliser("en", "squad")
    if not tokens(prediction) and exact:  # torchmetrics follows version 2 of the script there, in which it is 1
        assert (overlap, public["f1"]) == (0, 1)
    else:
        assert overlap == pytest.approx(public["f1"], abs=1e-6)


@pytest.mark.parametrize("normalisation", ["squad", "mlqa"])
def test_an_answer_of_nothing_but_articles_matches_another_without_overlap(normalisation: str) -> None:
    assert scores("the", ["a."], "en", normalisation) == (1, 0)
    assert scores("", ["cat"], "en", normalisation) == (0, 0)


@pytest.mark.parametrize(
    ("language", "text", "tokens"),
    [
        ("en", "The cat — a “theatre”!", ["cat", "theatre"]),
        ("en", "$5 x+y `z`", ["5", "xy", "z"]),
        ("es", "Los unos del LAS casas", ["del", "casas"]),
        ("de", "Einem Esel, des Eises", ["esel", "eises"]),
        ("vi", "những chiếc nhà của tôi", ["nhà", "tôi"]),
        ("ar", "في البيت،", ["في", "بيت"]),
        ("hi", "यह एक घर है।", ["यह", "एक", "घर", "है"]),
        ("zh", "iPhone手機15，ＡＢ 龥龦龦", ["iphone", "手", "機", "15ａｂ", "龥", "龦龦"]),
        ("ru", "в «Москве»", ["в", "москве"]),
        ("Chinese", "好的", ["好", "的"]),
    ],
)
def test_mlqas_tokens(language: str, text: str, tokens: list[str]) -> None:
    assert normaliser(language, "mlqa")(text) == tokens


def test_the_best_reference_counts_and_scores_are_means_over_questions() -> None:
    exact, overlap = answer_scores(
        ["blue cat", "dog"], [["red", "cat", "the blue cat"], ["hot dog", "cat"]], "en", "squad"
    )
    assert exact.items.tolist() == [[1, 1], [0, 1]]
    assert overlap.items == pytest.approx(np.array([[1, 1], [2 / 3, 1]]))
    assert (exact.value, exact.metric, exact.normalisation) == (0.5, "exact_match", "squad")
    assert (overlap.value, overlap.metric) == (pytest.approx(5 / 6), "f1")


@CASES
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5), st.sampled_from(["en", "zh", "ar", "ja"]))
def test_scores_do_not_change_when_sides_are_swapped_or_questions_reordered(
    cases: list[tuple[str, str]], language: str
) -> None:
    for normalisation in ("squad", "mlqa"):
        first = answer_scores([a for a, _ in cases], [[b] for _, b in cases], language, normalisation)
        swapped = answer_scores([b for _, b in cases], [[a] for a, _ in cases], language, normalisation)
        backwards = answer_scores(
            [a for a, _ in reversed(cases)], [[b] for _, b in reversed(cases)], language, normalisation
        )
        values = [m.value for m in first]
        assert [m.value for m in swapped] == pytest.approx(values, abs=1e-12)
        assert [m.value for m in backwards] == pytest.approx(values, abs=1e-12)


def test_every_language_that_ships_has_a_rule_that_can_be_read() -> None:
    ruled = {language.code for language in catalog.languages() if language.qa_normaliser}
    assert ruled == {"ar", "de", "en", "es", "vi", "zh"}
    for language in catalog.languages():
        assert normaliser(language, "mlqa")("1990.") == ["1990"]


def test_a_new_languages_articles_need_no_python(tmp_path: Path) -> None:
    shipped = (Path(__file__).parents[2] / "languages" / "fr.toml").read_text(encoding="utf-8")
    assert "qa_normaliser" not in shipped
    (tmp_path / "languages").mkdir()
    mine = tmp_path / "languages" / "fr.toml"
    mine.write_text(shipped.replace("scripts =", 'qa_normaliser = "words: le La"\nscripts =', 1), encoding="utf-8")
    assert normaliser(catalog.language("fr", [tmp_path]), "mlqa")("Le chat, la lame") == ["chat", "lame"]
    assert normaliser("fr", "mlqa")("Le chat, la lame") == ["le", "chat", "la", "lame"]

    for wrong in ("words:", "fr", "anywhere:", "characters: a"):
        mine.write_text(shipped.replace("scripts =", f'qa_normaliser = "{wrong}"\nscripts =', 1), encoding="utf-8")
        with pytest.raises(PolydistillError, match=f"language fr has the unknown qa_normaliser '{wrong}'"):
            normaliser(catalog.language("fr", [tmp_path]), "mlqa")


def test_questions_without_references_and_unknown_names_are_refused() -> None:
    with pytest.raises(PolydistillError, match="Question 2 has no reference"):
        answer_scores(["a", "b"], [["a"], []], "en", "squad")
    with pytest.raises(PolydistillError, match="1 and 2"):
        answer_scores(["a", "b"], [["a"]], "en", "squad")
    with pytest.raises(UsageError, match="'xquad'"):
        answer_scores(["a"], [["a"]], "en", "xquad")
    with pytest.raises(UsageError, match="Unknown language"):
        answer_scores(["a"], [["a"]], "klingon", "mlqa")


def test_xlt_is_the_mean_of_the_diagonal_and_g_xlt_of_the_rest() -> None:
    xlt, general = g_xlt([[0.9, 0.5, 0.4], [0.6, 0.8, 0.3], [0.7, 0.2, 0.7]])
    assert (xlt, general) == (pytest.approx(0.8), pytest.approx(0.45))


@pytest.mark.parametrize("matrix", [[[0.5]], [[0.5, 0.5]], [[0.5, float("nan")], [0.5, 0.5]], [0.5, 0.5]])
def test_a_matrix_with_holes_has_no_g_xlt(matrix: list[list[float]]) -> None:
    with pytest.raises(PolydistillError, match="every question language"):
        g_xlt(matrix)
