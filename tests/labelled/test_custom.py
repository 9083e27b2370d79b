"""Labels of a user's own: read from files, told apart by name, held out, learnt, scored, and refused where wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polydistill import catalog
from polydistill.catalog.task import Task
from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation.custom_labels import agreed, own_output_labels
from polydistill.evaluation.heads import tagger_tags
from polydistill.labelled.custom import HELD_OUT, Wanted, hold_out, labels_of, listed, settled, training_data
from polydistill.labelled.examples import LabelledSplit, PairExample, TextExample
from polydistill.labelled.sources import load_split
from polydistill.progress import Progress

EN, SW = catalog.language("en"), catalog.language("sw")
CLASSES, NER, NLI = (catalog.task(name) for name in ("classification", "ner", "nli"))


class Log(Progress):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    warn = note

    def __contains__(self, text: str) -> bool:
        return any(text in line for line in self.said)


def write(folder: Path, name: str, text: str | bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


def read(file: Path, task: Task = CLASSES, progress: Progress | None = None, **more: Any) -> LabelledSplit:
    return load_split(replace(task, own=True), EN, "train", data=file, progress=progress or Log(), **more)


def table(labels: Sequence[str], *, text: str = "text {}") -> str:
    return "text,label\n" + "".join(f"{text.format(i)},{label}\n" for i, label in enumerate(labels))


def shown(split: LabelledSplit) -> list[tuple[str, ...]]:
    return [(*example.texts, example.label) for example in split.examples]


# --- files


def test_one_text_a_row_is_the_same_in_every_format(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [("Good, quick.", "praise"), ('He said "no".', "blame")]
    write(tmp_path, "a.csv", 'text,label\n"Good, quick.",praise\n"He said ""no"".",blame\n')
    write(tmp_path, "b.csv", 'text;label\nGood, quick.;praise\n"He said ""no"".";blame\n')
    write(tmp_path, "c.tsv", 'id\tcategory\tText\n7\tpraise\tGood, quick.\n8\tblame\tHe said "no".\n')
    lines = (json.dumps({"text": text, "label": label, "stars": 5}) + "\n" for text, label in rows)
    write(tmp_path, "d.jsonl", "".join(lines))
    pq.write_table(pa.table({"text": [t for t, _ in rows], "label": [x for _, x in rows]}), tmp_path / "e.parquet")
    found = [read(tmp_path / name) for name in ("a.csv", "b.csv", "c.tsv", "d.jsonl", "e.parquet")]
    assert [shown(split) for split in found] == [rows] * 5
    assert len({split.sha256 for split in found}) == 1


@pytest.mark.parametrize("names", ["premise,hypothesis", "sentence1,sentence2", "text1,text2"])
def test_two_texts_a_row_are_pairs(tmp_path: Path, names: str) -> None:
    split = read(write(tmp_path, "a.csv", f"{names},label\na,b,same\nc,d,other\n"))
    assert split.examples[1] == PairExample("1", "c", "d", "other")
    assert settled(replace(CLASSES, own=True), [split]).pairs


def test_of_two_columns_one_has_to_be_known(tmp_path: Path) -> None:
    assert shown(read(write(tmp_path, "a.csv", "review,label\ngood,1\nbad,0\n"))) == [("good", "1"), ("bad", "0")]
    assert shown(read(write(tmp_path, "b.csv", "sentiment,text\n1,good\n0,bad\n"))) == [("good", "1"), ("bad", "0")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\nc,d\n", "It is not clear which columns of .* are text and label: it has a, b."),
        ("review,stars,user\na,5,me\n", "it has review, stars, user."),
        ("text,label,label\na,b,c\n", "two columns called 'label'"),
        ("text,label\na,b,c\n", "line 2 has 3 columns instead of 2"),
        ("text,label\n", "has no example"),
        ("", "has no example"),
    ],
)
def test_tables_that_cannot_be_read_say_why(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(PolydistillError, match=said) as caught:
        read(write(tmp_path, "a.csv", text))
    assert caught.value.hint


def test_a_file_that_is_no_parquet_says_so(tmp_path: Path) -> None:
    with pytest.raises(PolydistillError, match="not a whole parquet file"):
        read(write(tmp_path, "a.parquet", b"PAR1 and no more"))


# --- labels


def test_labels_are_text_whatever_the_file_has(tmp_path: Path) -> None:
    values = ['"a b"', "-1", "0", "2.0", "true", '" cald "', '"cald"', '"sănătate, sport"']
    file = write(tmp_path, "a.jsonl", "".join(f'{{"text": "t{i}", "label": {v}}}\n' for i, v in enumerate(values)))
    split = read(file)
    assert [e.label for e in split.examples] == ["a b", "-1", "0", "2", "true", "cald", "cald", "sănătate, sport"]
    names = settled(replace(CLASSES, own=True), [split]).labels
    assert names == ("-1", "0", "2", "a b", "cald", "sănătate, sport", "true")


def test_numbers_are_sorted_by_value(tmp_path: Path) -> None:
    split = read(write(tmp_path, "a.csv", table([str(i) for i in (10, 9, 2, 10, 9, 2)])))
    assert settled(replace(CLASSES, own=True), [split]).labels == ("2", "9", "10")


@pytest.mark.parametrize("other", ["positive", "POSITIVE ", "Positive"])
def test_labels_in_another_case_are_one_label_and_it_is_said(tmp_path: Path, other: str) -> None:
    log = Log()
    split = read(write(tmp_path, "a.csv", table(["Positive", "bad", other])), progress=log)
    assert [e.label for e in split.examples] == ["Positive", "bad", "Positive"]
    assert ("1 labels written 'positive' are read as 'Positive'" in log) == (other == "positive")


def test_composed_and_decomposed_labels_are_one(tmp_path: Path) -> None:
    split = read(write(tmp_path, "a.csv", table(["n\u00e9gatif", "ne\u0301gatif", "x"])))
    assert len({e.label for e in split.examples}) == 2


def test_rows_without_a_label_or_text_are_left_out_and_counted(tmp_path: Path) -> None:
    log = Log()
    split = read(write(tmp_path, "a.csv", "text,label\na,x\nb,\n ,y\nd,y\n"), progress=log)
    assert shown(split) == [("a", "x"), ("d", "y")] and split.skipped == {"no gold label": 1, "no text": 1}
    assert "1 of 3 rows are left out: no gold label" in log and "1 of 3 rows are left out: no text" in log


def test_pairs_that_nobody_agreed_on_are_left_out_of_a_users_own_file_too(tmp_path: Path) -> None:
    row = '{{"sentence1": "a {0}", "sentence2": "b", "gold_label": "{0}"}}\n'
    file = write(tmp_path, "xnli.jsonl", "".join(row.format(gold) for gold in ("neutral", "-", "entailment")))
    for task in (NLI, CLASSES):
        split = read(file, task)
        assert [e.label for e in split.examples] == ["neutral", "entailment"] and split.skipped == {"no gold label": 1}
    assert [e.label for e in read(write(tmp_path, "a.csv", table(["+", "-"]))).examples] == ["+", "-"]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["x"] * 5, "all 5 examples have the label 'x', so there is nothing to learn"),
        ([str(i / 7) for i in range(150)], "150 different labels on 150 examples"),
        ([str(i // 2) for i in range(2400)], "1,200 different labels"),
    ],
)
def test_columns_that_are_no_classes_are_refused(tmp_path: Path, labels: list[str], said: str) -> None:
    split = read(write(tmp_path, "a.csv", table(labels)))
    with pytest.raises(PolydistillError, match=said):
        settled(replace(CLASSES, own=True), [split])


def test_a_label_with_a_fraction_or_of_many_parts_is_refused(tmp_path: Path) -> None:
    for value in ("0.5", '["a"]', "{}"):
        with pytest.raises(PolydistillError, match="not the name of a class"):
            read(write(tmp_path, "a.jsonl", f'{{"text": "t", "label": {value}}}\n'))


@pytest.mark.parametrize(
    ("tags", "wrong"), [("B_PER I_PER O", "B_PER"), ("b-per i-per O", "b-per"), ("PER-B O", "PER-B")]
)
def test_tags_that_are_nearly_those_of_a_scheme_are_no_types(tmp_path: Path, tags: str, wrong: str) -> None:
    file = write(tmp_path, "a.conll", "".join(f"w {tag}\n" for tag in tags.split()))
    with pytest.raises(PolydistillError, match=f"line 1: the tag '{wrong}' .*B-PER") as caught:
        read(file, NER)
    assert caught.value.hint
    lower = write(tmp_path, "o.conll", "Ana PER\nla o\n")
    with pytest.raises(PolydistillError, match="line 2: the tag 'o'"):
        read(lower, NER)


def test_a_label_seen_once_is_named(tmp_path: Path) -> None:
    log = Log()
    settled(replace(CLASSES, own=True), [read(write(tmp_path, "a.csv", table(["a", "a", "b", "c"])))], log)
    assert "only one example has b, c" in log


def test_the_tasks_own_order_stays_where_the_labels_are_its_own(tmp_path: Path) -> None:
    file = write(tmp_path, "a.csv", "premise,hypothesis,label\na,b,Neutral\nc,d,entailment\ne,f,contradiction\n")
    assert settled(replace(NLI, own=True), [read(file, NLI)]).labels == NLI.labels


def test_types_of_ones_own_make_tags(tmp_path: Path) -> None:
    log = Log()
    file = write(tmp_path, "a.conll", "Ana B-PER\nIonescu I-per\n\nCluj B-LOC\n")
    task = settled(replace(NER, own=True), [read(file, NER)], log)
    assert task.labels == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER") and not task.not_scored
    assert "the labels are those of the data: LOC, PER" in log
    same = write(tmp_path, "b.conll", "Ana B-PER\n\nCluj B-LOC\n\nUNO B-ORG\n")
    assert settled(replace(NER, own=True), [read(same, NER)]).labels == NER.labels


# --- what is held out


def texts(n: int, of: int, labels: int = 3) -> LabelledSplit:
    """`n` examples with `of` different texts."""
    found = tuple(TextExample(str(i), f"text {i % of}", f"label {i % of % labels}") for i in range(n))
    return LabelledSplit("classification", "en", "train", found, "a.csv", "0")


def test_a_tenth_is_held_out_and_shares_no_text_with_the_rest() -> None:
    split = texts(200, 100)
    kept, held = hold_out(CLASSES, split)
    assert len(held.examples) == 20 and len(kept.examples) == 180 and held.split == HELD_OUT
    assert not {e.text for e in kept.examples} & {e.text for e in held.examples}
    assert sorted([*kept.examples, *held.examples], key=lambda e: int(e.id)) == list(split.examples)
    assert hold_out(CLASSES, split) == (kept, held) and kept.sha256 != held.sha256
    turned = replace(split, examples=split.examples[::-1])
    assert {e.text for e in hold_out(CLASSES, turned)[1].examples} == {e.text for e in held.examples}


def test_blanks_and_composition_make_no_other_text() -> None:
    pairs = [("caf\u00e9  noir", "cafe\u0301 noir"), *((f"t{i}", f" t{i}") for i in range(19))]
    found = tuple(TextExample(str(i), text, str(i % 2)) for i, text in enumerate(t for pair in pairs for t in pair))
    kept, held = hold_out(CLASSES, replace(texts(1, 1), examples=found))
    assert len(held.examples) == 4 and {int(e.id) // 2 for e in kept.examples}.isdisjoint(
        int(e.id) // 2 for e in held.examples
    )


def test_no_label_is_taken_from_the_training_part() -> None:
    split = texts(30, 30, labels=29)
    kept, held = hold_out(CLASSES, split)
    assert len({e.label for e in kept.examples}) == 29 and len(held.examples) == 1


def test_of_three_rows_with_three_labels_one_is_held_out() -> None:
    kept, held = hold_out(CLASSES, texts(3, 3))
    assert len(kept.examples) == 2 and len(held.examples) == 1
    with pytest.raises(PolydistillError, match="only one text"):
        hold_out(CLASSES, texts(3, 1))


def test_a_sentence_with_an_entity_is_held_out(tmp_path: Path) -> None:
    plain = "".join(f"word{i} O\n\n" for i in range(40))
    file = write(tmp_path, "a.conll", plain + "Ana B-PER\n\nIon B-PER\n\nEva B-PER\n")
    kept, held = hold_out(NER, read(file, NER))
    assert len(held.examples) == 4 and all(any(labels_of(NER, e) for e in part.examples) for part in (kept, held))


def test_dev_data_is_compared_with_the_training_data(tmp_path: Path) -> None:
    log = Log()
    training = write(tmp_path, "a.csv", table(["x", "y", "x", "y"]))
    dev = write(tmp_path, "b.csv", table(["x", "y", "Z"], text="text {}") + "new,x\n")
    found = training_data(CLASSES, [EN], Wanted(training, dev), log)
    assert found.task.labels == ("x", "y") and len(found.dev[0].examples) == 4
    assert "the training data has no Z, which counts as missed" in log
    assert "3 of its texts are in the training data" in log
    pairs = write(tmp_path, "c.csv", "premise,hypothesis,label\na,b,x\n")
    with pytest.raises(PolydistillError, match="rows of one text with rows of two"):
        training_data(CLASSES, [EN], Wanted(training, pairs), log)


@pytest.mark.parametrize(
    ("languages", "wanted", "said"),
    [
        ([EN, SW], Wanted(Path("a.csv")), "is in one language"),
        ([EN], Wanted(Path("a.csv"), train_splits=("more",)), "A split is part of a data folder"),
        ([EN], Wanted(dev_data=Path("a.csv")), "training data was not"),
        ([EN], Wanted(Path("none.csv")), "There is no file none.csv"),
        ([EN], Wanted(), "can only be read from files"),
    ],
)
def test_requests_that_do_not_go_together(
    languages: list[Any], wanted: Wanted, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POLYDISTILL_DATA", raising=False)
    with pytest.raises(UsageError, match=said):
        training_data(CLASSES, languages, wanted)


def test_without_a_file_the_labels_are_those_of_a_data_folder(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        write(tmp_path / "classification/sw", f"{split}.csv", table(["b", "a", "b", "a"]))
    found = training_data(CLASSES, [SW], Wanted(data_dir=tmp_path))
    assert found.task.labels == ("a", "b") and found.dev[0].split == "dev"


# --- models


def config(folder: Path, *names: str) -> Path:
    named = {str(i): name for i, name in enumerate(names)}
    return write(folder, "config.json", json.dumps({"model_type": "bert", "id2label": named})).parent


def test_labels_are_joined_by_name_and_the_rest_is_said(tmp_path: Path) -> None:
    log = Log()
    split = read(write(tmp_path, "a.csv", table(["Good", "bad", "ugly"])))
    model = config(tmp_path / "m", "GOOD", "bad", "fine")
    task = agreed(replace(CLASSES, own=True), [split], {"m": model}, log)
    assert task.labels == ("Good", "bad", "ugly")
    assert "a.csv has ugly, which m cannot predict: counts as missed" in log
    assert "a.csv does not have fine, which m may predict: counts as wrong" in log
    assert own_output_labels(["GOOD", "bad", "fine"], task.kind, task.labels, (), "m") == ("Good", "bad", "fine")
    with pytest.raises(PolydistillError, match="have no label in common: the model predicts x, y, and the data has"):
        agreed(replace(CLASSES, own=True), [split], {"m": config(tmp_path / "n", "x", "y")})


def test_types_that_the_task_leaves_out_are_scored_for_models_that_know_them(tmp_path: Path) -> None:
    split = read(write(tmp_path, "a.conll", "Ana B-PER\n\nIeri B-DATE\n"), NER)
    knows, not_ = (
        config(tmp_path / name, *tags)
        for name, tags in (("a", ("O", "B-PER", "I-PER", "B-DATE", "I-DATE")), ("b", ("O", "B-PER", "I-PER")))
    )
    task = agreed(replace(NER, own=True), [split], {"a": knows})
    assert task.entity_types == ("DATE", "PER") and task.not_scored == ("MISC",)
    task = agreed(replace(NER, own=True), [split], {"a": knows, "b": not_})
    assert task.entity_types == ("PER",) and set(task.not_scored) == {"DATE", "MISC"}
    tags = tagger_tags(["O", "B-PER", "I-PER", "B-DATE", "I-DATE"], task.labels, task.not_scored, "a", own=True)
    assert tags.labels == ("O", "B-PER", "I-PER", "O", "O")


def test_taggers_in_other_schemes_and_with_longer_names_are_matched(tmp_path: Path) -> None:
    log = Log()
    split = read(write(tmp_path, "a.conll", "Ana S-PER\n\nTara S-GPE\n"), NER, log)
    assert "2 entities tagged in BI" in log
    model = config(tmp_path / "m", "O", "I-PERSON", "B-PERSON", "I-LAW")
    task = agreed(replace(NER, own=True), [split], {"m": model}, log)
    assert task.entity_types == ("GPE", "PER")
    assert "has GPE, which m cannot predict" in log and "does not have LAW, which m may predict" in log


def test_classes_of_words_can_be_ones_own(tmp_path: Path) -> None:
    file = write(tmp_path, "a.txt", "Ana NAME\nsees verb\n\nIon NAME\nis Verb\n")
    pos = catalog.task("pos")
    task = settled(replace(pos, own=True), [read(file, pos)])
    assert set(task.labels) == {"NAME", "VERB"}  # as the task spells what it has
    assert agreed(replace(pos, own=True), [read(file, pos)], {"m": config(tmp_path / "m", "VERB", "NOUN")})


def test_outputs_without_names_are_taken_by_number_or_refused() -> None:
    nameless = ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert own_output_labels(nameless, CLASSES.kind, ("0", "2"), (), "m") == ("0", "1", "2")
    assert own_output_labels(nameless, CLASSES.kind, ("label_1", "LABEL_2"), (), "m")[1:] == ("label_1", "LABEL_2")
    with pytest.raises(PolydistillError, match=r"have no names \(LABEL_0") as caught:
        own_output_labels(nameless, CLASSES.kind, ("good", "bad"), (), "m")
    assert "id2label" in str(caught.value.hint)
    with pytest.raises(PolydistillError, match="two outputs called good"):
        own_output_labels(["Good", "good "], CLASSES.kind, ("good", "bad"), (), "m")


def test_a_message_lists_the_first_ten_labels() -> None:
    names = [f"x{i}" for i in range(12)]
    assert listed(names[:10]) == ", ".join(names[:10])
    assert listed(names) == f"{', '.join(names[:10])} and 2 more"
