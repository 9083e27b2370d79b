"""Folders with links and paths drawn at random: a copy holds nothing from outside, and nothing outside is touched."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny
from amount import cases

sys.path.insert(0, str(Path(__file__).parents[1]))

import hostile

from polydistill.errors import PolydistillError
from polydistill.methods.trim.method import trim
from polydistill.methods.trim.options import TrimOptions
from polydistill.models.copying import copy_model
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source

pytestmark = pytest.mark.faults

SECRET = "the secret of this machine"
UPWARDS = ["..", "../victim", "../../", "../" * 20, "./../victim", "a/../../victim", "0_Transformer/../../victim"]
ODD = [
    None,
    True,
    0,
    -1,
    1.5,
    [],
    ["../victim"],
    {},
    {"path": "../victim"},
    "\0",
    "a\0",
    "\ud800",
    "x" * 300,
    "a/" * 600,
]
PLAIN = ["", ".", "0_Transformer", "1_Pooling", "nothing", "model.safetensors", "ünï", " ", "a\nb", "~", "$HOME", "*"]
PACKAGES = ["sentence_transformers.models.", "sentence_transformers.models.", "", "os."]
KINDS = ["Transformer", "Pooling", "Normalize", "Dense", "Router", "Evil"]
OTHERS = [
    "notes.txt",
    "LICENSE",
    "README.md",
    "more",
    ".hidden",
    "deep/er/file.txt",
    "deep/folder",
    "stages/x",
    "x.jinja",
]
PARTS = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "merges.txt", "vocab.txt"]
NAMES = [
    *OTHERS,
    *PARTS,
    "spiece.model",
    "modules.json",
    "polydistill.json",
    "1_Pooling/config.json",
    "onnx/model.onnx",
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model_folder("bert", "base", tmp_path_factory.mktemp("good") / "m", tokenizer="xlm-roberta")


def some_path(draw: random.Random, root: Path) -> Any:
    """What a file might say in the place of a path."""
    return draw.choice([*UPWARDS, *ODD, *PLAIN, str(root / "victim"), "/etc/hostname", f"../{root.name}/victim"])


def some_link(draw: random.Random, root: Path, folder: Path) -> None:
    """A link, in a place of its own or of a file, to something inside or outside, or to another link."""
    path = folder / draw.choice(NAMES)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        return
    path.unlink(missing_ok=True)
    outside = [root / "secret.txt", root / "victim", root / "victim/model.safetensors", root, "/", "/dev/zero"]
    relative = ["..", "../secret.txt", "../victim/config.json", "../../blobs/0", "nothing", path.name]
    path.symlink_to(draw.choice([*outside, *relative, "config.json", *draw.sample(NAMES, 4)]))


def some_json(draw: random.Random, root: Path, folder: Path) -> None:
    """Another value in a file that names paths."""
    what = draw.randrange(5)
    if what == 0:
        listed = [
            {"idx": i, "path": some_path(draw, root), "type": draw.choice(PACKAGES) + draw.choice(KINDS)}
            for i in range(draw.randrange(3))
        ]
        (folder / "modules.json").write_text(json.dumps(draw.choice([listed, listed, {}, [3], [None], [[]]])))
    elif what == 1:
        names = [some_path(draw, root) for _ in range(draw.randrange(3))]
        weight_map = draw.choice([{f"t{i}": name for i, name in enumerate(names)}, names, None, 3])
        hostile.change_json(folder / "model.safetensors.index.json", weight_map=weight_map)
    elif what == 2:
        key = draw.choice(["vocab_file", "tokenizer_file", "fast_tokenizer_files", "source_spm", "init_inputs"])
        value = draw.choice([some_path(draw, root), [some_path(draw, root)]])
        hostile.change_json(folder / "tokenizer_config.json", **{key: value})
    elif what == 3:
        key = draw.choice(["tokenizer_name_or_path", "model_args", "processor_kwargs"])
        value = draw.choice([some_path(draw, root), {"cache_dir": some_path(draw, root)}])
        hostile.change_json(folder / "sentence_bert_config.json", **{key: value})
    elif draw.random() < 0.5:
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            (folder / "0_Transformer").mkdir(exist_ok=True)
            if (folder / name).is_file():
                (folder / name).rename(folder / "0_Transformer" / name)
        hostile.modules(folder, path=draw.choice(["0_Transformer", some_path(draw, root)]))
    else:
        hostile.change_json(folder / "adapter_config.json", base_model_name_or_path=some_path(draw, root))


def damage(draw: random.Random, root: Path, folder: Path) -> None:
    """One to four changes; a file that is a link or not whole by now stays as it is."""
    for _ in range(draw.randint(1, 4)):
        try:
            draw.choice([some_link, some_json])(draw, root, folder)
        except (OSError, ValueError):
            continue


def test_a_copy_holds_nothing_from_outside_and_nothing_outside_is_touched(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    text = tmp_path / "text.txt"
    text.write_text("\n".join(tiny.sentences("en", count=20)) + "\n", encoding="utf-8")
    ended: Counter[str] = Counter()
    for number in range(cases(300)):
        draw, root = random.Random(number), tmp_path / "root"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(good, root / "m")
        shutil.copytree(good, root / "victim")
        (root / "victim/LICENSE").write_text(SECRET)
        (root / "secret.txt").write_text(SECRET)
        damage(draw, root, root / "m")
        before = hostile.hashes(root)
        (root / "out").mkdir()
        try:
            if number % 10:
                copy_model(Source.open(resolve(ModelRef.parse(str(root / "m")))), root / "out")
            else:
                options = {"languages": ("en",), "text": (str(text),), "overwrite": True, "verify": False}
                trim(TrimOptions(model=str(root / "m"), output=root / "out", **options))
            ended["copied"] += 1
        except PolydistillError as error:
            assert error.hint and "\n" not in error.message, number
            ended["refused"] += 1
        copied = [path for path in (root / "out").rglob("*") if path.is_file()]
        assert not any(path.is_symlink() for path in (root / "out").rglob("*")), number
        assert not any(SECRET.encode() in path.read_bytes() for path in copied), number
        shutil.rmtree(root / "out")
        assert hostile.hashes(root) == before, f"case {number}: something outside the copy changed"
    assert min(ended["copied"], ended["refused"]) > 0.15 * ended.total(), ended
