"""Folders and files appear whole or not at all, and what is not ours to replace stays."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from polydistill.errors import PolydistillError, UsageError
from polydistill.outputs import check_file, check_output, new_folder, write_beside


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "out", overwrite=False) as partial:
        (partial / "x").write_text("1")
        assert not (tmp_path / "deep" / "out").exists()
    assert names(tmp_path / "deep") == ["out"]
    assert (tmp_path / "deep" / "out" / "x").read_text() == "1"


def test_an_existing_folder_is_replaced_only_when_asked_to(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with new_folder(out, overwrite=False) as partial:  # an empty one is no loss
        (partial / "polydistill.json").write_text("old")
    with pytest.raises(PolydistillError, match="exists already"), new_folder(out, overwrite=False):
        raise AssertionError("the block must not run")
    assert names(out) == ["polydistill.json"]
    with new_folder(out, overwrite=True) as partial:
        assert names(out) == ["polydistill.json"]
        (partial / "new").write_text("new")
    assert names(out) == ["new"]
    assert names(tmp_path) == ["out"]


def test_what_else_would_go_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out := tmp_path / "out").mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="was not written by polydistill"):
        check_output(out, overwrite=True)
    (out / "polydistill.json").write_text("{}")
    check_output(out, overwrite=True, reads=[None, "", tmp_path, "org/name", tmp_path / "outer"])
    for read in (out, str(out), out / "thesis.txt", out / "below"):
        (out / "below").mkdir(exist_ok=True)
        with pytest.raises(UsageError, match="is read here"):
            check_output(out, overwrite=True, reads=[read])
    monkeypatch.chdir(out / "below")
    for place in (Path(), Path(".."), out):
        with pytest.raises(UsageError, match="the folder that you are in"):
            check_output(place, overwrite=True)


def test_what_safetensors_cannot_write_is_said_in_a_sentence(tmp_path: Path) -> None:
    """It raises errors of its own, with the operating system's number in the text."""
    full = "Error while serializing: IoError(Os { code: 28, kind: StorageFull }) (os error 28)"
    with pytest.raises(PolydistillError, match="the disk is full"), new_folder(tmp_path / "out", overwrite=False):
        raise SafetensorError(full)
    assert not list(tmp_path.iterdir())
    with pytest.raises(SafetensorError, match="header"), new_folder(tmp_path / "out", overwrite=False):
        raise SafetensorError("header too large")


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(PolydistillError, match="is a file"), new_folder(tmp_path / "out", overwrite=True):
        pass
    assert (tmp_path / "out").read_text() == "x"


def fail(number: int) -> Callable[..., Any]:
    def raises(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return raises


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (OSError(errno.ENOSPC, "x"), "disk is full"),
        (OSError(errno.EROFS, "x"), "read-only"),
        (OSError(errno.EDQUOT, "x"), "quota"),
        (OSError(errno.EACCES, "x"), "permission"),
        (KeyboardInterrupt(), None),
        (MemoryError(), None),
        (PolydistillError("no", "way out"), "no"),
    ],
)
def test_a_failure_leaves_nothing_and_harms_nothing(
    failure: BaseException, said: str | None, existing: bool, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    if existing:
        out.mkdir()
        (out / "polydistill.json").write_text("old")
    expected = PolydistillError if said else type(failure)
    with pytest.raises(expected, match=said), new_folder(out, overwrite=existing) as partial:
        (partial / "half").write_text("half")
        raise failure
    assert names(tmp_path) == (["out"] if existing else [])
    assert not existing or (out / "polydistill.json").read_text() == "old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_place_where_no_folder_can_be_made(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", fail(number))
    out = tmp_path / "out"
    with pytest.raises(PolydistillError, match="could not be written") as caught, new_folder(out, overwrite=False):
        pass
    assert "-o" in caught.value.hint
    assert names(tmp_path) == []


def test_other_errors_are_not_explained_away(tmp_path: Path) -> None:
    with pytest.raises(PolydistillError, match="strange"), new_folder(tmp_path / "out", overwrite=False):
        raise OSError(errno.ENXIO, "strange")
    with pytest.raises(OSError, match="not of this machine"), new_folder(tmp_path / "out", overwrite=False):
        raise OSError("not of this machine")
    assert names(tmp_path) == []


def test_a_name_full_of_wildcards_is_only_a_name(tmp_path: Path) -> None:
    (tmp_path / ".other.partial-x").mkdir()
    with new_folder(tmp_path / "o*", overwrite=False):
        pass
    assert names(tmp_path) == [".other.partial-x", "o*"]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "x"), KeyboardInterrupt()])
def test_a_failing_rename_puts_the_old_folder_back(
    failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "polydistill.json").write_text("old")
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if "partial" in self.name:
            raise failure
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises((PolydistillError, KeyboardInterrupt)), new_folder(out, overwrite=True) as partial:
        (partial / "new").write_text("new")
    assert names(tmp_path) == ["out"]
    assert names(out) == ["polydistill.json"]


def test_what_dead_processes_left_is_cleaned_up(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine, others = f".out.partial-{os.getpid()}", f".out.partial-{os.getppid()}"
    for name in (f".out.partial-{dead.pid}", mine, others, ".other.partial-1", ".out.partial-x"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "big").write_text("half")
    with new_folder(tmp_path / "out", overwrite=False) as partial:
        assert names(partial) == []
    assert names(tmp_path) == sorted([".other.partial-1", others, "out"])


# ---- files ----


def test_a_file_appears_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "deep" / "run.json"
    write_beside(file, b"1")
    write_beside(file, b"2")
    assert file.read_bytes() == b"2" and names(file.parent) == ["run.json"]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(PolydistillError, match=r"the disk is full.*--html"):
        write_beside(file, b"3", option="--html")
    monkeypatch.undo()
    assert file.read_bytes() == b"2" and names(file.parent) == ["run.json"]


def test_a_file_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("mine")
    with pytest.raises(PolydistillError, match=r"exists already.*--html"):
        check_file(tmp_path / "run.json", overwrite=False, option="--html")
    with pytest.raises(PolydistillError, match="is a folder"):
        check_file(tmp_path, overwrite=True)
    check_file(tmp_path / "run.json", overwrite=True)
    check_file(tmp_path / "new.json", overwrite=False)
