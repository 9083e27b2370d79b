"""Folders and files appear whole or not at all, and what is not ours to replace stays."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from polydistill.errors import PolydistillError, UsageError
from polydistill.files import durable
from polydistill.files.outputs import check_file, check_output, new_folder, write_beside


def made(folder: Path, content: str) -> Path:
    """A folder that polydistill wrote."""
    folder.mkdir(exist_ok=True)
    (folder / "polydistill.json").write_text(content)
    return folder


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
    with pytest.raises(PolydistillError, match="already exists"), new_folder(out, overwrite=False):
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
    assert "`output`" in caught.value.hint
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


@pytest.fixture
def no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system where two names cannot change places."""
    monkeypatch.setattr(durable, "_renameat2", lambda *_: False)


@pytest.mark.usefixtures("no_exchange")
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "x"), KeyboardInterrupt()])
def test_a_failing_rename_puts_the_old_folder_back(
    failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = made(tmp_path / "out", "old")
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


@pytest.mark.usefixtures("no_exchange")
def test_a_folder_is_replaced_where_names_cannot_change_places(tmp_path: Path) -> None:
    with new_folder(made(tmp_path / "out", "old"), overwrite=True) as partial:
        (partial / "new").write_text("new")
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["new"]


@pytest.mark.usefixtures("no_exchange")
def test_what_a_kill_between_two_renames_left_is_not_replaced_unasked(tmp_path: Path) -> None:
    made(tmp_path / ".out.replaced", "old")
    with pytest.raises(PolydistillError, match="already exists"), new_folder(tmp_path / "out", overwrite=False):
        raise AssertionError("the block must not run")
    assert names(tmp_path) == ["out"] and (tmp_path / "out/polydistill.json").read_text() == "old"


def test_what_another_user_left_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".out.partial").mkdir()
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    said = r"\.out\.partial was left by another run.*Remove it by hand"
    with pytest.raises(PolydistillError, match=said), new_folder(tmp_path / "out", overwrite=False):
        raise AssertionError("the block must not run")


@pytest.mark.parametrize("new_is_there", [False, True])
def test_what_a_kill_between_two_renames_left_is_tidied_up(new_is_there: bool, tmp_path: Path) -> None:
    """Without the exchange the old folder has another name for a moment; the next run finds it."""
    made(tmp_path / ".out.replaced", "old")
    if new_is_there:
        made(tmp_path / "out", "new")
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "out", overwrite=True):
        raise KeyboardInterrupt
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out/polydistill.json").read_text() == ("new" if new_is_there else "old")


def test_a_replaced_folder_is_never_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a kill comes, the old or the new folder has the name."""
    out, seen = made(tmp_path / "out", "old"), []

    def watch(event: str, _: Any) -> None:
        if event in ("os.rename", "shutil.rmtree", "os.remove", "os.rmdir") and watching:
            seen.append((out / "polydistill.json").read_text())

    watching = True
    sys.addaudithook(watch)
    with new_folder(out, overwrite=True) as partial:
        (partial / "polydistill.json").write_text("new")
    watching = False
    assert set(seen) == {"old", "new"} and names(tmp_path) == ["out"]


WRITE = """
import sys, time
from pathlib import Path
from polydistill.files.outputs import new_folder
with new_folder(Path(sys.argv[1]), overwrite="overwrite" in sys.argv) as partial:
    (partial / "polydistill.json").write_text("theirs")
    print("here", flush=True)
    sys.stdin.readline()
"""


def writing(out: Path, *more: str) -> subprocess.Popen[str]:
    """Another process that is writing the folder, and goes on when it is told to."""
    command = [sys.executable, "-c", WRITE, str(out), *more]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout and other.stdout.readline() == "here\n"
    return other


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_runs_do_not_make_the_same_folder(overwrite: bool, tmp_path: Path) -> None:
    with writing(tmp_path / "out") as other:
        with (
            pytest.raises(PolydistillError, match="Another run is making"),
            new_folder(tmp_path / "out", overwrite=overwrite),
        ):
            raise AssertionError("the block must not run")
        other.communicate("go on\n")
    assert other.returncode == 0 and names(tmp_path) == ["out"]
    assert (tmp_path / "out/polydistill.json").read_text() == "theirs"


def test_what_a_killed_run_left_is_cleaned_up(tmp_path: Path) -> None:
    with writing(tmp_path / "out") as other:
        other.kill()
    assert names(tmp_path) == [".out.lock", ".out.partial"]
    with new_folder(tmp_path / "out", overwrite=False) as partial:
        assert names(partial) == []
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_appears_meanwhile_is_left_as_it_is(overwrite: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = "was not written by polydistill" if overwrite else "appeared while this ran"
    with pytest.raises(PolydistillError, match=said), new_folder(out, overwrite=overwrite):
        out.mkdir()
        (out / "thesis.txt").write_text("years of work")
    assert names(tmp_path) == ["out"] and (out / "thesis.txt").read_text() == "years of work"


def test_an_earlier_output_that_appears_meanwhile_is_replaced_only_when_asked_to(tmp_path: Path) -> None:
    with pytest.raises(PolydistillError, match="appeared"), new_folder(tmp_path / "out", overwrite=False):
        made(tmp_path / "out", "another run's")
    (tmp_path / "out/polydistill.json").unlink()
    (tmp_path / "out").rmdir()
    with new_folder(tmp_path / "out", overwrite=True) as partial:
        made(tmp_path / "out", "another run's")
        (partial / "new").write_text("new")
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["new"]


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "an earlier output"])
def test_a_link_stays_and_what_it_points_to_is_written(there: str, tmp_path: Path) -> None:
    disk, link = tmp_path / "disk", tmp_path / "link"
    disk.mkdir()
    link.symlink_to(disk / "out")
    if there != "nothing":
        (disk / "out").mkdir()
    if there == "an earlier output":
        made(disk / "out", "old")
    with new_folder(link, overwrite=there == "an earlier output") as partial:
        assert partial.parent == disk
        (partial / "new").write_text("new")
    assert link.is_symlink() and names(disk) == ["out"] and names(disk / "out") == ["new"]


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    flush, rename = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", lambda self, to: events.append("rename") or rename(self, to))
    with new_folder(tmp_path / "out", overwrite=False) as partial:
        (partial / "sub").mkdir()
        (partial / "sub/weights").write_text("w")
        (partial / "config").write_text("c")
    assert events == ["weights", "sub", "config", ".out.partial", "rename", tmp_path.name]


# ---- files ----


def test_a_file_appears_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "deep" / "run.json"
    write_beside(file, b"1")
    write_beside(file, b"2")
    assert file.read_bytes() == b"2" and names(file.parent) == ["run.json"]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(PolydistillError, match=r"the disk is full.*`html`"):
        write_beside(file, b"3", option="html")
    monkeypatch.undo()
    assert file.read_bytes() == b"2" and names(file.parent) == ["run.json"]


def test_a_file_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("mine")
    with pytest.raises(PolydistillError, match=r"already exists.*`html`"):
        check_file(tmp_path / "run.json", overwrite=False, option="html")
    with pytest.raises(PolydistillError, match="is a folder"):
        check_file(tmp_path, overwrite=True)
    check_file(tmp_path / "run.json", overwrite=True)
    check_file(tmp_path / "new.json", overwrite=False)


@pytest.mark.parametrize("exchange", [True, False])
def test_a_file_that_appears_meanwhile_is_left_alone(
    exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(durable, "_renameat2", lambda *_: False)
    file = tmp_path / "run.json"
    write_beside(file, b"mine", overwrite=False)
    with pytest.raises(PolydistillError, match="already exists"):
        write_beside(file, b"new", overwrite=False)
    assert file.read_bytes() == b"mine" and names(tmp_path) == ["run.json"]


def test_a_link_to_a_file_stays_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk/run.json")
    write_beside(tmp_path / "link", b"1")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk/run.json").read_bytes() == b"1"
    assert names(tmp_path / "disk") == ["run.json"]


def test_what_is_read_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (text := tmp_path / "text.txt").write_text("text")
    (inside := tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "link").symlink_to(text)
    os.link(text, tmp_path / "same.txt")
    given = {
        text: (str(text), f"ro={text}", f"{text}#column", f"ro={text}#1", str(tmp_path / "t*.txt"), tmp_path / "link"),
        inside: (tmp_path / "model", f"ro={tmp_path / 'model'}"),
        tmp_path / "link": (text,),
        tmp_path / "same.txt": (text,),
    }
    for output, reads in given.items():
        for read in reads:
            with pytest.raises(UsageError, match="is read here"):
                check_file(output, overwrite=True, reads=[read])
    check_file(text, overwrite=True, reads=[None, "org/name", tmp_path / "model", tmp_path / "other.txt"])
    for name in ("new.json", "run.json", "README.md"):
        check_file(tmp_path / "model" / name, overwrite=True, reads=[tmp_path / "model"])
        (tmp_path / "model" / name).touch()
        check_file(tmp_path / "model" / name, overwrite=True, reads=[tmp_path / "model"])
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/run.json").touch()
    with pytest.raises(UsageError, match="is read here"):
        check_file(tmp_path / "texts/run.json", overwrite=True, reads=[tmp_path / "texts"])


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PolydistillError, match="is not a file"):
        check_file(tmp_path / "pipe", overwrite=True)


def test_many_processes_write_one_file_and_each_writes_it_whole(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from polydistill.files.durable import write_file\n"
    code += "for _ in range(50): write_file(Path(sys.argv[1]), sys.argv[2].encode() * 10_000)"
    others = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "f"), letter]) for letter in "abc"]
    assert [other.wait() for other in others] == [0, 0, 0]
    content = (tmp_path / "f").read_text()
    assert names(tmp_path) == ["f"] and len(content) == 10_000 and len(set(content)) == 1


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
def test_a_place_that_takes_no_files_is_refused() -> None:
    for write in (lambda: write_beside(Path("/proc/x"), b""), lambda: new_folder(Path("/proc/x"), overwrite=False)):
        with pytest.raises(PolydistillError, match="could not be written"), write() or nullcontext():
            pass


def test_a_path_through_a_folder_that_is_not_there_can_be_overwritten(tmp_path: Path) -> None:
    made(tmp_path / "out", "{}")
    check_output(tmp_path / "missing/../out", overwrite=True)
