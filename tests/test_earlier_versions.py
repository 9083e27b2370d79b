"""What an earlier version made is still read. `records/` has what runs of it left: 0.1.0 before its methods had plans.

Their options were called `lang`, `length`, `bf16`, `task_length`, `stage`; a teacher lay in `stages/teacher/tuned-0`.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import tiny

from polydistill.card import folder_card
from polydistill.card.facts import Facts
from polydistill.cli import main
from polydistill.evaluation.heads import new_head
from polydistill.records.record import RunRecord
from polydistill.reports.runs import read_run

RECORDS = Path(__file__).parent / "records"
NAMES = ("ner", "bistil", "stack")
TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
Say = Callable[..., str]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records, those of taggers beside weights as their runs had them."""
    root = tmp_path_factory.mktemp("earlier")
    for name in ("ner", "bistil"):
        tiny.model_folder("bert", "base", root / name, tokenizer="xlm-roberta", config={"num_hidden_layers": 1})
        new_head(root / name, "tagging", TAGS, seed=1).network.save_pretrained(root / name)
        shutil.copy(RECORDS / name / "polydistill.json", root / name)
    shutil.copytree(RECORDS / "bistil/stages", root / "bistil/stages")
    shutil.copytree(RECORDS / "stack", root / "stack")
    for code in ("en", "sw"):
        (root / "data/ner" / code).mkdir(parents=True)
        (root / f"data/ner/{code}/test.conll").write_text("Ana B-PER\nsees O\nParis B-LOC\n\nAcme B-ORG\nis O\n")
    return root


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    def say(*args: str | Path) -> str:
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
            sys.exit(0)
        shown = capsys.readouterr()
        assert not stop.value.code, shown.err
        return shown.out

    return say


@pytest.mark.parametrize("name", NAMES)
def test_records_are_read_and_written_as_they_are(name: str, tmp_path: Path) -> None:
    record = RunRecord.load(RECORDS / name)
    assert record is not None and record.scores
    record.save(tmp_path)
    assert json.loads((tmp_path / "polydistill.json").read_bytes()) == json.loads(
        (RECORDS / name / "polydistill.json").read_bytes()
    )


def test_cards_say_with_which_command_it_was_made(say: Say) -> None:
    made = {name: shlex.split(say("card", RECORDS / name).split("```sh\n")[1].split("\n```")[0]) for name in NAMES}
    assert " ".join(made["ner"]).startswith("polydistill finetune --model base --freeze-layers 0 --task ner --lang en")
    assert "--bf16" not in made["ner"] and made["ner"][-2:] == ["-o", "ner"]
    assert (
        made["bistil"][:4] == ["polydistill", "bistil", "en", "sw"] and "--no-squared-temperature" not in made["bistil"]
    )
    assert made["bistil"][made["bistil"].index("--length") + 1] == "16"
    assert made["stack"][:4] == ["polydistill", "stack", "encoder", "llm"]
    assert made["stack"][made["stack"].index("--task-batch") + 1] == "8"


@pytest.mark.parametrize(
    ("name", "title", "parts"),
    [
        ("ner", "base tuned for ner", ["## Quality", "| sw | `test` | F1 (conlleval) |", "fine-tuned"]),
        ("bistil", "base for ner in en and sw", ["| sparse |", "| general |", "2306.01709", "2110.07560"]),
        ("stack", "encoder in front of an LLM, for nli", ["load_stack", "**LLM**: `llm`", "2406.12739"]),
    ],
)
def test_cards_tell_the_whole_story(name: str, title: str, parts: list[str]) -> None:
    text = folder_card(RECORDS / name)
    assert f"\n# {title}\n" in text and all(part in text for part in parts)
    assert "/home" not in text


def test_a_teacher_of_a_run_has_a_card_of_its_own() -> None:
    teacher = RECORDS / "bistil/stages/teacher/tuned-0"
    assert " tuned for ner\n" in folder_card(teacher)
    record = RunRecord.load(teacher)
    assert record is not None and Facts.of(record, None).label_languages == ["en"]


def test_info_compare_and_evaluate_read_them(folders: Path, say: Say, tmp_path: Path) -> None:
    assert "finetune (en) of /home/ann/base" in say("info", folders / "ner")
    assert "bistil (en, sw) of /home/ann/base" in say("info", folders / "bistil")
    shown = say("compare", folders / "ner", folders / "bistil")
    assert "ner" in shown and "bistil" in shown and "sw" in shown
    assert [score.language for score in read_run(RECORDS / "stack").scores] == ["en"]
    for name in ("ner", "bistil"):
        before = RunRecord.load(folders / name)
        copy = shutil.copytree(folders / name, tmp_path / name)
        asked = ("--task", "ner", "--lang", "sw", "--data-dir", folders / "data")
        say("evaluate", "--model", copy, *asked)
        after = RunRecord.load(copy)
        assert before is not None and after is not None
        assert {**asdict(before), "scores": []} == {**asdict(after), "scores": []}
        assert {score.n for score in after.scores} == {9, 2}  # of then and of now


@pytest.mark.parametrize("name", ["ner", "bistil"])
def test_publish_would_send_them(name: str, folders: Path, say: Say) -> None:
    found = json.loads(
        say("publish", folders / name, "ann/tiny", "--dry-run", "--license", "mit", "--card", "record", "--json")
    )
    sent = {file["path"] for file in found["files"]}
    assert {"README.md", "config.json", "model.safetensors", "polydistill.json", "tokenizer.json"} <= sent
    assert not any(path.startswith("stages") for path in sent)
