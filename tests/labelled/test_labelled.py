"""Labelled data: every format on files made by hand, the data folder, the Hub, and all that can be wrong with them."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_repos import Fault
from hub_stub import COMMIT, HubStub, refusing, run

from polydistill import catalog
from polydistill.catalog import Language
from polydistill.errors import PolydistillError, UsageError
from polydistill.labelled.examples import LabelledSplit
from polydistill.labelled.sources import load_split
from polydistill.progress import Progress
from polydistill.texts import lines as lines_module

EN, RO, SW, ZH, AR = (catalog.language(code) for code in ("en", "ro", "sw", "zh", "ar"))


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLYDISTILL_DATA", raising=False)


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(task: str, file: Path, language: Language = EN, split: str = "test", **more: Any) -> LabelledSplit:
    return load_split(catalog.task(task), language, split, data=file, **more)


def refused(task: str, file: Path, split: str = "test", **more: Any) -> PolydistillError:
    with pytest.raises(PolydistillError) as caught:
        read(task, file, split=split, **more)
    assert caught.value.hint and "\n" not in caught.value.message
    return caught.value


def pairs(*labels: Any) -> str:
    rows = [{"premise": f"P {i}", "hypothesis": f"H {i}", "label": label} for i, label in enumerate(labels)]
    return "".join(json.dumps(row) + "\n" for row in rows)


def squad(*questions: dict[str, Any], context: str = "") -> str:
    return json.dumps({"data": [{"paragraphs": [{"context": context, "qas": list(questions)}]}]}, ensure_ascii=False)


def asked(id_: str, text: str, start: int, question: str = "?") -> dict[str, Any]:
    return {"id": id_, "question": question, "answers": [{"text": text, "answer_start": start}]}


class Log(Progress):
    """Remembers what was reported."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


# --- pairs


def test_pairs_keep_their_text_and_map_labels_whatever_their_case(tmp_path: Path) -> None:
    text = '{"premise":"  天氣\\u2028很好 😀 ","hypothesis":"الطقس","label":"ENTAILMENT"}\n\n' + pairs("Neutral")
    split = read("nli", write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + text.encode()), ZH)
    first, second = split.examples
    assert (first.premise, first.hypothesis, first.label) == ("  天氣\u2028很好 😀 ", "الطقس", "entailment")
    assert second.label == "neutral" and split.language == "zh" and not split.skipped


def test_pairs_without_gold_are_skipped_and_counted(tmp_path: Path) -> None:
    split = read("nli", write(tmp_path / "a.jsonl", pairs("neutral", "-", -1, None, "", "entailment")))
    assert [example.id for example in split.examples] == ["0", "5"]
    assert split.skipped == {"no gold label": 4}


@pytest.mark.parametrize("label", ["maybe", 1, True, ["neutral"]])
def test_an_unknown_label_is_refused_by_its_line(tmp_path: Path, label: Any) -> None:
    error = refused("nli", write(tmp_path / "a.jsonl", pairs("neutral") + "\n" + pairs(label)))
    assert "a.jsonl line 3" in error.message and repr(label) in error.message
    assert "entailment, neutral, contradiction" in error.hint


def test_a_test_set_with_one_label_is_refused_but_not_a_training_set(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", pairs("neutral", "neutral"))
    assert "all 2 test examples have the label 'neutral'" in refused("nli", file).message
    assert len(read("nli", file, split="train").examples) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "has no example"),
        (b"\n\n", "has no example"),
        (pairs("-", -1).encode(), "has no example with gold"),
        (b'{"premise": "a", "label": "neutral"}\n', "line 1 has no hypothesis"),
        (
            b'{"premise": "a", "hypothesis": 3, "label": "neutral"}\n',
            "line 1 has int instead of text as its hypothesis",
        ),
        (b'{"premise": "a"\n', "line 1 is not JSON"),
        (b'["a"]\n', "line 1 is not a JSON object"),
        (pairs("neutral").encode() + b'{"premise": "\xff"}\n', "is not UTF-8: byte 0xFF at offset .*, line 2"),
        ("x".encode("utf-16"), "is UTF-16, not UTF-8"),
    ],
)
def test_damaged_pairs_are_refused(tmp_path: Path, text: bytes, said: str) -> None:
    with pytest.raises(PolydistillError, match=said):
        read("nli", write(tmp_path / "a.jsonl", text))


XNLI = (("fr", "neutral"), ("sw", "entailment"), ("sw", "-"), ("sw", "contradiction"), ("fr", "entailment"))


def published(rows: Any = XNLI) -> str:
    """Lines as XNLI has them, which are those of MultiNLI with a language."""
    return "".join(
        json.dumps(
            {
                "annotator_labels": [label],
                "genre": "g",
                "gold_label": label,
                "language": language,
                "pairID": str(i),
                "sentence1": f"P {i}",
                "sentence1_tokenized": "p",
                "sentence2": f"H {i}",
            }
        )
        + "\n"
        for i, (language, label) in enumerate(rows)
    )


def test_a_file_of_xnli_is_read_in_one_of_its_languages(tmp_path: Path) -> None:
    log = Log()
    file = write(tmp_path / "xnli.dev.jsonl", published())
    split = read("xnli", file, SW, progress=log)
    assert [(e.id, e.premise, e.hypothesis, e.label) for e in split.examples] == [
        ("0", "P 1", "H 1", "entailment"),
        ("2", "P 3", "H 3", "contradiction"),
    ]
    assert split.skipped == {"in another language": 2, "no gold label": 1}
    assert log.notes == [f"{file}: rows in other languages than sw are left out: fr 2"]
    assert "no row in the language ro: the field language says fr, sw" in refused("xnli", file, language=RO).message


def test_a_table_of_xnli_is_read_in_one_of_its_languages(tmp_path: Path) -> None:
    rows = [
        "language\tgold_label\tsentence1_binary_parse\tsentence1\tsentence2",
        'fr\tneutral\t(\t"P\tH',
        'sw\tentailment\t(\tp "q\t"H" h',
        "sw\tneutral\t(\tP\tH",
    ]
    split = read("xnli", write(tmp_path / "xnli.test.tsv", "\n".join(rows) + "\n"), SW)
    assert (split.examples[0].premise, split.examples[0].hypothesis) == ('p "q', '"H" h')
    assert len(split.examples) == 2 and split.skipped == {"in another language": 1}


def test_multinli_and_anli_are_read_by_their_own_names(tmp_path: Path) -> None:
    lines = published().replace('"language": "fr", ', "").replace('"language": "sw", ', "")
    assert len(read("nli", write(tmp_path / "mnli.jsonl", lines)).examples) == 4
    rows = [{"uid": "u", "context": "P", "hypothesis": "H", "label": label} for label in "enc"]
    split = read("nli", write(tmp_path / "anli.jsonl", "\n".join(map(json.dumps, rows))))
    assert [(e.premise, e.label) for e in split.examples] == [
        ("P", "entailment"),
        ("P", "neutral"),
        ("P", "contradiction"),
    ]


# --- tags

SENTENCES = "Nairobi B-LOC\n, O\n\n\nMwai B-PER\nKibaki\tI-PER\nna O\n2007 B-DATE\n"


def test_sentences_are_read_whole_in_iob2(tmp_path: Path) -> None:
    split = read("ner", write(tmp_path / "a.conll", SENTENCES), SW)
    assert [example.tokens for example in split.examples] == [("Nairobi", ","), ("Mwai", "Kibaki", "na", "2007")]
    assert split.examples[1].tags == ("B-PER", "I-PER", "O", "O")
    assert split.ignored == {"DATE": 1}
    assert split.facts()["ignored"] == {"DATE": 1} and split.facts()["examples"] == len(split.examples)


def test_columns_between_the_word_and_its_tag_and_document_marks_are_left_out(tmp_path: Path) -> None:
    text = "-DOCSTART- -X- O O\n\nEU NNP I-NP B-ORG\nrejects VBZ I-VP O\r\n\r\n"
    split = read("conll2003", write(tmp_path / "a.conll", text))
    assert split.examples[0].tokens == ("EU", "rejects") and split.examples[0].tags == ("B-ORG", "O")


def test_only_blanks_and_tabs_part_a_word_from_its_tag(tmp_path: Path) -> None:
    split = read("ner", write(tmp_path / "a.conll", "10\u00a0000\u3000# O\n😀é B-PER\n"))
    assert split.examples[0].tokens == ("10\u00a0000\u3000#", "😀é")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a O\nb I-PER\n\nc B-PER\n", 2, "the tag I-PER follows O"),
        ("a O\n\nb B-PER\nc I-LOC\n", 4, "the tag I-LOC follows B-PER"),
        ("a B-LOC\n\nb I-LOC\n", 3, "the tag I-LOC follows O"),
        ("a B-LOC\nb B-EVENT\n", 2, "the tag 'B-EVENT' is not one of the task ner's"),
        ("a B-LOC\nb T-PER\n", 2, "the tag 'T-PER' is not one"),
        ("a EVENT\n", 1, "the tag 'EVENT' is not one"),
        ("a B\n", 1, "the tag 'B' is not one"),
        ("-DOCSTART- O\n\na O\nb\n", 4, "has a word without a tag: 'b'"),
    ],
)
def test_wrong_tags_are_refused_by_their_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    error = refused("ner", write(tmp_path / "a.conll", text))
    assert f"a.conll line {line}" in error.message and said in error.message


def test_a_type_that_the_task_lists_as_not_scored_is_no_unknown_label(tmp_path: Path) -> None:
    file = write(tmp_path / "a.conll", "a B-LOC\nb B-MISC\nc I-MISC\n")
    assert read("ner", file).ignored == {"MISC": 1}
    assert "'B-MISC' is not one of the task wikiann's" in refused("wikiann", file).message


@pytest.mark.parametrize("text", ["", "a O\nb O\n", "a B-DATE\nb I-DATE\n"])
def test_a_file_without_an_entity_that_counts_is_refused(tmp_path: Path, text: str) -> None:
    message = refused("ner", write(tmp_path / "a.conll", text)).message
    assert "has no example" in message or "has no entity that is scored" in message


# --- questions

CONTEXT = "😀 القاهرة عاصمة مصر؛ 天氣很好 𠀀。"


def test_answers_stand_at_code_points_in_every_script(tmp_path: Path) -> None:
    questions = [asked(str(i), text, CONTEXT.index(text)) for i, text in enumerate(("القاهرة", "天氣", "𠀀", "😀"))]
    split = read("qa", write(tmp_path / "a.json", squad(*questions, context=CONTEXT)), AR)
    for example in split.examples:
        ((text, start),) = example.answers
        assert example.context[start : start + len(text)] == text
        assert example.language == example.question_language == "ar"
    assert [example.id for example in split.examples] == ["0", "1", "2", "3"]


def test_few_misplaced_answers_are_skipped_with_a_warning(tmp_path: Path) -> None:
    good = [asked(f"g{i}", "bc", 1) for i in range(19)]
    log = Log()
    file = write(tmp_path / "a.json", squad(*good, asked("bad", "bc", 2), context="abcd"))
    split = read("qa", file, progress=log)
    assert len(split.examples) == 19 and split.skipped == {"answer not at its offset": 1}
    assert log.warnings == [f"{file}: 1 of 20 questions are left out: an answer is not at its offset"]


@pytest.mark.parametrize(("text", "start"), [("bc", 2), ("bc", -3), ("", 1), ("cb", 1), ("d", 4)])
def test_more_misplaced_answers_than_five_per_cent_are_refused(tmp_path: Path, text: str, start: int) -> None:
    good = [asked(f"g{i}", "bc", 1) for i in range(18)]
    file = write(tmp_path / "a.json", squad(*good, asked("bad", text, start), context="abcd"))
    error = refused("qa", file)
    assert "1 of 19 questions have an answer that is not at its offset" in error.message
    assert "code points" in error.hint


def test_one_misplaced_reference_of_several_takes_the_question_out(tmp_path: Path) -> None:
    two = {"id": "2", "question": "?", "answers": [{"text": "a", "answer_start": i} for i in (0, 1)]}
    file = write(tmp_path / "a.json", squad(*[asked(f"g{i}", "b", 1) for i in range(30)], two, context="ab"))
    assert read("qa", file).skipped == {"answer not at its offset": 1}


def test_questions_without_an_answer_are_skipped_and_a_file_of_them_refused(tmp_path: Path) -> None:
    none = {"id": "n", "question": "?", "answers": []}
    file = write(tmp_path / "a.json", squad(none, asked("1", "a", 0), context="ab"))
    assert read("qa", file).skipped == {"no answer": 1}
    assert "has no example with gold" in refused("qa", write(tmp_path / "b.json", squad(none))).message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1 is not JSON"),
        ('{"data":\n[}', "line 2 is not JSON"),
        ("[]", "is not in SQuAD's format"),
        ("{}", "is not in SQuAD's format: a 'data' is missing"),
        (squad({"id": "1", "question": "?"}), "a 'answers' is missing"),
        (squad({"id": "1", "question": "?", "answers": [{"text": "a"}]}), "question 1 has an answer without text or"),
        (squad({"id": "1", "question": None, "answers": []}, asked("2", "", 0)), "1 of 1 questions"),
        ('{"data": []}', "has no example"),
    ],
)
def test_damaged_questions_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(PolydistillError, match=said):
        read("qa", write(tmp_path / "a.json", text))


def test_questions_of_one_language_are_put_to_the_paragraphs_of_another(tmp_path: Path) -> None:
    write(tmp_path / "qa/en/test.json", squad(asked("1", "a", 0, "Q1"), asked("2", "b", 1, "Q2"), context="ab"))
    write(tmp_path / "qa/zh/test.json", squad(asked("2", "天", 0, "问2"), asked("3", "氣", 1, "问3"), context="天氣"))
    qa = catalog.task("qa")
    crossed = load_split(qa, ZH, "test", data_dir=tmp_path, question_language=EN)
    (example,) = crossed.examples
    assert (example.id, example.question, example.context) == ("2", "Q2", "天氣")
    assert (example.language, example.question_language, example.answers) == ("zh", "en", (("天", 0),))
    assert crossed.skipped == {"question not in the other language": 1}
    assert crossed.sha256 != load_split(qa, ZH, "test", data_dir=tmp_path).sha256
    same = load_split(qa, ZH, "test", data_dir=tmp_path, question_language=ZH)
    assert same.sha256 == load_split(qa, ZH, "test", data_dir=tmp_path).sha256


def test_questions_that_cannot_be_joined_are_refused(tmp_path: Path) -> None:
    qa = catalog.task("qa")
    write(tmp_path / "qa/en/test.json", squad(asked("1", "a", 0), context="ab"))
    write(tmp_path / "qa/zh/test.json", squad(asked("2", "天", 0), context="天氣"))
    with pytest.raises(PolydistillError, match="have no question in common"):
        load_split(qa, ZH, "test", data_dir=tmp_path, question_language=EN)
    write(tmp_path / "qa/en/test.json", squad(asked("2", "a", 0), asked("2", "b", 1), context="ab"))
    with pytest.raises(PolydistillError, match="have the same id"):
        load_split(qa, ZH, "test", data_dir=tmp_path, question_language=EN)
    with pytest.raises(UsageError, match="Only questions of a data folder or the Hub"):
        read("qa", tmp_path / "qa/en/test.json", question_language=ZH)
    with pytest.raises(UsageError, match="Only questions"):
        load_split(catalog.task("nli"), EN, "test", data_dir=tmp_path, question_language=ZH)


# --- translations and similar sentences


def test_translations_and_rated_sentences_are_tab_separated(tmp_path: Path) -> None:
    split = load_split(
        catalog.task("bitext"),
        SW,
        "test",
        data=write(tmp_path / "a.tsv", 'He said "hi".\tAlisema "hi".\txnli\nB\tC\tx\n'),
    )
    assert [(example.source, example.target) for example in split.examples] == [
        ('He said "hi".', 'Alisema "hi".'),
        ("B", "C"),
    ]
    rated = read("sts", write(tmp_path / "b.tsv", "a\tb\t2.5\nc\td\t5\n"))
    assert [example.score for example in rated.examples] == [2.5, 5.0]


@pytest.mark.parametrize(
    ("task", "text", "said"),
    [
        ("bitext", "a\tb\nc\n", "line 2 has 1 column instead of 2"),
        ("bitext", "a\tb\nc\td\te\n", "line 2 has 3 columns, but the lines before it have 2"),
        ("sts", "a\tb\n", "line 1 has 2 columns instead of 3"),
        ("sts", "a\tb\t1\na\tb\tmuch\n", "line 2: the score 'much' is not a number"),
        ("sts", "a\tb\tnan\n", "line 1: the score 'nan' is not a number"),
        ("bitext", "", "has no example"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, task: str, text: str, said: str) -> None:
    with pytest.raises(PolydistillError, match=said):
        read(task, write(tmp_path / "a.tsv", text))


# --- where the data is


def test_data_of_the_language_stands_in_for_that_of_one_script(tmp_path: Path) -> None:
    class Heard(Progress):
        said: list[str] = []  # noqa: RUF012

        def note(self, text: str) -> None:
            self.said.append(text)

    latin = catalog.language("sr-Latn")
    write(tmp_path / "ner/sr/test.conll", "Novak B-PER\n")
    split = load_split(catalog.task("ner"), latin, "test", data_dir=tmp_path, progress=Heard())
    assert split.language == "sr-Latn" and split.where.endswith("ner/sr/test.conll")
    assert Heard.said == ["ner: the data of sr stands in for sr-Latn"]
    write(tmp_path / "ner/sr-Latn/test.conll", "Ana B-PER\n")
    split = load_split(catalog.task("ner"), latin, "test", data_dir=tmp_path, progress=Heard())
    assert split.where.endswith("ner/sr-Latn/test.conll") and len(Heard.said) == 1


def test_the_data_folder_has_its_own_names_for_languages(tmp_path: Path) -> None:
    write(tmp_path / "nli/quy/test.jsonl", pairs("neutral", "entailment"))
    write(tmp_path / "parallel/en-hau.tsv", "a\tb\n")
    write(tmp_path / "ner/ro/test_ronec.conll", "Ana B-PER\n")
    for task in ("nli", "americasnli"):
        split = load_split(catalog.task(task), catalog.language("quy"), "test", data_dir=tmp_path)
        assert split.where == str(tmp_path / "nli/quy/test.jsonl") and split.language == "qu"
    assert load_split(catalog.task("bitext"), catalog.language("ha"), "test", data_dir=tmp_path).examples
    assert load_split(catalog.task("ronec"), RO, "test", data_dir=tmp_path).where.endswith("test_ronec.conll")


def test_the_environment_names_the_data_folder_and_an_argument_overrides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "one/ner/sw/dev_mine.conll", "a B-LOC\n")
    write(tmp_path / "two/ner/sw/dev_mine.conll", "b B-LOC\n")
    monkeypatch.setenv("POLYDISTILL_DATA", str(tmp_path / "one"))
    ner = catalog.task("ner")
    assert load_split(ner, SW, "dev_mine").examples[0].tokens == ("a",)
    assert load_split(ner, SW, "dev_mine", data_dir=tmp_path / "two").examples[0].tokens == ("b",)
    file = write(tmp_path / "c.conll", "c B-LOC\n")
    assert load_split(ner, SW, "dev_mine", data=file).examples[0].tokens == ("c",)


def test_a_language_that_no_task_names_can_lie_in_the_data_folder(tmp_path: Path) -> None:
    write(tmp_path / "nli/lo/test.jsonl", pairs("neutral", "entailment"))
    assert load_split(catalog.task("nli"), catalog.language("lo"), "test", data_dir=tmp_path).language == "lo"


def test_a_packed_file_is_read_where_the_plain_one_is_not_there(tmp_path: Path) -> None:
    write(tmp_path / "ner/sw/test.conll.gz", gzip.compress(SENTENCES.encode()))
    packed = load_split(catalog.task("masakhaner"), SW, "test", data_dir=tmp_path)
    assert packed.sha256 == read("masakhaner", write(tmp_path / "a.conll", SENTENCES), SW).sha256


def test_a_missing_file_says_what_there_is(tmp_path: Path) -> None:
    ner = catalog.task("ner")
    write(tmp_path / "ner/sw/test.conll", SENTENCES)
    write(tmp_path / "ner/hau/dev.conll", SENTENCES)
    with pytest.raises(UsageError) as caught:
        load_split(ner, SW, "dev", data_dir=tmp_path)
    assert str(tmp_path / "ner/sw/dev.conll") in caught.value.message
    assert caught.value.hint == "Of sw there are test.conll."
    with pytest.raises(UsageError) as caught:
        load_split(ner, RO, "dev", data_dir=tmp_path)
    assert caught.value.hint == "There are ner/hau, ner/sw."
    with pytest.raises(UsageError) as caught:
        load_split(catalog.task("nli"), RO, "dev", data_dir=tmp_path)
    assert "holds nothing like nli/{lang}/{split}.jsonl" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        load_split(ner, RO, "dev", data_dir=tmp_path / "nowhere")
    assert "no folder" in caught.value.hint
    with pytest.raises(UsageError, match="There is no file"):
        load_split(ner, RO, "dev", data=tmp_path / "nowhere")


def test_a_language_that_a_task_lacks_is_refused_with_those_it_has(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="The task americasnli has no Romanian") as caught:
        load_split(catalog.task("americasnli"), RO, "test", data_dir=tmp_path)
    assert "ay gn qu" in caught.value.hint and caught.value.exit_code == 2
    with pytest.raises(UsageError, match="masakhaner has no data set on the Hub"):
        load_split(catalog.task("masakhaner"), SW, "test")
    with pytest.raises(UsageError, match="has no test data in Korean"):
        load_split(catalog.task("nli"), catalog.language("ko"), "test")
    with pytest.raises(UsageError, match="has no split validation on the Hub, only dev, test, train"):
        load_split(catalog.task("xnli"), SW, "validation")


def test_what_is_not_of_a_task_is_not_read_as_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DATA's Swahili names are MasakhaNER's, its English training pairs no part of XNLI: those go to the Hub."""
    write(tmp_path / "ner/sw/test.conll", SENTENCES)
    write(tmp_path / "nli/en/train.jsonl", pairs("neutral", "entailment"))
    asked_for = []

    def find(task: Any, source: Any, *_: Any) -> Any:
        asked_for.append(source.dataset)
        raise PolydistillError("not in this test")

    monkeypatch.setattr("polydistill.labelled.hub.find_rows", find)
    log = Log()
    for task, language, split in (("wikiann", SW, "test"), ("xnli", EN, "train")):
        with pytest.raises(PolydistillError, match="not in this test"):
            load_split(catalog.task(task), language, split, data_dir=tmp_path, progress=log)
    assert asked_for == ["unimelb-nlp/wikiann", "facebook/xnli"]
    assert len(log.notes) == 2 and "comes from the Hub" in log.notes[0]


def test_texts_too_long_for_a_tokenizer_are_refused_by_their_line(tmp_path: Path) -> None:
    row = {"premise": "a", "hypothesis": "b" * 1_000_001, "label": "neutral"}
    path = write(tmp_path / "t.jsonl", pairs("neutral") + json.dumps(row))
    assert "line 2: its hypothesis has 1,000,001 characters; the limit is 1,000,000" in refused("nli", path).message
    path = write(tmp_path / "t.conll", "Ana B-PER\n" * 100_001)
    assert "line 100001: the sentence has more than 100,000 words" in refused("ner", path).message


def test_a_document_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "LONGEST_DOCUMENT", 1 << 20)
    path = write(tmp_path / "t.json.gz", gzip.compress(b" " * (2 << 20)))
    assert "t.json.gz has more than 1 MiB of text" in refused("qa", path).message


def test_carriage_returns_alone_end_the_lines_of_labelled_files(tmp_path: Path) -> None:
    path = write(tmp_path / "t.conll", b"Ana B-PER\rvede O\r\rIon B-PER\r")
    assert [example.tokens for example in read("ner", path).examples] == [("Ana", "vede"), ("Ion",)]


def test_a_limit_takes_the_first_and_the_hash_is_of_what_is_left(tmp_path: Path) -> None:
    three = write(tmp_path / "a.jsonl", pairs("neutral", "entailment", "neutral"))
    two = write(tmp_path / "b.jsonl", pairs("neutral", "entailment").replace('", "', '",    "') + "\n")
    assert read("nli", three, limit=2).sha256 == read("nli", two).sha256 != read("nli", three).sha256
    assert [example.id for example in read("nli", three, limit=2).examples] == ["0", "1"]
    sentences = write(tmp_path / "a.conll", "none O\n\n" + SENTENCES)
    assert [example.tags for example in read("ner", sentences, limit=1).examples] == [("O",)]


# --- the Hub


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubStub]:
    from datasets import ClassLabel, Dataset, Features, List, Value

    root = tmp_path_factory.mktemp("hub")
    names = Features(
        {
            "tokens": List(Value("string")),
            "ner_tags": List(ClassLabel(names=["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"])),
        }
    )
    ronec = Features(
        {
            "tokens": List(Value("string")),
            "ner_tags": List(ClassLabel(names=["O", "B-EVENT", "I-EVENT", "B-PERSON", "I-PERSON", "B-GPE", "I-GPE"])),
        }
    )
    pos = Features({"tokens": List(Value("string")), "pos_tags": List(ClassLabel(names=["ADP", "DET", "NOUN", "_"]))})
    label = ClassLabel(names=["Entailment", "neutral", "contradiction"])
    nli = Features({"premise": Value("string"), "hypothesis": Value("string"), "label": label})
    tables: dict[str, tuple[dict[str, list[Any]], Features | None]] = {
        "nli/sw/test": ({"premise": ["a", "b", "c"], "hypothesis": ["d", "e", "f"], "label": [2, 0, -1]}, nli),
        "nli/ur/test": ({"premise": ["a"], "hypothesis": ["d"], "label": [1]}, nli),
        "nli/en/test": ({"text": ["a"], "label": [1]}, None),
        "ner/sw/test": ({"tokens": [["a", "b", "c"]], "ner_tags": [[5, 6, 2]]}, names),
        "ner/ur/test": ({"tokens": [["a", "b", "c"]], "ner_tags": [["PERSON", "PERSON", "EVENT"]]}, None),
        "pos/sw/test": ({"tokens": [["del", "de", "el", "pan"]], "pos_tags": [[3, 0, 1, 2]]}, pos),
        "ner/ro/test": ({"tokens": [["a", "b", "c", "d"]], "ner_tags": [[3, 4, 5, 1]]}, ronec),
        "qa/all/validation": (
            {
                "id": ["swahili-1", "korean-1", "swahili-2"],
                "context": ["abcabc", "天氣", "xyz"],
                "question": ["q1", "q2", "q3"],
                "answers": [{"text": [t], "answer_start": [s]} for t, s in (("c", 4), ("氣", 1), ("y", 1))],
            },
            None,
        ),
    }
    folders: dict[str, list[str]] = {}
    for name, (columns, features) in tables.items():
        file = root / f"{name}-00000.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_dict(columns, features=features).to_parquet(file)
        kind, config, split = name.split("/")
        entry = f"- config_name: {config}\n  data_files:\n  - split: {split}\n    path: {config}/{split}-*\n"
        folders.setdefault(kind, []).append(entry)
    for kind, entries in folders.items():
        (root / kind / "README.md").write_text("---\nconfigs:\n" + "".join(entries) + "---\n")
    # The branch of converted files: a folder for each configuration, and no configurations in the README.
    branch = root / "branch/mlqa.sw.sw/test/0000.parquet"
    branch.parent.mkdir(parents=True)
    Dataset.from_dict({**tables["qa/all/validation"][0]}).to_parquet(branch)
    script = write(root / "script/script.py", "raise SystemExit('never run')").parent
    served = {f"org/{kind}": root / kind for kind in folders}
    with HubStub(datasets={**served, "org/branch": root / "branch", "org/script": script}) as stub:
        yield stub


NLI = 'kind = "classification"\nmetric = "accuracy"\nlabels = ["entailment", "neutral", "contradiction"]\n'
NER = 'kind = "tagging"\nmetric = "f1"\nlabels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]\nnot_scored = ["ORG"]\n'
POS = 'kind = "word-tagging"\nmetric = "accuracy"\nlabels = ["NOUN", "DET", "ADP"]\n'
QA = 'kind = "span-extraction"\nmetric = "f1"\n'
TAGS = 'columns = { tags = "ner_tags" }'
ALL = ('splits = { test = "validation" }', 'config = "all"', 'language_column = "id"')
# Name -> (a task's file up to its [hub] table, the table's data set and other lines, the language that is read).
CASES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "nli": (NLI, ("org/nli",), "sw"),
    "strict": (NER, ("org/ner", TAGS), "sw"),
    "mended": (NER, ("org/ner", TAGS, "mend = true"), "sw"),
    "renamed": (NER, ("org/ner", TAGS, 'types = { PERSON = "PER", GPE = "LOC" }', 'languages = ["ro"]'), "ro"),
    "bare": (NER, ("org/ner", TAGS, 'types = { PERSON = "PER" }', 'languages = ["ur"]'), "ur"),
    "pos": (POS, ("org/pos", 'columns = { tags = "pos_tags" }'), "sw"),
    "one": (QA, ("org/qa", *ALL, 'languages = { sw = "swahili", ko = "korean" }', "mend = true"), "sw"),
    "branch": (
        QA,
        ("org/branch", 'revision = "refs/convert/parquet"', 'languages = { sw = "mlqa.sw.sw" }', "mend = true"),
        "sw",
    ),
    "script": (NLI, ("org/script",), "sw"),
    "no set": (NLI, ("org/none",), "sw"),
    "no revision": (NLI, ("org/nli", 'revision = "v9"'), "sw"),
    "no split": (NLI, ("org/nli", 'splits = { test = "dev" }'), "sw"),
    "no configuration": (NLI, ("org/nli", 'languages = { sw = "xx" }'), "sw"),
    "no column": (NLI, ("org/nli",), "en"),
    "one label": (NLI, ("org/nli",), "ur"),
}
READ = """
import json
from dataclasses import asdict
from pathlib import Path
from polydistill import catalog
from polydistill.errors import PolydistillError
from polydistill.labelled.sources import load_split
from polydistill.progress import Progress
answers = {}
for file, code in FILES.items():
    notes = []
    progress = Progress()
    progress.note = notes.append
    try:
        split = load_split(catalog.task("mine", [file]), catalog.language(code), "test", progress=progress)
        answers[Path(file).stem] = {**asdict(split), "notes": notes}
    except PolydistillError as error:
        answers[Path(file).stem] = {"error": error.message, "hint": error.hint}
print(json.dumps(answers))
"""


def from_hub(stub: str, folder: Path, home: Path, cases: dict[str, Any], **more: str) -> dict[str, Any]:
    """What `load_split` reads of tasks with these [hub] tables, in a process that sees the stub."""
    files = {}
    for name, (head, (dataset, *lines), language) in cases.items():
        keys = {"dataset": f'dataset = "{dataset}"', "splits": 'splits = { test = "test" }'}
        keys["languages"] = 'languages = ["sw", "ur", "en"]'
        keys.update({line.split(" =")[0]: line for line in lines})
        text = f'name = "mine"\ndescription = "Mine."\n{head}[hub]\n' + "\n".join(keys.values()) + "\n"
        files[str(write(folder / f"{name}.toml", text))] = language
    return run(READ.replace("FILES", repr(files)), endpoint=stub, home=home, **more)


@pytest.fixture(scope="module")
def answers(hub: HubStub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("asked")
    return from_hub(hub.endpoint, folder, folder / "home", CASES)


def test_labels_of_the_hub_are_mapped_by_their_names(answers: dict[str, Any], tmp_path: Path) -> None:
    found = answers["nli"]
    assert [(row["premise"], row["label"]) for row in found["examples"]] == [
        ("a", "contradiction"),
        ("b", "entailment"),
    ]
    assert found["skipped"] == {"no gold label": 1}
    assert found["where"] == f"org/nli:sw@{COMMIT} test"
    lines = (
        '{"premise":"a","hypothesis":"d","label":"contradiction"}',
        '{"premise":"b","hypothesis":"e","label":"entailment"}',
    )
    assert found["sha256"] == read("nli", write(tmp_path / "a.jsonl", "\n".join(lines)), SW).sha256


def test_tags_of_the_hub_are_checked_mended_and_renamed(answers: dict[str, Any]) -> None:
    assert f"org/ner:sw@{COMMIT} test row 1: the tag I-PER follows I-LOC" in answers["strict"]["error"]
    assert answers["mended"]["examples"][0]["tags"] == ["B-LOC", "I-LOC", "B-PER"]
    assert answers["mended"]["notes"] == [f"org/ner:sw@{COMMIT} test: 1 I- tags that begin an entity became B-"]
    assert answers["renamed"]["examples"][0]["tags"] == ["B-PER", "I-PER", "B-LOC", "O"]


def test_bare_types_of_the_hub_are_renamed_too(answers: dict[str, Any]) -> None:
    assert answers["bare"]["examples"][0]["tags"] == ["B-PER", "I-PER", "O"]


def test_classes_of_words_of_the_hub_leave_out_contractions(answers: dict[str, Any]) -> None:
    (example,) = answers["pos"]["examples"]
    assert (example["tokens"], example["tags"]) == (["de", "el", "pan"], ["ADP", "DET", "NOUN"])
    assert answers["pos"]["mended"] == {"words without a class (_) are left out": 1}


def test_one_configuration_of_all_languages_is_told_apart_by_a_column(answers: dict[str, Any]) -> None:
    found = answers["one"]
    assert [row["id"] for row in found["examples"]] == ["swahili-1", "swahili-2"]
    assert found["examples"][0]["answers"] == [["c", 5]], "the nearest of its places"
    assert found["notes"] == [f"org/qa:all@{COMMIT} validation: 1 answers were looked for in their paragraph"]


def test_a_data_set_that_is_a_script_is_read_from_its_converted_files(answers: dict[str, Any]) -> None:
    found = answers["branch"]
    assert len(found["examples"]) == 3 and found["where"] == f"org/branch:mlqa.sw.sw@{COMMIT} test"
    assert "org/script cannot be read" in answers["script"]["error"] and "script" in answers["script"]["error"]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("no set", "no data set org/none"),
        ("no revision", "no revision v9"),
        ("no split", "cannot be read"),
        ("no configuration", "cannot be read.*xx"),
        ("no column", "has no column hypothesis, premise, only text, label"),
        ("one label", "all 1 test examples have the label 'neutral'"),
    ],
)
def test_the_hubs_refusals_are_told(answers: dict[str, Any], case: str, said: str) -> None:
    assert re.search(said, answers[case]["error"]) and answers[case]["hint"], answers[case]


@pytest.mark.parametrize("path", ["GET /api/datasets/", "(GET|HEAD) .*/resolve/"])
def test_labelled_data_from_a_hub_that_falls_silent(
    hub: HubStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    limits = "from polydistill.fetching import client as h; h.TIMEOUT = h.STORING = 0.3; h.PATIENCE = 0.5\n"
    monkeypatch.setitem(globals(), "READ", limits + READ)
    fault = Fault(path, times=99, silent=True)
    hub.writable.faults[:] = [fault]
    found = from_hub(hub.endpoint, tmp_path, tmp_path / "home", {"a": (NLI, ("org/nli",), "sw")})
    hub.writable.faults.clear()
    assert "The Hub is out of reach" in found["a"]["error"] and fault.times >= 99 - 5


def test_without_the_hub_the_cache_serves_and_else_it_is_told(hub: HubStub, tmp_path: Path) -> None:
    cases = {
        "pinned": (NLI, ("org/nli", f'revision = "{COMMIT}"'), "sw"),
        "main": (NLI, ("org/nli",), "sw"),
        "older": (NLI, ("org/nli", f'revision = "{"0" * 40}"'), "sw"),
        "other": (NER, ("org/ner", TAGS, "mend = true"), "sw"),
    }
    first = from_hub(hub.endpoint, tmp_path, tmp_path / "home", {name: cases[name] for name in ("pinned", "main")})
    again = from_hub(refusing(), tmp_path, tmp_path / "home", cases)
    assert {name: again[name] for name in first} == first
    assert f"the cache does not have the data set org/nli at {'0' * 40}" in again["older"]["error"]
    assert "out of reach (ConnectError), and the cache" in again["other"]["error"]
    assert "`data_dir`" in again["other"]["hint"]


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_of_a_split_share_nothing_and_make_up_the_whole(tmp_path: Path, parts: int) -> None:
    """Questions about a paragraph stay together, and so do translations, whatever order their file is in."""
    for language, order in (("en", range(40)), ("zh", reversed(range(40)))):
        paragraphs = [
            json.loads(squad(asked(f"{i}a", "a", 0), asked(f"{i}b", "b", 1), context=f"ab {language} {i}"))["data"][0]
            for i in order
        ]
        write(tmp_path / f"qa/{language}/test.json", json.dumps({"version": "1.1", "data": paragraphs}))
    qa, ids = catalog.task("qa"), {}
    for language in (EN, ZH):
        found = [load_split(qa, language, f"test:{i + 1}/{parts}", data_dir=tmp_path) for i in range(parts)]
        ids[language.code] = [{example.id for example in split.examples} for split in found]
        assert sum(len(split.examples) for split in found) == 80 == len(set().union(*ids[language.code]))
        assert all({i[:-1] + "a" for i in part} <= part for part in ids[language.code])
        assert found[0].split == f"test:1/{parts}"
    assert ids["en"] == ids["zh"]


def test_parts_that_are_none_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "qa/en/test.json", squad(asked("1", "a", 0), context="ab"))
    for split, said in (("test:4/3", "no part 4 of 3"), ("test:0/3", "no part 0"), ("test:1/999", "no example")):
        with pytest.raises(UsageError, match=said):
            load_split(catalog.task("qa"), EN, split, data_dir=tmp_path)
