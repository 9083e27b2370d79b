"""Every architecture, trimmed: reloaded in a fresh process it has the same tokens, weights and outputs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from conftest import TEXT, Cut, Trimmed

each_case = pytest.mark.parametrize("case", tiny.CASES, ids=lambda case: case.name)
LANGUAGE_MODELS = ("masked-lm", "causal-lm", "seq2seq-lm")
PRETRAINING = ("bert-pretraining", "albert-pretraining")  # ELECTRA's tells real tokens from replaced ones
FOREIGN = tiny.sentences("ru", "zh", "emoji", count=4)


@pytest.fixture(scope="session")
def trimmed(cut: Cut, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Trimmed]]:
    """Case -> its folder and the trimmed one."""
    root = tmp_path_factory.mktemp("architectures")
    found = {}
    for number, case in enumerate(tiny.CASES):
        folder = tiny.model_folder(case.model_type, case.head, root / f"{number}-old", **case.options)
        found[case.name] = (folder, cut(folder, root / f"{number}-new"))
    return found


@pytest.fixture(scope="session")
def report(trimmed: dict[str, tuple[Path, Trimmed]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one fresh process found in all the folders."""
    jobs = [
        {
            "name": case.name,
            "auto": tiny.AUTO_CLASS[case.head],
            "old": str(trimmed[case.name][0]),
            "new": str(trimmed[case.name][1].folder),
            "kept": trimmed[case.name][1].kept,
            "texts": [*TEXT[:30], *FOREIGN],
        }
        for case in tiny.CASES
    ]
    return check_folders(jobs, tmp_path_factory.mktemp("report"))


def check_folders(jobs: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    script = Path(__file__).parents[1] / "check_folders.py"
    command = [sys.executable, "-W", "ignore", str(script), str(folder / "jobs.json"), str(folder / "report.json")]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


@each_case
def test_a_trimmed_model_is_the_original(case: tiny.Case, report: dict[str, Any]) -> None:
    found = report[case.name]
    assert found["problems"] == []
    assert found["texts"] >= 6
    assert found["tensors"] >= 1
    assert found["ids"] >= 1
    assert found["logits"] == (case.head in LANGUAGE_MODELS or case.name in PRETRAINING)


@each_case
def test_a_good_part_of_the_rows_goes(case: tiny.Case, trimmed: dict[str, tuple[Path, Trimmed]]) -> None:
    folder, new = trimmed[case.name]
    result = new.result
    assert result.rows["after"] == len(new.kept[0]) < 0.8 * result.rows["before"]
    assert sum(map(len, new.kept)) == result.vocabulary["after"] == sum(result.kept.values())
    assert result.parameters["after"] < result.parameters["before"]
    made = {"polydistill.json", "README.md"}
    assert {p.name for p in new.folder.iterdir()} == {p.name for p in folder.iterdir()} | made


def test_the_check_notices_a_wrong_row_a_missing_weight_and_a_wrong_id(cut: Cut, tmp_path: Path) -> None:
    """The comparison itself must be able to fail."""
    from safetensors.numpy import load_file, save_file

    old = tiny.model_folder("roberta", "masked-lm", tmp_path / "old", tied=False)
    jobs = []
    for fault in ("row", "missing", "id", "token", "rows"):
        new = cut(old, tmp_path / fault)
        jobs.append(
            {
                "name": fault,
                "auto": "AutoModelForMaskedLM",
                "old": str(old),
                "new": str(new.folder),
                "kept": new.kept,
                "texts": TEXT[:10],
            }
        )
        break_folder(new.folder, fault, load_file, save_file)
    found = check_folders(jobs, tmp_path)
    said = {name: " ".join(r["problems"]) for name, r in found.items()}
    assert "word_embeddings.weight differs" in said["row"]
    assert "lm_head.decoder.bias differs" in said["row"]
    assert "logits" in said["row"]
    assert "missing_keys" in said["missing"]
    assert "config.bos_token_id" in said["id"]
    assert "tokenizes differently" in said["token"]
    assert "mismatched" in said["rows"] or "size" in said["rows"]


def break_folder(folder: Path, fault: str, load: Any, save: Any) -> None:
    weights = folder / "model.safetensors"
    tensors, config = load(weights), json.loads((folder / "config.json").read_text())
    name = "roberta.embeddings.word_embeddings.weight"
    if fault == "row":
        tensors[name][[7, 8]] = tensors[name][[8, 7]]
        tensors["lm_head.decoder.bias"][3] += 1
    elif fault == "missing":
        del tensors["roberta.encoder.layer.0.output.dense.bias"]
    elif fault == "id":
        config["bos_token_id"] += 1
    elif fault == "rows":
        tensors[name] = tensors[name][:-1].copy()
    elif fault == "token":
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        tokenizer["model"]["merges"] = tokenizer["model"]["merges"][5:]
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    save(tensors, weights, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("model_type", "head", "options"),
    [
        ("bert", "masked-lm", {}),
        ("xlm-roberta", "base", {"beside": True, "legacy": True}),
        ("t5", "seq2seq-lm", {"tied": True, "beside": True}),
        ("m2m_100", "seq2seq-lm", {"tokenizer": "nllb", "shards": 4}),
        ("m2m_100", "seq2seq-lm", {"tied": True}),
        ("marian", "seq2seq-lm", {"tied": True}),
        ("gpt2", "causal-lm", {"tied": True, "beside": True}),
        ("gemma2", "causal-lm", {"tied": True, "dtype": "bfloat16", "beside": True}),
    ],
)
def test_trimming_twice_is_trimming_once(
    model_type: str, head: str, options: dict[str, Any], cut: Cut, tmp_path: Path
) -> None:
    old = tiny.model_folder(model_type, head, tmp_path / "old", **options)
    once = cut(old, tmp_path / "once", min_count=1)
    twice = cut(once.folder, tmp_path / "twice", min_count=1)
    assert len(once.kept[0]) < once.result.vocabulary["before"]
    assert twice.kept == [list(range(len(kept))) for kept in once.kept]
    assert contents(twice.folder) == contents(once.folder)


@pytest.mark.parametrize("case", [c for c in tiny.CASES if c.head == "base"], ids=lambda case: case.name)
def test_keeping_everything_is_the_identity(case: tiny.Case, cut: Cut, tmp_path: Path) -> None:
    if "tokenizer=marian-separate" in case.name:
        pytest.skip("its two vocabularies differ in length, which only a trimmed one may not")
    old = tiny.model_folder(case.model_type, case.head, tmp_path / "old", **case.options)
    size = cut(old, tmp_path / "part").result.vocabulary["before"]
    new = cut(old, tmp_path / "whole", vocab_size=size)
    assert new.kept == [list(range(size))]
    before, after = contents(old), contents(new.folder)
    assert before.keys() == after.keys()
    for name, content in after.items():
        if name.endswith(".safetensors") and "rows" not in case.options:
            assert tensors(old / name) == tensors(new.folder / name)
        elif name.endswith(".json") and not ("rows" in case.options and name == "config.json"):
            assert json.loads(content) == json.loads(before[name]), name
        elif name.endswith((".txt", ".model", ".spm")):
            assert content == before[name], name


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of all files but the record and the card, which tell of the run."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in ("polydistill.json", "README.md")}


def tensors(file: Path) -> dict[str, tuple[str, list[int], bytes]]:
    from safetensors import deserialize

    return {name: (t["dtype"], t["shape"], bytes(t["data"])) for name, t in deserialize(file.read_bytes())}
