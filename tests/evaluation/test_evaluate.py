"""evaluate: cached by what decides predictions, resumed where it stopped, added to records; cost and loyalty."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from answering import answer_here
from safetensors.numpy import load_file, save_file

from polydistill import devices
from polydistill.catalog import language, task
from polydistill.cli import main
from polydistill.cli.evaluate import table
from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation import cache, classification, cost, retrieval, turns
from polydistill.evaluation.evaluate import EvaluateOptions, Evaluation, averages, evaluate, settings_of
from polydistill.evaluation.heads import new_head
from polydistill.evaluation.scoring import Cell, loyalty
from polydistill.evaluation.subjects import Settings
from polydistill.labelled.examples import LabelledSplit, PairExample, QuestionExample, TaggedExample, units_of
from polydistill.metrics.paired import FEW
from polydistill.records.record import RunRecord, Score

NLI = ("entailment", "neutral", "contradiction")
LANGUAGES = {"en": "en", "sw": "sw", "ro": "ro"}


def tuned(folder: Path, kind: str, labels: tuple[str, ...], seed: int) -> Path:
    tiny.model_folder("bert", "base", folder, tokenizer="xlm-roberta", seed=seed)
    model = new_head(folder, kind, labels, seed=seed)
    model.network.save_pretrained(folder)
    source = {"name": "org/base", "source": "org/base@1", "weights_hash": "0", "licence": None}
    RunRecord("finetune", {}, source, [], {"languages": ["en"], "selection": {"languages": ["en"]}}).save(folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data in three languages, two NLI models and a QA model."""
    root = tmp_path_factory.mktemp("made")
    for code in LANGUAGES:
        (root / "nli" / code).mkdir(parents=True)
        (root / "qa" / code).mkdir(parents=True)
        texts = tiny.sentences(code, count=24)
        rows = [{"premise": t, "hypothesis": texts[-i], "label": NLI[i % 3]} for i, t in enumerate(texts)]
        (root / "nli" / code / "test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        paragraphs = [
            {
                "context": t,
                "qas": [
                    {
                        "id": f"q{i}",
                        "question": f"{t.split()[0]}?",
                        "answers": [{"text": t.split()[-1], "answer_start": t.rindex(t.split()[-1])}],
                    }
                ],
            }
            for i, t in enumerate(texts[:6])
        ]
        squad = {"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}
        (root / "qa" / code / "test.json").write_text(json.dumps(squad))
    tuned(root / "a", "classification", NLI, 1)
    tuned(root / "b", "classification", NLI, 2)
    tuned(root / "q", "span-extraction", (), 3)
    return root


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))
    for name in ("a", "b", "q"):
        shutil.copytree(made / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(made: Path, *models: str, **options: Any) -> Evaluation:
    values = {"task": "nli", "languages": ("en", "sw"), "data_dir": made, **options}
    return evaluate(EvaluateOptions(model=models or ("a",), **values))


def test_a_tagger_of_conll_2003_is_scored_on_data_in_bioes_and_both_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))
    model = tuned(tmp_path / "m", "tagging", ("B-LOC", "B-ORG", "I-LOC", "I-ORG", "I-PER", "O"), 4)
    (tmp_path / "a.conll").write_text("Ana B-PER\nPop E-PER\nsees O\nCluj S-LOC\n")
    asked = ["evaluate", "--model", str(model), "--task", "ner", "--lang", "ro", "--data", str(tmp_path / "a.conll")]
    main([*asked, "--teacher", str(model), "-o", str(tmp_path / "run.json")])
    said = capsys.readouterr().err
    assert f"{model} tags in IOB1: what it predicts is read in IOB2" in said
    assert "2 entities tagged in BIOES are read in IOB2" in said
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["models"][0]["tag_scheme"] == "IOB1" and list(run["data"][0]["mended"].values()) == [2]
    assert {row["metric"] for row in run["scores"]} == {"f1"}


@pytest.fixture
def predicted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples each call of the predict loop was given."""
    calls: list[int] = []
    original = classification.predict

    def predict(model: Any, examples: Any, **options: Any) -> Any:
        calls.append(len(examples))
        return original(model, examples, **options)

    monkeypatch.setattr(classification, "predict", predict)
    return calls


# ---- cache ----


def test_what_was_scored_before_is_read(made: Path, here: Path, predicted: list[int]) -> None:
    first = run(made)
    assert predicted == [24, 24]
    assert run(made).scores == first.scores and predicted == [24, 24]
    assert run(made, batch_size=5).scores == first.scores and predicted == [24, 24]
    run(made, fresh=True)
    assert len(predicted) == 4


def test_one_changed_weight_is_scored_again(made: Path, here: Path, predicted: list[int]) -> None:
    before = run(made)
    weights = load_file(here / "a" / "model.safetensors")
    weights["classifier.bias"] = np.array([0, 5, 0], np.float32)
    save_file(weights, here / "a" / "model.safetensors", metadata={"format": "pt"})
    after = run(made)
    assert predicted == [24] * 4 and after.scores[0].value == pytest.approx(8 / 24)
    assert {s.weights_hash for s in before.scores}.isdisjoint({s.weights_hash for s in after.scores})


@pytest.mark.parametrize("what", ["limit", "max_length", "labels", "data", "tokenizer"])
def test_whatever_decides_predictions_changes_the_key(
    what: str, made: Path, here: Path, predicted: list[int], tmp_path: Path
) -> None:
    run(made, languages=("en",))
    data, options = made, {}
    if what == "limit":
        options = {"limit": 9}
    elif what == "max_length":
        options = {"max_length": 16}
    elif what == "data":
        data = tmp_path / "data"
        shutil.copytree(made / "nli", data / "nli")
        rows = (data / "nli/en/test.jsonl").read_text().replace("house", "home")
        (data / "nli/en/test.jsonl").write_text(rows)
    else:
        name, old, new = {
            "labels": ("config.json", '"entailment"', '"Entailment"'),
            "tokenizer": ("tokenizer_config.json", "{", '{"note": 1,'),
        }[what]
        text = (here / "a" / name).read_text()
        (here / "a" / name).write_text(text.replace(old, new, 1))
    run(data, languages=("en",), **options)
    assert len(predicted) == 2


def test_a_run_that_was_killed_goes_on_at_its_language(made: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    original = classification.predict

    def dies(model: Any, examples: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(model, examples, **options)

    monkeypatch.setattr(classification, "predict", dies)
    with pytest.raises(KeyboardInterrupt):
        run(made, languages=("en", "sw", "ro"))
    result = run(made, languages=("en", "sw", "ro"))
    assert len(calls) == 4 and [s.language for s in result.scores] == ["en", "sw", "ro"]


def test_layers_behind_an_encoder_are_part_of_the_key(made: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    tiny.model_folder("bert", "base", here / "m", tokenizer="xlm-roberta")
    SentenceTransformer(modules=[Transformer(str(here / "m")), Pooling(32), Dense(32, 8)]).save(str(here / "st"))
    shutil.copyfile(here / "a" / "polydistill.json", here / "st" / "polydistill.json")
    (here / "parallel").mkdir()
    lines = [f"{a}\t{b}\n" for a, b in zip(*(tiny.sentences(code, count=9) for code in ("en", "sw")), strict=True)]
    (here / "parallel" / "en-sw.tsv").write_text("".join(lines))
    calls, original = [], retrieval.predict

    def predict(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return original(*args, **options)

    monkeypatch.setattr(retrieval, "predict", predict)
    for expected in (1, 1):  # the scores that the first adds to the record change nothing
        run(here, "st", task="bitext", languages=("sw",))
        assert len(calls) == expected
    (dense,) = (here / "st").glob("*Dense*/model.safetensors")
    save_file({name: w * 0 for name, w in load_file(dense).items()}, dense)
    run(here, "st", task="bitext", languages=("sw",))
    assert len(calls) == 2


def test_a_damaged_or_unwritable_cache(made: Path, here: Path, predicted: list[int]) -> None:
    score = run(made, languages=("en",)).scores[0]
    assert score.predictions
    cache.place(score.predictions).write_text("{")
    assert run(made, languages=("en",)).scores[0] == score and len(predicted) == 2
    shutil.rmtree(here / "cache")
    (here / "cache").write_text("in the way")
    with pytest.raises(PolydistillError, match="POLYDISTILL_CACHE"):
        run(made, languages=("en",))


# ---- scores ----


def test_every_option_of_scoring_one_model_reaches_it() -> None:
    config = EvaluateOptions(
        batch_size=3,
        max_length=77,
        precision="bfloat16",
        prompt="query: ",
        seed=5,
        limit=9,
        fresh=True,
        include_path=(Path("x"),),
    )
    found, usual = settings_of(config), Settings()
    for f in fields(Settings):
        assert getattr(found, f.name) != getattr(usual, f.name)
        assert f.name in ("whole", "bf16") or getattr(found, f.name) == getattr(config, f.name)


@pytest.mark.parametrize("faster", [False, True])
def test_predictions_are_kept_by_the_precision_that_was_decided(
    faster: bool, made: Path, here: Path, predicted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` finds what float32 or bfloat16 left, and never the other."""
    monkeypatch.setattr(devices, "_is_faster", lambda device: faster)
    before = len(predicted)
    for precision in ("float32", "bfloat16", "auto"):
        found = run(made, languages=("en",), precision=precision)
        assert found.device == "cpu"
    assert found.precision == ("bfloat16" if faster else "float32") and len(predicted) == before + 2


def test_a_score_names_everything_it_depends_on(made: Path, here: Path) -> None:
    printed = run(made).to_json()
    assert list(printed) == [
        "command",
        "scores",
        "averages",
        "latency",
        "loyalty",
        "models",
        "data",
        "precision",
        "device",
        "notes",
    ]
    score = printed["scores"][0]
    wanted = {"model", "task", "language", "split", "metric", "value", "interval", "n", "normalisation", "data_hash"}
    assert wanted | {"weights_hash", "task_version", "selection", "seed"} <= score.keys()
    assert (score["model"], score["task"], score["n"], score["metric"]) == ("a", "nli", 24, "accuracy")
    assert 0 <= score["interval"][0] <= score["value"] <= score["interval"][1] <= 1
    assert score["selection"] == ["en"] and json.loads(json.dumps(printed)) == printed
    model = printed["models"][0]
    total = sum(w.size for w in load_file(here / "a" / "model.safetensors").values())
    assert sum(model["parameters"].values()) == total and model["lineage"] == ["finetune (en) of org/base@1"]


def test_scores_are_added_to_the_record_once(made: Path, here: Path) -> None:
    run(made, languages=("en",))
    run(made, languages=("sw", "en"))
    record = RunRecord.load(here / "a")
    assert record is not None and [s.language for s in record.scores] == ["sw", "en"]
    assert record.command == "finetune" and not list((here / "a").glob(".*"))


def test_a_look_at_a_few_examples_does_not_replace_the_score_of_all(made: Path, here: Path) -> None:
    run(made, languages=("en",))
    run(made, languages=("en",), limit=3)
    record = RunRecord.load(here / "a")
    assert record is not None and [s.n for s in record.scores] == [24]


def test_scores_that_another_evaluation_added_meanwhile_stay(
    made: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = classification.predict

    calls: list[int] = []

    def predict(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            run(made, languages=("ro",))
        return original(*args, **options)

    monkeypatch.setattr(classification, "predict", predict)
    run(made, languages=("en", "sw"))
    record = RunRecord.load(here / "a")
    assert record is not None and {s.language for s in record.scores} == {"en", "sw", "ro"}


def test_a_record_that_cannot_be_written_costs_no_scores(
    made: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def save(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(RunRecord, "save", save)
    main(["evaluate", "--model", "a", "--task", "nli", "--lang", "en", "--data-dir", str(made), "--json", "-q"])
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)["scores"]) == 1 and "Read-only file system" in printed.err


def test_a_folder_without_a_record_is_left_as_it_is(made: Path, here: Path) -> None:
    (here / "a" / "polydistill.json").unlink()
    before = sorted(p.name for p in (here / "a").iterdir())
    assert run(made).scores and sorted(p.name for p in (here / "a").iterdir()) == before


def test_averages_have_intervals_and_few_items_are_noted(
    made: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(made)
    (mean,) = result.averages
    assert mean["interval"][0] <= mean["value"] <= mean["interval"][1]
    (note,) = result.notes
    assert note == f"{FEW}: en (24), sw (24)."
    again = run(made)  # from the cache
    assert (again.averages, again.notes) == (result.averages, result.notes)
    main(["evaluate", "--model", "a", "--task", "nli", "--lang", "en", "--data-dir", str(made), "-q"])
    assert capsys.readouterr().out.splitlines()[-1] == f"{FEW}: en (24)."


def test_questions_about_a_paragraph_are_one_unit_in_all_languages() -> None:
    def split(language: str, order: str) -> list[Any]:
        return [QuestionExample(i, "?", f"{language} {int(i) // 2}", (("a", 0),), language, language) for i in order]

    assert units_of(split("en", "0123")) == ("0", "0", "2", "2") == units_of(split("sw", "1032"))
    assert units_of([PairExample("7", "a", "b", "c")]) == ("7",)


def test_a_sentences_words_are_drawn_together() -> None:
    """Loyalty of tags has a row a word."""
    examples = [TaggedExample("0", ("a", "b"), ("O", "O")), TaggedExample("1", ("c",), ("O",))]
    cell = Cell(LabelledSplit("ner", "en", "test", tuple(examples), "x", "0"), language("en"), None)
    found = [{"names": ["O"], "tags": ["O"] * n, "probabilities": [[1.0]] * n} for n in (2, 1)]
    assert [m.units for m in loyalty(task("ner"), cell, found, found)] == [("0", "0", "1")] * 2


def test_macro_average_counts_each_language_the_same() -> None:
    scores = [
        Score("m", "nli", code, "test", "accuracy", value, None, n)
        for code, value, n in (("en", 0.8, 5010), ("sw", 0.6, 5010), ("gn", 0.4, 750))
    ]
    (mean,) = averages(scores)
    assert mean["value"] == pytest.approx(0.6) and mean["languages"] == ["en", "sw", "gn"]


def test_g_xlt_is_the_mean_off_the_diagonal() -> None:
    values = {("en", "en"): 0.9, ("sw", "sw"): 0.7, ("en", "sw"): 0.5, ("sw", "en"): 0.3}
    scores = [
        Score(
            "m", "qa", about, "test", "f1", value, None, 9, "squad", question_language=asked if asked != about else None
        )
        for (asked, about), value in values.items()
    ]
    found = {mean["average"]: mean["value"] for mean in averages(scores)}
    assert found == pytest.approx({"macro": 0.8, "xlt": 0.8, "g-xlt": 0.4})


def test_crossed_questions(made: Path, here: Path) -> None:
    result = run(made, "q", task="qa", g_xlt=True)
    assert len(result.scores) == 4 * 4 and {m["average"] for m in result.averages} == {"macro", "xlt", "g-xlt"}
    assert {(s.language, s.question_language) for s in result.scores} == {
        ("en", None),
        ("en", "sw"),
        ("sw", "en"),
        ("sw", None),
    }
    assert {s.normalisation for s in result.scores} == {"squad", "mlqa"}


# ---- teacher and cost ----


def test_loyalty_and_retention_beside_a_teacher(made: Path, here: Path) -> None:
    result = run(made, "b", teacher="a")
    assert [m["model"] for m in result.models] == ["a", "b"] and result.loyalty
    rows = {(r["language"], r["metric"]): r for r in result.loyalty["scores"]}
    assert {m for _, m in rows} == {"label_loyalty", "probability_loyalty", "retention"}
    values = {(s.model, s.language): s.value for s in result.scores}
    assert rows["en", "retention"]["value"] == pytest.approx(values["b", "en"] / values["a", "en"])
    means = {m["metric"]: m for m in result.loyalty["averages"]}
    assert means.keys() == {"label_loyalty", "probability_loyalty", "retention"}
    for metric, mean in means.items():
        assert mean["average"] == "macro" and mean["languages"] == ["en", "sw"]
        assert mean["interval"][0] <= mean["value"] <= mean["interval"][1]
        if metric != "retention":
            assert mean["value"] == pytest.approx((rows["en", metric]["value"] + rows["sw", metric]["value"]) / 2)
    kept = (values["b", "en"] + values["b", "sw"]) / (values["a", "en"] + values["a", "sw"])
    assert means["retention"]["value"] == pytest.approx(kept)
    same = run(made, "a", "a", teacher="a", languages=("en",))
    assert same.loyalty == {"teacher": "a", "scores": [], "averages": []}


def test_latency_has_ratios_with_intervals(
    made: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_here(monkeypatch, but_the_first=True)
    monkeypatch.setattr(turns, "PROCESSES", 2)
    RunRecord("trim", {}, {"name": "x", "source": "x"}, [], {}).save(here / "b")
    found = run(made, "a", "b", languages=("en",), limit=6, latency=True).latency
    assert found and [m["model"] for m in found["models"]] == ["a", "b"]
    assert (found["inputs"], found["processes"]) == (6, 2)
    first, second = found["models"]
    assert first["latency_ratio"] is None and first["peak_memory_bytes"] > 50e6
    for ratio in (second["latency_ratio"], second["throughput_ratio"]):
        assert 0 < ratio["interval"][0] <= ratio["value"] <= ratio["interval"][1]
    shown = table(Evaluation((), (), (), (), latency=found))
    assert "inputs/s" in shown and "2 processes" in shown


def test_the_record_keeps_one_cost_beside_each_model(made: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer_of(module: str, job: dict[str, Any], *_: str) -> dict[str, Any]:
        if module.endswith("footprint"):
            return {"peak_memory_bytes": 1000}
        return {name: [0.1, 20.0] for name in job["folders"]}

    for user in (turns, cost):
        monkeypatch.setattr(user, "answer_of", answer_of)
    source = {"name": "x", "source": "x"}
    RunRecord("trim", {}, source, [], {}).save(here / "b")
    for _ in range(2):
        run(made, "a", "b", languages=("en",), limit=6, latency=True)
    record = RunRecord.load(here / "b")
    assert record and not record.scores
    (kept,) = record.costs
    assert kept["beside"] == "a" and kept["task"] == "nli" and kept["language"] == "en" and kept["inputs"] == 6
    assert kept["latency_ratio"]["value"] > 0 and kept["memory_ratio"]["value"] == pytest.approx(1, abs=0.2)


def test_memory_is_that_of_a_process_of_its_own(made: Path) -> None:
    """A process that was started by a large one does not count as large."""
    ours = np.ones(600 << 17)  # 600 MiB
    code = "from polydistill.records.record import peak_memory_bytes; print(peak_memory_bytes())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 5e6 < int(said) < 200e6 < ours.nbytes


# ---- what a person gets wrong ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": ()}, "No model"),
        ({"task": ""}, "No task"),
        ({"task": "xnly"}, "Did you mean xnli"),
        ({"languages": ()}, "No language"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"limit": 0}, "`limit` must be at least 1"),
        ({"max_length": 4}, "`max_length` must be at least 16"),
        ({"seed": -1}, "`seed`"),
        ({"g_xlt": True}, "`g_xlt`"),
        ({"data": Path("x.jsonl")}, "`data` is a file of one language"),
        ({"task": "belebele", "languages": ("en",)}, "belebele"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str, made: Path, here: Path) -> None:
    values: dict[str, Any] = {"model": ("a",), "task": "nli", "languages": ("en", "sw"), "data_dir": made}
    with pytest.raises(UsageError, match=message):
        evaluate(EvaluateOptions(**{**values, **options}))


def test_the_command_writes_one_object_and_a_file(made: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["evaluate", "--model", "a", "--task", "nli", "--lang", "en", "--data-dir", str(made), "-o", "run.json"]
    main([*args, "--json", "-q"])
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((here / "run.json").read_text()) and not printed.err
    with pytest.raises(SystemExit) as stop:
        main(args)
    said = capsys.readouterr()
    assert stop.value.code == 1 and "already exists" in said.err and "Traceback" not in said.err
    main([*args, "--overwrite"])
    assert "accuracy" in capsys.readouterr().out


def test_a_model_of_an_unknown_architecture_is_refused_before_anything_is_predicted(
    made: Path, here: Path, predicted: list[int]
) -> None:
    config = json.loads((here / "b" / "config.json").read_text())
    (here / "b" / "config.json").write_text(json.dumps({**config, "model_type": "camembert"}))
    with pytest.raises(PolydistillError, match="architecture 'camembert' is unknown"):
        run(made, "a", "b")
    assert not predicted


def test_data_comes_from_the_environment_too(made: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYDISTILL_DATA", str(made))
    assert run(made, data_dir=None).scores == run(made).scores
