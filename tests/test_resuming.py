"""Trainings that are stopped: what they come to when they go on, whatever was lost or damaged meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trainings
from kills import Killed, Listener
from trainings import TRAININGS, bilingual, tune, weights

from polydistill.distill import cached
from polydistill.errors import PolydistillError
from polydistill.resuming import checkpoint_of, newest_checkpoint, state_of
from polydistill.stages import Stages
from polydistill.trainer import DevTrainer

pytest.register_assert_rewrite("trainings")


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
    return bool((a.curves, a.steps, a.selection) == (b.curves, b.steps, b.selection)) and (
        weights(a.output) == weights(b.output)
    )


@pytest.mark.parametrize(("training", "times"), [("bistil", 4), ("prokd", 2), ("sparse train", 2), ("stack", 1)])
def test_a_training_that_is_killed_after_its_last_step_only_writes_its_output(
    training: str, times: int, root: Path, tmp_path: Path, before_the_best: Callable[..., None]
) -> None:
    run = TRAININGS[training]
    whole = run(root, tmp_path / "whole").output
    before_the_best(run, root, tmp_path / "cut", times=times)
    assert weights(run(root, tmp_path / "cut", resume=True).output) == weights(whole)


@pytest.mark.parametrize(
    "options",
    [{"lr": 1e-9, "epochs": 6, "patience": 2}, {"epochs": 0.7}, {"epochs": 1.5, "checks": 3}, {"max_minutes": 1e-4}],
)
def test_a_training_that_had_stopped_stays_stopped(
    options: dict[str, Any], root: Path, tmp_path: Path, before_the_best: Callable[..., None]
) -> None:
    """By patience, within an epoch, or because the time was up."""
    whole = tune(root, tmp_path / "whole", **options)
    before_the_best(tune, root, tmp_path / "cut", **options)
    listener = Listener()
    assert same(tune(root, tmp_path / "cut", listener, resume=True, **options), whole)
    assert listener.left == 1000  # no dev score was taken again


@pytest.mark.parametrize("checks", [1, 2, 3])
def test_patience_counts_on_after_a_kill(checks: int, root: Path, tmp_path: Path) -> None:
    options = {"lr": 1e-9, "epochs": 6, "patience": 3}
    whole = tune(root, tmp_path / "whole", **options)
    with pytest.raises(Killed):
        tune(root, tmp_path / "cut", Listener(checks), **options)
    assert whole.steps < 36 and same(tune(root, tmp_path / "cut", resume=True, **options), whole)


def test_the_curve_of_the_loss_goes_on_where_a_check_lies_between_two_of_its_points(root: Path, tmp_path: Path) -> None:
    options = {"batch_size": 1, "limit": 23, "checks": 1}  # a point every second step, a check every 23rd
    whole = tune(root, tmp_path / "whole", **options)
    with pytest.raises(Killed):
        tune(root, tmp_path / "cut", Listener(1), **options)
    assert same(tune(root, tmp_path / "cut", resume=True, **options), whole)


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
    [_no_best, _flipped("model.safetensors"), _flipped("optimizer.pt"), _flipped("rng_state.pth"),
     _cut_short("trainer_state.json"), _cut_short("scheduler.pt"), _cut_short("whole.json")],
)  # fmt: skip
def test_a_checkpoint_that_is_damaged_is_left_out(damage: Callable[[Path], None], root: Path, tmp_path: Path) -> None:
    options = {"lr": 0.05, "epochs": 3}
    whole = tune(root, tmp_path / "whole", **options)
    assert whole.selection["step"] not in (whole.steps, whole.steps - 3)
    with pytest.raises(Killed):
        tune(root, tmp_path / "cut", Listener(len(whole.curves["dev"]) - 1), **options)
    damage(tmp_path / ".cut.training")
    listener = Listener()
    assert same(tune(root, tmp_path / "cut", listener, resume=True, **options), whole)
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
    with monkeypatch.context() as patch, pytest.raises(PolydistillError, match=r"has the best weights.*--resume"):
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


def _stopped(root: Path, output: Path, **options: Any) -> None:
    with pytest.raises(Killed):
        bilingual(root, output, Listener(9), **options)
    assert (output.with_name(f".{output.name}.training") / "signals.json").is_file()


def test_signals_stay_on_disk_or_off_it_when_a_run_goes_on(root: Path, tmp_path: Path) -> None:
    little = {"cache_gb": 1e-9}
    for before, after in (({}, little), (little, {})):
        name = "on" if after else "off"
        whole = bilingual(root, tmp_path / f"whole-{name}", **before).output
        _stopped(root, tmp_path / name, **before)
        assert weights(bilingual(root, tmp_path / name, resume=True, **after).output) == weights(whole)


def test_signals_that_no_longer_fit_end_the_run_in_a_sentence(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bilingual(root, tmp_path / "whole").output
    _stopped(root, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cache")

    def full(out: Any, data: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(PolydistillError, match=r"there is no room for them any more"):
        patch.setattr(cached, "write_all", full)
        bilingual(root, tmp_path / "cut", resume=True)
    assert weights(bilingual(root, tmp_path / "cut", resume=True).output) == weights(whole)


def test_a_disk_that_fills_with_signals_has_none_of_them(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bilingual(root, tmp_path / "whole", cache_gb=1e-9).output
    write, left = cached.write_all, [5]

    def fills(out: Any, data: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        write(out, data)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(cached, "write_all", fills)
        bilingual(root, tmp_path / "cut", Listener(9))
    assert left[0] < 0 and weights(bilingual(root, tmp_path / "cut", resume=True).output) == weights(whole)


# ---- stages


@pytest.mark.parametrize("name", ["student/model.safetensors", "stage.json", "whole.json"])
def test_a_stage_that_is_damaged_is_done_again(name: str, root: Path, tmp_path: Path) -> None:
    whole = bilingual(root, tmp_path / "whole").output
    _stopped(root, tmp_path / "cut")
    flip(tmp_path / ".cut.training/vocabulary" / name)
    listener = Listener()
    assert weights(bilingual(root, tmp_path / "cut", listener, resume=True).output) == weights(whole)
    assert "vocabulary is damaged, so that the stage is done again" in listener.said


@pytest.mark.parametrize("training", ["bistil", "prokd", "stack"])
def test_stages_stay_until_the_output_has_its_place(
    training: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Stages.put_into

    def dies(stages: Stages, out: Path) -> None:
        put(stages, out)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Stages, "put_into", dies)
        TRAININGS[training](root, tmp_path / "out")
    listener = Listener()
    output = TRAININGS[training](root, tmp_path / "out", listener, resume=True).output
    assert listener.left == 1000 and not list(output.glob("**/whole.json")) and list(output.glob("stages/*/stage.json"))


@pytest.mark.parametrize("name", ["config.json", "signals.json"])
def test_what_the_run_was_told_is_never_guessed(name: str, root: Path, tmp_path: Path) -> None:
    _stopped(root, tmp_path / "cut")
    os.truncate(tmp_path / ".cut.training" / name, 1)
    with pytest.raises(PolydistillError, match=rf"{name} is damaged.*--overwrite"):
        bilingual(root, tmp_path / "cut", resume=True)
