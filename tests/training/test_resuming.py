"""Trainings that are stopped: what they come to when they go on, whatever was lost or damaged meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trainings
from kills import Killed, Listener
from trainings import language, tune, weights

from polydistill.distill import cached
from polydistill.distill.kept import kept_on_disk
from polydistill.distill.signals import LOGITS, Signal
from polydistill.errors import PolydistillError
from polydistill.models.loading import load_tokenizer
from polydistill.progress import SILENT
from polydistill.training.loop import collator
from polydistill.training.resuming import checkpoint_of, newest_checkpoint, state_of
from polydistill.training.trainer import DevTrainer


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainings.prepare(tmp_path_factory.mktemp("root") / "data")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def before_the_best() -> Callable[..., None]:
    """Runs a training and kills it at the n-th time that the best weights would be loaded."""

    def stop(run: Callable[..., Any], *args: Any, times: int = 1, **options: Any) -> None:
        load, left = DevTrainer.load_best, [times]

        def dies(trainer: DevTrainer) -> None:
            left[0] -= 1
            if not left[0]:
                raise Killed
            load(trainer)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            patch.setattr(DevTrainer, "load_best", dies)
            run(*args, **options)

    return stop


def flip(file: Path, place: int = -3) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)


def same(a: Any, b: Any) -> bool:
    return bool(
        (a.facts["curves"], a.facts["steps"], a.selection) == (b.facts["curves"], b.facts["steps"], b.selection)
    ) and (weights(a.output) == weights(b.output))


def test_a_training_with_a_loss_of_its_own_is_killed_after_its_last_step(
    root: Path, tmp_path: Path, before_the_best: Callable[..., None]
) -> None:
    whole = language(root, tmp_path / "whole")
    before_the_best(language, root, tmp_path / "cut", times=2)
    resumed = language(root, tmp_path / "cut", resume=True)
    assert weights(resumed.output) == weights(whole.output)
    assert [stage["loss"] for stage in resumed.stages] == [stage["loss"] for stage in whole.stages]


@pytest.mark.parametrize("options", [{"lr": 1e-9, "epochs": 6, "patience": 2}, {"epochs": 0.7}, {"max_minutes": 1e-4}])
def test_a_training_that_had_stopped_stays_stopped(
    options: dict[str, Any], root: Path, tmp_path: Path, before_the_best: Callable[..., None]
) -> None:
    """By patience, within an epoch, or because the time was up."""
    whole = tune(root, tmp_path / "whole", **options)
    before_the_best(tune, root, tmp_path / "cut", **options)
    listener = Listener()
    assert same(tune(root, tmp_path / "cut", listener, resume=True, **options), whole)
    assert listener.left == 1000  # no dev score was taken again


def test_the_curve_of_the_loss_goes_on_where_a_check_lies_between_two_of_its_points(root: Path, tmp_path: Path) -> None:
    options = {"batch_size": 1, "limit": 23, "checks": 1}  # a point every second step, a check every 23rd
    whole = tune(root, tmp_path / "whole", **options)
    with pytest.raises(Killed):
        tune(root, tmp_path / "cut", Listener(1), **options)
    assert same(tune(root, tmp_path / "cut", resume=True, **options), whole)


LATE = {"lr": 0.05, "epochs": 3, "batch_size": 8}  # the best checkpoint is not the last one before the kill


@pytest.fixture(scope="module")
def stopped(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """(a run that was not stopped, the folder of one that was, before its last check)."""
    place = tmp_path_factory.mktemp("stopped")
    whole = tune(root, place / "whole", **LATE)
    with pytest.raises(Killed):
        tune(root, place / "cut", Listener(len(whole.facts["curves"]["dev"]) - 1), **LATE)
    return whole, place / ".cut.training"


def _no_best(work: Path) -> None:
    """As a kill leaves it that meets the removal of checkpoints."""
    newest = newest_checkpoint(work)
    assert newest
    best = checkpoint_of(work, state_of(newest)["best_global_step"])
    assert best != newest
    shutil.rmtree(best)


def _flipped(name: str) -> Callable[[Path], None]:
    def damage(work: Path) -> None:
        newest = newest_checkpoint(work)
        assert newest
        flip(newest / name)

    return damage


def _cut_short(name: str) -> Callable[[Path], None]:
    def damage(work: Path) -> None:
        newest = newest_checkpoint(work)
        assert newest
        os.truncate(newest / name, 0)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        _no_best,
        _flipped("model.safetensors"),
        _flipped("optimizer.pt"),
        _flipped("rng_state.pth"),
        _cut_short("trainer_state.json"),
        _cut_short("scheduler.pt"),
        _cut_short("whole.json"),
    ],
)
def test_a_checkpoint_that_is_damaged_is_left_out(
    damage: Callable[[Path], None], root: Path, stopped: tuple[Any, Path], tmp_path: Path
) -> None:
    whole, work = stopped
    shutil.copytree(work, tmp_path / ".cut.training")
    damage(tmp_path / ".cut.training/.tuned.training")
    listener = Listener()
    assert same(tune(root, tmp_path / "cut", listener, resume=True, **LATE), whole)
    assert "whole, so that it is left out" in listener.said


def test_the_best_checkpoint_is_what_was_chosen_when_it_is_loaded(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = DevTrainer.load_best

    def damaged(trainer: DevTrainer) -> None:
        flip(
            checkpoint_of(Path(str(trainer.args.output_dir)), trainer.state.best_global_step or 0) / "model.safetensors"
        )
        load(trainer)

    whole = tune(root, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(PolydistillError, match=r"has the best weights.*Resume the run"):
        patch.setattr(DevTrainer, "load_best", damaged)
        tune(root, tmp_path / "cut")
    assert same(tune(root, tmp_path / "cut", resume=True), whole)


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name_and_before_others_go(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, rename, remove, seen = os.fsync, Path.rename, shutil.rmtree, list[tuple[str, str]]()
    begun, unsaved = list[bool](), list[Path]()

    def syncs(handle: int) -> None:
        seen.append(("sync", str(Path(f"/proc/self/fd/{handle}").readlink())))
        fsync(handle)

    def renames(path: Path, target: Path) -> Path:
        if target.name.startswith("checkpoint-"):
            on_disk = {place for what, place in seen if what == "sync"}
            unsaved.extend(p for p in (path, *path.rglob("*")) if str(p) not in on_disk)
            begun.append(True)
        seen.append(("rename", str(target)))
        return rename(path, target)

    def removes(path: Path, **options: Any) -> None:
        if Path(path).name.startswith("checkpoint-") and Path(path).exists():
            renamed = max(i for i, (what, place) in enumerate(seen) if what == "rename" and "/checkpoint-" in place)
            assert ("sync", str(Path(path).parent)) in seen[renamed:]
        remove(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", syncs)
        patch.setattr(Path, "rename", renames)
        patch.setattr(shutil, "rmtree", removes)
        tune(root, tmp_path / "out")
    assert len(begun) == 4 and not unsaved


# ---- signals on disk


class Wide:
    """A teacher that says something else of an example in a wider batch."""

    needs = frozenset({Signal(LOGITS)})

    def signals(self, batch: Any) -> dict[Signal, torch.Tensor]:
        ids = batch["input_ids"]
        return {Signal(LOGITS): ids.float().sum(-1, keepdim=True) * torch.tensor([ids.shape[1], 1.0, 2.0])}


@pytest.fixture
def asked(root: Path, tmp_path: Path) -> Callable[..., Any]:
    """What comes of asking for a teacher with its signals on disk: the teacher, and what it says of some inputs."""
    tokenizer = load_tokenizer(root / "base")
    lines = [f"the red house {'and ' * (i % 7)}" for i in range(50)]
    encoded = tokenizer(lines, verbose=False)
    features = [{**{key: encoded[key][i] for key in encoded}, "example_id": i, "example": i} for i in range(50)]
    batch = collator(tokenizer, about=True)(features[3:11])

    def ask(note: str = "signals.json", **options: Any) -> tuple[Any, torch.Tensor]:
        wanted = {"max_bytes": 1 << 20, "progress": SILENT, "note": tmp_path / note, **options}
        teacher = kept_on_disk(Wide(), {}, features, tokenizer, **wanted)
        return teacher, teacher.signals(batch)[Signal(LOGITS)]

    return ask


def _full(left: int) -> Callable[[Any, Any], None]:
    """A disk that takes so many writes."""
    write, many = cached.write_all, [left]

    def fills(out: Any, data: Any) -> None:
        many[0] -= 1
        if many[0] < 0:
            raise OSError(28, "No space left on device")
        write(out, data)

    return fills


def test_signals_stay_on_disk_or_off_it_when_a_run_goes_on(
    asked: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, first = asked()
    assert isinstance(kept, cached.CachedTeacher) and kept.is_full
    monkeypatch.setattr(cached, "_free", lambda folder: 0)
    again, second = asked(max_bytes=1)
    assert isinstance(again, cached.CachedTeacher) and torch.equal(first, second)
    off, other = asked("other.json", max_bytes=1)
    assert isinstance(off, Wide) and not torch.equal(first, other)
    monkeypatch.undo()
    still, same_as_other = asked("other.json")
    assert isinstance(still, Wide) and torch.equal(other, same_as_other)


def test_signals_that_no_longer_fit_end_the_run_in_a_sentence(
    asked: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = asked()
    shutil.rmtree(tmp_path / "cache")
    with monkeypatch.context() as patch, pytest.raises(PolydistillError, match="there is no room for them any more"):
        patch.setattr(cached, "write_all", _full(20))
        asked()
    assert torch.equal(asked()[1], first)


def test_a_disk_that_fills_with_signals_has_none_of_them(
    asked: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cached, "write_all", _full(20))
        assert isinstance(asked()[0], Wide)
    assert isinstance(asked()[0], Wide)


def test_a_decision_that_is_damaged_is_not_guessed(asked: Callable[..., Any], tmp_path: Path) -> None:
    asked()
    for content in (b"", b"tru", b"1", b"null"):
        (tmp_path / "signals.json").write_bytes(content)
        with pytest.raises(PolydistillError, match=r"signals.json is damaged.*`overwrite`"):
            asked()
