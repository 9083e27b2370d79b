"""bistil: stages, resuming, what is saved, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tiny
from configs import bistil, bistil_config, finetune, finetune_config
from kills import Killed, Listener, loss_curves
from safetensors.numpy import load_file

import polydistill
from polydistill.card import card
from polydistill.catalog import task as load_task
from polydistill.cli import main
from polydistill.distill.loss import DistilLoss
from polydistill.distill.matched import same_vocabulary
from polydistill.errors import PolydistillError
from polydistill.evaluation.evaluate import EvaluateOptions, evaluate
from polydistill.evaluation.heads import new_head
from polydistill.methods.bistil import stages as bistil_stages
from polydistill.methods.bistil.options import BistilOptions
from polydistill.methods.bistil.plan import prepare
from polydistill.progress import SILENT, Progress
from polydistill.records.record import RunRecord
from polydistill.runs.result import Result
from polydistill.runs.stages import Stage
from polydistill.sparse.files import Difference
from polydistill.training.trainer import DevTrainer
from polydistill.vocab.letters import unwritten

NAMES = {"PER": ["Ana", "Ion", "Maria"], "LOC": ["Cluj", "Paris", "Nairobi"], "ORG": ["Acme", "Dacia", "Safaricom"]}
PLAIN = ["sees", "the", "red", "house", "in", "and", "with", "a", "letter"]


def sentence(i: int) -> list[tuple[str, str]]:
    kind = list(NAMES)[i % 3]
    words = [(PLAIN[(i * 3 + j) % len(PLAIN)], "O") for j in range(2 + i % 4)]
    return [*words[:1], (NAMES[kind][(i // 3) % 3], f"B-{kind}"), *words[1:]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for code in ("en", "sw"):
        (root / f"ner/{code}").mkdir(parents=True)
        (root / f"text/{code}").parent.mkdir(exist_ok=True)
        (root / f"text/{code}.txt").write_text("\n".join(tiny.sentences(code, count=300)) + "\n")
        for split, start, n in (("train", 0, 48), ("dev", 7, 18), ("test", 30, 18)):
            text = "\n".join("".join(f"{w} {t}\n" for w, t in sentence(i)) for i in range(start, start + n))
            (root / f"ner/{code}/{split}.conll").write_text(text)
    write_others(root)
    return root


def write_others(root: Path) -> None:
    """English pairs of texts and questions, and aligned sentences."""
    labels = ("entailment", "neutral", "contradiction")
    for folder in ("nli/en", "qa/en", "parallel"):
        (root / folder).mkdir(parents=True)
    aligned = zip(tiny.sentences("en", count=20), tiny.sentences("sw", count=20), strict=True)
    (root / "parallel/en-sw.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in aligned))
    for split in ("train", "dev", "test"):
        rows = [
            {"premise": "the house", "hypothesis": f"{PLAIN[i % 3]} house", "label": labels[i % 3]} for i in range(24)
        ]
        (root / f"nli/en/{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        paragraphs = [
            {
                "context": f"The key is {name} today.",
                "qas": [
                    {
                        "id": f"{split}{i}",
                        "question": "Who is the key?",
                        "answers": [{"text": name, "answer_start": 11}],
                    }
                ],
            }
            for i, name in enumerate(NAMES["PER"] * 8)
        ]
        squad = {"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}
        (root / f"qa/en/{split}.json").write_text(json.dumps(squad))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "m"
    config = {"hidden_dropout_prob": 0.1, "num_hidden_layers": 4}
    return tiny.model_folder("bert", "base", folder, tokenizer="xlm-roberta", config=config)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module", autouse=True)
def _few_letters() -> Iterator[None]:
    """All languages' letters, which take most of the time of a tiny vocabulary, are tried where a test asks for it."""
    with mock.patch.object(bistil_stages, "unwritten", lambda *_: {}):
        yield


def config(base: Path, data: Path, output: Path, **options: Any) -> BistilOptions:
    values: dict[str, Any] = {
        "text": tuple(f"{code}={data}/text/{code}.txt" for code in ("en", "sw")),
        "preset": "smoke",
        "steps": 8,
        "batch_size": 4,
        "max_length": 16,
        "precision": "float32",
    }
    return bistil_config(model=str(base), output=output, **{**values, **options})


def ner(base: Path, data: Path, output: Path, **options: Any) -> BistilOptions:
    values = {
        "task": "ner",
        "data_dir": data,
        "task_batch_size": 6,
        "task_lr": 5e-3,
        "task_epochs": 2,
        "task_sparse_epochs": 2,
        "density": 0.1,
    }
    return config(base, data, output, **{**values, **options})


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where fixtures write, with a cache of their own."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYDISTILL_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def tuned(base: Path, data: Path, own_cache: Path) -> str:
    """A tagger that is made of the base model."""
    return tagger(base, data, own_cache / "tuned")


@pytest.fixture(scope="module")
def student(base: Path, data: Path, own_cache: Path) -> Result:
    """What phase 1 makes of the base model."""
    return bistil(config(base, data, own_cache / "student"))


@pytest.fixture(scope="module")
def whole(base: Path, data: Path, own_cache: Path) -> tuple[Path, Result, int]:
    """A run of both phases: its folder, its result, how often it was checked."""
    counting = Listener(1000)
    result = bistil(ner(base, data, own_cache / "whole"), counting)
    return own_cache / "whole", result, 1000 - counting.left


def tagger(model: Path, data: Path, output: Path, **options: Any) -> str:
    """The folder of a tuned model."""
    values = {"task": "ner", "languages": ("en",), "data_dir": data, "epochs": 2, "lr": 5e-3, "max_length": 32}
    return str(finetune(finetune_config(model=str(model), output=output, **{**values, **options})).output)


def test_phase_1_makes_a_plain_folder(base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bistil_stages, "unwritten", unwritten)
    result = bistil(config(base, data, tmp_path / "out", steps=30))
    assert [stage["name"] for stage in result.stages] == ["vocabulary", "general"]
    loss = result.stages[1]["loss"]
    assert loss["last"]["hidden"] < 0.8 * loss["first"]["hidden"]
    from transformers import AutoModel

    student = AutoModel.from_pretrained(tmp_path / "out")
    assert student.config.num_hidden_layers == 2 and student.config.hidden_dropout_prob == 0
    assert result.parameters["student"] == sum(p.numel() for p in student.parameters())
    record = json.loads((tmp_path / "out/polydistill.json").read_text())
    assert record["result"]["settings"]["phase_1"]["steps"] == 30 and record["command"] == "bistil"
    assert (tmp_path / "out/stages/vocabulary/teacher/config.json").is_file()
    assert not list(tmp_path.glob(".out*"))
    letters = record["result"]["verification"]["letters"]
    assert letters["languages"] > 100 and "en" not in letters["lost"]
    assert "that were tried" in (tmp_path / "out/README.md").read_text()


def test_masked_tokens_in_phase_1_leave_a_plain_encoder(base: Path, data: Path, tmp_path: Path) -> None:
    listener = Listener(1000)
    # Hidden states, attention and projections are seen through the head as well.
    terms = ("1:mlm=0.5", "1:hidden=1", "1:attention=1", "1:relations=0.1")
    result = bistil(config(base, data, tmp_path / "out", objective=terms, steps=60, lr=3e-3, scale="none"), listener)
    loss = result.stages[1]["loss"]
    assert loss["last"]["mlm"] < 0.9 * loss["first"]["mlm"] and loss["last"]["hidden"] < loss["first"]["hidden"]
    assert set(loss["first"]) >= {"mlm", "hidden", "attention", "relations_v"}
    assert listener.said.count("new one learns") == 1
    names = set(load_file(tmp_path / "out/model.safetensors"))
    assert names == {
        n
        for n in load_file(tmp_path / "out/stages/vocabulary/student/model.safetensors")
        if not n.startswith("pooler.")
    }
    teacher = tagger(tmp_path / "out/stages/vocabulary/teacher", data, tmp_path / "teacher", epochs=1)
    tuned = bistil(ner(tmp_path / "out", data, tmp_path / "ner", teacher=(teacher,), task_epochs=1))
    parameters = result.parameters["student"]
    assert tuned.stages[-1]["facts"]["entries"] == round(0.1 * parameters)  # every weight of phase 1 was found


def test_phase_2_keeps_exactly_k_entries(whole: tuple[Path, Result, int]) -> None:
    folder, result, _ = whole
    assert [stage["name"] for stage in result.stages] == ["vocabulary", "general", "teacher", "full", "sparse"]
    out = load_file(folder / "model.safetensors")
    general = load_file(folder / "stages/general/model.safetensors")
    pairs = [(out[f"bert.{name}"], t) for name, t in general.items() if f"bert.{name}" in out]  # taggers have no pooler
    k = round(0.1 * sum(t.size for _, t in pairs))
    changed = sum(int((a != b).sum()) for a, b in pairs)
    assert result.stages[-1]["facts"]["entries"] == k and 0.9 * k < changed <= k
    assert {score["language"] for score in result.scores} == {"en", "sw"}
    assert result.selection is not None and result.selection["languages"] == ["en"]
    # The difference lies beside the model, and its base is what phase 1 made.
    difference = Difference.load(folder / "difference.safetensors")
    for name, (indices, values) in difference.entries.items():
        there = general[name].reshape(-1)
        assert (there[indices] + values == out[f"bert.{name}"].reshape(-1)[indices]).all()


@pytest.mark.parametrize("share", [0.15, 0.7, 0.95])
def test_a_run_that_was_killed_ends_with_the_same_weights(
    share: float, whole: tuple[Path, Result, int], base: Path, data: Path, tmp_path: Path
) -> None:
    folder, unbroken, checks = whole
    progress = Listener(int(share * checks))
    with pytest.raises(Killed):
        bistil(ner(base, data, tmp_path / "out"), progress)
    assert "`resume`" in progress.said and not (tmp_path / "out").exists()
    with pytest.raises(PolydistillError, match="other options or data"):
        bistil(ner(base, data, tmp_path / "out", resume=True, density=0.2))
    resumed = bistil(ner(base, data, tmp_path / "out", resume=True))
    a, b = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "out"))
    assert a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)
    assert [s["loss"] for s in resumed.stages] == [s["loss"] for s in unbroken.stages]
    assert loss_curves(tmp_path / "out") == loss_curves(folder)


@pytest.mark.parametrize(
    ("phase", "options"),
    [
        ("1", {"sampler": "ddk:every=2"}),
        ("2", {"objective": ("2:taid=1", "2:ps-kd=0.5"), "sampler": "size"}),
        ("2", {"teacher": ("past=0.5",)}),
        ("2", {"teacher": ("average:decay=0.5",), "objective": ("2:logits=1:form=kl",)}),
        ("2", {"task_text": 0.5, "objective": ("2:taid=1", "2:ps-kd=0.5")}),
        ("2", {"task_text": 0.5, "combine": "balance", "objective": ("2:logits=1",), "cache_gb": 0.0}),
        ("2", {"combine": "partition"}),
        ("2", {"task_sampler": "rs2:share=0.5", "task_text": 0.3}),
        ("2", {"task_sampler": "active", "accumulate": 2}),
        ("2", {"task_augment": ("hard",)}),
        ("2", {"task_augment": ("words",), "objective": ("2:logits=1", "2:ps-kd=0.5", "2:labels=0.1")}),
        ("2", {"objective": ("2:mi-alpha=0.1", "2:logits=1:form=jsd:beta=0.1")}),
    ],
    ids=[
        "ddk",
        "taid and ps-kd",
        "past",
        "average",
        "text",
        "balance",
        "partition",
        "rs2",
        "active",
        "hard",
        "words",
        "mi-alpha",
    ],
)
def test_what_changes_on_the_way_goes_on_where_it_was(
    phase: str, options: dict[str, Any], student: Result, tuned: str, base: Path, data: Path, tmp_path: Path
) -> None:
    """Shares of languages, shares of a teacher, kept probabilities, and teachers that follow the student."""

    def run(name: str, progress: Progress = SILENT, **more: Any) -> Result:
        if phase == "1":
            return bistil(config(base, data, tmp_path / name, steps=16, **options, **more), progress)
        given = (tuned, tuned) if "combine" in options else (tuned,)
        teachers = {"teacher": (*given, *options.get("teacher", ()))}
        scores = {"test_split": ("sw=none", "en=none"), "task_sparse_epochs": 0, "task_epochs": 4}
        return bistil(ner(student.output, data, tmp_path / name, **{**options, **teachers, **scores, **more}), progress)

    whole = run("whole")
    with pytest.raises(Killed):
        run("cut", Listener(1))
    resumed = run("cut", resume=True)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all((a[name] == b[name]).all() for name in a)
    assert [stage["loss"] for stage in resumed.stages] == [stage["loss"] for stage in whole.stages]
    if phase == "1":
        shares = whole.stages[-1]["facts"]["shares"]
        assert shares == resumed.stages[-1]["facts"]["shares"]
        assert sum(shares.values()) == pytest.approx(1) and 0.25 <= shares["sw"] != 0.5
        assert whole.settings["sampler"] == "ddk:alpha=0.5:every=2"


def test_a_student_of_phase_1_goes_on_with_a_task(base: Path, data: Path, tmp_path: Path) -> None:
    """The student is one whether the task was named in phase 1 or not; what it was made of is tuned, or given."""
    first = bistil(ner(base, data, tmp_path / "student", phase="1"))
    assert first.task is None and first.scores == ()
    made = bistil(ner(tmp_path / "student", data, tmp_path / "made", phase="2", teacher_epochs=1, dev_limit=5))
    assert [stage["name"] for stage in made.stages] == ["teacher", "full", "sparse"] and made.facts[
        "layers"
    ] == first.facts["layers"]
    assert (made.settings["phase_2"]["teacher_epochs"], made.settings["dev_examples"]) == (1, 5)
    teacher = made.output / "stages/teacher"
    result = bistil(ner(tmp_path / "student", data, tmp_path / "out", teacher=(str(teacher),)))
    assert [stage["name"] for stage in result.stages] == ["full", "sparse"]
    assert result.parameters["teacher"] > 2 * result.parameters["student"]
    for options in ({"task": ""}, {"phase": "1"}):
        with pytest.raises(PolydistillError, match="student that phase 1 has made already"):
            bistil(ner(tmp_path / "student", data, tmp_path / "more", **options))
    shutil.rmtree(tmp_path / "student/stages")
    with pytest.raises(PolydistillError, match="does not lie in its stages"):
        bistil(ner(tmp_path / "student", data, tmp_path / "more"))


def test_phase_2_alone_on_a_model_with_another_head(base: Path, data: Path, tmp_path: Path) -> None:
    """The names in its folder have a prefix; its whole encoder is the base, with the layers that were asked for."""
    masked = tiny.model_folder("xlm-roberta", "masked-lm", tmp_path / "masked", config={"num_hidden_layers": 4})
    options = {"phase": "2", "task_sparse_epochs": 1, "task_epochs": 1, "teacher_epochs": 1}
    result = bistil(ner(masked, data, tmp_path / "out", **options))
    student = load_file(result.output / "stages/vocabulary/student/model.safetensors")
    own = load_file(result.output / "model.safetensors")
    inside = {name for name in own if name.startswith("roberta.")}
    assert result.stages[-1]["facts"]["entries"] == round(0.1 * sum(own[name].size for name in inside))
    same = sum(int((own[name] == student[name]).sum()) for name in inside)
    entries = result.stages[-1]["facts"]["entries"]
    assert same >= sum(own[name].size for name in inside) - entries  # the rest is as layers 1 and 3 of the teacher are
    difference = Difference.load(result.output / "difference.safetensors")
    assert set(difference.entries) <= student.keys()


def test_two_commands_make_what_one_does(base: Path, data: Path, tmp_path: Path) -> None:
    base = shutil.copytree(base, tmp_path / "sentences")  # a folder of sentence-transformers, whose parts are copied
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    (base / "modules.json").write_text(json.dumps([module]))
    tuning = finetune_config(
        model=str(base),
        task="nli",
        languages=("en",),
        data_dir=data,
        output=tmp_path / "teacher",
        epochs=1,
        max_length=32,
    )
    options = {"task": "nli", "teacher": (str(finetune(tuning).output),), "test_split": ("sw=none",)}
    one = bistil(ner(base, data, tmp_path / "one", **options))
    student = bistil(config(base, data, tmp_path / "student")).output
    two = bistil(ner(student, data, tmp_path / "two", **options))
    assert [stage["name"] for stage in two.stages] == ["vocabulary", "full", "sparse"]
    assert not list(tmp_path.glob("two/stages/*/stages"))
    assert same_vocabulary(tmp_path / "two/stages/vocabulary/tuned-0", tmp_path / "two")
    a, b = (load_file(result.output / "model.safetensors") for result in (one, two))
    assert a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)
    assert (one.facts["vocabulary"]["after"], one.scores[0]["value"]) == (
        two.facts["vocabulary"]["after"],
        two.scores[0]["value"],
    )


def test_phase_1_can_learn_from_the_tasks_teacher(base: Path, data: Path, tmp_path: Path) -> None:
    teacher = tagger(base, data, tmp_path / "teacher", epochs=12, batch_size=8, patience=0)
    first = {}
    for name, model in (("base", base), ("tuned", Path(teacher))):
        given = ner(model, data, tmp_path / name, teacher=(teacher,), steps=60, lr=3e-3, task_sparse_epochs=0)
        result = bistil(given)
        assert [stage["name"] for stage in result.stages] == ["vocabulary", "general", "full"]
        first[name] = result.stages[-1]["loss"]["first"]["hidden"]
    assert first["tuned"] < 0.8 * first["base"]  # phase 2 finds its student near that teacher


def test_teachers_with_the_whole_vocabulary_and_with_another_one(
    base: Path, tuned: str, data: Path, tmp_path: Path
) -> None:
    other = tiny.model_folder("bert", "base", tmp_path / "other", tokenizer="bert", config={"num_hidden_layers": 2})
    other = tagger(other, data, tmp_path / "tuned", epochs=1)
    quick = {"steps": 2, "task_epochs": 1, "task_sparse_epochs": 0, "test_split": ("en=none", "sw=none")}
    first = bistil(ner(base, data, tmp_path / "one", teacher=(tuned,), **quick))
    assert "teacher" not in [stage["name"] for stage in first.stages]
    assert set(first.stages[-1]["loss"]["first"]) == {"hidden", "logits"}
    both = bistil(ner(base, data, tmp_path / "two", teacher=(tuned, f"{other}=2"), **quick))
    assert both.stages[-1]["loss"]["first"]["logits"] != first.stages[-1]["loss"]["first"]["logits"]
    with pytest.raises(PolydistillError, match="only logits of words"):
        bistil(ner(base, data, tmp_path / "three", teacher=(other,), **quick))
    given = {"teacher": (other,), "objective": ("2:logits=1",), "resume": True, "overwrite": True}
    words = bistil(ner(base, data, tmp_path / "three", **given, **quick))
    assert set(words.stages[-1]["loss"]["first"]) == {"logits"}


@pytest.mark.parametrize(
    ("options", "metric"),
    [
        ({}, "probability_loyalty"),
        ({"select": "score"}, "f1"),
        ({"objective": ("2:labels=1",)}, "f1"),
        ({"objective": ("2:labels=1",), "select": "loyalty"}, "probability_loyalty"),
    ],
)
def test_the_checkpoint_is_the_best_by_what_was_asked(
    options: dict[str, Any], metric: str, student: Result, tuned: str, data: Path, tmp_path: Path
) -> None:
    given = {"teacher": (tuned,), "test_split": ("sw=none", "en=none"), "task_lr": 1e-3, **options}
    result = bistil(ner(student.output, data, tmp_path / "out", **given))
    chosen, teacher = result.selection, tmp_path / "out/stages/vocabulary/tuned-0"  # with the student's vocabulary
    assert chosen is not None and chosen["metric"] == metric
    assert chosen["value"] == max(value for _, value in result.stages[-1]["facts"]["dev"])
    found = evaluate(
        EvaluateOptions(
            model=(str(tmp_path / "out"),),
            teacher=str(teacher),
            task="ner",
            languages=("en",),
            split="dev",
            data_dir=data,
            batch_size=32,
        )
    )
    loyalty = found.loyalty["scores"] if found.loyalty else []
    own = [score.value for score in found.scores if score.model == str(tmp_path / "out") and score.metric == metric]
    own += [row["value"] for row in loyalty if row["metric"] == metric]
    assert chosen["value"] == pytest.approx(own[0], abs=1e-6)


def test_a_teacher_that_was_tuned_here_has_a_record_and_a_card(whole: tuple[Path, Result, int]) -> None:
    teacher = whole[0] / "stages/teacher"
    record = RunRecord.load(teacher)
    assert record is not None and record.command == "finetune" and record.config["freeze_embeddings"]
    assert record.result["languages"] == ["en"] and record.texts[0]["language"] == "en"
    assert "tuned for ner on en" in card(record, teacher)


@pytest.mark.parametrize("task", ["nli", "qa"])
def test_other_kinds_of_task(task: str, student: Result, data: Path, tmp_path: Path) -> None:
    result = bistil(ner(student.output, data, tmp_path / "out", task=task, task_batch_size=8, test_split=("sw=none",)))
    assert result.scores and result.stages[-1]["facts"]["entries"] > 0
    assert result.stages[-1]["facts"]["metric"] == ("label_loyalty" if task == "qa" else "probability_loyalty")


@pytest.mark.parametrize("kind", ["ner", "nli"])
def test_phase_2_reads_text_of_both_languages(
    kind: str, student: Result, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the batches are text, which has no labels; what the teacher says of it is computed once."""
    seen: list[tuple[Any, bool]] = []
    inner = DistilLoss._loss

    def loss(self: DistilLoss, network: Any, batch: dict[str, Any], *args: Any) -> Any:
        if "language" in batch:  # the teacher is trained here too, on labelled data alone
            seen.append((batch["language"], bool((batch["labels"] != -100).any())))
        return inner(self, network, batch, *args)

    monkeypatch.setattr(DistilLoss, "_loss", loss)
    options = {"task": kind, "data_dir": data, "test_split": ("sw=none", "en=none"), "task_sparse_epochs": 0}
    made = bistil(config(student.output, data, tmp_path / "out", task_text=0.5, task_batch_size=6, **options))
    texts = [language for language, labelled in seen if not labelled]
    assert len(texts) == len(seen) / 2 and abs(texts.count("en") - texts.count("sw")) <= 1
    assert {language for language, labelled in seen if labelled} == {"en"}
    read = [text for text in RunRecord.load(made.output).texts if text.get("split") == "text"]
    assert {(text["language"], text["examples"]) for text in read} == {
        (code, 150 - (kind == "nli")) for code in ("en", "sw")
    }
    assert made.settings["phase_2"]["text"] == 0.5


def test_phase_2_uses_a_part_of_the_examples(student: Result, tuned: str, data: Path, tmp_path: Path) -> None:
    options = {"test_split": ("sw=none", "en=none"), "task_sparse_epochs": 0, "task_epochs": 1, "teacher": (tuned,)}

    def steps(name: str, **more: Any) -> int:
        made = bistil(ner(student.output, data, tmp_path / name, **{**options, **more}))
        return int(made.stages[-1]["steps"])

    assert steps("all") == 8  # 48 examples, 6 a step
    for given, expected in (("rs2:share=0.5", 4), ("difference:share=0.25", 2), ("active:share=0.25", 2)):
        assert steps(given[:4], task_sampler=given) == expected
    with pytest.raises(PolydistillError, match="no objective looks at the teacher's logits"):
        steps("none", task_sampler="difference", objective=("2:hidden=1",))


@pytest.mark.parametrize("given", ["mixup", "words:delete=0.3:swap=0.3", "hard:change=mixup:tries=2"])
def test_classes_are_learnt_from_changed_texts(given: str, student: Result, data: Path, tmp_path: Path) -> None:
    options = {"task": "nli", "data_dir": data, "test_split": ("sw=none", "en=none"), "task_sparse_epochs": 0}
    runs = [
        bistil(
            config(student.output, data, tmp_path / f"out-{i}", task_augment=more, task_augment_share=1, **options)
        ).output
        for i, more in enumerate(((), (given,), (given,)))
    ]
    plain, first, second = ((folder / "model.safetensors").read_bytes() for folder in runs)
    assert plain != first == second
    record = RunRecord.load(runs[1])
    assert record is not None and record.result["settings"]["task_augment"][0].startswith(given.partition(":")[0])


def test_what_learns_its_teachers_mistakes_is_said_to(
    student: Result, tuned: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"test_split": ("sw=none", "en=none"), "task_sparse_epochs": 0, "task_epochs": 3, "teacher": (tuned,)}
    made = bistil(ner(student.output, data, tmp_path / "out", **options))
    facts = made.stages[-1]["facts"]
    assert [step for step, _ in facts["dev_gold"]] == [step for step, _ in facts["dev"]] and len(facts["dev_gold"]) == 3
    monkeypatch.setattr("polydistill.methods.bistil.phase2.is_hacking", lambda *_: True)
    listener = Listener()
    hacked = bistil(ner(student.output, data, tmp_path / "hacked", **options), listener)
    assert "worse at the task" in listener.said and hacked.stages[-1]["facts"]["teacher_hacking"] is True


def test_several_teachers_have_the_mean_of_their_probabilities(
    student: Result, tuned: str, data: Path, tmp_path: Path
) -> None:
    """Two that are alike teach as one does, however they are combined."""
    options = {"test_split": ("sw=none", "en=none"), "task_sparse_epochs": 0, "objective": ("2:logits=1",)}
    runs = {
        how: bistil(ner(student.output, data, tmp_path / how, teacher=(tuned, tuned), combine=how, **options))
        for how in ("probabilities", "logits", "balance")
    }
    alone = bistil(ner(student.output, data, tmp_path / "alone", teacher=(tuned,), **options))
    for run in runs.values():
        assert run.stages[-1]["loss"]["last"]["logits"] == pytest.approx(
            alone.stages[-1]["loss"]["last"]["logits"], 1e-4
        )
    assert runs["balance"].settings["combine"] == "balance"


def test_the_paper_s_student_has_a_new_head_and_no_weight_decay(
    student: Result, tuned: str, data: Path, tmp_path: Path
) -> None:
    options = {"test_split": ("sw=none", "en=none"), "task_sparse_epochs": 0, "teacher": (tuned,), "task_epochs": 1}
    paper = bistil(ner(student.output, data, tmp_path / "paper", **{**options, "preset": "paper"}))
    assert (paper.settings["phase_2"]["head"], paper.settings["phase_2"]["weight_decay"]) == ("new", 0.0)
    heads = {
        head: bistil(ner(student.output, data, tmp_path / head, task_head=head, **options)).stages[-1]["loss"]["first"]
        for head in ("teacher", "new")
    }
    assert heads["teacher"]["logits"] < heads["new"]["logits"]
    decays = {
        decay: bistil(ner(student.output, data, tmp_path / str(decay), task_weight_decay=decay, **options)).output
        for decay in (0.0, 1.0)
    }
    one, other = (load_file(folder / "model.safetensors") for folder in decays.values())
    assert any((one[name] != other[name]).any() for name in one)


def test_vectors_of_sentences(base: Path, student: Result, data: Path, tmp_path: Path) -> None:
    options = {
        "task": "embedding",
        "limit": 200,
        "task_batch_size": 8,
        "task_sparse_epochs": 0,
        "test_split": ("en=none",),
        "data_dir": data,
    }
    result = bistil(config(base, data, tmp_path / "out", task_lr=2e-3, task_epochs=3, **options))
    loss = result.stages[-1]["loss"]
    assert loss["last"]["pooled"] < loss["first"]["pooled"]
    assert {score["metric"] for score in result.scores} == {"accuracy_at_1", "accuracy_at_1_back"}
    made = student.output
    more = bistil(config(made, data, tmp_path / "more", precision="auto", **options))
    assert [stage["name"] for stage in more.stages] == ["full"]
    teacher, terms = str(made / "stages/vocabulary/teacher"), ("2:pooled=1", "2:attention=1")
    given = bistil(config(made, data, tmp_path / "given", teacher=(teacher,), objective=terms, **options))
    assert set(given.stages[-1]["loss"]["last"]) == {"pooled", "attention"}
    with pytest.raises(PolydistillError, match="logits needs a head"):
        bistil(config(made, data, tmp_path / "none", objective=("2:logits=1",), **options))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target": "eng"}, "same language"),
        ({"reduction": 3}, "`reduction=3` does not divide"),
        ({"layers": 9}, "`layers=9` is impossible"),
        ({"preset": "huge"}, "`preset=.*` is unknown"),
        ({"phase": "2"}, "needs a task"),
        ({"phase": "3"}, "`phase=3` is unknown"),
        ({"min_share": 0.0}, "`min_share` must be above 0 and at most 1, not 0"),
        ({"objective": ("hiden=1",)}, "Unknown objective"),
        ({"objective": ("1:relations=1:layers=9,9",)}, "`relations` does not name two layers"),
        ({"sampler": "dk"}, "Unknown sampler 'dk'. Did you mean ddk"),
        ({"sampler": "ddk=2"}, "A sampler has no weight"),
        ({"sampler": "rs2"}, "`rs2` cannot be used there"),
        ({"task": "ner", "task_augment": ("mixup",)}, "`mixup` keeps track of no words"),
        ({"task": "ner", "task_augment": ("hard",), "accumulate": 2}, "looks at whole batches"),
        ({"task": "ner", "task_augment": ("word",)}, "Unknown augmentation 'word'. Did you mean words"),
        ({"task": "ner", "task_augment": ("words",), "objective": ("2:labels=1",)}, "has no gold labels"),
        ({"task": "ner", "task_sampler": "even"}, "`even` cannot be used there"),
        ({"sampler": "ddk", "scale": "none"}, "which have to be relative for that"),
        ({"task": "ner", "teacher": ("past",), "objective": ("2:labels=1",)}, "and no objective looks at them"),
        ({"task": "embedding", "objective": ("2:ps-kd=1",)}, "ps-kd needs a head"),
        ({"density": 0.0, "task": "ner"}, "`density` must be above 0 and at most 1, not 0"),
        ({"max_length": 73}, "takes 72 tokens at most"),
        ({"task": "bitext"}, "no labels to distil"),
        ({"batch_size": 3, "accumulate": 2}, "equal parts"),
        ({"test_split": ("test",), "task": "ner"}, "names no language"),
        ({"select": "dev", "task": "ner"}, "`select=dev` is unknown"),
        ({"select": "score"}, "`select` is about the dev data"),
        ({"select": "score", "task": "ner", "phase": "1"}, "`select` is about the dev data"),
        ({"select": "score", "task": "embedding"}, "`select` is about the dev data"),
        ({"task": "qa", "task_text": 0.5}, "Running text has no questions"),
        ({"task": "ner", "task_text": 1.0}, "`task_text` must be at least 0 and at most 0.95"),
        ({"task": "ner", "combine": "mean"}, "`combine=mean` is unknown"),
        ({"task": "ner", "task_text": 0.5, "target": "th", "text": ("en=a", "th=b")}, "written without spaces"),
    ],
)
def test_bad_input(options: dict[str, Any], sentence: str, base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(PolydistillError, match=sentence):
        bistil(config(base, data, tmp_path / "out", data_dir=data, **options))
    assert not (tmp_path / "out").exists()


def test_a_text_too_short_for_a_block(base: Path, data: Path, tmp_path: Path) -> None:
    """More text makes another run: what was cut to the first one is not gone on with."""
    short = tuple(f"{code}={tmp_path / code}.txt" for code in ("en", "sw"))
    for code in ("en", "sw"):
        (tmp_path / f"{code}.txt").write_text("\n".join(tiny.sentences(code, count=2)))
    given = {"text": short, "max_length": 64}
    with pytest.raises(PolydistillError, match="too few for one block"):
        bistil(config(base, data, tmp_path / "out", **given))
    for code in ("en", "sw"):
        (tmp_path / f"{code}.txt").write_text("\n".join(tiny.sentences(code, count=90)))
    with pytest.raises(PolydistillError, match="other options or data"):
        bistil(config(base, data, tmp_path / "out", resume=True, **given))


def test_the_terms_of_every_step_are_kept(whole: tuple[Path, Result, int]) -> None:
    folder, result, _ = whole
    for stage in result.stages:
        file = folder / "stages" / stage["name"] / "losses.jsonl"
        assert file.is_file() == bool(stage["loss"]["first"])
        if file.is_file():
            steps = [json.loads(line) for line in file.read_text().splitlines()]
            assert len(steps) == stage["steps"] and all(step.keys() == stage["loss"]["last"].keys() for step in steps)
    assert not (folder / "losses.jsonl").exists() and not (folder / "stage.json").exists()


def test_options_that_change_nothing_are_said(base: Path, student: Result, data: Path, tmp_path: Path) -> None:
    listener = Listener(1000)
    bistil(config(base, data, tmp_path / "one", steps=1, density=0.2, objective=("2:logits=1",)), listener)
    assert "`density` changes nothing: there is no phase 2" in listener.said
    assert "`objective=2:...` changes nothing" in listener.said and "`steps`" not in listener.said
    listener = Listener(1000)
    teacher = str(student.output / "stages/vocabulary/teacher")
    options = {
        "task": "embedding",
        "teacher": (teacher,),
        "limit": 200,
        "task_epochs": 1,
        "init": "top",
        "dev_split": "x",
        "task_sparse_epochs": 0,
        "test_split": ("en=none",),
    }
    bistil(config(student.output, data, tmp_path / "out", data_dir=data, **options), listener)
    assert "`init` changes nothing: the model is a student already" in listener.said
    assert "`steps` and `batch_size` and `max_length` change nothing: there is no phase 1" in listener.said
    assert "`dev_split` changes nothing: vectors of sentences" in listener.said and "`text`" not in listener.said


def test_a_loss_that_is_no_number_is_named(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(PolydistillError, match="its term hidden is"):
        bistil(config(base, data, tmp_path / "out", lr=1e9, steps=30))
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_without_numbers_is_not_written(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, mean = [], DistilLoss.mean

    def breaks_later(self: Any, network: Any, batches: Any) -> float:
        scores.append(mean(self, network, batches))
        return scores[-1] if len(scores) < 4 else float("nan")

    monkeypatch.setattr(DistilLoss, "mean", breaks_later)
    with pytest.raises(PolydistillError, match=r"the dev score is nan.*last good checkpoint stays"):
        bistil(config(base, data, tmp_path / "out"))
    there = sorted(tmp_path.glob(".out.training/.general.training/checkpoint-*"), key=lambda p: int(p.name[11:]))
    assert [p.name for p in there][-1] == "checkpoint-3"
    assert all(np.isfinite(t).all() for t in load_file(there[-1] / "model.safetensors").values())


def test_a_teacher_without_a_head_is_refused_before_anything_is_trained(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(PolydistillError, match=r"has no head for ner.*polydistill finetune"):
        bistil(ner(base, data, tmp_path / "out", teacher=(str(base),)))
    deeper = tiny.model_folder(
        "bert", "base", tmp_path / "deep", tokenizer="xlm-roberta", config={"num_hidden_layers": 6}
    )
    new_head(deeper, "tagging", load_task("ner").labels, seed=0).network.save_pretrained(deeper)
    with pytest.raises(PolydistillError, match="has 6 layers, and the model that the student was made of has 4"):
        bistil(ner(base, data, tmp_path / "out", teacher=(str(deeper),)))
    assert not list(tmp_path.glob(".out*"))


def test_time_is_shared_out(base: Path, data: Path, tmp_path: Path) -> None:
    text = [f"{code}={data}/text/{code}.txt" for code in ("en", "sw")]
    result = polydistill.bistil(
        "en",
        "sw",
        model=base,
        text=text,
        preset="smoke",
        steps=5000,
        max_length=16,
        max_minutes=0.05,
        output=tmp_path / "out",
    )
    assert 0 < result.stages[-1]["steps"] < 5000


def command(base: Path, data: Path, output: Path) -> list[str]:
    text = [part for code in ("en", "sw") for part in ("--text", f"{code}={data}/text/{code}.txt")]
    return [
        "bistil",
        "en",
        "sw",
        "--model",
        str(base),
        *text,
        "--preset",
        "smoke",
        "--steps",
        "8",
        "--batch-size",
        "4",
        "--max-length",
        "16",
        "--precision",
        "float32",
        "--json",
        "-o",
        str(output),
    ]


def test_the_same_model_from_the_command_line(
    base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(command(base, data, tmp_path / "out"))
    result = json.loads(capsys.readouterr().out)
    assert result["command"] == "bistil" and set(result["parameters"]) == {"teacher", "student"}
    assert {"name", "folder", "steps", "loss", "seconds"} <= result["stages"][1].keys()
    assert (tmp_path / "out/stages/general").is_dir() and Path(result["stages"][1]["folder"]).is_dir()


@pytest.mark.parametrize("more", [(), ("--task-text", "0.5", "--task-sampler", "difference:share=0.5")], ids=len)
def test_two_processes_have_the_losses_of_one(
    more: tuple[str, ...], base: Path, tuned: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In both phases, and in an epoch whose last batch is not full; `torchrun` sets the same variables."""
    task = ["--task", "ner", "--teacher", tuned, "--data-dir", str(data), "--task-batch-size", "10"]
    task += ["--task-epochs", "1", "--task-sparse-epochs", "1", "--test-split", "en=none", "--test-split", "sw=none"]
    task += more
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "polydistill", *command(base, data, tmp_path / "two"), *task],
            env={**shared, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    main([*command(base, data, tmp_path / "one"), *task])
    results = [json.loads(capsys.readouterr().out)]
    said = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said[0][1][-3000:]
    results.append(json.loads(said[0][0]))
    one, two = (result["stages"] for result in results)
    assert [stage["name"] for stage in one] == [stage["name"] for stage in two]
    for a, b in zip(one[1:], two[1:], strict=True):
        assert a["steps"] == b["steps"] == (8 if a["name"] == "general" else 6 if more else 5)
        for end in ("first", "last"):
            assert b["loss"][end] == pytest.approx(a["loss"][end], abs=1e-4), a["name"]
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(abs(a[name] - b[name]).max() < 1e-4 for name in a)


def test_random_layers_keep_the_embeddings(base: Path, student: Result, data: Path, tmp_path: Path) -> None:
    cut = student.output / "stages/vocabulary/student"
    fresh = bistil(config(base, data, tmp_path / "out", steps=1, init="random")).output / "stages/vocabulary/student"
    a, b = (load_file(folder / "model.safetensors") for folder in (cut, fresh))
    assert a.keys() == b.keys()
    for name in a:
        if name.endswith("query.weight") or name.startswith("embeddings."):
            assert (a[name] == b[name]).all() == name.startswith("embeddings.")


def test_a_teacher_with_other_labels_is_refused(base: Path, tuned: str, data: Path, tmp_path: Path) -> None:
    shutil.copytree(tuned, tmp_path / "t")
    own = json.loads((tmp_path / "t/config.json").read_text())
    for before, after, said in (("PER", "ANIMAL", "ANIMAL"), ("B-PER", "B-MISC", "tags in IOB1: whether its I-PER")):
        names = {key: label.replace(before, after) for key, label in own["id2label"].items()}
        about = {**own, "id2label": names, "label2id": {label: int(key) for key, label in names.items()}}
        (tmp_path / "t/config.json").write_text(json.dumps(about))
        with pytest.raises(PolydistillError, match=said):
            bistil(ner(base, data, tmp_path / "out", teacher=(str(tmp_path / "t"),)))
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_at_a_checkpoint(
    base: Path, student: Result, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, save = [], DevTrainer.save_model

    def fails_later(self: Any, output_dir: str | None = None, _internal_call: bool = False) -> None:
        saved.append(output_dir)
        if len(saved) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, output_dir, _internal_call)

    with monkeypatch.context() as patch, pytest.raises(PolydistillError, match=r"is full.*Free some space"):
        patch.setattr(DevTrainer, "save_model", fails_later)
        bistil(config(base, data, tmp_path / "out"))
    resumed = bistil(config(base, data, tmp_path / "out", resume=True))
    assert resumed.stages[1]["loss"] == student.stages[1]["loss"]


def minutes_of(stages: tuple[Stage, ...]) -> dict[str, float]:
    """Stage -> its part of the minutes that are left when it begins."""
    shares = [stage.share for stage in stages]
    return {
        stage.name: stage.share / sum(shares[i:])
        for i, stage in enumerate(stages)
        if stage.share  # the others have as long as they take
    }


def test_the_plan_says_which_stages_there_are_and_how_long_each_may_take(
    base: Path, data: Path, tmp_path: Path
) -> None:
    """Phase 1 has half of the minutes, a teacher a third of the rest, and the epochs of phase 2 share what is left."""
    epochs = {"task_epochs": 1, "task_sparse_epochs": 3}
    plan = prepare(ner(base, data, tmp_path / "out", **epochs), SILENT)
    assert [stage.name for stage in plan.stages] == ["vocabulary", "general", "teacher", "full", "sparse"]
    assert minutes_of(plan.stages) == pytest.approx({"general": 1 / 2, "teacher": 1 / 3, "full": 1 / 4, "sparse": 1})
    assert plan.task == "ner" and plan.languages == ("en", "sw") and plan.output == tmp_path / "out"
    assert plan.settings["phase_1"]["max_length"] == 16 and plan.settings["phase_2"]["epochs"] == 1
    assert not (tmp_path / "out").exists()
    alone = prepare(config(base, data, tmp_path / "out"), SILENT)
    assert minutes_of(alone.stages) == {"general": 1} and alone.task is None and alone.scoring is None
    whole = prepare(ner(base, data, tmp_path / "out", phase="2", task_sparse_epochs=0), SILENT)
    assert minutes_of(whole.stages) == pytest.approx({"teacher": 1 / 3, "full": 1})


def test_the_plan_names_options_that_change_nothing(base: Path, data: Path, tmp_path: Path) -> None:
    plan = prepare(config(base, data, tmp_path / "out", objective=("2:logits=1",)), SILENT)
    assert {"task_lr", "density", "data_dir", "cache_gb"} <= plan.idle.keys()
    assert not {"steps", "lr", "max_length", "vocab_size"} & plan.idle.keys()
    assert plan.warnings == ("`objective=2:...` changes nothing: there is no phase 2 here.",)


def test_what_comes_out_does_not_depend_on_where_data_lie_nor_on_the_cache(tmp_path: Path) -> None:
    """A run goes on with a file that was moved, another cache or more minutes; the data's content is compared."""
    moved = dict.fromkeys(("data", "dev_data", "data_dir", "output"), tmp_path)
    passing = bistil_config(**moved, cache_gb=0, max_minutes=5, resume=True, overwrite=True)
    assert passing.deciding() == bistil_config().deciding()
    assert bistil_config(density=0.2).deciding() != bistil_config().deciding()
