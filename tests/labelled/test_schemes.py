"""Schemes of entity tags: one sentence in each of them is the same example, and what fits none is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from polydistill import catalog
from polydistill.errors import PolydistillError
from polydistill.labelled.examples import LabelledSplit
from polydistill.labelled.plain import load_plain
from polydistill.labelled.rows import Row
from polydistill.labelled.schemes import known_type, model_tags, recognise, to_iob2
from polydistill.labelled.sources import load_split
from polydistill.metrics.entities import entities
from polydistill.progress import Progress

SW = catalog.language("sw")
# "Wangari Maathai wa Nyeri Kenya Red Cross." and "Nairobi"; neighbours are of different types, so that IO can say it.
WORDS = ("Wangari", "Maathai", "wa", "Nyeri", "Red", "Cross", "Society", ".")
WRITTEN = {
    "IOB2": ("B-PER", "I-PER", "O", "B-LOC", "B-ORG", "I-ORG", "I-ORG", "O"),
    "IOB1": ("I-PER", "I-PER", "O", "I-LOC", "I-ORG", "I-ORG", "I-ORG", "O"),
    "BIOES": ("B-PER", "E-PER", "O", "S-LOC", "B-ORG", "I-ORG", "E-ORG", "O"),
    "BILOU": ("B-PER", "L-PER", "O", "U-LOC", "B-ORG", "I-ORG", "L-ORG", "O"),
    "BMES": ("B-PER", "E-PER", "O", "S-LOC", "B-ORG", "M-ORG", "E-ORG", "O"),
    "BMEWO": ("B-PER", "E-PER", "O", "W-LOC", "B-ORG", "M-ORG", "E-ORG", "O"),
    "IO": ("PER", "PER", "O", "LOC", "ORG", "ORG", "ORG", "O"),
}
ENTITIES = {("PER", 0, 2), ("LOC", 3, 4), ("ORG", 4, 7)}
# What makes IOB1 of tags that could be IO as well: a second place beside the first one.
NEIGHBOURS = {"IOB2": ("B-LOC", "B-LOC"), "IOB1": ("I-LOC", "B-LOC"), "BIOES": ("S-LOC", "S-LOC")}


class Log(Progress):
    """Remembers what was reported."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def conll(*sentences: Sequence[str], words: Sequence[str] = WORDS) -> str:
    return "\n".join("".join(f"{word} {tag}\n" for word, tag in zip(words, tags, strict=False)) for tags in sentences)


def read(tmp_path: Path, text: str, progress: Progress | None = None) -> LabelledSplit:
    file = tmp_path / "a.conll"
    file.write_text(text)
    return load_split(catalog.task("ner"), SW, "test", data=file, progress=progress or Log())


def refused(tmp_path: Path, text: str) -> PolydistillError:
    with pytest.raises(PolydistillError) as caught:
        read(tmp_path, text)
    assert caught.value.hint
    return caught.value


# --- files


@pytest.mark.parametrize("scheme", WRITTEN)
def test_a_file_means_the_same_in_every_scheme(tmp_path: Path, scheme: str) -> None:
    log = Log()
    plain, split = read(tmp_path, conll(WRITTEN["IOB2"])), read(tmp_path, conll(WRITTEN[scheme]), log)
    assert entities(split.examples[0].tags, "strict-iob2") == ENTITIES
    assert split.sha256 == plain.sha256 and split.examples == plain.examples
    name = "IO" if scheme == "IOB1" else scheme  # without neighbours of one type the two are the same
    said = [note for note in log.notes if f"3 entities tagged in {name} are read in IOB2" in note]
    assert len(said) == (scheme != "IOB2") and bool(split.facts()["mended"]) == (scheme != "IOB2")


@pytest.mark.parametrize("scheme", NEIGHBOURS)
def test_neighbours_of_one_type_stay_two_entities_where_the_scheme_can_say_it(tmp_path: Path, scheme: str) -> None:
    log = Log()
    split = read(tmp_path, conll(WRITTEN[scheme], NEIGHBOURS[scheme]), log)
    assert split.examples[1].tags == ("B-LOC", "B-LOC")
    assert split.examples[0].tags == WRITTEN["IOB2"]
    assert [note.rpartition(" tagged in ")[2] for note in log.notes] == (
        [] if scheme == "IOB2" else [f"{scheme} are read in IOB2"]
    )


def test_neighbours_of_one_type_are_one_entity_in_io_and_the_note_says_so(tmp_path: Path) -> None:
    log = Log()
    assert read(tmp_path, "Kenya I-LOC\nUganda I-LOC\n", log).examples[0].tags == ("B-LOC", "I-LOC")
    assert "1 entities tagged in IO are read in IOB2, where neighbours of one type are one entity" in log.notes[0]


def test_the_scheme_is_that_of_the_whole_file(tmp_path: Path) -> None:
    """The first sentence alone could be IOB2; the second says that B- means a second entity."""
    split = read(tmp_path, "a O\nb B-PER\nc I-PER\n\nd S-LOC\n\ne B-PER\nf E-PER\n".replace("c I-PER", "c E-PER"))
    assert [example.tags for example in split.examples] == [("O", "B-PER", "I-PER"), ("B-LOC",), ("B-PER", "I-PER")]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a I-PER\nb B-LOC\n", 1, "the tag I-PER follows O, which IOB2 does not allow; nor does IOB1 allow the B-LOC"),
        ("a B-PER\nb O\n\nc O\nd I-PER\n", 5, "the tag I-PER follows O, which IOB2 does not allow"),
        ("a S-PER\nb I-LOC\n", 2, "the tag I-LOC follows S-PER, which BIOES does not allow"),
        ("a S-PER\nb E-PER\n", 2, "the tag E-PER follows S-PER, which BIOES does not allow"),
        ("a S-PER\nb B-LOC\nc O\n", 3, "the tag O follows B-LOC, which BIOES does not allow"),
        ("a S-PER\nb B-LOC\n\nc O\n", 2, "the sentence ends with B-LOC, which BIOES does not allow"),
        ("a U-PER\nb B-LOC\nc I-LOC\nd L-ORG\n", 4, "the tag L-ORG follows I-LOC, which BILOU does not allow"),
        ("a S-PER\nb U-LOC\n", 2, "the tag U-LOC and S-PER"),
        ("a B-PER\nb LOC\n", 2, "the tag LOC and B-PER"),
    ],
)
def test_tags_that_fit_no_scheme_are_refused_by_their_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    error = refused(tmp_path, text)
    assert f"a.conll line {line}: " in error.message and said in error.message


def test_types_in_other_words_are_read_as_the_tasks_and_that_is_said(tmp_path: Path) -> None:
    log = Log()
    split = read(tmp_path, "Ana B-Person\nPop I-PERSON\nla B-LOCATION\n", log)
    assert split.examples[0].tags == ("B-PER", "I-PER", "B-LOC")
    assert {note.partition(": ")[2] for note in log.notes} == {
        "1 entities of the type Person are read as PER",
        "1 entities of the type LOCATION are read as LOC",
    }
    assert known_type("person", ("PERSON", "PER")) == "PER" and known_type("PERSON", ("PERSON", "PER")) == "PERSON"
    assert known_type("GPE", ("LOC",)) is None


def test_a_prefix_without_a_type_is_refused() -> None:
    with pytest.raises(PolydistillError, match="x row 1: the tag B has no entity type"):
        recognise([Row("x", "row 1", {"tokens": ["a"], "tags": ["B"]})], {"B"})


@pytest.mark.parametrize(
    ("tags", "scheme", "right"),
    [
        ("I-PER O B-PER", "IOB1", "B-PER O B-PER"),
        ("B-PER E-PER E-PER", "BIOES", "B-PER I-PER B-PER"),
        ("S-PER I-PER", "BIOES", "B-PER B-PER"),
        ("O I-PER L-LOC", "BILOU", "O I-PER I-LOC"),
        ("O I-PER I-LOC", "IOB2", "O I-PER I-LOC"),
    ],
)
def test_predictions_that_break_their_scheme_are_read_as_conlleval_does(tags: str, scheme: str, right: str) -> None:
    assert to_iob2(tags.split(), scheme) == right.split()


# --- models

NER = catalog.task("ner").labels


@pytest.mark.parametrize(
    ("names", "scheme", "labels"),
    [
        ("O B-PER I-PER B-ORG I-ORG B-LOC I-LOC B-DATE I-DATE", "IOB2", None),
        ("B-LOC B-MISC B-ORG I-LOC I-MISC I-ORG I-PER O", "IOB1", "B-LOC O B-ORG I-LOC O I-ORG I-PER O"),
        ("I-LOC I-ORG I-PER O", "IO", None),
        ("O LOC PER MISC ORG", "IO", "O LOC PER O ORG"),
        ("O Person Organization Location", "IO", "O PER ORG LOC"),
        ("O S-PER E-PER S-LOC S-ORG", "BIOES", "O B-PER I-PER B-LOC B-ORG"),
        ("O U-PER L-PER U-LOC U-ORG", "BILOU", "O B-PER I-PER B-LOC B-ORG"),
    ],
)
def test_the_scheme_of_a_model_follows_from_its_labels(names: str, scheme: str, labels: str | None) -> None:
    found = model_tags(names.split(), NER, ("DATE", "MISC"), "m")
    wanted = (labels or names).replace("B-DATE", "O").replace("I-DATE", "O").split()
    assert found.scheme == scheme and list(found.labels) == wanted


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("O B-PER I-PER B-LOC I-LOC", "m cannot predict ORG"),
        ("O B-PER B-GPE", "m has the label B-GPE, which the task does not know"),
        ("I-PER I-ORG I-LOC", "m cannot predict O"),
        ("O S-PER L-PER ORG LOC", "the labels of m follow no known scheme"),
    ],
)
def test_labels_of_a_model_that_do_not_fit_are_refused(names: str, said: str) -> None:
    with pytest.raises(PolydistillError, match=f"(?i){said}") as caught:
        model_tags(names.split(), NER, ("DATE", "MISC"), "m")
    assert caught.value.hint


def test_a_model_may_have_other_types_than_the_users_own_data() -> None:
    found = model_tags(["O", "S-Drug", "E-drug", "B-DRUG", "S-Dose"], ("O", "B-drug", "I-drug"), (), "m", own=True)
    assert found.tags == ("O", "S-drug", "E-drug", "B-drug", "S-Dose")
    assert found.labels == ("O", "B-drug", "I-drug", "B-drug", "B-Dose")


# --- words with the code of their language


def test_the_code_of_the_language_is_no_part_of_the_words(tmp_path: Path) -> None:
    log = Log()
    coded = read(tmp_path, "sw:Amina\tB-PER\nsw::\tO\n\nsw:Kisumu\tB-LOC\n", log)
    assert [example.tokens for example in coded.examples] == [("Amina", ":"), ("Kisumu",)]
    assert coded.sha256 == read(tmp_path, "Amina B-PER\n: O\n\nKisumu B-LOC\n").sha256
    assert "3 words have lost the sw: before them" in log.notes[0] and coded.facts()["mended"]


def test_sentences_without_tags_lose_the_code_as_well(tmp_path: Path) -> None:
    (tmp_path / "ner" / "sw").mkdir(parents=True)
    (tmp_path / "ner" / "sw" / "train.conll").write_text("sw:Amina B-PER\nsw:yuko O\n")
    log = Log()
    plain = load_plain(catalog.task("ner"), SW, "train", data_dir=tmp_path, progress=log)
    assert plain.sentences == (("Amina", "yuko"),) and "2 words have lost the sw:" in log.notes[0]


def test_words_with_a_colon_keep_it(tmp_path: Path) -> None:
    split = read(tmp_path, "ratio O\na:b O\nre:Nairobi B-LOC\nen:x O\nsw:y O\n")
    assert split.examples[0].tokens == ("ratio", "a:b", "re:Nairobi", "en:x", "sw:y")


@pytest.mark.parametrize("word", ["Kisumu", "sw:", "en:Kisumu"])
def test_a_code_that_only_most_words_have_is_refused_by_the_line_of_the_others(tmp_path: Path, word: str) -> None:
    error = refused(tmp_path, f"sw:Amina B-PER\nsw:yuko O\nsw:Kenya B-LOC\n{word} B-LOC\n")
    assert "line 4" in error.message and repr(word) in error.message
