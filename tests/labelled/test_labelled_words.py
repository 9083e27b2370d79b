"""Files with a word a line: which column is the word, which the tag, and what is neither."""

from __future__ import annotations

from pathlib import Path

import pytest

from polydistill.errors import PolydistillError
from polydistill.labelled.words import entity_rows, word_rows

Sentence = list[tuple[str, str]]


def read(tmp_path: Path, text: str, rows: object = entity_rows) -> list[Sentence]:
    (tmp_path / "a").write_text(text)
    return [list(zip(r.values["tokens"], r.values["tags"], strict=True)) for r in rows(tmp_path / "a")]  # type: ignore


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(PolydistillError) as caught:
        read(tmp_path, text)
    assert caught.value.hint
    return caught.value.message


NAMES = [[("Rais", "O"), ("Ruto", "B-PER")], [("Kisumu", "B-LOC")]]


@pytest.mark.parametrize(
    "text",
    [
        "Rais O\nRuto B-PER\n\nKisumu B-LOC\n",
        "Rais\tO\nRuto\tB-PER\n\t\n\nKisumu\tB-LOC",
        "O\tRais\nB-PER\tRuto\n\nB-LOC\tKisumu\n",
        "-DOCSTART- -X- -X- O\n\nRais NN I-NP O\nRuto NNP I-NP B-PER\n\n-DOCSTART- -X- O O\n\nKisumu NNP I-NP B-LOC\n",
        "# sent_id = 1\n# text = Rais Ruto\nRais O\nRuto B-PER\n\n# newdoc\nKisumu B-LOC\n",
        "# id 17 domain=news\nRais _ _ O\nRuto _ _ B-PER\n\n# id 18 domain=O\nKisumu _ _ B-LOC\n".replace("=O", "=sw"),
        "# text = O\n1\tRais\tO\t-\tme\n2\tRuto\tB-PER\t-\tme\n\n1\tKisumu\tB-LOC\t-\tyou\n",
        "0 Rais O\n1 Ruto B-PER\n\n0 Kisumu B-LOC\n",
        "1-2\tRaisRuto\t_\n1\tRais\tO\n2\tRuto\tB-PER\n2.1\thapa\tO\n\n1\tKisumu\tB-LOC\n",
    ],
    ids=["spaces", "tabs", "tag first", "CoNLL-2003", "remarks", "MultiCoNER", "UNER", "from 0", "contraction"],
)
def test_the_layouts_in_use_give_the_same_sentences(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == NAMES


def test_between_tabs_a_word_may_hold_spaces(tmp_path: Path) -> None:
    assert read(tmp_path, "Hà Nội\tB-LOC\nđẹp\tO\n") == [[("Hà Nội", "B-LOC"), ("đẹp", "O")]]


def test_a_hash_is_a_word_where_it_has_a_tag(tmp_path: Path) -> None:
    assert read(tmp_path, "# O\n# O\nNairobi B-LOC\n\n# PER\nb O\n\n#Kenya B-LOC\nc PER\n") == [
        [("#", "O"), ("#", "O"), ("Nairobi", "B-LOC")],
        [("#", "PER"), ("b", "O")],
        [("#Kenya", "B-LOC"), ("c", "PER")],
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a O\n\nNairobi\n", "line 3 has a word without a tag: 'Nairobi'"),
        ("#Kenya\nb O\n", "line 1 has a word without a tag: '#Kenya'"),
        ("1 a O\n2 b O\n\n" * 6 + "1 c\n", "line 19 has a word without a tag: 'c'"),
        ("\n\n".join(["1 a O\n2 b O"] * 6) + "\n\nx b O\n", "line 19 begins with 'x', where the other lines have"),
        ("1\ta\tO\t-\tme\n2\tb\tO\t-\tme\n3\tc\tO\n", "line 3 has 3 columns, and the other lines have 5"),
    ],
)
def test_a_line_unlike_the_others_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


CONLL_U = """\
# sent_id = 1
# text = Vámonos al mar.
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tVamos\tir\tVERB\t_\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_
3-4\tal\t_\t_\t_\t_\t_\t_\t_\t_
3\ta\ta\tADP\t_\t_\t5\tcase\t_\t_
4\tel\tel\tDET\t_\t_\t5\tdet\t_\t_
5\tmar\tmar\tNOUN\t_\t_\t1\tobl\t_\tSpaceAfter=No
5.1\tazul\tazul\tADJ\t_\t_\t_\t_\t5:amod\t_
6\t.\t.\tPUNCT\t_\t_\t1\tpunct\t_\t_

"""
PARTS = [("Vamos", "VERB"), ("nos", "PRON"), ("a", "ADP"), ("el", "DET"), ("mar", "NOUN"), (".", "PUNCT")]


def test_conll_u_gives_its_syntactic_words_and_their_parts_of_speech(tmp_path: Path) -> None:
    assert read(tmp_path, CONLL_U * 2, word_rows) == [PARTS, PARTS]
    plain = "".join(f"{word}\t{tag}\n" for word, tag in PARTS)
    assert read(tmp_path, plain, word_rows) == [PARTS]


def test_a_word_of_conll_u_is_named_by_its_own_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(CONLL_U)
    (row,) = word_rows(tmp_path / "a")
    assert [row.where(i).rpartition(" ")[2] for i in range(len(PARTS))] == ["4", "5", "7", "8", "9", "11"]
