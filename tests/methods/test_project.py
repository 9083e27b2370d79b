"""project: what is projected and why not, resuming, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from configs import finetune, finetune_config
from kills import Killed, Listener
from safetensors.numpy import load_file

from polydistill.errors import PolydistillError
from polydistill.methods.project import METHOD
from polydistill.methods.project.options import ProjectOptions
from polydistill.progress import SILENT, Progress
from polydistill.records.record import RunRecord
from polydistill.runs.result import Result
from polydistill.runs.runner import run

NAMES = {"PER": ["Ana", "Ion", "Maria"], "LOC": ["Cluj", "Paris", "Nairobi"], "ORG": ["Acme", "Dacia", "Safaricom"]}
PLAIN = ["sees", "the", "red", "house", "in", "and", "with", "a", "letter"]


def sentence(i: int) -> list[tuple[str, str]]:
    kind = list(NAMES)[i % 3]
    words = [(PLAIN[(i * 3 + j) % len(PLAIN)], "O") for j in range(2 + i % 4)]
    return [*words[:1], (NAMES[kind][(i // 3) % 3], f"B-{kind}"), *words[1:]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of both languages, and sentences whose translations are themselves."""
    root = tmp_path_factory.mktemp("data")
    for code in ("en", "sw"):
        (root / f"ner/{code}").mkdir(parents=True)
        for split, start, count in (("train", 0, 48), ("dev", 7, 18), ("test", 30, 18)):
            lines = ("".join(f"{w} {t}\n" for w, t in sentence(i)) for i in range(start, start + count))
            (root / f"ner/{code}/{split}.conll").write_text("\n".join(lines))
    rows = [" ".join(word for word, _ in sentence(i)) for i in range(20)]
    origins = ["news" if i % 2 else "test" for i in range(20)]
    (root / "en-sw.tsv").write_text("".join(f"{r}\t{r}\t{o}\n" for r, o in zip(rows, origins, strict=True)))
    (root / "sw.txt").write_text("\n".join(rows[:7]) + "\n")
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "base"
    return tiny.model_folder("bert", "base", folder, tokenizer="xlm-roberta", config={"num_hidden_layers": 2})


@pytest.fixture(scope="module")
def tuned(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that knows the names."""
    values: dict[str, Any] = {"epochs": 16, "lr": 5e-3, "batch_size": 8, "max_length": 32, "patience": 0}
    output = tmp_path_factory.mktemp("tuned") / "tuned"
    return finetune(
        finetune_config(model=str(base), task="ner", languages=("en",), output=output, data_dir=data, **values)
    ).output


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))


def project(data: Path, base: Path, tuned: Path, output: Path, progress: Progress = SILENT, **options: Any) -> Result:
    values: dict[str, Any] = {
        "source": "en",
        "target": "sw",
        "model": str(base),
        "teacher": str(tuned),
        "parallel": data / "en-sw.tsv",
        "data_dir": data,
        "max_length": 32,
        "batch_size": 8,
        "epochs": 2,
        "lr": 2e-3,
        "test_split": ("en=none", "sw=none"),
        "output": output,
    }
    return run(METHOD, ProjectOptions.of(**{**values, **options}), progress)


def test_a_translation_that_is_the_sentence_has_its_tags(data: Path, base: Path, tuned: Path, tmp_path: Path) -> None:
    """All words align with themselves, so that all that the teacher is sure of goes along."""
    options = {"test_split": ("en=test",), "confidence": 0.0}
    result = project(data, base, tuned, tmp_path / "out", **options)
    assert [stage["name"] for stage in result.stages] == ["projected", "student"]
    found = result.facts["projection"]
    assert (found["pairs"], found["kept"], found["dropped"]) == (20, 20, {})
    assert found["entities"]["projected"] == found["entities"]["found"] >= 15
    text = (tmp_path / "out/stages/projected/projected.conll").read_text()
    assert text.count("\n\n") == 19 and "Ana B-PER" in text
    assert set(result.stages[-1]["loss"]["first"]) == {"labels", "probabilities"}
    assert {score["language"] for score in result.scores} == {"en", "sw"}
    record = RunRecord.load(result.output)
    assert record is not None and record.texts[-1]["examples"] == 20
    card = (result.output / "README.md").read_text()
    assert "annotation-projection" in card and "Of 20 pairs of sentences 20 were kept" in card and "SimAlign" in card


def test_what_is_kept(data: Path, base: Path, tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(PolydistillError, match="20 the teacher is not sure of an entity") as caught:
        project(data, base, tuned, tmp_path / "sure", confidence=1.0)
    assert "`confidence`" in caught.value.hint
    some = project(data, base, tuned, tmp_path / "some", leave_out=("test",), epochs=1)
    assert some.facts["projection"]["pairs"] == 10
    long = tmp_path / "long.tsv"
    long.write_text(f"{'the red house ' * 40}\tred house\n...\t\u00a0.\nAna sees\tAna sees\n")
    found = project(data, base, tuned, tmp_path / "long", parallel=long, epochs=1).facts["projection"]
    assert found["pairs"] == 3 and found["dropped"]["longer than the model's inputs"] == 1


def test_more_text_has_no_labels(data: Path, base: Path, tuned: Path, tmp_path: Path) -> None:
    alone = project(data, base, tuned, tmp_path / "alone", objective=("labels=1",))
    more = project(data, base, tuned, tmp_path / "more", text=(str(data / "sw.txt"),))
    assert set(alone.stages[-1]["loss"]["first"]) == {"labels"}
    assert more.stages[-1]["steps"] > alone.stages[-1]["steps"]
    copy = project(data, base, tuned, tmp_path / "copy", model=None, student_from="teacher")
    assert copy.stages[-1]["loss"]["first"]["labels"] < alone.stages[-1]["loss"]["first"]["labels"]


def test_a_run_that_was_killed_goes_on_with_the_same_weights(
    data: Path, base: Path, tuned: Path, tmp_path: Path
) -> None:
    options = {"text": (str(data / "sw.txt"),), "epochs": 4}
    project(data, base, tuned, tmp_path / "whole", **options)
    with pytest.raises(Killed):
        project(data, base, tuned, tmp_path / "cut", Listener(3), **options)
    project(data, base, tuned, tmp_path / "cut", resume=True, **options)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all((one[name] == other[name]).all() for name in one)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"parallel": None}, "There are no translations"),
        ({"parallel": "nowhere.tsv"}, "nowhere.tsv"),
        ({"teacher": ""}, "There is no teacher"),
        ({"target": "en"}, "the same language"),
        ({"target": "th"}, "written without spaces"),
        ({"task": "nli"}, "has none"),
        ({"layer": 9}, "`layer=9` is too high"),
        ({"leave_out": ("xnli",)}, "has the origin xnli"),
        ({"objective": ("labels=0", "probabilities=0")}, "No objective has a weight"),
        ({"objective": ("hidden=1",)}, "cannot be used in `polydistill project`"),
        ({"student_from": "teacher"}, "both say what the student begins with"),
        ({"confidence": 2.0}, "`confidence` must be at least 0 and at most 1"),
        ({"test_split": ("ro=test",)}, "is for neither en nor sw"),
        ({"dev_split": "more"}, "There is no file"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_makes_no_sense_is_refused(
    options: dict[str, Any], sentence: str, data: Path, base: Path, tuned: Path, tmp_path: Path
) -> None:
    with pytest.raises(PolydistillError, match=sentence) as caught:
        project(data, base, tuned, tmp_path / "out", **options)
    assert caught.value.hint and not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "has no pair of sentences"),
        ("one sentence\n", "line 1 is not a sentence, a tab and its translation"),
        ("a\tb\n\nc\td\te\tf\n", "line 3 is not"),
        ("a\t\n", "line 1 is not"),
        ("a\tb\tnews\n", "has no pair of sentences"),
    ],
)
def test_broken_translations_are_refused(
    content: str, sentence: str, data: Path, base: Path, tuned: Path, tmp_path: Path
) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text(content)
    options = {"leave_out": ("news",)} if "news" in content else {}
    with pytest.raises(PolydistillError, match=sentence):
        project(data, base, tuned, tmp_path / "out", parallel=file, **options)


def test_a_model_that_is_no_tagger_is_no_teacher(data: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(PolydistillError, match="no head for tags"):
        project(data, base, base, tmp_path / "out")
