"""finetune: it learns, resumes with the same losses, keeps the best checkpoint, and refuses what does not fit."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
from kills import Killed, Listener
from safetensors.numpy import load_file, save_file

import polydistill
from polydistill.cli import main
from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation.evaluate import EvaluateOptions, evaluate
from polydistill.methods.finetune import METHOD
from polydistill.methods.finetune.options import FinetuneOptions
from polydistill.progress import SILENT, Progress
from polydistill.runs.result import Result
from polydistill.runs.runner import run
from polydistill.training.loop import LengthGrouped
from polydistill.training.resuming import newest_checkpoint

NAMES = {"PER": ["Ana", "Ion", "Maria"], "LOC": ["Cluj", "Paris", "Nairobi"], "ORG": ["Acme", "Dacia", "Safaricom"]}
PLAIN = ["sees", "the", "red", "house", "in", "and", "with", "a", "letter"]


def sentence(i: int) -> list[tuple[str, str]]:
    kinds = list(NAMES)
    words = [(PLAIN[(i * 3 + j) % len(PLAIN)], "O") for j in range(2 + i % 4)]
    kind = kinds[i % 3]
    return [*words[:1], (NAMES[kind][(i // 3) % 3], f"B-{kind}"), *words[1:]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for folder in ("ner/en", "ner/sw", "nli/en", "qa/en"):
        (root / folder).mkdir(parents=True)
    for split, start, n in (("train", 0, 60), ("dev", 7, 18), ("test", 30, 18)):
        text = "\n".join("".join(f"{w} {t}\n" for w, t in sentence(i)) for i in range(start, start + n))
        (root / f"ner/en/{split}.conll").write_text(text)
        (root / f"ner/sw/{split}.conll").write_text(text.replace("B-ORG", "B-DATE"))
        labels = ("entailment", "neutral", "contradiction")
        rows = [
            {"premise": "the house", "hypothesis": f"{('yes', 'no', 'maybe')[i % 3]} house", "label": labels[i % 3]}
            for i in range(n)
        ]
        (root / f"nli/en/{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        paragraphs = [
            {
                "context": (context := f"The key is {NAMES['PER'][i % 3]} today."),
                "qas": [
                    {
                        "id": f"{split}{i}",
                        "question": "Who is the key?",
                        "answers": [{"text": NAMES["PER"][i % 3], "answer_start": context.index(NAMES["PER"][i % 3])}],
                    }
                ],
            }
            for i in range(n)
        ]
        squad = {"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}
        (root / f"qa/en/{split}.json").write_text(json.dumps(squad))
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "m"
    return tiny.model_folder("bert", "base", folder, tokenizer="xlm-roberta", config={"hidden_dropout_prob": 0.1})


def config(base: Path, data: Path, output: Path, **options: Any) -> FinetuneOptions:
    values: dict[str, Any] = {
        "task": "ner",
        "languages": ("en",),
        "epochs": 3,
        "lr": 5e-3,
        "batch_size": 6,
        "max_length": 32,
        "patience": 0,
    }
    return FinetuneOptions.of(model=str(base), data_dir=data, output=output, **{**values, **options})


def halved(loss: list[tuple[int, float]]) -> bool:
    return loss[0][1] > 2 * loss[-1][1]


def finetune(options: FinetuneOptions, progress: Progress = SILENT) -> Result:
    return run(METHOD, options, progress)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def whole(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run that nothing stopped."""
    return finetune(config(base, data, tmp_path_factory.mktemp("whole") / "whole"))


@pytest.mark.parametrize("task", ["ner", "nli", "qa"])
def test_it_learns_and_the_folder_can_be_evaluated(task: str, base: Path, data: Path, tmp_path: Path) -> None:
    result = finetune(config(base, data, tmp_path / "out", task=task, epochs=8))
    assert result.selection["value"] > 0.85 and halved(result.facts["curves"]["loss"])
    assert not list(tmp_path.glob(".out*"))
    found = evaluate(EvaluateOptions(model=(str(tmp_path / "out"),), task=task, languages=("en",), data_dir=data))
    assert found.scores[0].value > 0.85 and found.scores[0].selection == ("en",)
    record = json.loads((tmp_path / "out" / "polydistill.json").read_text())
    assert record["command"] == "finetune" and len(record["scores"]) == len(found.scores)
    assert record["result"]["curves"]["dev"] == [list(point) for point in result.facts["curves"]["dev"]]
    assert "tuned for" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("task", ["ner", "nli", "qa"])
def test_it_learns_from_its_own_past(task: str, base: Path, data: Path, tmp_path: Path) -> None:
    """In every kind of task, as PS-KD does and with a teacher that follows the model."""
    given = {"objective": ("ps-kd=1", "logits=0.5:temperature=1"), "teacher": ("average:decay=0.9",)}
    result = finetune(config(base, data, tmp_path / "out", task=task, epochs=8 if task == "nli" else 2, **given))
    (stage,) = result.stages
    assert set(stage["loss"]["first"]) == {"ps_kd", "logits"}
    if task == "nli":
        assert result.selection["value"] > 0.85 and stage["loss"]["last"]["ps_kd"] < stage["loss"]["first"]["ps_kd"]
    assert result.settings["objective"] == [
        "ps-kd=1:alpha=0.8",
        "logits=0.5:temperature=1:squared=true:form=cross-entropy:beta=0.5:skew=0.1",
    ]
    assert result.settings["teacher"] == ["average=1:decay=0.9"]
    shown = (tmp_path / "out" / "README.md").read_text()
    assert "ps-kd=1" in shown and "average:decay=0.9" in shown


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"objective": ("logits=1",)}, "`logits` needs a teacher"),
        ({"teacher": ("past",)}, "`past` gives logits, and no objective looks at them"),
        ({"teacher": ("past",), "objective": ("labels=1", "taid=0")}, "`past` gives logits, and no objective"),
        ({"teacher": ("some/model",), "objective": ("logits=1",)}, "some/model is not the model's own past"),
        ({"objective": ("hidden=1",)}, "`hidden` cannot be used in `polydistill finetune`"),
        ({"objective": ("labels=0",)}, "No objective has a weight above 0"),
        ({"objective": ("ps-kd=1:alpha=2",)}, "'alpha' must be at least 0 and at most 1"),
    ],
    ids=str,
)
def test_objectives_that_do_not_go_together(
    given: dict[str, Any], sentence: str, base: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=sentence) as refused:
        finetune(config(base, data, tmp_path / "out", **given))
    assert refused.value.hint


def test_a_run_that_was_killed_goes_on_with_the_same_losses(
    whole: Result, base: Path, data: Path, tmp_path: Path
) -> None:
    stopped = config(base, data, tmp_path / "stopped")
    progress = Listener(3)
    with pytest.raises(Killed):
        finetune(stopped, progress)
    assert "`resume`" in progress.said and not (tmp_path / "stopped").exists()
    assert newest_checkpoint(tmp_path / ".stopped.training/.tuned.training")
    with pytest.raises(PolydistillError, match=r"unfinished training.*`resume`"):
        finetune(stopped)
    with pytest.raises(PolydistillError, match="other options or data"):
        finetune(config(base, data, tmp_path / "stopped", resume=True, lr=1e-3))
    resumed = finetune(config(base, data, tmp_path / "stopped", resume=True))
    assert resumed.facts["curves"] == whole.facts["curves"] and resumed.selection == whole.selection
    a, b = (load_file(place / "model.safetensors") for place in (whole.output, tmp_path / "stopped"))
    assert all((a[name] == b[name]).all() for name in a)


def test_checks_in_vain_are_counted_across_a_kill(base: Path, data: Path, tmp_path: Path) -> None:
    options = {"lr": 1e-9, "epochs": 6, "patience": 3}  # nothing is learnt, so that the fourth check is the last
    whole = finetune(config(base, data, tmp_path / "whole", **options))
    with pytest.raises(Killed):
        finetune(config(base, data, tmp_path / "stopped", **options), Listener(3))
    resumed = finetune(config(base, data, tmp_path / "stopped", resume=True, **options))
    assert (
        len(whole.facts["curves"]["dev"]) == 4
        and resumed.facts["curves"] == whole.facts["curves"]
        and resumed.facts["steps"] == whole.facts["steps"]
    )


def test_a_run_that_was_killed_after_its_last_step_only_writes_its_output(
    whole: Result, base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def fails(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("polydistill.runs.runner.write_card", fails)
        finetune(config(base, data, tmp_path / "stopped"))
    assert not (tmp_path / "stopped").exists()
    resumed = finetune(config(base, data, tmp_path / "stopped", resume=True))
    assert resumed.facts["curves"] == whole.facts["curves"] and resumed.selection == whole.selection
    a, b = (load_file(place / "model.safetensors") for place in (whole.output, tmp_path / "stopped"))
    assert all((a[name] == b[name]).all() for name in a)


def test_a_run_that_replaces_an_output_goes_on_too_and_keeps_the_old_one_until_the_end(
    base: Path, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "polydistill.json").write_text("x")
    with pytest.raises(Killed):
        finetune(config(base, data, tmp_path / "out", overwrite=True), Listener(3))
    assert (tmp_path / "out" / "polydistill.json").read_text() == "x"
    progress = Listener(99)
    result = finetune(config(base, data, tmp_path / "out", overwrite=True, resume=True), progress)
    assert 99 - progress.left == len(result.facts["curves"]["dev"]) - 3
    assert (tmp_path / "out" / "polydistill.json").read_text() != "x"
    with pytest.raises(Killed):
        finetune(config(base, data, tmp_path / "out", overwrite=True), Listener(3))
    progress = Listener(99)
    finetune(config(base, data, tmp_path / "out", overwrite=True), progress)
    assert 99 - progress.left == len(result.facts["curves"]["dev"])  # without --resume it begins anew


def test_a_folder_that_lacks_more_than_a_head_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    for name, change, said in (
        ("renamed", "x.", "reads none of the weights"),
        ("rows", "", "does not have all weights"),
    ):
        folder = shutil.copytree(base, tmp_path / name)
        weights = load_file(folder / "model.safetensors")
        if not change:
            weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][:-1].copy()
        renamed = {change + key: value for key, value in weights.items()}
        save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(PolydistillError, match=said):
            finetune(config(folder, data, tmp_path / "out"))
    assert not list(tmp_path.glob("*out*"))


def test_the_best_checkpoint_is_kept(base: Path, data: Path, tmp_path: Path) -> None:
    result = finetune(config(base, data, tmp_path / "out", lr=0.05, epochs=4))
    scores = dict(result.facts["curves"]["dev"])
    assert result.selection["value"] == max(scores.values()) == scores[result.selection["step"]]
    found = evaluate(
        EvaluateOptions(model=(str(tmp_path / "out"),), task="ner", languages=("en",), data_dir=data, split="dev")
    )
    assert found.scores[0].value == pytest.approx(result.selection["value"])


def test_early_stopping(base: Path, data: Path, tmp_path: Path) -> None:
    result = finetune(config(base, data, tmp_path / "out", lr=1e-9, epochs=6, patience=2))
    assert len(result.facts["curves"]["dev"]) == 3 and result.facts["steps"] < 60


def test_the_lowest_layers_stay(base: Path, data: Path, tmp_path: Path) -> None:
    result = finetune(config(base, data, tmp_path / "out", epochs=1, freeze_layers=1))
    before, after = (load_file(folder / "model.safetensors") for folder in (base, result.output))
    same = {
        name
        for name, tensor in before.items()
        if (after.get(f"bert.{name}") == tensor).all() and f"bert.{name}" in after
    }
    assert "embeddings.word_embeddings.weight" in same
    assert {name for name in before if name.startswith("encoder.layer.0.")} <= same
    assert not any(name.startswith("encoder.layer.1.") and name.endswith("weight") for name in same)
    with pytest.raises(UsageError, match=r"`freeze_layers=9` is too many.*The model has 2 layers"):
        finetune(config(base, data, tmp_path / "more", freeze_layers=9))
    assert not list(tmp_path.glob("*more*"))


def test_frozen_embeddings_stay_and_others_are_trained(base: Path, data: Path, tmp_path: Path) -> None:
    before = load_file(base / "model.safetensors")["embeddings.word_embeddings.weight"]
    for frozen in (True, False):
        out = tmp_path / str(frozen)
        result = finetune(config(base, data, out, epochs=1, freeze_embeddings=frozen))
        after = load_file(out / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
        assert bool((before == after).all()) is frozen
        assert result.parameters["total"] - result.parameters["trained"] == (before.size if frozen else 0)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(base: Path, data: Path, tmp_path: Path) -> None:
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        finetune(config(base, data, tmp_path / name, epochs=1, seed=seed))
        made.append(load_file(tmp_path / name / "model.safetensors")["classifier.weight"])
    assert (made[0] == made[1]).all() and not (made[0] == made[2]).all()


def test_the_order_of_the_data_follows_from_seed_and_epoch() -> None:
    lengths = [i % 17 for i in range(1000)]
    sampler = LengthGrouped(lengths, 8, seed=1)
    first, again = list(sampler), list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert first == again != second and sorted(first) == sorted(second) == list(range(1000))
    spread = [max(b) - min(b) for i in range(0, 400, 8) if (b := [lengths[j] for j in first[i : i + 8]])]
    assert sum(spread) / len(spread) < 2


@pytest.mark.parametrize("count", [3, 8, 21])
def test_the_last_batch_is_filled_up(count: int) -> None:
    sampler = LengthGrouped([i % 17 for i in range(count)], 8, seed=1)
    found = list(sampler)
    assert len(found) == len(sampler) == -(-count // 8) * 8
    assert sorted(found[:count]) == list(range(count)) and found[count:] == (found * 3)[: len(found) - count]


def test_labels_that_the_task_does_not_know_are_refused_before_the_model_is_loaded(base: Path, tmp_path: Path) -> None:
    (tmp_path / "ner/en").mkdir(parents=True)
    for split in ("train", "dev"):
        (tmp_path / f"ner/en/{split}.conll").write_text("Ana B-ANIMAL\n\n")
    with pytest.raises(PolydistillError, match="B-ANIMAL"):
        finetune(config(tmp_path / "no-such-model", tmp_path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option",
    [
        {"epochs": 0},
        {"lr": -1},
        {"lr": math.nan},
        {"epochs": math.inf},
        {"batch_size": 0},
        {"max_length": 3},
        {"warmup": 2},
        {"seed": 2**32},
    ],
)
def test_numbers_that_make_no_sense(option: dict[str, Any], base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"`{next(iter(option))}` must be "):
        finetune(config(base, data, tmp_path / "out", **option))


def test_an_output_that_exists_is_left_alone(base: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(PolydistillError, match="already exists"):
        finetune(config(base, data, tmp_path / "out"))
    assert (tmp_path / "out" / "mine").read_text() == "x"


def test_the_command_prints_one_object(
    base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--model", str(base), "--task", "ner", "--lang", "en", "--data-dir", str(data), "--epochs", "1", "--json"]
    main(["finetune", *args, "-o", str(tmp_path / "out"), "-q"])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["command"] == "finetune" and not printed.err
    main(["finetune", *args[:-1], "-o", str(tmp_path / "out"), "-q", "--overwrite"])
    assert "dev f1" in capsys.readouterr().out


def test_several_processes_are_refused(base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="one process"):
        finetune(config(base, data, tmp_path / "out"))


def test_the_same_from_python(base: Path, data: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    result = polydistill.finetune(str(base), task="nli", languages=["en"], data_dir=str(data), epochs=1, output=out)
    found = polydistill.evaluate([result.output], task="nli", languages=["English"], data_dir=str(data))
    assert found.scores[0].model == out and found.scores[0].n == 18
