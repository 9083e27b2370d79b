"""Answers on text with combining marks, composed and decomposed: tokens stand for whole letters."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from polydistill import catalog
from polydistill.errors import PolydistillError
from polydistill.evaluation import spans
from polydistill.evaluation.heads import TaskModel
from polydistill.evaluation.kinds import UNTRAINED, training_inputs
from polydistill.evaluation.offsets import completed, tokens_of
from polydistill.labelled.examples import LabelledSplit, QuestionExample
from polydistill.labelled.sources import load_split
from polydistill.metrics.answers import answer_scores
from polydistill.progress import Progress

TEXTS = {
    "yo": ("Bàbá mi ń gbé ní Òṣogbo pẹ̀lú ọmọ rẹ̀ Ṣọlá ẹ̀ẹ́.", ("Òṣogbo", "pẹ̀lú", "rẹ̀ Ṣọlá", "ẹ̀ẹ́")),
    "vi": ("Chị gái tôi học ở Đà Nẵng từ năm ngoái.", ("Chị", "ở", "Đà Nẵng")),
    "ko": ("내 친구는 부산에서 빵을 굽는다", ("내", "부산에서", "빵을 굽는다")),
    "hi": ("मेरी बहन काशी में पढ़ती है", ("मेरी", "काशी में", "पढ़ती")),
    "ar": ("كَتَبَ مُعَلِّمٌ رِسَالَةً إِلَى حَلَبَ", ("مُعَلِّمٌ", "رِسَالَةً", "حَلَبَ")),
    "th": ("ยาย ขายของ ที่ตลาด น้ำ ทุกวัน นี้", ("ที่ตลาด", "น้ำ", "นี้")),
    "ml": ("അവൻ അവന്\u200d വീട്ടില്\u200d ഉണ്ട്", ("അവന്\u200d", "വീട്ടില്\u200d")),
    "en": ("We ate 🍕 with 👩‍🏫 and ❤️ in 🏳️‍🌈 at cafe\u0301", ("🍕", "👩‍🏫", "❤️", "cafe\u0301")),
}
STRIP = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
KINDS = {
    "unigram": ("xlm-roberta", None),
    "wordpiece": ("bert", normalizers.BertNormalizer(strip_accents=True)),
    "byte-bpe": ("roberta", None),
    "byte-bpe composed": ("gpt2", normalizers.NFC()),
    "unigram without accents": ("xlm-roberta", STRIP),
    "sentencepiece-bpe": ("llama", None),
}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    recipe, normalizer = KINDS[request.param]
    loaded = transformers.AutoTokenizer.from_pretrained(
        tiny.tokenizer_files(recipe, tmp_path_factory.mktemp("tokenizer"))
    )
    if loaded.pad_token is None:
        loaded.pad_token = loaded.eos_token
    if normalizer is not None:
        before = loaded.backend_tokenizer.normalizer
        loaded.backend_tokenizer.normalizer = normalizers.Sequence([normalizer, before] if before else [normalizer])
    return loaded


def questions(form: str) -> list[QuestionExample]:
    found = []
    for code, (text, answers) in TEXTS.items():
        for answer in answers:
            context = unicodedata.normalize(form, text)
            gold = unicodedata.normalize(form, answer)
            start = len(unicodedata.normalize(form, text[: text.index(answer)]))
            assert context[start : start + len(gold)] == gold
            found.append(QuestionExample(f"{code} {answer}", "Ki?", context, ((gold, start),), code, code))
    return found


def pointed(model: TaskModel, example: QuestionExample) -> list[str]:
    """What a model says that points at the tokens it is trained to point at, in each window that has the answer."""
    said = []
    trained = spans.training_features(model, [example])
    for inputs, labels in zip(spans.features(model, [example]), trained, strict=bool(trained)):
        if labels["end_positions"]:
            starts, ends = (np.zeros(len(inputs["input_ids"])) for _ in range(2))
            starts[labels["start_positions"]] = ends[labels["end_positions"]] = 9
            _, span = spans.best_span(starts, ends, inputs["offsets"])
            assert span
            said.append(example.context[span[0] : span[1]].strip())
    return said


@pytest.mark.parametrize("max_length", [200, 44])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_model_that_points_at_the_right_tokens_is_right(form: str, max_length: int, tokenizer: Any) -> None:
    model = TaskModel(None, tokenizer, (), max_length)
    for example in questions(form):
        said = pointed(model, example)
        assert set(said) <= {example.answers[0][0]}, example.id
        assert said or max_length < 100, example.id  # the longest answers do not fit into short windows


def test_scores_do_not_depend_on_how_accents_are_written() -> None:
    for composed, apart in zip(questions("NFC"), questions("NFD"), strict=True):
        for rule in ("squad", "mlqa"):
            gold = [[composed.answers[0][0]]]
            found = answer_scores([apart.answers[0][0]], gold, composed.language, rule)
            assert [m.value for m in found] == [m.value for m in answer_scores(gold[0], gold, composed.language, rule)]
            assert found[0].value == 1


def test_tokens_are_extended_over_marks_that_no_other_token_has() -> None:
    text = "o\u0323\u0301k e\u0301\u0300 \u1112\u1161\u11ab"
    offsets = [None, (0, 1), (3, 4), (5, 6), (7, 8), (9, 10)]  # the second mark of the second word is a token
    (longer,), covered = completed(text, [offsets])
    assert longer == [None, (0, 3), (3, 4), (5, 7), (7, 8), (9, 12)]
    assert list(covered) == [1, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0]
    assert tokens_of(longer, covered, 0, 4) == (1, 2)
    assert tokens_of(longer, covered, 4, 9) == (3, 4)  # spaces at its ends
    assert tokens_of(longer[:4], covered, 5, 8) is None  # the last token is in the next window
    assert tokens_of(longer, covered, 1, 3) is None  # nothing but marks that were dropped


def test_a_mark_that_is_a_token_of_another_window_is_left_to_it() -> None:
    longer, _ = completed("ae\u0301", [[(0, 1), (1, 2)], [(2, 3)]])
    assert longer == [[(0, 1), (1, 2)], [(2, 3)]]


@settings(max_examples=200, deadline=None)
@given(st.text("ae\u0301\u0323 \u1112\u1161ักา🙂\u200d", max_size=14), st.sets(st.integers(0, 13)))
def test_extended_tokens_never_overlap(text: str, dropped: set[int]) -> None:
    offsets = [(i, i + 1) for i in range(len(text)) if i not in dropped]
    (longer,), covered = completed(text, [offsets])
    ends = [offset[1] for offset in longer if offset]
    assert all(end <= later for end, (later, _) in zip(ends, offsets[1:], strict=False))
    assert all(new and new[0] == old[0] and new[1] >= old[1] for old, new in zip(offsets, longer, strict=True))
    assert sum(covered) == len(offsets)


class Heard(Progress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    warn = note


def test_an_answer_that_no_window_has_is_said_and_not_trained_as_no_answer(tokenizer: Any) -> None:
    model, heard = TaskModel(None, tokenizer, (), 40), Heard()
    long = " ".join(["pane"] * 120)
    kept = QuestionExample("short", "Ki?", long, (("pane", 0),), "en", "en")
    lost = QuestionExample("long", "Ki?", long, ((long, 0),), "en", "en")
    split = LabelledSplit("qa", "en", "train", (kept, lost), "train.json", "0", skipped={"no answer": 2})
    features, counted = training_inputs(catalog.task("qa"), model, split, heard)
    assert {f["example"] for f in features} == {0} and any(f["end_positions"] for f in features)
    assert counted.facts()["skipped"] == {"no answer": 2, UNTRAINED: 1}
    assert heard.said == [
        "train.json: 1 of 2 examples are not trained on: no window of 40 tokens has their whole answer"
    ]
    with pytest.raises(PolydistillError, match="none of the 1 examples can be trained on"):
        training_inputs(catalog.task("qa"), model, LabelledSplit("qa", "en", "train", (lost,), "t", "0"), heard)


@pytest.mark.parametrize(("context_form", "answer_form"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_an_answer_in_another_form_than_its_paragraph_is_found(
    context_form: str, answer_form: str, tmp_path: Path
) -> None:
    qas = []
    text, answers = TEXTS["vi"]
    context = unicodedata.normalize(context_form, text)
    for answer in (*answers, "ngoái"):
        start = len(unicodedata.normalize(context_form, text[: text.index(answer)]))
        given_ = {"text": unicodedata.normalize(answer_form, answer), "answer_start": start}
        qas.append({"id": answer, "question": "Ai?", "answers": [given_]})
    path, heard = tmp_path / "t.json", Heard()
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": context, "qas": qas}]}]}), encoding="utf-8")
    split = load_split(catalog.task("qa"), catalog.language("vi"), "test", data=path, progress=heard)
    assert not split.skipped and len(split.examples) == 4
    for example in split.examples:
        ((text, start),) = example.answers
        assert example.context[start : start + len(text)] == text
        assert unicodedata.normalize("NFC", text) == unicodedata.normalize("NFC", example.id)
    assert heard.said == [f"{path}: 4 answers are spelt as in their paragraph (NFC or NFD)"]
