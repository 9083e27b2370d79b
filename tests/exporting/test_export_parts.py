"""export: 8 bits by hand, what counts as the same prediction, and the texts to compare on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from polydistill.catalog import language, languages
from polydistill.errors import PolydistillError
from polydistill.exporting import sample
from polydistill.exporting.beside import agreement, largest_difference
from polydistill.exporting.graph import check_size
from polydistill.exporting.networks import HEADS
from polydistill.exporting.quantise import quantise, rows_to_int8
from polydistill.labelled.examples import AlignedExample, LabelledSplit, PairExample, QuestionExample, TaggedExample

RNG = np.random.default_rng(0)


def test_rows_become_int8_by_their_own_largest_value() -> None:
    rows, scales = rows_to_int8(np.array([[12.7, -0.1, 0.26], [0, 0, 0], [-0.0127, 0.0064, 0]], np.float32))
    assert rows.dtype == np.int8 and scales.shape == (3, 1)
    assert rows.tolist() == [[127, -1, 3], [0, 0, 0], [-127, 64, 0]]
    assert scales[:, 0] == pytest.approx([0.1, 1, 0.0001])


def test_no_value_moves_by_more_than_half_a_step() -> None:
    matrix = RNG.normal(size=(50, 40)).astype(np.float32) * np.geomspace(1e-3, 1e3, 50, dtype=np.float32)[:, None]
    rows, scales = rows_to_int8(matrix)
    assert (np.abs(rows * scales - matrix) <= 0.5001 * scales).all()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two embeddings, a matrix for them, and a table of types that is too small to matter."""
    weights = {
        "words": RNG.normal(size=(300, 32)),
        "types": RNG.normal(size=(2, 32)),
        "matrix": RNG.normal(size=(32, 16)),
    }
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["a"]),
        helper.make_node("Gather", ["types", "kinds"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("MatMul", ["c", "matrix"], ["out"]),
    ]
    shape = ["batch_size", "sequence_length"]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(n, TensorProto.INT64, shape) for n in ("ids", "kinds")],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [*shape, 16])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    path = tmp_path / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    return path


def test_an_eight_bit_file_has_the_weights_in_eight_bits(
    small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    target = tmp_path / "int8.onnx"
    quantise(small, target)
    assert capfd.readouterr() == ("", "")
    model = onnx.load(str(target))
    onnx.checker.check_model(model)
    found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    kinds = {name.split("_quantized")[0]: v.dtype for name, v in found.items() if v.size > 31 and v.size != 300}
    assert kinds == {"words_int8": np.int8, "types": np.float32, "matrix": np.int8}
    assert np.abs(found["matrix_quantized"]).max() <= 64  # 7 bits: two products of 8 bits overflow without VNNI
    feed = {"ids": RNG.integers(0, 300, (3, 5)), "kinds": RNG.integers(0, 2, (3, 5))}
    before, after = (onnxruntime.InferenceSession(str(p)).run(None, feed)[0] for p in (small, target))
    assert 0 < np.abs(before - after).max() < 0.05 * np.abs(before).max()


def test_the_largest_difference_counts_every_output() -> None:
    one = [(np.array([1.0, 2]), np.array([0.0])), (np.array([5.0]), np.array([3.0]))]
    other = [(np.array([1.0, 2.25]), np.array([0.0])), (np.array([5.0]), np.array([2.5]))]
    assert largest_difference(one, other) == 0.5 and largest_difference(one, one) == 0


def rows(*values: Any) -> list[tuple[np.ndarray, ...]]:
    return [(np.array(value, np.float32),) for value in values]


@pytest.mark.parametrize(
    ("head", "one", "other", "expected"),
    [
        ("text-classification", rows([1, 2], [3, 0], [0, 1]), rows([1, 9], [0, 1], [0, 2]), (2 / 3, 3, "inputs")),
        # Tokens of two inputs of different lengths: the middle one of the first has another tag.
        (
            "token-classification",
            rows([[1, 0], [1, 0], [0, 1]], [[0, 1]]),
            rows([[2, 0], [0, 1], [0, 1]], [[1, 2]]),
            (3 / 4, 4, "tokens"),
        ),
        # The third text turns from the first to the second, and is the nearest of both before and after.
        (
            "feature-extraction",
            rows([[1, 0]], [[0, 1]], [[1, 0.5], [1, 0.1]]),
            rows([[1, 0.8]], [[0, 1]], [[0.1, 1], [0.1, 1]]),
            (2 / 3, 3, "nearest inputs"),
        ),
    ],
)
def test_agreement_by_hand(head: str, one: Any, other: Any, expected: tuple[float, int, str]) -> None:
    found = agreement(one, other, HEADS[head])
    assert (found["share"], found["n"], found["of"]) == (pytest.approx(expected[0]), *expected[1:])
    assert agreement(one, one, HEADS[head])["share"] == 1


def test_an_answer_is_the_same_if_both_ends_are() -> None:
    head = HEADS["question-answering"]
    one = [(np.array([0, 1, 0]), np.array([0, 0, 1])), (np.array([1, 0]), np.array([1, 0]))]
    other = [(np.array([0, 1, 0]), np.array([0, 1, 0])), (np.array([3, 0]), np.array([2, 1]))]
    assert agreement(one, other, head) == {"share": 0.5, "n": 2, "of": "answers"}


def test_a_file_of_more_than_two_gigabytes_is_refused() -> None:
    check_size(536_870_000, "large")
    with pytest.raises(PolydistillError, match=r"large would be an ONNX file of 2\.2 GB.*polydistill trim"):
        check_size(560_000_000, "large")


# ---- texts ----


def test_the_users_text_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("one\n\ntwo\nthree\n")
    found = sample.sample_of([str(path)], [], [language("sw")], pairs=False)
    assert found.texts == [("one", None), ("two", None), ("three", None)]
    assert [f["where"] for f in found.facts] == [str(path)]
    paired = sample.sample_of([str(path)], [], [], pairs=True)
    assert paired.texts == [("one", "two"), ("two", "three"), ("three", "one")]


def test_at_most_64_texts_spread_over_all(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("".join(f"{i}\n" for i in range(1000)))
    texts = [int(text) for text, _ in sample.sample_of([str(path)], [], [], pairs=False).texts]
    assert len(texts) == 64 and texts[0] == 0 and texts[-1] == 999 and texts == sorted(set(texts))


@pytest.mark.parametrize(
    ("example", "single", "paired"),
    [
        (TaggedExample("1", ("Anna", "lives"), ("B-PER", "O")), ("Anna lives", None), ("Anna lives", None)),
        (PairExample("1", "p", "h", "neutral"), ("p", None), ("p", "h")),
        (QuestionExample("1", "who?", "Anna.", (("Anna", 0),), "en", "en"), ("who?", None), ("who?", "Anna.")),
        (AlignedExample("1", "yes", "ndiyo"), ("yes", None), ("yes", "ndiyo")),
    ],
)
def test_texts_of_a_task(example: Any, single: tuple[str, str | None], paired: tuple[str, str | None]) -> None:
    split = LabelledSplit("t", "en", "test", (example,), "test.txt", "0" * 64)
    assert sample.sample_of([], [split], [], pairs=False).texts == [single]
    found = sample.sample_of([], [split], [], pairs=True)
    assert found.texts == [paired]
    assert found.facts == [
        {
            "language": "en",
            "where": "test.txt",
            "split": "test",
            "examples": 1,
            "sha256": "0" * 64,
            "ignored": {},
            "skipped": {},
            "mended": {},
        }
    ]


def test_without_text_the_sentences_of_the_models_languages() -> None:
    found = sample.sample_of([], [], [language("sw"), language("ro")], pairs=False)
    assert [text for text, _ in found.texts] == [s for code in ("sw", "ro") for s in sample.SENTENCES[code].split("|")]
    every = sample.sample_of([], [], [], pairs=False)
    assert len(every.texts) == 3 * len(sample.SENTENCES)


def test_a_language_without_sentences_is_shown_by_its_letters() -> None:
    tamil = language("ta")
    found = sample.sample_of([], [], [tamil], pairs=False)
    assert found.texts[0] == (tamil.native_name, None)
    shown = "".join(text for text, _ in found.texts[1:])
    assert set("".join(tamil.letters)) <= set(shown) and found.facts[0]["where"] == "its letters"


def test_the_sentences_are_in_the_letters_of_their_languages() -> None:
    known = {language.code: language for language in languages()}
    for code, text in sample.SENTENCES.items():
        letters = {c for part in (*known[code].letters, *known[code].auxiliary) for c in part}
        strange = {c for c in text.lower() if c.isalpha()} - letters
        assert not strange, (code, strange)
        assert text.count("|") == 2


def test_the_shortest_and_the_longest_input() -> None:
    features = [{"input_ids": [5, 6], "attention_mask": [1, 1]}, {"input_ids": [7], "attention_mask": [1]}]
    assert sample.extremes_of(features, 8) == [
        {"input_ids": [5], "attention_mask": [1]},
        {"input_ids": [5, 6, 7, 5, 6, 7, 5, 6], "attention_mask": [1] * 8},
    ]
    assert len(sample.extremes_of(features, 8192)[1]["input_ids"]) == 512
