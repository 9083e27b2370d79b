"""export: the folder, the record, scores of torch and of the files, and what is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file
from snippets import run_snippet

import polydistill
from polydistill.cli import main
from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation.evaluate import EvaluateOptions, evaluate
from polydistill.evaluation.heads import new_head
from polydistill.exporting import graph, networks
from polydistill.methods.export import plan as export_plan
from polydistill.methods.export import stages as module
from polydistill.records.record import RunRecord
from polydistill.reports.runs import read_run
from polydistill.runs.result import Result

TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
LAYER = {"num_hidden_layers": 1}
FILES = ("onnx/model.onnx", "onnx/model_quantized.onnx")


def tagged(code: str, count: int = 40) -> str:
    lines = []
    for i, text in enumerate(tiny.sentences(code, count=count)):
        words = text.split()
        lines += [f"{w} {'B-PER' if j == i % len(words) else 'O'}" for j, w in enumerate(words)] + [""]
    return "\n".join(lines) + "\n"


class Made:
    """A tagger for Swahili and English with a record, its data, and what `export` made of it."""

    def __init__(self, root: Path) -> None:
        self.root, self.data, self.model, self.output = root, root / "data", root / "tagger", root / "out"
        for code in ("en", "sw"):
            (self.data / "ner" / code).mkdir(parents=True)
            (self.data / "ner" / code / "test.conll").write_text(tagged(code), encoding="utf-8")
        tiny.model_folder("bert", "base", self.model, tokenizer="xlm-roberta", config=LAYER, beside=True)
        new_head(self.model, "tagging", TAGS, seed=3).network.save_pretrained(self.model)
        source = {"name": "org/base", "source": "org/base@1", "weights_hash": "0", "licence": "mit"}
        chosen = {"languages": ["en"], "selection": {"languages": ["en"]}}
        RunRecord(
            "finetune",
            {},
            source,
            [],
            chosen,
            parent={
                "command": "trim",
                "config": {},
                "source": source,
                "texts": [],
                "result": {"languages": ["en", "sw"]},
                "versions": {},
                "scores": [],
                "parent": None,
            },
        ).save(self.model)
        (self.model / "difference.safetensors").write_bytes(b"")
        (self.model / "stages").mkdir()
        (self.model / "stages" / "left.txt").write_text("x")
        (self.model / "LICENSE").write_text("as it is")
        self.before = self.hashes()
        self.result: Result = polydistill.export(
            self.model, int8=True, output=self.output, task="ner", languages=["sw", "en"], data_dir=self.data
        )

    def hashes(self) -> dict[Path, str]:
        return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in self.model.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("export")
        patch.setenv("POLYDISTILL_CACHE", str(root / "cache"))
        patch.setattr("polydistill.evaluation.turns.PROCESSES", 1)
        yield Made(root)


def time_here(patch: pytest.MonkeyPatch) -> None:
    """Takes one round of times in this process, as if two others had taken it."""
    from polydistill.evaluation import turns
    from polydistill.exporting.timed import timed

    patch.setattr(turns, "in_processes", lambda module, job, progress: [timed({**job, "rounds": 1})] * 2)


@pytest.fixture
def quick(made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty place to write, with the graph taken from what was made before, and times taken in this process."""

    def write(network: Any, inputs: Any, outputs: Any, path: Path) -> None:
        shutil.copyfile(made.output / FILES[0], path)

    monkeypatch.setattr(graph, "write_onnx", write)
    time_here(monkeypatch)
    monkeypatch.setenv("POLYDISTILL_CACHE", str(made.root / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- the folder ----


def test_the_folder_is_laid_out_as_the_hub_has_it(made: Made) -> None:
    found = {str(p.relative_to(made.output)) for p in made.output.rglob("*") if p.is_file()}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "polydistill.json", "README.md", *FILES} <= found
    assert "LICENSE" in found and "sentencepiece.bpe.model" in found
    assert not [name for name in found if name.endswith(".safetensors") or name.startswith(("stages", "."))]
    assert (made.output / "config.json").read_bytes() == (made.model / "config.json").read_bytes()
    assert [line.split()[0] for line in run_snippet(made.output).splitlines()] == ["Wangari", "Maathai", ",", "Nairobi"]


def test_the_model_stays_as_it_was(made: Made) -> None:
    assert made.hashes() == made.before


def test_the_files_run_without_torch(made: Made) -> None:
    """In a fresh process with onnxruntime and tokenizers alone, and with what torch gives for the same text."""
    import torch
    import transformers

    text = "Mwalimu mzee anaona nyumba nyekundu."
    code = f"""
import json, sys, numpy, onnxruntime, tokenizers
ids = tokenizers.Tokenizer.from_file("tokenizer.json").encode({text!r}).ids
feed = {{"input_ids": numpy.array([ids]), "attention_mask": numpy.ones((1, len(ids)), numpy.int64)}}
session = onnxruntime.InferenceSession("onnx/model.onnx", providers=["CPUExecutionProvider"])
assert "torch" not in sys.modules
print(json.dumps(session.run(["logits"], feed)[0].tolist()))
"""
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=made.output, capture_output=True, text=True, check=True
    ).stdout
    network = transformers.AutoModelForTokenClassification.from_pretrained(made.model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(made.model)
    with torch.no_grad():
        expected = network(**tokenizer(text, return_tensors="pt")).logits.numpy()
    assert np.abs(np.array(json.loads(said)) - expected).max() < 1e-5


# ---- the result and the record ----


def test_sizes_differences_and_times(made: Made) -> None:
    result = made.result.to_json()
    assert result["head"] == "token-classification" and result["inputs"] == ["input_ids", "attention_mask"]
    assert [file["path"] for file in result["files"]] == list(FILES)
    for file in result["files"]:
        assert file["bytes"] == (made.output / file["path"]).stat().st_size
    weights = load_file(made.model / "model.safetensors")
    assert result["bytes"]["safetensors"] == (made.model / "model.safetensors").stat().st_size
    assert result["parameters"] == sum(w.size for w in weights.values())
    assert result["bytes"]["int8"] < 0.7 * result["bytes"]["onnx"]
    difference = result["difference"]
    assert 0 < difference["onnx"] < 1e-5 < difference["int8"] < 10 and difference["inputs"] == 66
    assert result["agreement"]["onnx"]["share"] == 1 > result["agreement"]["int8"]["share"] > 0.5
    torch, full, small = result["latency"]["models"]
    assert [row["model"] for row in (torch, full, small)] == ["torch", "onnx", "int8"]
    assert torch["latency_ratio"] is None and full["latency_ratio"]["value"] > 0 < small["throughput_ratio"]["value"]
    assert result["languages"] == ["en", "sw"] and result["pooling"] == []  # those that it was cut to
    assert json.loads(json.dumps(result)) == result


def test_scores_are_those_of_evaluate_and_of_the_files(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(made.root / "other"))
    plain = evaluate(
        EvaluateOptions(
            model=(str(made.model),), task="ner", languages=("sw", "en"), data_dir=made.data, output=None, limit=1000
        )
    ).scores
    by_model: dict[str, list[dict[str, Any]]] = {}
    for score in made.result.scores:
        by_model.setdefault(score["model"], []).append(score)
    torch, full, small = by_model.values()
    values = [(s["language"], s["normalisation"], s["value"], tuple(s["interval"]), s["n"]) for s in torch]
    assert values == [(s.language, s.normalisation, s.value, s.interval, s.n) for s in plain] and len(values) == 4
    assert [s["value"] for s in full] == [s["value"] for s in torch] and {s["n"] for s in small} == {40}
    assert {s["selection"][0] for s in made.result.scores} == {"en"}
    for scores, name in ((full, FILES[0]), (small, FILES[1])):
        digest = hashlib.sha256((made.output / name).read_bytes()).hexdigest()
        assert {s["weights_hash"] for s in scores} == {digest}
        assert {s["model"] for s in scores} == {str(made.output / name)}
    same = {(row["model"], row["language"], row["metric"]): row["value"] for row in made.result.loyalty}
    assert same[str(made.output / FILES[0]), "sw", "label_loyalty"] == 1
    assert 0.5 < same[str(made.output / FILES[1]), "sw", "label_loyalty"] <= 1


def test_the_record_has_the_files_scores_and_its_parents(made: Made) -> None:
    record = RunRecord.load(made.output)
    assert record is not None and record.command == "export"
    assert [step["command"] for step in record.lineage()] == ["export", "finetune", "trim"]
    assert {s.model for s in record.scores} == {str(made.output / name) for name in FILES} and len(record.scores) == 8
    assert {"onnx", "onnxruntime", "torch"} <= record.versions.keys()
    assert record.source["weights_hash"] and record.config["int8"] is True and record.config["task"] == "ner"
    assert [t["language"] for t in record.texts] == ["sw", "en"] and all(t["examples"] == 40 for t in record.texts)
    assert record.result == made.result.to_json()


def test_compare_reads_the_folder_beside_an_evaluation(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(made.root / "cache"))
    run = read_run(made.output)
    assert [Path(m.name).name for m in run.models] == ["model.onnx", "model_quantized.onnx"]
    assert [m.bytes for m in run.models] == [file["bytes"] for file in made.result.facts["files"]]
    evaluate(
        EvaluateOptions(
            model=(str(made.model),),
            task="ner",
            languages=("sw", "en"),
            data_dir=made.data,
            output=made.root / "run.json",
            overwrite=True,
            limit=1000,
        )
    )
    shown = polydistill.compare([made.root / "run.json", made.output])
    assert len(shown.models) == 3


# ---- the command ----


def test_the_command_prints_one_object(made: Made, quick: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = quick / "sw.txt"
    text.write_text("\n".join(tiny.sentences("sw", count=9)))
    main(["export", str(made.model), "--json", "-q", "-o", "out", "--text", str(text)])
    printed = capfd.readouterr()
    found = json.loads(printed.out)
    assert {"command", "output", "files", "difference", "latency", "scores"} <= found.keys() and printed.err == ""
    assert (found["command"], found["output"]) == ("export", "out") and found["scores"] == []
    assert [file["path"] for file in found["files"]] == [FILES[0]] and "int8" not in found["difference"]
    assert not (quick / "out" / FILES[1]).exists()


def test_the_table_and_the_notes(made: Made, quick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(
        [
            "export",
            str(made.model),
            "--int8",
            "--task",
            "ner",
            "--lang",
            "sw",
            "--data-dir",
            str(made.data),
            "--limit",
            "7",
        ]
    )
    printed = capsys.readouterr()
    for word in (
        "ONNX, 8 bits",
        "largest difference",
        "same tokens",
        "sw f1 (conlleval)",
        "Written to polydistill-out",
    ):
        assert word in printed.out
    assert "graph" in printed.err and "8 bits" in printed.err
    record = RunRecord.load(quick / "polydistill-out" / "tagger-onnx")
    assert record is not None and record.scores == []  # a few examples are no score of the data
    assert {s["n"] for s in record.result["scores"]} == {7}


def test_help_loads_no_torch() -> None:
    code = "import sys\nfrom polydistill.cli import cli\ncli.main(['export', '--help'], standalone_mode=False)\n"
    code += "assert not {'torch', 'transformers', 'onnx', 'onnxruntime'} & set(sys.modules), 'loaded'"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "polydistill export STUDENT --int8 --task ner" in said


def test_a_model_of_sentence_vectors_is_scored_with_its_pooling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))
    time_here(monkeypatch)
    tiny.model_folder("bert", "base", tmp_path / "m", config=LAYER)
    parts = [Transformer(str(tmp_path / "m")), Pooling(32), Dense(32, 8), Normalize()]
    SentenceTransformer(modules=parts).save(str(tmp_path / "st"))
    (tmp_path / "parallel").mkdir()
    lines = [f"{a}\t{b}\n" for a, b in zip(*(tiny.sentences(code, count=30) for code in ("en", "sw")), strict=True)]
    (tmp_path / "parallel" / "en-sw.tsv").write_text("".join(lines))
    result = polydistill.export(
        tmp_path / "st", output=tmp_path / "out", task="bitext", languages=["sw"], data_dir=tmp_path
    )
    assert result.facts["head"] == "feature-extraction" and result.facts["outputs"] == ["last_hidden_state"]
    assert [step.split(" (")[0] for step in result.facts["pooling"]] == ["Pooling", "Dense", "Normalize"]
    assert result.facts["pooling"][0] == "Pooling (mean)"
    torch, onnx = ([s["value"] for s in result.scores if s["model"].endswith(end)] for end in ("/st", FILES[0]))
    assert torch == onnx and len(torch) == 2
    assert {row["value"] for row in result.loyalty} == {1}
    kept = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*")}
    assert {"modules.json", "1_Pooling/config.json", "2_Dense/model.safetensors", FILES[0]} <= kept
    assert "model.safetensors" not in kept


# ---- what is refused ----


def refused(out: Path, message: str, **options: Any) -> PolydistillError:
    with pytest.raises(PolydistillError, match=message) as stop:
        polydistill.export(output=out, **options)
    assert stop.value.hint and "\n" not in stop.value.message
    return stop.value


def test_another_result_than_torchs_is_refused_with_the_number(
    made: Made, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = networks.onnx_network

    def shifted(path: Path, config: Any) -> Any:
        network = original(path, config)
        network.register_forward_hook(lambda *a: setattr(a[2], "logits", a[2].logits + 0.0003))
        return network

    monkeypatch.setattr(networks, "onnx_network", shifted)
    refused(quick / "out", r"differ from torch's by up to 0\.00030\d; at most 0\.0001", model=made.model)
    assert not list(quick.iterdir())


def test_a_changed_weight_is_noticed(made: Made, quick: Path) -> None:
    """The graph is that of the model before its bias moved."""
    shutil.copytree(made.model, quick / "m")
    weights = load_file(quick / "m" / "model.safetensors")
    weights["classifier.bias"] = weights["classifier.bias"] + np.float32(0.01)
    save_file(weights, quick / "m" / "model.safetensors", metadata={"format": "pt"})
    refused(quick / "out", r"by up to 0\.01", model=quick / "m")


def test_an_output_that_exists_is_left_as_it_is(made: Made, quick: Path) -> None:
    (quick / "out").mkdir()
    (quick / "out" / "mine.txt").write_text("mine")
    refused(quick / "out", "already exists", model=made.model)
    assert [p.name for p in quick.rglob("*")] == ["out", "mine.txt"]
    (quick / "out" / "polydistill.json").write_text("{}")
    polydistill.export(made.model, output=quick / "out", overwrite=True)
    assert (quick / "out" / FILES[0]).is_file() and not (quick / "out" / "mine.txt").exists()


@pytest.mark.parametrize("where", ["graph", "quantise", "copy"])
def test_a_full_disk(where: str, made: Made, quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from polydistill.exporting import quantise

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place, name = {"graph": (graph, "write_onnx"), "quantise": (quantise, "quantise"), "copy": (module, "copy_file")}[
        where
    ]
    monkeypatch.setattr(place, name, full)
    refused(quick / "out", "the disk is full", model=made.model, int8=True)
    assert not list(quick.iterdir())


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"languages": ["sw"]}, UsageError, "`languages` is for scores"),
        ({"max_length": 64}, UsageError, "`max_length` is for scores"),
        ({"data_dir": "data"}, UsageError, "`data_dir` is for scores"),
        ({"seed": -1}, UsageError, "`seed`"),
        ({"task": "ner"}, UsageError, "No language"),
        ({"task": "nre", "languages": ["sw"]}, UsageError, "Unknown task 'nre'"),
        ({"task": "ner", "languages": ["sw"], "limit": 0}, UsageError, "`limit` must be at least 1"),
        ({"task": "nli", "languages": ["sw"]}, PolydistillError, "no head for nli: it is a model for token-class"),
        ({"text": "nowhere.txt"}, PolydistillError, "nowhere.txt does not exist"),
        ({"text": "empty.txt"}, PolydistillError, "holds no text"),
        ({"model": "nowhere/at/all"}, UsageError, "no folder nowhere/at/all"),
    ],
)
def test_options_that_make_no_sense(
    options: dict[str, Any], kind: type[PolydistillError], message: str, made: Made, quick: Path
) -> None:
    (quick / "empty.txt").write_text("\n \n")
    values = {"model": made.model, **({"data_dir": made.data} if "task" in options else {}), **options}
    assert type(refused(quick / "out", message, **values)) is kind
    assert not (quick / "out").exists()


def test_a_folder_without_the_head_of_the_task(made: Made, quick: Path) -> None:
    tiny.model_folder("bert", "base", quick / "m", tokenizer="xlm-roberta")
    stop = refused(
        quick / "out",
        "has no head for ner: it is a model for feature-extraction",
        model=quick / "m",
        task="ner",
        languages=["sw"],
        data_dir=made.data,
    )
    assert "polydistill finetune" in stop.hint


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("weight", r"does not have all weights of its model \(it lacks classifier.weight\)"),
        ("truncated", "model.safetensors"),
        ("config", "has no config.json"),
        ("weights", "safetensors"),
        ("tokenizer", "has no tokenizer"),
    ],
)
def test_a_broken_folder(what: str, message: str, made: Made, quick: Path) -> None:
    shutil.copytree(made.model, quick / "m")
    weights = quick / "m" / "model.safetensors"
    if what == "weight":
        kept = {name: w for name, w in load_file(weights).items() if name != "classifier.weight"}
        save_file(kept, weights, metadata={"format": "pt"})
    elif what == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif what == "weights":
        weights.rename(quick / "m" / "pytorch_model.bin")
    else:
        for path in (quick / "m").glob({"config": "config.json", "tokenizer": "*"}[what]):
            if what == "config" or path.name in ("tokenizer.json", "sentencepiece.bpe.model"):
                path.unlink()
    refused(quick / "out", message, model=quick / "m")
    assert not (quick / "out").exists()


def test_a_decoder_is_refused_before_anything_is_loaded(
    made: Made, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "load_network", lambda *a: pytest.fail("loaded"))
    tiny.model_folder("gpt2", "causal-lm", quick / "m")
    refused(quick / "out", r"is a decoder \(GPT-2\)", model=quick / "m")
    monkeypatch.setattr(graph, "LARGEST", 1000)
    refused(quick / "out", r"would be an ONNX file of .* GB", model=made.model)


def test_packages_that_are_missing(made: Made, quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_plan, "find_spec", lambda name: None if name.startswith("onnxr") else name)
    stop = refused(quick / "out", "ONNX export needs onnxruntime, which is not installed", model=made.model)
    assert "pip install 'polydistill[export]'" in stop.hint
