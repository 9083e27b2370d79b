"""The folder of an unfinished run: one run at a time, and nothing lost."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from polydistill.errors import PolydistillError
from polydistill.progress import SILENT
from polydistill.runs.folder import work_folder
from polydistill.runs.made import Made
from polydistill.runs.stages import Stage, Stages

HOLD = """
import sys, time
from pathlib import Path
from polydistill.progress import SILENT
from polydistill.runs.folder import work_folder
with work_folder(Path(sys.argv[1]), {}, resume=False, overwrite=False, progress=SILENT):
    print("here", flush=True)
    time.sleep(60)
"""


def folder(output: Path, *, resume: bool = False, overwrite: bool = False, **config: Any) -> Any:
    return work_folder(output, config, resume=resume, overwrite=overwrite, progress=SILENT)


def stage(work: Path, name: str = "one") -> None:
    Stages(work, SILENT).run(Stage(name, lambda work: Made(lambda out: {"checkpoints": str(work.checkpoints)})))


@pytest.mark.parametrize("again", [{}, {"resume": True}, {"overwrite": True}])
def test_a_second_run_of_the_same_output_is_kept_out(again: dict[str, bool], tmp_path: Path) -> None:
    with folder(tmp_path / "out") as work:
        stage(work)
        with (
            pytest.raises(PolydistillError, match=r"Another run is making .*out right now"),
            folder(tmp_path / "out", **again),
        ):
            pass
        assert (work / "one/stage.json").is_file()
        with folder(tmp_path / "other") as beside:
            assert beside != work
    assert not list(tmp_path.iterdir())
    with folder(tmp_path / "out"):
        pass


def test_other_processes_of_a_run_share_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with folder(tmp_path / "out") as work:
        stage(work)
        monkeypatch.setenv("RANK", "1")
        with folder(tmp_path / "out", overwrite=True) as shared:
            assert shared == work
        assert (work / "one/stage.json").is_file()
        monkeypatch.delenv("RANK")


def test_a_file_system_without_locks_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with folder(tmp_path / "out") as work:
        stage(work)
    assert not list(tmp_path.iterdir())


def test_a_run_that_begins_while_another_one_ends_has_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, times = fcntl.flock, []

    def after_the_end(*given: Any) -> None:
        times.append(len(list(tmp_path.iterdir())))
        if len(times) < 3:  # the other one takes its folder away between our `open` and our lock
            shutil.rmtree(tmp_path / ".out.training")
        lock(*given)

    monkeypatch.setattr(fcntl, "flock", after_the_end)
    with folder(tmp_path / "out") as work:
        monkeypatch.undo()
        assert times == [1] * 4 and work.is_dir()  # the fourth is for the file of settings
        with pytest.raises(PolydistillError, match="right now"), folder(tmp_path / "out"):
            pass
    assert not list(tmp_path.iterdir())


def test_the_lock_is_held_until_the_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remove, refused = shutil.rmtree, []

    def slowly(path: Path) -> None:
        with pytest.raises(PolydistillError, match="right now"), folder(tmp_path / "out", resume=True):
            pass
        refused.append(path.name)
        remove(path)

    with folder(tmp_path / "out") as work:
        stage(work, "one")
        stage(work, "two")
        monkeypatch.setattr(shutil, "rmtree", slowly)
    assert sorted(refused) == ["one", "two"] and not list(tmp_path.iterdir())


def test_what_cannot_be_removed_is_not_taken_for_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(KeyboardInterrupt), folder(tmp_path / "out") as work:
        stage(work)
        raise KeyboardInterrupt
    monkeypatch.setattr(shutil, "rmtree", never)
    with (
        pytest.raises(PolydistillError, match=r"one cannot be removed \(Permission denied\)"),
        folder(tmp_path / "out", overwrite=True),
    ):
        pass


def test_a_run_that_fails_before_its_first_stage_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError), folder(tmp_path / "sub/out", config=object()):
        pass
    with pytest.raises(KeyboardInterrupt), folder(tmp_path / "sub/out"):
        raise KeyboardInterrupt
    assert not list((tmp_path / "sub").iterdir())


def test_a_killed_run_keeps_nobody_out(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout and running.stdout.readline() == "here\n"
        with pytest.raises(PolydistillError, match="right now"), folder(tmp_path / "out"):
            pass
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        with folder(tmp_path / "out") as work:
            assert work.is_dir()


def test_what_an_unfinished_run_did_stays_until_it_is_overwritten(tmp_path: Path) -> None:
    def stops(**options: Any) -> None:
        with folder(tmp_path / "out", **options) as work:
            if not (work / "one").is_dir():
                stage(work)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stops()
    kept = tmp_path / ".out.training/one/stage.json"
    with pytest.raises(PolydistillError, match=r"unfinished training of .*out is there"):
        stops()
    with pytest.raises(PolydistillError, match="had other options or data"):
        stops(resume=True, seed=1)
    with pytest.raises(PolydistillError, match=r"had other options or data \(`lr`, `task`\)\."):
        stops(resume=True, options={"lr": 1, "task": "ner"})
    (tmp_path / ".out.training/config.json").rename(tmp_path / "good")
    for damaged in (None, b"", b'{"seed'):
        if damaged is not None:
            (tmp_path / ".out.training/config.json").write_bytes(damaged)
        with pytest.raises(PolydistillError, match=r"is damaged: .* cannot be read"):
            stops(resume=True)
    (tmp_path / "good").replace(tmp_path / ".out.training/config.json")
    was = kept.stat().st_mtime_ns
    with pytest.raises(KeyboardInterrupt):
        stops(resume=True)
    assert kept.stat().st_mtime_ns == was
    with folder(tmp_path / "out", overwrite=True, seed=1) as work:
        assert not list(work.glob("*/stage.json"))


@pytest.mark.parametrize("settings", ['{"lr": 1}', '{"format": 1, "options": {}}', "[1]"])
def test_a_run_that_another_version_began_is_not_gone_on_with(settings: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), folder(tmp_path / "out") as work:
        stage(work)
        raise KeyboardInterrupt
    (tmp_path / ".out.training/config.json").write_text(settings)
    with (
        pytest.raises(PolydistillError, match="was begun by another version of polydistill") as refused,
        folder(tmp_path / "out", resume=True),
    ):
        pass
    assert "`overwrite`" in str(refused.value.hint)
    with folder(tmp_path / "out", overwrite=True) as work:
        assert not list(work.glob("*/stage.json"))
