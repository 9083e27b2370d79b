"""sparse train: it learns, goes on after a kill, changes exactly K weights, and bistil takes what it made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from configs import bistil, bistil_config
from safetensors.numpy import load_file

from polydistill.cli import main
from polydistill.errors import PolydistillError
from polydistill.methods.sparse.method import remove
from polydistill.methods.sparse_train import METHOD
from polydistill.methods.sparse_train.options import SparseTrainOptions
from polydistill.progress import SILENT, Progress
from polydistill.runs.result import Result
from polydistill.runs.runner import run
from polydistill.sparse.files import LANGUAGE, NAME, Difference

DENSITY = 0.05


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    for code in ("en", "sw"):
        (folder / f"{code}.txt").write_text("\n".join(tiny.sentences(code, count=300)) + "\n")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "m"
    config = {"hidden_dropout_prob": 0.1, "num_hidden_layers": 2}
    return tiny.model_folder("bert", "base", folder, tokenizer="xlm-roberta", config=config)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))


class _Stopped(Exception):
    pass


class _Listener(Progress):
    """Counts held-out losses and warnings; stops the run after so many of the former, as a kill would."""

    def __init__(self, checks: int = 1000) -> None:
        self.left, self.warnings = checks, list[str]()

    def note(self, text: str) -> None:
        self.left -= text.startswith("step")
        if self.left < 0:
            raise _Stopped

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def config(base: Path, texts: Path, output: Path, **options: Any) -> SparseTrainOptions:
    values = {
        "language": "sw",
        "text": (str(texts / "sw.txt"),),
        "density": DENSITY,
        "steps": 60,
        "batch_size": 4,
        "max_length": 16,
        "lr": 1e-2,
        "output": output,
    }
    return SparseTrainOptions.of(model=str(base), **{**values, **options})


def sparse_train(options: SparseTrainOptions, progress: Progress = SILENT) -> Result:
    return run(METHOD, options, progress)


@pytest.fixture(scope="module")
def made(base: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, _Listener]:
    folder, listener = tmp_path_factory.mktemp("made"), _Listener()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYDISTILL_CACHE", str(folder / "cache"))
        return folder / "out", sparse_train(config(base, text, folder / "out"), listener), listener


def test_it_learns_and_changes_exactly_k_weights(made: tuple[Path, Any, _Listener], base: Path, tmp_path: Path) -> None:
    folder, result, listener = made
    assert [stage["name"] for stage in result.stages] == ["full", "sparse", "model"]
    for stage in result.stages[:2]:
        held = [loss for _, loss in stage["facts"]["validation"]]
        assert stage["loss"]["last"]["mlm"] < 0.95 * stage["loss"]["first"]["mlm"]
        assert stage["facts"]["best"] == min(held) < 0.98 * held[0]
    assert len(listener.warnings) == 1 and "no head" in listener.warnings[0]
    before, after = (load_file(place / "model.safetensors") for place in (base, folder))
    inside = {name for name in before if not name.startswith("pooler.")}
    k = round(DENSITY * sum(before[name].size for name in inside))
    difference = Difference.load(folder / NAME)
    assert before.keys() == after.keys() and difference.base.keys() == inside
    assert difference.count == result.facts["entries"] == k and difference.kind == LANGUAGE
    assert difference.languages == ("sw",) and not difference.tasks
    changed = {name: int((before[name] != after[name]).sum()) for name in before}
    assert 0.9 * k < sum(changed.values()) <= k
    assert not any(n for name, n in changed.items() if "LayerNorm" in name or name.startswith("pooler."))
    remove(str(folder), None, tmp_path / "back")
    back = load_file(tmp_path / "back/model.safetensors")
    assert all((back[name] == tensor).all() for name, tensor in before.items())


def test_record_and_card(made: tuple[Path, Any, _Listener]) -> None:
    folder, result, _ = made
    record = json.loads((folder / "polydistill.json").read_text())
    assert record["command"] == "sparse train" and record["result"]["stages"][1]["steps"] == 60
    assert record["texts"][0]["language"] == "sw" and record["texts"][0]["lines"] > 100
    card = (folder / "README.md").read_text()
    assert "2110.07560" in card and f"{result.facts['entries']:,} of" in card and "| sparse | 60 |" in card
    assert not list(folder.parent.glob(".out*"))


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_run_that_was_killed_ends_with_the_same_weights(
    share: float, made: tuple[Path, Any, _Listener], base: Path, text: Path, tmp_path: Path
) -> None:
    folder, unbroken, counted = made
    listener = _Listener(int(share * (1000 - counted.left)))
    with pytest.raises(_Stopped):
        sparse_train(config(base, text, tmp_path / "out"), listener)
    assert "`resume`" in listener.warnings[-1] and not (tmp_path / "out").exists()
    with pytest.raises(PolydistillError, match="other options or data"):
        sparse_train(config(base, text, tmp_path / "out", resume=True, density=0.1))
    resumed = sparse_train(config(base, text, tmp_path / "out", resume=True))
    for name in ("model.safetensors", NAME):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()
    assert [s["loss"] for s in resumed.stages] == [s["loss"] for s in unbroken.stages]


def test_a_model_with_a_head_keeps_it(text: Path, tmp_path: Path) -> None:
    model = tiny.model_folder("xlm-roberta", "masked-lm", tmp_path / "m", dtype="bfloat16")
    listener = _Listener()
    result = sparse_train(config(model, text, tmp_path / "out", steps=None, epochs=0.5), listener)
    blocks = result.stages[0]["steps"] * 4
    assert listener.warnings == [] and 0.5 * blocks < 0.5 * 300 * 12 / 14  # half of what the sentences give
    before, after = (load_file_bits(place / "model.safetensors") for place in (model, tmp_path / "out"))
    different = {name for name in before if before[name] != after[name]}
    assert different and all(name.startswith("roberta.") for name in different)


def load_file_bits(path: Path) -> dict[str, bytes]:
    from safetensors.torch import load_file as load

    return {name: tensor.float().numpy().tobytes() for name, tensor in load(path).items()}


def test_bistil_takes_it_for_its_teacher(
    made: tuple[Path, Any, _Listener], base: Path, text: Path, tmp_path: Path
) -> None:
    options = bistil_config(
        model=str(base),
        text=tuple(f"{code}={text}/{code}.txt" for code in ("en", "sw")),
        layers=1,
        preset="smoke",
        steps=4,
        batch_size=4,
        max_length=16,
        precision="float32",
        language_sft=(f"sw={made[0]}",),
        output=tmp_path / "out",
    )
    bistil(options)
    stage = tmp_path / "out/stages/vocabulary"
    plain, carrying, student = (
        load_file(stage / name / "model.safetensors") for name in ("teacher", "teacher-sw", "student")
    )
    assert {name: t.shape for name, t in plain.items()} == {name: t.shape for name, t in carrying.items()}
    words = "embeddings.word_embeddings.weight"
    assert (plain[words] != carrying[words]).any() and len(student[words]) == len(plain[words])
    query = "encoder.layer.1.attention.self.query.weight"
    difference = Difference.load(made[0] / NAME)
    assert int((plain[query] != carrying[query]).sum()) == len(difference.entries[query].indices) > 0
    assert not (stage / "teacher-en").exists()  # the plain one is its teacher
    tokenizers = [(stage / name / "tokenizer.json").read_bytes() for name in ("teacher", "teacher-sw", "student")]
    assert tokenizers[0] == tokenizers[1] == tokenizers[2]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"language": ""}, "No language"),
        ({"language": "xx"}, "xx"),
        ({"text": ("missing.txt",)}, "missing.txt"),
        ({"density": 0.0}, "`density` must be above 0"),
        ({"density": 1.0}, "cannot be chosen"),
        ({"density": 1e-9}, "is impossible"),
        ({"steps": 5, "epochs": 1.0}, "both say how long"),
        ({"steps": 0}, "`steps` must be at least 1"),
        ({"batch_size": 3, "accumulate": 2}, "equal parts"),
        ({"max_length": 5000}, "tokens at most"),
    ],
)
def test_bad_input(options: dict[str, Any], sentence: str, base: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(PolydistillError, match=sentence):
        sparse_train(config(base, text, tmp_path / "out", **options))
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_text_that_is_none_or_too_short_is_refused(
    base: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "short.txt").write_text("jambo\n")
    with pytest.raises(PolydistillError, match="too few for one block"):
        sparse_train(config(base, text, tmp_path / "out", text=(str(tmp_path / "short.txt"),)))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(PolydistillError, match=r"There is no (running )?text") as refused:
        sparse_train(config(base, text, tmp_path / "out", text=(), language="en"))
    assert "`text=en=PATH`" in refused.value.hint


def test_the_same_from_the_command_line(
    base: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [
        "sparse",
        "train",
        "--model",
        str(base),
        "--lang",
        "Swahili",
        "--text",
        str(text / "sw.txt"),
        "--steps",
        "4",
        "--batch-size",
        "4",
        "--max-length",
        "16",
        "-o",
        str(tmp_path / "out"),
    ]
    main([*args, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["command"] == "sparse train" and result["languages"] == ["sw"] and result["density"] < 0.0431
    main([*args, "--overwrite"])
    assert "held-out" in capsys.readouterr().out
