"""finetune with crossed questions: every question about every context, taught by the model's own past."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from configs import finetune, finetune_config

from polydistill.errors import PolydistillError
from polydistill.records.record import RunRecord

SIZE = {"num_hidden_layers": 1, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
NAMES = ["Ana", "Ion", "Maria", "Cluj", "Paris", "Nairobi"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve paragraphs in two languages, whose questions have the same ids."""
    root = tmp_path_factory.mktemp("data")
    for code, said, asked in (("en", "The key is {} today.", "Who is the key?"), ("ro", "{} este azi.", "Cine este?")):
        paragraphs = []
        for i in range(12):
            context, name = said.format(NAMES[i % 6]), NAMES[i % 6]
            answers = [{"text": name, "answer_start": context.index(name)}]
            paragraphs.append(
                {"context": f"{context} {i}", "qas": [{"id": f"q{i}", "question": asked, "answers": answers}]}
            )
        (root / f"qa/{code}").mkdir(parents=True)
        file = root / f"qa/{code}/test.json"
        file.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("base") / "m"
    return str(tiny.model_folder("bert", "base", folder, tokenizer="xlm-roberta", config=SIZE))


def options(data: Path, base: str, output: Path, **more: Any) -> Any:
    values: dict[str, Any] = {
        "model": base,
        "task": "qa",
        "languages": ("en", "ro"),
        "data_dir": data,
        "train_split": ("test:1/2",),
        "dev_split": "test:2/2",
        "epochs": 2,
        "lr": 1e-3,
        "max_length": 32,
        "output": output,
    }
    return finetune_config(**{**values, **more})


@pytest.mark.parametrize("coefficient", ["one", "first-hit", "per-example"])
def test_every_question_is_asked_about_every_context(coefficient: str, data: Path, base: str, tmp_path: Path) -> None:
    plain = finetune(options(data, base, tmp_path / "plain"))
    objective = ("labels=1", f"answers=1:coefficient={coefficient}")
    more = {"cross_questions": True, "objective": objective, "teacher": ("past",)}
    crossed = finetune(options(data, base, tmp_path / "crossed", **more))
    assert crossed.facts["examples"]["train"] == 2 * plain.facts["examples"]["train"]
    assert set(crossed.stages[-1]["loss"]["first"]) >= {"labels", "answers", "coefficient"}
    once = finetune(options(data, base, tmp_path / "once", epochs=1, batch_size=64, **more))
    assert once.facts["steps"] == 1  # where the teacher is the model itself
    assert once.stages[-1]["loss"]["first"]["answers"] == pytest.approx(0, abs=1e-5)
    record = RunRecord.load(crossed.output)
    assert record is not None and {text["split"] for text in record.texts} == {"test:1/2", "test:2/2"}


def test_what_cannot_be_crossed_is_refused(data: Path, base: str, tmp_path: Path) -> None:
    for more, said in (
        ({"languages": ("en",)}, "at least two"),
        ({"task": "ner"}, "ner has no questions"),
        ({"objective": ("labels=1", "answers=1")}, "`answers` needs a teacher"),
    ):
        with pytest.raises(PolydistillError, match=said):
            finetune(options(data, base, tmp_path / "out", **{"cross_questions": True, **more}))
