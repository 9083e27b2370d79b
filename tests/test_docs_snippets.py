"""What README and docs/ show can be typed: every command line is one, and every snippet of Python runs."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import tiny
from snippets import Block, blocks, session_of
from tiny_stacks import LABELS, PAIRS
from transformers import AutoTokenizer

import polydistill
from polydistill.catalog import Arch, Table
from polydistill.cli import cli, main
from polydistill.distill.listing import OBJECTIVES
from polydistill.evaluation.heads import new_head
from polydistill.progress import SILENT
from polydistill.runs.runner import run

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]
BLOCKS = [block for page in PAGES for block in blocks(page)]
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
PYTHON = [block for block in BLOCKS if block.kind == "python"]


def parsed(words: list[str]) -> None:
    """Reads a command line as the command would, without running it.

    Raises:
        click.UsageError: An option, an argument or a value is none of the command's.
    """
    command, path = cli, "polydistill"
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(click.Context(command), name)
        if found is None:
            raise click.UsageError(f"{path} has no command {name}")
        command, path = found, f"{path} {name}"
    command.make_context(path, words)


@pytest.mark.parametrize("block", [b for b in BLOCKS if list(b.commands)], ids=lambda b: f"{b.page}:{b.line}")
def test_every_command_line_is_one(block: Block) -> None:
    for words in block.commands:
        if "--help" not in words and "..." not in words:
            parsed(words)


@pytest.mark.parametrize("line", ["trim --lnag ro", "trimm --lang ro", "plan en", "trim --min-count few", "sparse"])
def test_a_command_line_that_is_none_is_seen(line: str) -> None:
    with pytest.raises((click.UsageError, ValueError)):
        parsed(line.split())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has all that the snippets name, tiny."""
    root = tmp_path_factory.mktemp("home")
    for code in ("en", "ro", "sw"):
        (root / f"{code}.txt").write_text("\n".join(tiny.sentences(code)) + "\n", encoding="utf-8")
    shutil.copy(root / "ro.txt", root / "fr.txt")
    tiny.model_folder("bert", "base", root / "intfloat/multilingual-e5-small", tokenizer="xlm-roberta")
    camembert(tiny.model_folder("xlm-roberta", "masked-lm", root / "camembert-base"))
    tagger(root / "ner-student-onnx")
    for code, (premise, noun) in PAIRS.items():
        for split in ("train", "dev", "test"):
            rows = [{"premise": premise, "hypothesis": f"{noun} {i}", "label": LABELS[i % 3]} for i in range(12)]
            file = root / f"DATA/nli/{code}/{split}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    stage = 'name = "tuned"\nmethod = "finetune"\ntask = "nli"\nlanguages = ["en"]\ndata_dir = "DATA"\nepochs = 1\n'
    (root / "recipe.toml").write_text(f"[[stage]]\n{stage}", encoding="utf-8")
    (root / "student").mkdir()
    (root / "student/recipe.toml").write_text(f"[[stage]]\n{stage}", encoding="utf-8")
    return root


def camembert(folder: Path) -> None:
    """Makes CamemBERT of an XLM-R: they differ in name alone."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"model_type": "camembert", "architectures": ["CamembertForMaskedLM"]}
    path.write_text(json.dumps(config), encoding="utf-8")


def tagger(folder: Path) -> None:
    """A tagger whose tokenizer.json pads and cuts every text, with files in the places of an export's."""
    tiny.model_folder("bert", "base", folder, tokenizer="bert")
    new_head(folder, "tagging", TAGS, seed=1).network.save_pretrained(folder)
    path = folder / "tokenizer.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    known["padding"] = {
        "strategy": {"Fixed": 64},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    known["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(known), encoding="utf-8")
    (folder / "onnx").mkdir()
    (folder / "onnx/model_quantized.onnx").touch()


@pytest.fixture
def there(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, a copy of its own for each snippet, with nothing to be had from the network."""
    there = shutil.copytree(home, tmp_path / "home")
    monkeypatch.chdir(there)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))
    return there


@pytest.mark.parametrize("block", PYTHON, ids=lambda b: f"{b.page}:{b.line}")
def test_every_snippet_runs(block: Block, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, among tiny models that are called as it calls them; what trains for long is only prepared."""
    import onnxruntime
    from transformers import AutoModel

    def planned(method: Any, options: Any, progress: Any = SILENT) -> Any:
        return method.prepare(options, progress) if method.name == "bistil" else run(method, options, progress)

    monkeypatch.setattr("polydistill.runs.functions.run", planned)
    monkeypatch.setattr(OBJECTIVES, "_listed", dict(OBJECTIVES._listed))  # one adds to them
    graph = session_of(there / "ner-student-onnx", ("input_ids", "attention_mask", "token_type_ids"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", graph)
    base = there / "intfloat/multilingual-e5-small"
    before = {
        "polydistill": polydistill,
        "tokenizer": AutoTokenizer.from_pretrained(base),
        "model": AutoModel.from_pretrained(base),
    }
    exec(block.text, before)


def test_the_pages_have_snippets() -> None:
    assert {"README.md", "architectures.md"} <= {block.page for block in PYTHON} and len(PYTHON) >= 5


def test_the_onnx_snippet_gives_the_models_logits_though_the_tokenizer_pads(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime
    import torch
    import transformers

    folder = there / "ner-student-onnx"
    graph = session_of(folder, ("input_ids", "attention_mask", "token_type_ids"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", graph)
    (block,) = [block for block in PYTHON if "onnxruntime" in block.text]
    scope: dict[str, Any] = {}
    exec(block.text, scope)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted = model(**tokenizer("Wangari Maathai alizaliwa Nyeri", return_tensors="pt")).logits.numpy()
    assert wanted.shape[1] > 4
    np.testing.assert_allclose(scope["logits"], wanted, atol=1e-5)


# ---- docs/architectures.md


PAGE = ROOT / "docs/architectures.md"


def test_the_page_has_every_field_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the files of all architectures are read."""
    read, get = set(), Table._get

    def recorded(self: Table, key: str, *rest: Any) -> Any:
        read.add((self._prefix + key).replace("[0]", ""))
        return get(self, key, *rest)

    monkeypatch.setattr(Table, "_get", recorded)
    Arch.from_toml(ROOT / "polydistill/arch/bert.toml")
    read = {name for name in read if "[" not in name} - {"vocabulary", "layers", "attention"}
    rows = [line.split("|")[1:-1] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    fields = {row[0].strip(" `"): row for row in rows if len(row) == 4}
    assert set(fields) == read
    capabilities = {row[0].strip(" `") for row in rows if len(row) == 3}
    assert capabilities == set(polydistill.catalog.CAPABILITIES)


def test_the_example_works_from_start_to_end(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused, described, trimmed with equal outputs, and planned: as the page says."""
    first, *others = (words for block in blocks(PAGE) if not block.kind for words in block.commands)
    with pytest.raises(SystemExit) as stop:
        main(first)
    assert stop.value.code == 1 and "The architecture 'camembert' is unknown." in capsys.readouterr().err
    (described,) = (block.text for block in blocks(PAGE) if block.kind == "toml")
    name = tomllib.loads(described)["model_type"]
    (there / "architectures").mkdir(exist_ok=True)
    (there / f"architectures/{name}.toml").write_text(described, encoding="utf-8")
    said = []
    for words in others:
        main(words)
        captured = capsys.readouterr()
        said.append(captured.out + captured.err)
    assert len(said) == 5 and name in said[0] and "Verified" in said[1] and "tokenize identically" in said[3]
