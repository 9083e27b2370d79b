"""Data of a user's own from end to end: tuned, scored, distilled, exported, with a card, without a task's file."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import tiny
from answering import answer_here
from configs import bistil, bistil_config, finetune, finetune_config
from hub_stub import HubStub
from hub_stub import run as run_at
from snippets import run_snippet

import polydistill
from polydistill.cli import cli, main
from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation import turns
from polydistill.evaluation.evaluate import EvaluateOptions, evaluate

WORDS = {"happy": "bread milk", "sad": "letter answer", "so, so": "house bird"}
NAMES = {"PER": "Ana Ion", "LOC": "Cluj Paris"}


def rows(count: int) -> str:
    lines = []
    for i in range(count):
        label = list(WORDS)[i % 3]
        lines.append(f'"the {WORDS[label].split()[i % 2]}, {i}","{label}"')
    return "text,label\n" + "\n".join(lines) + "\n"


def sentences(count: int) -> str:
    kinds = [list(NAMES)[i % 2] for i in range(count)]
    return "\n".join(f"the O\n{NAMES[kind].split()[i % 2]} B-{kind}\nsees{i} O\n" for i, kind in enumerate(kinds))


class Made:
    """Data, a model tuned on each sort of it, and where they lie."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.csv, self.conll = root / "moods.csv", root / "names.conll"
        self.csv.write_text(rows(40))
        self.conll.write_text(sentences(40))
        (root / "moods.sw.csv").write_text("text,label\nmkate,Happy\nbarua,SAD\nndege,angry\n")
        for code in ("en", "sw"):
            (root / f"{code}.txt").write_text("\n".join(tiny.sentences(code, count=60)) + "\n", encoding="utf-8")
        self.base = tiny.model_folder(
            "bert", "base", root / "base", tokenizer="xlm-roberta", config={"num_hidden_layers": 2}
        )
        self.classes = self.tune("classification", self.csv)
        self.names = self.tune("ner", self.conll)

    def tune(self, task: str, data: Path, **options: Any) -> Any:
        values: dict[str, Any] = {"epochs": 1, "lr": 5e-3, "batch_size": 9, "checks": 1, **options}
        values["output"] = values.get("output", self.root / task)
        return finetune(finetune_config(model=str(self.base), task=task, data=data, languages=("en",), **values))

    def evaluate(self, name: str, task: str, data: Path, **options: Any) -> Any:
        values: dict[str, Any] = {"languages": ("en",), **options}
        return evaluate(EvaluateOptions(model=(str(self.root / name),), task=task, data=data, **values))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("own")
        patch.setenv("POLYDISTILL_CACHE", str(root / "cache"))
        patch.delenv("POLYDISTILL_DATA", raising=False)
        answer_here(patch)
        patch.setattr(turns, "PROCESSES", 1)
        patch.setattr(turns, "ROUNDS", 1)
        yield Made(root)


def labels_of(folder: Path) -> list[str]:
    named = json.loads((folder / "config.json").read_text())["id2label"]
    return [named[str(i)] for i in range(len(named))]


def test_the_labels_are_those_of_the_training_data(made: Made) -> None:
    assert labels_of(made.root / "classification") == ["happy", "sad", "so, so"]
    assert labels_of(made.root / "ner") == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    for result, kind in ((made.classes, "classification"), (made.names, "tagging")):
        assert result.facts["examples"] == {"train": 36, "dev": 4} and result.selection["split"] == "held-out"
        assert result.settings["labelled"]["kind"] == kind and not result.settings["labelled"]["pairs"]
    record = json.loads((made.root / "classification" / "polydistill.json").read_text())
    assert [(text["split"], text["examples"]) for text in record["texts"]] == [("train", 36), ("held-out", 4)]
    assert record["config"]["data"] == str(made.csv)
    assert record["result"]["settings"]["labelled"]["labels"] == ["happy", "sad", "so, so"]


def test_scores_are_by_name_and_what_is_not_shared_is_said(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    found = made.evaluate("classification", "classification", made.root / "moods.sw.csv", languages=("sw",))
    assert found.scores[0].n == 3 and found.scores[0].value <= 2 / 3
    main(
        [
            "evaluate",
            "--model",
            str(made.root / "ner"),
            "--task",
            "ner",
            "--data",
            str(made.conll),
            "--lang",
            "en",
            "--json",
        ]
    )
    printed = json.loads(capsys.readouterr().out)
    assert {score["normalisation"] for score in printed["scores"]} == {"conlleval", "strict-iob2"}
    assert printed["models"][0]["labels"] == printed["data"][0]["labels"] == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    (made.root / "other.conll").write_text("Ana B-PER\n\nAcme B-ORG\n")
    main(
        [
            "evaluate",
            "--model",
            str(made.root / "ner"),
            "--task",
            "ner",
            "--data",
            str(made.root / "other.conll"),
            "--lang",
            "en",
        ]
    )
    said = capsys.readouterr().err
    assert "has ORG, which" in said and "cannot predict: counts as missed" in said and "does not have LOC" in said


def test_a_student_its_export_and_its_card(made: Made) -> None:
    result = bistil(
        bistil_config(
            model=str(made.base),
            task="classification",
            data=made.csv,
            output=made.root / "student",
            teacher=(str(made.root / "classification"),),
            text=tuple(f"{c}={made.root}/{c}.txt" for c in ("en", "sw")),
            test_data=(f"en={made.csv}", f"sw={made.root}/moods.sw.csv"),
            preset="smoke",
            steps=2,
            batch_size=2,
            max_length=16,
            precision="float32",
        )
    )
    assert labels_of(made.root / "student") == ["happy", "sad", "so, so"]
    assert {(score["language"], score["n"]) for score in result.scores} == {("en", 40), ("sw", 3)}
    assert result.selection is not None and result.selection["split"] == "held-out"
    card = (made.root / "student" / "README.md").read_text()
    assert "Its labels: `happy`, `sad`, `so, so`." in card and "sw=moods.sw.csv" in card
    exported = polydistill.export(
        made.root / "student", output=made.root / "onnx", task="classification", languages=["en"], data=made.csv
    )
    assert {score["n"] for score in exported.scores} == {40} and exported.facts["agreement"]["onnx"]["share"] == 1


def test_a_tagger_of_ones_own_types_has_a_student_too(made: Made) -> None:
    result = bistil(
        bistil_config(
            model=str(made.base),
            task="ner",
            data=made.conll,
            output=made.root / "tagger",
            teacher=(str(made.root / "ner"),),
            text=tuple(f"{c}={made.root}/{c}.txt" for c in ("en", "sw")),
            test_data=(f"en={made.conll}",),
            preset="smoke",
            steps=2,
            batch_size=2,
            max_length=16,
            precision="float32",
            task_sparse_epochs=0,
        )
    )
    assert labels_of(made.root / "tagger") == labels_of(made.root / "ner")
    assert {score["language"] for score in result.scores} == {"en"}, "what has no file is not scored"


def test_the_snippet_of_a_card_reads_one_text(made: Made) -> None:
    card = (made.root / "classification" / "README.md").read_text()
    assert "text_pair" not in card and "--data moods.csv" in card
    assert "'label'" in run_snippet(made.root / "classification")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dev_split": "more"}, "a data file was given"),
        ({"languages": ("en", "sw")}, "is in one language"),
        ({"data": None, "dev_data": Path("x.csv")}, "training data was not"),
        ({"data": Path("none.csv")}, "There is no file none.csv"),
        ({"data": None}, "can only be read from files"),
    ],
)
def test_wrong_command_lines(made: Made, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    values: dict[str, Any] = {"model": str(made.base), "task": "classification", "languages": ("en",), "data": made.csv}
    with pytest.raises(UsageError, match=said):
        finetune(finetune_config(output=tmp_path / "out", **{**values, **options}))
    assert not list(tmp_path.iterdir())


def test_a_model_with_other_labels_is_refused_with_both_sets(made: Made) -> None:
    (made.root / "else.csv").write_text("text,label\na,hot\nb,cold\n")
    with pytest.raises(PolydistillError, match="the model predicts happy, sad, so, so, and the data has cold, hot"):
        made.evaluate("classification", "classification", made.root / "else.csv")
    (made.root / "else.conll").write_text("Ana B-HOT\n")
    with pytest.raises(PolydistillError, match="no label in common"):
        made.evaluate("ner", "ner", made.root / "else.conll")


# --- docs/own-data.md

PAGE = (Path(__file__).resolve().parents[2] / "docs/own-data.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_on_own_data_says_what_can_be_typed(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, kind in (("reviews", "csv"), ("names", "conll")):
        for part in ("", "-sw"):
            Path(f"{name}{part}.{kind}").write_text(blocks(kind)[0])
    lines = [shlex.split(line)[1:] for block in blocks("sh") for line in block.splitlines()]
    assert [line[0] for line in lines] == ["finetune", "evaluate", "bistil", "export", "finetune", "evaluate"]
    tiny_run = ["--model", str(made.base), "--epochs", "1", "-q"]
    for line in lines:
        command = cli.get_command(click.Context(cli), line[0])
        assert command is not None and command.make_context(line[0], list(line[1:])).params["task"]
        if line[0] in ("finetune", "evaluate"):
            main([*line, *(tiny_run if line[0] == "finetune" else ["-q"])])
    assert labels_of(tmp_path / "names") == ["O", "B-PERSON", "I-PERSON", "B-PRODUCT", "I-PRODUCT"]
    assert labels_of(tmp_path / "reviews") == ["bad", "good"]
    assert "classification, en" in capsys.readouterr().out


# --- SIB-200

READ = """
import json
from dataclasses import asdict
from polydistill import catalog
from polydistill.labelled.sources import load_split
split = load_split(catalog.task("sib200"), catalog.language("sw"), "dev")
print(json.dumps({**asdict(split), "labels": catalog.task("sib200").labels}))
"""


def test_sib200_comes_from_the_hub_with_one_text_a_row(tmp_path: Path) -> None:
    folder = tmp_path / "sib200"
    (folder / "data/swh_Latn").mkdir(parents=True)
    (folder / "data/swh_Latn/dev.tsv").write_text(
        "index_id\tcategory\ttext\n7\tscience/technology\tKompyuta mpya.\n9\tgeography\tMlima mrefu.\n"
    )
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: swh_Latn\n  data_files:\n  - split: validation\n"
        "    path: data/swh_Latn/dev.tsv\n---\n"
    )
    with HubStub(datasets={"Davlan/sib200": folder}) as hub:
        found = run_at(READ, endpoint=hub.endpoint, home=tmp_path / "home")
    assert [(row["text"], row["label"]) for row in found["examples"]] == [
        ("Kompyuta mpya.", "science/technology"),
        ("Mlima mrefu.", "geography"),
    ]
    assert len(found["labels"]) == 7 and found["where"].startswith("Davlan/sib200:swh_Latn@")


@pytest.mark.parametrize("name", ["sw", "swh_Latn"])
def test_sib200_is_read_from_the_tables_of_its_repository(name: str, tmp_path: Path) -> None:
    from polydistill import catalog
    from polydistill.labelled.sources import load_split

    place = tmp_path / "sib200" / name
    place.mkdir(parents=True)
    (place / "test.tsv").write_text('index_id\tcategory\ttext\n1\ttravel\tSafari "ndefu\n2\tSports\tMpira\n')
    split = load_split(catalog.task("sib200"), catalog.language("sw"), "test", data_dir=tmp_path)
    assert [(e.text, e.label) for e in split.examples] == [('Safari "ndefu', "travel"), ("Mpira", "sports")]
