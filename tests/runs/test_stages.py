"""Stages: each is made once, whole or not at all, from those that it needs and in its share of the time."""

from __future__ import annotations

import errno
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kills import Listener
from safetensors import SafetensorError

from polydistill.errors import PolydistillError
from polydistill.progress import SILENT, Progress
from polydistill.runs import clock
from polydistill.runs.made import Made
from polydistill.runs.stages import Stage, Stages, Work, copy_result


def _made(work: Path, done: list[str], progress: Progress = SILENT) -> Stages:
    """Two stages, each of one file in a folder."""

    def make(name: str, work: Work) -> Made:
        def write(out: Path) -> dict[str, Any]:
            (out / "model").mkdir()
            (out / "model/weights").write_text(f"weights of {name}")
            return {}

        done.append(name)
        return Made(write, 2, [{"loss": 1.0}, {"loss": 0.5}])

    stages = Stages(work, progress)
    for name in ("one", "two"):
        stages.run(Stage(name, partial(make, name)))
    return stages


@pytest.mark.parametrize("name", ["model/weights", "stage.json", "losses.jsonl", "whole.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_stage_that_is_damaged_is_done_again(name: str, damage: str, tmp_path: Path) -> None:
    done, listener, file = list[str](), Listener(), tmp_path / "one" / name
    _made(tmp_path, done)
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-3] if damage == "cut" else content[:3] + bytes([content[3] ^ 1]) + content[4:])
    stages = _made(tmp_path, done, listener)
    assert done == ["one", "two", "one"] and "one is damaged, so the stage is done again" in listener.said
    assert (tmp_path / "one/model/weights").read_text() == "weights of one" and stages.done["one"].steps == 2


@pytest.mark.parametrize("links", [True, False])
def test_stages_stay_until_the_output_has_its_place(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    done = list[str]()
    for out in ("killed", "again"):
        _made(tmp_path / "work", done).link_into(tmp_path / out, ["one", "two"])
    assert done == ["one", "two"]
    found = {str(path.relative_to(tmp_path / "again")) for path in (tmp_path / "again").rglob("*") if path.is_file()}
    assert found == {f"{s}/{f}" for s in done for f in ("model/weights", "stage.json", "losses.jsonl")}


def test_a_disk_that_fills_in_a_stage_is_one_sentence(tmp_path: Path) -> None:
    """However the library that writes puts it."""
    errors = (
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        SafetensorError("Error while serializing: I/O error: Permission denied (os error 13)"),
        Exception("No space left on device (os error 28)"),  # tokenizers
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 125312 vs 125200"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        RuntimeError("basic_ios::clear: iostream error"),
    )
    for error in errors:

        def full(work: Work, error: Exception = error) -> Made:
            raise error

        with pytest.raises(PolydistillError, match=r"not be written to .*(is full|torch|permission).*resume"):
            Stages(tmp_path, SILENT).run(Stage("one", full))
    for mistake in (RuntimeError("mat1 and mat2 shapes"), ValueError("unexpected pos 1"), FileNotFoundError(2, "gone")):

        def wrong(work: Work, error: Exception = mistake) -> Made:
            raise error

        with pytest.raises(type(mistake), match=re.escape(str(mistake))):
            Stages(tmp_path, SILENT).run(Stage("one", wrong))


def test_a_stage_sees_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    seen = {}

    def make(name: str, work: Work) -> Made:
        seen[name] = sorted(work.done)
        return Made(lambda out: {"n": len(seen)})

    stages = Stages(tmp_path, SILENT)
    for name, needs in (("one", ()), ("two", ()), ("three", ("one",))):
        stages.run(Stage(name, partial(make, name), needs))
    assert seen == {"one": [], "two": [], "three": ["one"]}
    assert stages.done["three"].facts == {"n": 3} and stages.done["three"].folder == tmp_path / "three"


def test_the_minutes_are_shared_out_by_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares 2, 1, 0 and 1 of 12 minutes: 6 of 12; then, after 8 were used, half of 4; nothing; and all of 3."""
    now, given = [1000.0], {}

    def make(name: str, used: float, work: Work) -> Made:
        given[name] = work.minutes
        now[0] += 60 * used
        return Made(lambda out: {})

    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    plan = [("a", 2, 8.0), ("b", 1, 1.0), ("c", 0, 0.0), ("d", 1, 9.0), ("e", 1, 0.0)]
    made = [Stage(name, partial(make, name, used), share=share) for name, share, used in plan]
    Stages(tmp_path / "timed", SILENT).run_all(made[:4], 12)
    assert given == {"a": pytest.approx(6), "b": pytest.approx(2), "c": None, "d": pytest.approx(3)}
    Stages(tmp_path / "late", SILENT).run_all(made[3:], 9)
    assert given["e"] == 0
    Stages(tmp_path / "free", SILENT).run_all(made, None)
    assert set(given.values()) == {None}


def test_the_result_of_a_stage_is_copied_without_what_is_about_the_stage(tmp_path: Path) -> None:
    stages = _made(tmp_path / "work", [])
    copy_result(stages.done["two"], tmp_path / "out")
    assert [str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*")] == ["model", "model/weights"]
