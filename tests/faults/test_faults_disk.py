"""Errors, kills and power cuts at the n-th thing that a command does to the disk: old or new, never half."""

from __future__ import annotations

import errno
import hashlib
import json
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
from amount import cases
from disk import KILL, Disk, Ended, Stopped, compile_library, has_compiler

from polydistill.card import is_unedited

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not has_compiler(), reason="needs Linux and a C compiler")]
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT)
TRIM = ["trim", "--model", "model", "--lang", "ro", "--text", "ro.txt", "--no-verify", "-o", "out", "-q"]
OTHER = ["--vocab-size", "300"]
COMMANDS = {
    "trim": TRIM,
    "trim --overwrite": [*TRIM, *OTHER, "--overwrite"],
    "count": ["count", "--model", "model", "--lang", "ro", "--text", "ro.txt", "-o", "counts.json", "-q"],
    "card": ["card", "trimmed", "-o", "card.md", "-q"],
}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def disk(library: Path) -> Iterator[Disk]:
    with Disk(library) as disk:
        yield disk


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, disk: Disk) -> Path:
    """A model in shards, its text, and a trimmed folder."""
    folder = tmp_path_factory.mktemp("inputs")
    tiny.model_folder("bert", "base", folder / "model", tokenizer="xlm-roberta", rows=421, shards=2)
    (folder / "ro.txt").write_text("\n".join(tiny.sentences("ro", count=100)) + "\n", encoding="utf-8")
    assert disk.run([*TRIM[:-3], "-o", "trimmed", "-q"], folder).code == 0
    return folder


def contents(place: Path) -> dict[str, str]:
    """File -> hash of what it says, without what differs from run to run."""
    files = [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]
    return {str(p.relative_to(place)): hashlib.sha256(_lasting(p)).hexdigest() for p in files}


def _lasting(path: Path) -> bytes:
    if path.name == "README.md":
        text = path.read_text(encoding="utf-8")
        assert is_unedited(text)
        return b"a card"
    if path.name != "polydistill.json":
        return path.read_bytes()
    record = json.loads(path.read_bytes())
    for name in ("seconds", "peak_memory_bytes"):
        record["result"].pop(name)
    return json.dumps(record).encode()


class Scene:
    """A folder with everything that a command reads, and what its output is before and after."""

    def __init__(self, name: str, inputs: Path, folder: Path, disk: Disk) -> None:
        self.args, self.folder, self._disk = COMMANDS[name], folder, disk
        self.output = folder / self.args[self.args.index("-o") + 1]
        shutil.copytree(inputs, folder)
        if "--overwrite" in self.args:
            assert disk.run(TRIM, folder).code == 0
        self.before = self._output()
        self.names = self._names()
        self._saved = folder.with_name("saved")
        if self.before:
            shutil.copytree(self.output, self._saved)
        ended = disk.run(self.args, folder)
        assert ended.code == 0, ended.said
        self.after, self.operations = self._output(), ended.operations or 0
        self.all_names = self._names()
        assert self.before != self.after and self.operations > 5
        self.steps = self.again(what=KILL).operations or 0

    def again(self, **fault: int) -> Ended:
        """Runs the command from the beginning, with a fault."""
        self.reset()
        return self._disk.run(self.args, self.folder, **fault)

    def reset(self) -> None:
        """Makes the folder what it was before."""
        if self.output.is_file():
            self.output.unlink()
        shutil.rmtree(self.output, ignore_errors=True)
        if self.before:
            shutil.copytree(self._saved, self.output)
        assert self._names() == self.names

    def check_failed(self, ended: Ended) -> None:
        """Either it succeeded, or it said so in one sentence and left everything as it was."""
        assert "bug" not in ended.said and "Traceback" not in ended.said, ended.said
        assert ended.code in (0, 1), ended
        if ended.code == 0:
            assert self._output() == self.after
            assert self._names() == self.all_names
            return
        assert ended.said.count("Error: ") == 1
        assert self._output() in (self.before, self.after)
        assert self._names() in (self.names, self.all_names)

    def check_killed(self, ended: Ended) -> None:
        """Old or new is in place, whole, and the next run succeeds and tidies up."""
        assert ended.code == -9
        assert self._output() in (self.before, self.after)
        known = {*self.all_names, f".{self.output.name}.partial", f".{self.output.name}.lock"}
        assert set(self._names()) <= known
        if self.output.exists() and "--overwrite" not in self.args:
            return
        assert self._disk.run(self.args, self.folder).code == 0
        assert self._output() == self.after and self._names() == self.all_names

    def _output(self) -> dict[str, str]:
        return contents(self.output) if self.output.exists() else {}

    def _names(self) -> list[str]:
        return sorted(p.name for p in self.folder.iterdir())


@pytest.fixture
def scene(request: pytest.FixtureRequest, inputs: Path, tmp_path: Path, disk: Disk) -> Scene:
    return Scene(request.param, inputs, tmp_path / "here", disk)


def moments(operations: int, few: int, seed: int) -> list[int]:
    """Some of a run's operations, always with its first and its last ones."""
    ends = {1, operations, operations - 1, operations - 2}
    others = [n for n in range(2, operations - 2) if n not in ends]
    return sorted(ends | set(random.Random(seed).sample(others, min(len(others), cases(few)))))


@pytest.mark.parametrize("scene", COMMANDS, indirect=True)
def test_a_disk_that_refuses_something_costs_nothing(scene: Scene) -> None:
    """The n-th operation fails, with or without all later ones: one sentence, and everything as it was."""
    choose = random.Random(1)
    for at in moments(scene.operations, 6, seed=0):
        ended = scene.again(at=at, what=choose.choice(ERRORS), once=choose.random() < 0.5)
        scene.check_failed(ended)


@pytest.mark.parametrize("scene", COMMANDS, indirect=True)
def test_a_kill_leaves_old_or_new(scene: Scene) -> None:
    for at in moments(scene.steps, 5, seed=2):
        scene.check_killed(scene.again(at=at, what=KILL))
        for left in (".partial", ".lock"):
            path = scene.folder / f".{scene.output.name}{left}"
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many kilobytes in memory."""
    place = tmp_path / "small"
    place.mkdir()

    def mount(size: int) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", place], check=True)
        return place

    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=False).returncode:
        pytest.skip("may not mount file systems")
    subprocess.run(["umount", place], check=True)
    yield mount
    subprocess.run(["umount", place], check=False)


def test_a_disk_that_is_really_full(inputs: Path, disk: Disk, small_disk: Callable[[int], Path]) -> None:
    """A result fits whole, or nothing of it stays: on disks from too small for anything to just large enough."""
    whole = contents(inputs / "trimmed")
    ends = []
    for size in [*random.Random(3).sample(range(8, 700), cases(6)), 8, 2000]:
        place = small_disk(size)
        ended = disk.run([*TRIM[:-3], "-o", str(place / "out"), "-q"], inputs)
        found = sorted(p.name for p in place.iterdir())
        if ended.code == 0:
            assert found == ["out"] and contents(place / "out").keys() == whole.keys()
        else:
            assert ended.code == 1 and "the disk is full" in ended.said and found == []
        ends.append(ended.code)
        subprocess.run(["umount", place], check=True)
    assert set(ends) == {0, 1}


class Image:
    """An ext4 file system in a file, mounted; a copy of the file is what a power cut would leave.

    Args:
        folder: Where the file and the mount points are made.
    """

    def __init__(self, folder: Path) -> None:
        self._file, self.place = folder / "image", folder / "mounted"
        self.place.mkdir()
        with self._file.open("wb") as file:
            file.truncate(24 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", self._file], check=True)
        if subprocess.run(["mount", "-o", "loop", self._file, self.place], check=False).returncode:
            pytest.skip("may not mount file systems")

    def after_a_power_cut(self, name: str) -> dict[str, str]:
        """What the file system would hold of a folder if the power went now."""
        copy, place = self._file.with_name("copy"), self.place.with_name("after")
        shutil.copyfile(self._file, copy)
        place.mkdir(exist_ok=True)
        subprocess.run(["mount", "-o", "loop", copy, place], check=True)
        try:
            return contents(place / name) if (place / name).exists() else {}
        finally:
            subprocess.run(["umount", place], check=True)

    def close(self) -> None:
        """Unmounts it."""
        subprocess.run(["umount", self.place], check=True)


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4")
    image = Image(tmp_path)
    yield image
    image.close()


def test_what_is_said_to_be_written_survives_a_power_cut(inputs: Path, disk: Disk, image: Image) -> None:
    """A copy of the mounted image, made right after the command, holds every byte."""
    for args in (TRIM, [*TRIM, *OTHER, "--overwrite"], [*TRIM, "--overwrite"]):
        out = image.place / "in/a/new/folder/out"
        assert disk.run([str(out) if arg == "out" else arg for arg in args], inputs).code == 0
        assert image.after_a_power_cut("in/a/new/folder/out") == contents(out) != {}
    args = [str(image.place / "counts.json") if arg == "counts.json" else arg for arg in COMMANDS["count"]]
    assert disk.run(args, inputs).code == 0
    assert image.after_a_power_cut("counts.json") == contents(image.place / "counts.json")


def test_a_power_cut_in_the_middle_leaves_old_or_new(inputs: Path, disk: Disk, image: Image) -> None:
    out, seen = image.place / "out", []
    old_args = [*(str(out) if arg == "out" else arg for arg in TRIM), "--overwrite"]
    assert disk.run(old_args, inputs).code == 0
    old = contents(out)
    new_args = [*old_args, *OTHER]
    ended = disk.run(new_args, inputs, what=KILL)  # at no operation
    new, operations = contents(out), ended.operations or 0
    assert old != new
    for at in moments(operations, 6, seed=4):
        assert disk.run(old_args, inputs).code == 0
        stopped = disk.stop(new_args, inputs, at)
        if isinstance(stopped, Stopped):
            found = image.after_a_power_cut("out")
            disk.kill(stopped)
            assert found in (old, new), f"operation {at} of {operations}"
            seen.append(found == new)
    assert set(seen) == {False, True}
