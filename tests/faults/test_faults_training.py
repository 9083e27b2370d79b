"""Errors and kills at the n-th thing that a training does to the disk: `--resume` comes to the same weights."""

from __future__ import annotations

import errno
import hashlib
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trainings
from amount import cases
from damage import damage
from disk import KILL, Disk, Ended, compile_library, has_compiler

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not has_compiler(), reason="needs Linux and a C compiler")]
FAULTS = (KILL, KILL, errno.ENOSPC, errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EACCES)
TUNING = "finetune --task ner --lang en --data-dir {0} --model {0}/base --batch-size 8 --max-length 32"
COMMANDS = {
    "finetune": f"{TUNING} --epochs 2 --lr 5e-3 --patience 0",
    "finetune that stops early": f"{TUNING} --epochs 6 --lr 1e-9 --patience 2",
    "bistil": "bistil en sw --model {0}/base --text en={0}/en.txt --text sw={0}/sw.txt --preset smoke --steps 4 "
    "--batch-size 4 --max-length 16 --precision float32 --task ner --data-dir {0} --task-batch-size 8 --task-epochs 2 "
    "--task-sparse-epochs 2 --density 0.1 --test-split en=none --test-split sw=none",
    "prokd": "prokd en sw --model {0}/base --data-dir {0} --max-length 32 --batch-size 8 --teacher-epochs 1 --epochs 2 "
    "--test-split en=none --test-split sw=none",
    "sparse train": "sparse train --model {0}/base --lang sw --text {0}/sw.txt --density 0.05 --steps 6 "
    "--batch-size 4 --max-length 16",
    "stack": "stack {0}/encoder {0}/llm --preset smoke --text {0}/en.txt --task nli --data-dir {0} --limit 16 "
    "--lora-dropout 0.1 --steps 4 --batch-size 8 --max-length 32 --task-max-length 48 --teacher-epochs 1 "
    "--task-epochs 1 --task-batch-size 8 --test-split dev",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainings.prepare(tmp_path_factory.mktemp("root") / "data")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    library = compile_library(tmp_path_factory.mktemp("library"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYDISTILL_CACHE", "cache")  # in the folder of each case
        with Disk(library, "trained") as disk:
            yield disk


def weights(folder: Path) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(trainings.weights(folder).items()):
        digest.update(name.encode() + content)
    return digest.hexdigest()


class Whole(NamedTuple):
    """A training that nothing happened to."""

    args: list[str]
    operations: int
    weights: str


@pytest.fixture(scope="module")
def whole(root: Path, disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    """Name of a command -> its arguments, what it does to the disk, and its weights."""
    found: dict[str, Whole] = {}

    def run(name: str) -> Whole:
        if name not in found:
            here, args = tmp_path_factory.mktemp("whole"), [*COMMANDS[name].format(root).split(), "-o", "out", "-q"]
            ended = disk.run(args, here, what=KILL)
            assert ended.code == 0 and ended.operations, ended.said
            found[name] = Whole(args, ended.operations, weights(here / "out"))
        return found[name]

    return run


def resumed(training: Whole, disk: Disk, here: Path) -> Ended:
    """What becomes of it with --resume."""
    there = ["--overwrite"] if (here / "out").exists() else []
    return disk.run([*training.args, "--resume", *there], here)


def is_one_sentence(ended: Ended) -> bool:
    said = ended.said
    return ended.code == 1 and said.count("Error: ") == 1 and "bug" not in said and "Traceback" not in said


@pytest.mark.parametrize("name", COMMANDS)
def test_a_training_that_fails_or_is_killed_goes_on_to_the_same_weights(
    name: str, disk: Disk, whole: Callable[[str], Whole], tmp_path: Path
) -> None:
    training, chance, here = whole(name), random.Random(name), tmp_path / "here"
    for _ in range(cases(1)):
        at, what = chance.randint(1, training.operations), chance.choice(FAULTS)
        here.mkdir()
        ended = disk.run(training.args, here, at=at, what=what)
        case = f"{errno.errorcode.get(what, 'KILL')} at operation {at} of {training.operations}: {ended.said}"
        if ended.code == 0:  # the fault came after all that matters, or never
            assert what != KILL and weights(here / "out") == training.weights, case
        else:
            assert ended.code == -9 if what == KILL else is_one_sentence(ended), case
            again = resumed(training, disk, here)
            assert again.code == 0 and weights(here / "out") == training.weights, (case, again.said)
            assert not list(here.glob(".out*")), case
        shutil.rmtree(here)


@pytest.mark.parametrize("name", ["finetune", "bistil"])
def test_damage_to_what_a_killed_training_left_is_noticed(
    name: str, disk: Disk, whole: Callable[[str], Whole], tmp_path: Path
) -> None:
    """It is made again, or there is one sentence; never other weights."""
    training, chance, here = whole(name), random.Random(f"damage {name}"), tmp_path / "here"
    for _ in range(cases(1)):
        here.mkdir()
        assert disk.run(training.args, here, at=chance.randint(50, training.operations - 10), what=KILL).code == -9
        left = sorted(path for path in here.rglob("*") if path.is_file() and path.stat().st_size)
        case = damage(chance.choice(left), chance)
        again = resumed(training, disk, here)
        if again.code == 0:
            assert weights(here / "out") == training.weights, case
        else:
            assert is_one_sentence(again), (case, again.said)
        shutil.rmtree(here)
