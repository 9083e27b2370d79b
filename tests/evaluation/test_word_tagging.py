"""Parts of speech: read from CoNLL-U, learnt, scored word by word, distilled, and used as the card says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from configs import bistil, bistil_config, finetune, finetune_config
from snippets import run_snippet

from polydistill import catalog
from polydistill.cli import main
from polydistill.errors import PolydistillError
from polydistill.evaluation import word_tagging
from polydistill.evaluation.evaluate import EvaluateOptions, evaluate
from polydistill.evaluation.heads import TaskModel, new_head
from polydistill.labelled.checks import Builder
from polydistill.labelled.examples import TaggedExample
from polydistill.labelled.rows import Row
from polydistill.labelled.sources import load_split
from polydistill.methods.export.options import ExportOptions
from polydistill.methods.export.plan import prepare
from polydistill.methods.export.scores import FileScoring
from polydistill.metrics.paired import paired_difference
from polydistill.progress import SILENT

POS = catalog.task("pos")
EN = catalog.language("en")
CLASSES = {"NOUN": ["house", "letter", "Paris"], "VERB": ["sees", "and"], "DET": ["the", "a"]}


def conll_u(i: int) -> str:
    """A sentence of four words, the last two of them one contraction."""
    words = [(own[i % len(own)], name) for name, own in CLASSES.items()] + [("with", "ADP")]
    lines = [f"{n}\t{word}\t{word}\t{name}\t_\t_\t0\troot\t_\t_" for n, (word, name) in enumerate(words, 1)]
    contraction = "3-4\t" + "\t".join([words[2][0] + words[3][0], *["_"] * 8])
    return "\n".join([f"# sent_id = {i}", *lines[:2], contraction, *lines[2:]]) + "\n\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for code in ("en", "sw"):
        (root / "pos" / code).mkdir(parents=True)
        (root / f"{code}.txt").write_text("\n".join(tiny.sentences(code, count=200)) + "\n")
        for split, start, n in (("train", 0, 36), ("dev", 5, 12), ("test", 9, 12)):
            text = "".join(conll_u(i) for i in range(start, start + n))
            (root / f"pos/{code}/{split}.conllu").write_text(text)
    return root


@pytest.fixture(scope="module")
def tuned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tagger of parts of speech that knows the data."""
    folder = tmp_path_factory.mktemp("tuned")
    base = tiny.model_folder("bert", "base", folder / "base", tokenizer="xlm-roberta", config={"num_hidden_layers": 2})
    result = finetune(
        finetune_config(
            model=str(base),
            task="pos",
            languages=("en",),
            data_dir=data,
            output=folder / "pos",
            epochs=5,
            lr=5e-3,
            batch_size=6,
            max_length=32,
            patience=0,
        )
    )
    assert result.selection["metric"] == "accuracy" and result.selection["value"] > 0.95
    return folder / "pos"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("POLYDISTILL_DATA", raising=False)


# --- data


def test_conll_u_and_two_columns_are_the_same_examples(data: Path, tmp_path: Path) -> None:
    split = load_split(POS, EN, "test", data_dir=data)
    assert split.examples[0].tokens == ("house", "and", "a", "with") and not split.mended
    assert split.examples[0].tags == ("NOUN", "VERB", "DET", "ADP")
    two = "\n".join("".join(f"{w} {t}\n" for w, t in zip(e.tokens, e.tags, strict=True)) for e in split.examples)
    (tmp_path / "a.txt").write_text(two)
    assert load_split(POS, EN, "test", data=tmp_path / "a.txt").sha256 == split.sha256


def test_contractions_that_a_data_set_lists_beside_their_parts_are_left_out() -> None:
    builder = Builder(POS, "fr")
    rows = [
        Row("x", "row 1", {"tokens": ["du", "de", "le", "pain"], "tags": ["_", "ADP", "DET", "noun"]}),
        Row("x", "row 2", {"tokens": ["du"], "tags": ["_"]}),
    ]
    (example,) = builder.build(rows)
    assert (example.tokens, example.tags) == (("de", "le", "pain"), ("ADP", "DET", "NOUN"))
    assert builder.mended == {"words without a class (_) are left out": 2} and builder.skipped == {"no gold label": 1}


def test_a_class_that_the_task_does_not_know_is_refused_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a DET\n\nhouse NN\n")
    with pytest.raises(PolydistillError, match=r"a.txt line 3: the class 'NN' is not one of the task pos's") as caught:
        load_split(POS, EN, "test", data=tmp_path / "a.txt")
    assert "NOUN" in caught.value.hint


# --- scores


def test_accuracy_counts_words_and_draws_sentences() -> None:
    gold = [TaggedExample("0", ("a", "b", "c"), ("DET", "NOUN", "VERB")), TaggedExample("1", ("d",), ("X",))]
    own = [{"tags": ["DET", "NOUN", "NOUN"]}, {"tags": [""]}]
    (measured,) = word_tagging.measure(gold, own, "en")
    assert measured.items.tolist() == [[2, 3], [0, 1]] and measured.value == 0.5
    assert (measured.metric, measured.normalisation) == ("accuracy", None)
    assert paired_difference(measured, measured).p is None  # McNemar's test wants independent items


def test_a_word_without_tokens_has_no_class(tuned: Path) -> None:
    fresh = new_head(tuned, POS.kind, POS.labels, seed=0)
    model = TaskModel(fresh.network.eval(), fresh.tokenizer, fresh.labels, 32)
    (found,) = word_tagging.predict(model, [TaggedExample("0", ("", "house"), ("X", "NOUN"))], batch_size=1)
    assert found["tags"][0] == "" and found["tags"][1] in POS.labels
    assert np.allclose(np.sum(found["probabilities"], axis=1), 1, atol=1e-4)


def test_models_are_evaluated_and_compared(
    tuned: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        shutil.copytree(tuned, tmp_path / name)
    found = evaluate(
        EvaluateOptions(
            model=(str(tmp_path / "a"),),
            teacher=str(tmp_path / "b"),
            task="pos",
            languages=("en", "sw"),
            data_dir=data,
            output=tmp_path / "run.json",
        )
    )
    assert {(s.metric, s.language, s.n) for s in found.scores} == {("accuracy", "en", 12), ("accuracy", "sw", 12)}
    assert all(score.value > 0.95 for score in found.scores)
    assert found.loyalty is not None
    assert [row["value"] for row in found.loyalty["scores"]] == [1.0] * 6  # of labels, of probabilities, retention
    capsys.readouterr()
    main(["compare", str(tmp_path / "run.json")])
    assert "accuracy" in capsys.readouterr().out.casefold()


# --- what is made of them


def test_the_card_prints_the_class_of_every_word(tuned: Path) -> None:
    printed = run_snippet(tuned).split("\n")
    assert [line.split()[0] for line in printed if line] == ["Nairobi", "is", "the", "capital", "of", "Kenya", "."]
    assert {line.split()[1] for line in printed if line} <= set(POS.labels)
    assert "aggregation_strategy" not in (tuned / "README.md").read_text()


def test_phase_2_distils_a_tagger_of_words(tuned: Path, data: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "data_dir": data,
        "task_epochs": 2,
        "task_sparse_epochs": 1,
        "task_batch_size": 6,
        "task_lr": 5e-3,
        "task_max_length": 32,
        "steps": 2,
        "batch_size": 4,
        "max_length": 16,
    }
    result = bistil(
        bistil_config(
            model=str(tuned),
            teacher=(str(tuned),),
            task="pos",
            output=tmp_path / "out",
            text=tuple(f"{code}={data}/{code}.txt" for code in ("en", "sw")),
            preset="smoke",
            precision="float32",
            density=0.1,
            **options,
        )
    )
    assert result.stages[-1]["facts"]["metric"] == "probability_loyalty"
    found = evaluate(EvaluateOptions(model=(str(tmp_path / "out"),), task="pos", languages=("sw",), data_dir=data))
    assert found.scores[0].value > 0.5
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"]["7"] == "NOUN"


def test_a_tagger_of_words_can_be_exported_and_scored(tuned: Path, data: Path, tmp_path: Path) -> None:
    wanted = ExportOptions.of(str(tuned), task="pos", languages=("en",), data_dir=data, output=tmp_path / "onnx")
    scoring = prepare(wanted, SILENT).scoring
    assert isinstance(scoring, FileScoring)
    job = scoring.job
    assert job.head.name == "token-classification" and job.task is not None
    assert job.task.cells[0].split.examples[0].tags == ("NOUN", "VERB", "DET", "ADP")


def test_prototypes_of_words_are_refused(data: Path, tuned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["prokd", "en", "sw", "--model", str(tuned), "--task", "pos", "--data-dir", str(data)])
    assert "pos has none" in capsys.readouterr().err
