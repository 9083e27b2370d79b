"""Recipes: what a file may say, how stages follow each other, resuming, and the recipes that ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trainings
from kills import Killed, Listener

from polydistill.cli import main
from polydistill.errors import PolydistillError
from polydistill.progress import SILENT, Progress
from polydistill.recipes.changes import changes
from polydistill.recipes.presets import preset_names, preset_text
from polydistill.recipes.recipe import read_recipe
from polydistill.recipes.run import RecipeResult, run_recipe
from polydistill.recipes.tune import Trial, halve, tune_recipe


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainings.prepare(tmp_path_factory.mktemp("recipes"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))


def defaults(root: Path) -> str:
    return f"""
[defaults]
data_dir = "{root}"
lr = 5e-3
max_length = 16
"""


def two_stages(root: Path, epochs: int = 2) -> str:
    return f"""{defaults(root)}
[[stage]]
name = "tuned"
method = "finetune"
model = "{root}/base"
task = "ner"
languages = ["en"]
epochs = {epochs}
batch_size = 4
patience = 0

[[stage]]
name = "student"
method = "bistil"
source = "en"
target = "sw"
model = "@tuned"
teacher = ["@tuned=2"]
text = ["en={root}/en.txt", "sw={root}/sw.txt"]
task = "ner"
preset = "smoke"
steps = 4
batch_size = 4
task_epochs = 1
task_sparse_epochs = 0
test_split = ["en=none", "sw=none"]

[[stage]]
name = "scores"
method = "evaluate"
model = ["@student", "@tuned"]
task = "ner"
languages = ["sw"]
"""


def cook(tmp_path: Path, text: str, output: str = "out", progress: Progress = SILENT, **options: Any) -> RecipeResult:
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    return run_recipe(read_recipe(file), tmp_path / output, progress=progress, **options)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_stages_follow_each_other_and_a_stopped_run_goes_on(root: Path, tmp_path: Path) -> None:
    whole = cook(tmp_path, two_stages(root))
    assert [stage.name for stage in whole.stages] == ["tuned", "student", "scores"]
    assert whole.result == str(tmp_path / "out/student") and all(stage.done for stage in whole.stages)
    assert {score["model"] for score in whole.stages[-1].scores} == {
        str(tmp_path / f"out/{n}") for n in ("tuned", "student")
    }
    told = json.loads((tmp_path / "out/recipe.json").read_text())
    assert [stage["name"] for stage in told["stages"]] == ["tuned", "student", "scores"]
    assert all(stage["seconds"] > 0 for stage in told["stages"]) and "torch" in told["versions"]
    record = json.loads((tmp_path / "out/student/polydistill.json").read_text())
    assert record["command"] == "bistil" and record["parent"]["command"] == "finetune"
    with pytest.raises(PolydistillError, match="exists") as caught:
        cook(tmp_path, two_stages(root))
    assert "`resume`" in caught.value.hint
    for kills in (1, 3):  # within the first stage, and later
        with pytest.raises(Killed):
            cook(tmp_path, two_stages(root), f"cut-{kills}", Listener(kills))
        resumed = cook(tmp_path, two_stages(root), f"cut-{kills}", resume=True)
        assert resumed.result is not None and weights(Path(resumed.result)) == weights(tmp_path / "out/student")


def test_some_stages_now_and_others_later(root: Path, tmp_path: Path) -> None:
    first = cook(tmp_path, two_stages(root), until="tuned")
    assert [stage.name for stage in first.stages] == ["tuned"]
    before = weights(tmp_path / "out/tuned")
    with pytest.raises(PolydistillError, match="The stage tuned has changed since"):
        cook(tmp_path, two_stages(root, epochs=3), resume=True)
    later = two_stages(root).replace("steps = 4", "steps = 5")  # a stage that has not begun may change
    second = cook(tmp_path, later, resume=True, until="student")
    assert [stage.seconds is None for stage in second.stages] == [True, False]
    assert weights(tmp_path / "out/tuned") == before
    with pytest.raises(PolydistillError, match="no stage more"):
        cook(tmp_path, two_stages(root), resume=True, until="more")
    anew = cook(tmp_path, two_stages(root, epochs=1), overwrite=True, until="tuned")
    assert anew.stages[0].seconds is not None and weights(tmp_path / "out/tuned") != before


def test_nothing_is_overwritten_that_no_recipe_made(root: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(PolydistillError, match="no recipe made it"):
        cook(tmp_path, two_stages(root), overwrite=True)
    assert (tmp_path / "out/mine.txt").read_text() == "mine"


def test_a_dry_run_checks_and_writes_nothing(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.toml").write_text(two_stages(root))
    main(["run", str(tmp_path / "recipe.toml"), "--dry-run", "-o", str(tmp_path / "out")])
    shown = capsys.readouterr().out
    assert "polydistill bistil en sw" in shown and "not yet" in shown and not (tmp_path / "out").exists()
    broken = two_stages(root).replace(f'"{root}/base"', '"/nowhere"')
    with pytest.raises(PolydistillError, match=r"Stage tuned: There is no folder /nowhere"):
        cook(tmp_path, broken, dry_run=True)


def test_the_command_says_what_was_made(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.toml").write_text(two_stages(root))
    given = ["run", str(tmp_path / "recipe.toml"), "--until", "tuned", "-o", str(tmp_path / "out")]
    main([*given, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["command"] == "run" and found["result"] == str(tmp_path / "out/tuned")
    main([*given, "--resume"])
    assert f"Written to {tmp_path}/out/tuned" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["run"])
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("text", "sentence", "hint"),
    [
        ("", "has no stage", "Write one"),
        ("stage = 3", "has no stage", "Write one"),
        ("[[stage]", "is not TOML", "Correct"),
        ("[more]\na = 1", "has no 'more'", "[defaults]"),
        ('[[stage]]\nmethod = "trim"', "stage 1 has no name", "letters"),
        ('[[stage]]\nname = "../x"\nmethod = "trim"', "stage 1 has no name", "letters"),
        ('[[stage]]\nname = "a"', "the stage a names no method", "finetune"),
        (
            '[[stage]]\nname = "a"\nmethod = "finetun"',
            "the method 'finetun', and there is none",
            "Did you mean finetune",
        ),
        (
            '[[stage]]\nname = "a"\nmethod = "trim"\n[[stage]]\nname = "a"\nmethod = "trim"',
            "two stages a",
            "of its own",
        ),
        ('[[stage]]\nname = "a"\nmethod = "trim"\nmodel = "@b"', "reads @b, which no stage before it makes", "first"),
        ('[[stage]]\nname = "a"\nmethod = "trim"\nmodel = "@a"', "reads @a", "first"),
        ('[[stage]]\nname = "a"\nmethod = "trim"\noutput = "x"', "gives `output`", "Leave it out"),
        ('[[stage]]\nname = "a"\nmethod = "trim"\nlangages = ["ro"]', "Stage a: There is no option", "languages"),
        ('[[stage]]\nname = "a"\nmethod = "finetune"\nepochs = "many"', "Stage a", ""),
        ('[[stage]]\nname = "a"\nmethod = "finetune"\nepochs = -1', "Stage a: `epochs` must be above 0", ""),
        ('[defaults]\nsteps = 3\n[[stage]]\nname = "a"\nmethod = "trim"', "no stage has the option 'steps'", "out"),
        ('[[stage]]\nname = "a"\nmethod = "bistil"', "Stage a: `source` is missing", "Give it"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, sentence: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(PolydistillError) as caught:
        cook(tmp_path, text)
    assert sentence in str(caught.value.message) and hint in (caught.value.hint or "")
    assert not (tmp_path / "out").exists()


def test_a_stage_that_changes_several_things_is_flagged(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "ernie.toml"
    file.write_text(preset_text("ernie-tiny"))
    recipe = read_recipe(file)
    found = changes(recipe.stages)
    assert found["enhanced"] == ["teacher"] and found["task"] == ["losses"]
    head, mark, rest = preset_text("ernie-tiny").partition('name = "adapted"')
    both = head.rstrip().removesuffix("[[stage]]") + 'objective = ["1:attention=1"]\n\n[[stage]]\n' + mark + rest
    with pytest.raises(PolydistillError, match="The stage enhanced changes teacher and losses at once"):
        cook(tmp_path, both, one_change=True)


@pytest.mark.parametrize("name", preset_names())
def test_every_recipe_that_ships_runs(name: str, root: Path, tmp_path: Path) -> None:
    more = f"""
model = "{root}/base"
data_dir = "{root}"
text = ["en={root}/en.txt", "sw={root}/sw.txt"]
preset = "smoke"
steps = 2
epochs = 1
max_length = 16
batch_size = 4
test_split = ["en=none", "sw=none"]
"""
    text = preset_text(name).replace("layers = 12", "layers = 2").replace("layers = 3", "layers = 1")
    given = "\n[defaults]\n"
    text = text.replace(given, f"{given}{more}") if given in text else f"[defaults]{more}\n{text}"
    result = cook(tmp_path, text)
    assert result.result == result.stages[-1].output and (Path(result.result) / "model.safetensors").is_file()
    assert all(stage.done for stage in result.stages)


def test_an_unknown_recipe_says_what_is_close(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run", "--preset", "ernie"])
    assert stop.value.code == 2 and "ernie-tiny" in capsys.readouterr().err


# --- tune


def fake(scores: dict[str, float], seconds: dict[str, float] | None = None) -> Any:
    """Trials without a training."""
    seen: list[tuple[str, int, float]] = []

    def attempt(name: str, rung: int, minutes: float) -> Trial:
        seen.append((name, rung, minutes))
        return Trial(name, rung, minutes, scores[name], "loyalty", (seconds or {}).get(name, 1.0))

    attempt.seen = seen  # type: ignore[attr-defined]
    return attempt


def test_halving_keeps_the_best_of_eight() -> None:
    scores = {f"v{i}": i % 5 / 10 for i in range(8)} | {"v3": 0.9}
    attempt = fake(scores)
    best, trials = halve(list(scores), 24, attempt)
    assert best == "v3" and [sum(t.rung == rung for t in trials) for rung in range(3)] == [8, 4, 2]
    assert [{round(m, 6) for _, rung, m in attempt.seen if rung == r} for r in range(3)] == [{1.0}, {2.0}, {4.0}]
    assert sum(minutes for _, _, minutes in attempt.seen) == pytest.approx(24)


def test_ties_go_to_what_took_less_time() -> None:
    assert halve(["a", "b", "c"], 6, fake(dict.fromkeys("abc", 0.5), {"a": 3, "b": 1, "c": 2}))[0] == "b"
    assert halve(["a", "b"], 6, fake({"a": 0.5, "b": 0.5}))[0] == "a"
    assert halve(["a"], 6, fake({"a": 0.5}))[0] == "a"


def test_the_best_variant_is_written_as_a_recipe(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = '\n[tune]\nstage = "student"\n[[tune.variant]]\nname = "slow"\ntask_lr = 1e-9\n'
    file = tmp_path / "recipe.toml"
    file.write_text(two_stages(root) + variants)
    given = ["tune", str(file), "--minutes", "4", "-o", str(tmp_path / "tuned")]
    main([*given, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["command"] == "tune" and [trial["name"] for trial in found["trials"]] == ["as-is", "slow"]
    assert found["languages"] == ["en"] and found["best"] in ("as-is", "slow")
    again = read_recipe(tmp_path / "tuned/recipe.toml")
    assert [stage.name for stage in again.stages] == ["tuned", "student", "scores"] and again.tune is None
    assert again.stages[1].values.get("task_lr") == (1e-9 if found["best"] == "slow" else None)
    told = json.loads((tmp_path / "tuned/tuned.json").read_text())
    assert told["minutes"] == 4 and told["trials"] == found["trials"]
    main([*given, "--resume"])  # nothing is trained again
    assert "the only data that had a say" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(given)
    assert stop.value.code == 2 and "--resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tune", "sentence"),
    [
        ("", "says of no stage what to try"),
        ('[tune]\nstage = "more"', "says of no stage what to try"),
        ('[tune]\nstage = "student"', "says of no stage what to try"),
        ('[tune]\nstage = "student"\n[[tune.variant]]\ntask_lr = 1', "no name of its own"),
        ('[tune]\nstage = "student"\n[[tune.variant]]\nname = "a"\ntask_rl = 1', "There is no option `task_rl`"),
        ('[tune]\nstage = "student"\n[[tune.variant]]\nname = "a"\ntask_lr = 1e-3', "minutes are too few"),
    ],
)
def test_what_cannot_be_tuned_is_refused(tune: str, sentence: str, root: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(f"{two_stages(root)}\n{tune}\n")
    with pytest.raises(PolydistillError) as caught:
        tune_recipe(read_recipe(file), tmp_path / "out", minutes=0.01)
    assert sentence in str(caught.value.message) and not (tmp_path / "out").exists()
