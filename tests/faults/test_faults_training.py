"""Errors and kills at the n-th thing that a training does to the disk: `--resume` comes to the same weights."""

from __future__ import annotations

import errno
import hashlib
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trainings
from amount import cases
from disk import KILL, Disk, compile_library, has_compiler

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not has_compiler(), reason="needs Linux and a C compiler")]
FAULTS = (KILL, KILL, errno.ENOSPC, errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EACCES)
TUNING = "finetune --task ner --lang en --data-dir {0} --model {0}/base --batch-size 8 --max-length 32"
COMMANDS = {
    "finetune": f"{TUNING} --epochs 2 --lr 5e-3 --patience 0",
    "finetune that stops early": f"{TUNING} --epochs 6 --lr 1e-9 --patience 2",
    "bistil": "bistil en sw --model {0}/base --text en={0}/en.txt --text sw={0}/sw.txt --preset smoke --steps 4 "
    "--batch-size 4 --length 16 --precision float32 --task ner --data-dir {0} --task-batch-size 8 --task-epochs 2 "
    "--task-sparse-epochs 2 --density 0.1 --test-split en=none --test-split sw=none",
    "prokd": "prokd en sw --model {0}/base --data-dir {0} --length 32 --batch-size 8 --teacher-epochs 1 --epochs 2 "
    "--test-split en=none --test-split sw=none",
    "sparse train": "sparse train --model {0}/base --lang sw --text {0}/sw.txt --density 0.05 --steps 6 "
    "--batch-size 4 --length 16",
    "stack": "stack {0}/encoder {0}/llm --preset smoke --text {0}/en.txt --task nli --data-dir {0} --limit 16 "
    "--lora-dropout 0.1 --steps 4 --batch-size 8 --length 32 --task-length 48 --teacher-epochs 1 --task-epochs 1 "
    "--task-batch 8 --test-split dev",
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


@pytest.mark.parametrize("name", COMMANDS)
def test_a_training_that_fails_or_is_killed_goes_on_to_the_same_weights(
    name: str, root: Path, disk: Disk, tmp_path: Path
) -> None:
    command = [*COMMANDS[name].format(root).split(), "-o", "out", "-q"]
    (tmp_path / "whole").mkdir()
    whole = disk.run(command, tmp_path / "whole", what=KILL)
    assert whole.code == 0 and whole.operations, whole.said
    wanted, chance = weights(tmp_path / "whole/out"), random.Random(name)
    for _ in range(cases(1)):
        here, at, what = tmp_path / "here", chance.randint(1, whole.operations), chance.choice(FAULTS)
        here.mkdir()
        ended = disk.run(command, here, at=at, what=what)
        case = f"{name}: {errno.errorcode.get(what, 'KILL')} at operation {at} of {whole.operations}: {ended.said}"
        if ended.code == 0:  # the fault came after all that matters, or never
            assert what != KILL and weights(here / "out") == wanted, case
        elif what == KILL:
            assert ended.code == -9, case
        else:
            assert ended.code == 1 and ended.said.count("Error: ") == 1, case
            assert "bug" not in ended.said and "Traceback" not in ended.said, case
        if ended.code != 0:
            there = ["--overwrite"] if (here / "out").exists() else []
            resumed = disk.run([*command, "--resume", *there], here)
            assert resumed.code == 0, (case, resumed.said)
            assert weights(here / "out") == wanted, case
            assert not list(here.glob(".out*")), case
        shutil.rmtree(here)
