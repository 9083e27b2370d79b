"""Ctrl-C and SIGTERM at moments drawn by chance: one sentence, the right exit code, nothing half-written.

A moment is an event that Python's audit hooks see (an import, a file that is opened, renamed, removed), counted from
where the command line begins to load. Nearly all moments of a command that needs torch lie in its import.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from amount import cases

pytestmark = pytest.mark.faults

HOOK = """
import os, sys
number, left = map(int, os.environ["SIGNAL_AT"].split(":"))
seen = False
def count(event, args):
    global left, seen
    seen = seen or (event == "import" and args[0] == "polydistill.cli")
    if not seen or event in ("builtins.id", "object.__getattr__"):
        return
    left -= 1
    if left == 0:
        os.kill(os.getpid(), number)
sys.addaudithook(count)
"""
TEXT = ("--text", "{m}/ro.txt")
TRIM = ("trim", "--model", "{m}/e5", "--lang", "ro", "--text", "{m}/ro.txt")
NER = ("--task", "ner", "--lang", "en", "--data-dir", "{m}")
STACK = (
    "stack",
    "{m}/encoder",
    "{m}/llm",
    "--preset",
    "smoke",
    "--phase",
    "1",
    *TEXT,
    "--steps",
    "2",
    "--batch-size",
    "2",
    "--fit-lines",
    "8",
    "--max-length",
    "16",
)
COMMANDS: dict[str, tuple[tuple[str, ...], int]] = {  # and about how many moments each has
    "count": (("count", *TRIM[1:]), 3_400),
    "trim": ((*TRIM, "--no-verify"), 2_700),
    "verified trim": (TRIM, 30_000),
    "stack": (STACK, 44_500),
    "finetune": (("finetune", "--model", "{m}/e5", *NER, "--epochs", "1", "--max-length", "32"), 43_500),
    "evaluate": (("evaluate", "--model", "{m}/tuned", *NER), 30_000),
    "embed": (("embed", "{m}/stack"), 39_000),
}
QUICK = ("trim", "count", "trim", "verified trim", "trim", "count", "trim", "stack", "trim", "trim")
ALL = (*QUICK, *(name for name in COMMANDS if name not in QUICK))
LAST = 400  # moments before a command's end, which half of the signals are sent at


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny.model_folder("bert", "base", folder / "e5", tokenizer="xlm-roberta")
    tiny.model_folder("xlm-roberta", "base", folder / "encoder")
    tiny.model_folder("bert", "base", folder / "llm")
    (folder / "ro.txt").write_text("\n".join(tiny.sentences("ro", count=100)) + "\n", encoding="utf-8")
    (folder / "ner/en").mkdir(parents=True)
    for split, count in (("train", 24), ("dev", 8), ("test", 8)):
        words = "\n".join(f"Ana B-PER\nsees O\nCluj B-LOC\nnumber{i} O\n" for i in range(count))
        (folder / f"ner/en/{split}.conll").write_text(words)
    (folder / "hook").mkdir()
    (folder / "hook/sitecustomize.py").write_text(HOOK)
    return folder


def run(command: tuple[str, ...], models: Path, here: Path, spec: str) -> tuple[int, str]:
    """(exit code, stderr) of a command that sends itself a signal, `number:moment`, and writes `out`."""
    for name in ("work", "tmp"):
        (here / name).mkdir(parents=True)
    path = os.pathsep.join([str(models / "hook"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "polydistill", *(part.replace("{m}", str(models)) for part in command), "-o", "out"],
        cwd=here / "work",
        input="one text\nanother\n",
        capture_output=True,
        text=True,
        timeout=300,
        env={
            **os.environ,
            "PYTHONPATH": path,
            "SIGNAL_AT": spec,
            "TMPDIR": str(here / "tmp"),
            "HF_HUB_OFFLINE": "1",
            "POLYDISTILL_CACHE": str(here / "cache"),
        },
    )
    return done.returncode, done.stderr


def made(name: str, models: Path) -> Path:
    """What a command reads that another one makes, once."""
    maker = {"embed": ("stack", "stack"), "evaluate": ("tuned", "finetune")}.get(name)
    if maker and not (models / maker[0]).exists():
        code, err = run(COMMANDS[maker[1]][0], models, models / f"{maker[0]}-made", "2:-1")
        assert code == 0, err
        (models / f"{maker[0]}-made/work/out").rename(models / maker[0])
    return models


@pytest.mark.parametrize("case", range(cases(len(QUICK))))
def test_a_signal_at_any_moment_leaves_all_or_nothing(case: int, models: Path, tmp_path: Path) -> None:
    names = QUICK if case < len(QUICK) else ALL
    name, drawn = names[case % len(names)], random.Random(case)
    command, moments = COMMANDS[name]
    number = drawn.choice((signal.SIGINT, signal.SIGTERM))
    moment = drawn.randint(1, moments) if drawn.random() < 0.5 else drawn.randint(moments - LAST, moments)
    code, err = run(command, made(name, models), tmp_path, f"{int(number)}:{moment}")
    said = f"{name}, signal {int(number)} at {moment}: {code}, {err}"
    assert code in (0, 128 + number), said  # 0: the command had ended
    assert not any(word in err for word in ("Traceback", "Exception ignored", "bug in polydistill")), said
    assert code == 0 or "Interrupted; no unfinished output was left behind." in err, said
    left = {path.name for path in (tmp_path / "work").iterdir()} - {".out.training"}  # which --resume goes on from
    assert left <= {"out"} and (code or left), said
    if (tmp_path / "work/out").is_dir():
        assert (tmp_path / "work/out/README.md").is_file(), said  # the last file
    assert not [path for path in (tmp_path / "tmp").iterdir() if not path.name.startswith("torchinductor")], said
