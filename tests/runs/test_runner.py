"""The runner: any method is checked, run, resumed, scored, recorded and put in its place in the same way."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
from kills import Killed, Listener

from polydistill.card.told import Told
from polydistill.errors import PolydistillError, UsageError
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.refs import ModelRef, resolve
from polydistill.options.groups import Placed, TrainingPlace
from polydistill.options.settings import group, setting
from polydistill.progress import Progress
from polydistill.records.record import RunRecord, Score
from polydistill.runs.made import Made
from polydistill.runs.method import Method
from polydistill.runs.plan import Origin, Plan, Report, Scored
from polydistill.runs.runner import run
from polydistill.runs.stages import Stage, Work


@dataclass(frozen=True)
class ToyOptions(Placed):
    model: str
    scale: float = setting(1.0, "A number.", "Toy", above=0)
    idle: int = setting(0, "Changes nothing.", "Toy")
    place: TrainingPlace = group(TrainingPlace)


def made(name: str, log: list[str], work: Work) -> Made:
    log.append(name)
    if log.count("die") and name == "second":
        raise Killed

    def write(out: Path) -> dict[str, Any]:
        (out / "note.txt").write_text(name)
        return {"seen": sorted(work.done)}

    return Made(write, 3, [{"loss": 2.0}, {"loss": 1.0}])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny.model_folder(
        "bert", "base", tmp_path / "base", tokenizer="xlm-roberta", config={"num_hidden_layers": 1}
    )


def method(base: Path, log: list[str], **changes: Any) -> Method[ToyOptions]:
    """Two stages that write a note, the first of which is kept below `stages/`."""

    def prepare(options: ToyOptions, progress: Progress) -> Plan:
        resolved = resolve(ModelRef.parse(options.model))
        origin = Origin(resolved, Checkpoint.open(resolved.folder))
        plan = Plan(
            output=options.place.output or base.parent / "default",
            origin=origin,
            stages=(
                Stage("first", partial(made, "first", log), share=1),
                Stage("second", partial(made, "second", log), needs=("first",), share=1, keep=False),
            ),
            report=lambda done, out: Report({"student": 7}, facts={"said": (out / "note.txt").read_text()}),
            languages=("en",),
            task="toy",
            settings={"scale": options.scale},
            inputs={"weights": origin.checkpoint.weights_hash},
            texts=lambda done: [{"language": "en", "where": "text", "seen": done["first"].facts["seen"]}],
            idle={"idle": "it is a toy"},
            warnings=("Mind the toy.",),
        )
        return replace(plan, **changes)

    told = Told(title=lambda step: "A toy", introduction=lambda step: "It is one.", tag="toy")
    return Method("toy", ToyOptions, told, about="It plays.", prepare=prepare)


def test_what_comes_out_is_whole(base: Path, tmp_path: Path) -> None:
    log, listener = list[str](), Listener()
    result = run(method(base, log), ToyOptions.of(str(base), idle=3, output=tmp_path / "out"), listener)
    assert log == ["first", "second"] and (tmp_path / "out/note.txt").read_text() == "second"
    assert result.facts == {"said": "second"} and result.parameters == {"student": 7} and result.task == "toy"
    assert [stage["facts"] for stage in result.stages] == [{"seen": []}, {"seen": ["first"]}]
    assert result.stages[0]["loss"] == {"first": {"loss": 1.5}, "last": {"loss": 1.5}}
    assert result.stages[1]["folder"] == str(tmp_path / "out/stages/second")
    assert "`idle` changes nothing: it is a toy." in listener.said and "Mind the toy." in listener.said
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    kept = {f"stages/first/{name}" for name in ("note.txt", "stage.json", "losses.jsonl")}
    assert files == {"note.txt", "README.md", "polydistill.json", *kept}
    assert not list(tmp_path.glob(".out*"))


def test_the_record_says_what_was_run(base: Path, tmp_path: Path) -> None:
    result = run(method(base, [], packages=("numpy",)), ToyOptions.of(str(base), scale=2.0, output=tmp_path / "out"))
    record = RunRecord.load(tmp_path / "out")
    assert record is not None and record.command == "toy" and record.config["scale"] == 2.0
    assert record.result == json.loads(json.dumps(result.to_json())) and "numpy" in record.versions
    assert record.texts == [{"language": "en", "where": "text", "seen": []}]
    assert record.source["weights_hash"] == Checkpoint.open(base).weights_hash


def test_a_killed_run_goes_on_where_it_was(base: Path, tmp_path: Path) -> None:
    log = ["die"]
    toy, options = method(base, log), ToyOptions.of(str(base), output=tmp_path / "out")
    with pytest.raises(Killed):
        run(toy, options)
    assert not (tmp_path / "out").exists() and (tmp_path / ".out.training/first/note.txt").is_file()
    log.clear()
    with pytest.raises(PolydistillError, match="unfinished training"):
        run(toy, options)
    with pytest.raises(PolydistillError, match=r"other options or data \(`scale`\)"):
        run(toy, ToyOptions.of(str(base), output=tmp_path / "out", resume=True, scale=3.0))
    with pytest.raises(PolydistillError, match=r"other options or data\."):
        other = method(base, log, inputs={"weights": "others"})
        run(other, ToyOptions.of(str(base), output=tmp_path / "out", resume=True))
    assert log == []
    run(toy, ToyOptions.of(str(base), output=tmp_path / "out", resume=True, max_minutes=5.0))
    assert log == ["second"] and (tmp_path / "out/note.txt").read_text() == "second"


def test_what_is_there_stays_without_overwrite_and_what_is_read_stays_with_it(base: Path, tmp_path: Path) -> None:
    log = list[str]()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/polydistill.json").write_text("{}")
    with pytest.raises(PolydistillError, match="already exists"):
        run(method(base, log), ToyOptions.of(str(base), output=tmp_path / "out"))
    (base / "polydistill.json").write_text("{}")
    with pytest.raises(UsageError, match="read here"):
        run(method(base, log), ToyOptions.of(str(base), output=base, overwrite=True))
    assert log == []
    (base / "polydistill.json").unlink()
    run(method(base, log), ToyOptions.of(str(base), output=tmp_path / "out", overwrite=True))
    assert log == ["first", "second"]


def test_a_number_out_of_its_range_is_refused_before_anything_is_looked_at(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`scale` must be above 0"):
        run(method(tmp_path, []), ToyOptions.of("no-such-model", scale=0.0, output=tmp_path / "out"))


def test_several_processes_are_refused_where_a_method_has_one(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"`polydistill toy` runs in one process"):
        run(method(base, []), ToyOptions.of(str(base), output=tmp_path / "out"))


def test_scores_of_the_result_go_into_the_record_and_all_into_the_result(base: Path, tmp_path: Path) -> None:
    class Both:
        def score(self, done: Any, out: Path, progress: Progress) -> Scored:
            assert (out / "note.txt").is_file() and sorted(done) == ["first", "second"]
            own, other = (Score(name, "toy", "en", "test", "accuracy", 0.5, None, 4) for name in ("own", "teacher"))
            return Scored([own, other], [own], {"teacher": "teacher", "scores": []})

    result = run(method(base, [], scoring=Both()), ToyOptions.of(str(base), output=tmp_path / "out"))
    record = RunRecord.load(tmp_path / "out")
    assert [score["model"] for score in result.scores] == ["own", "teacher"]
    assert record is not None and [score.model for score in record.scores] == ["own"]
    assert result.loyalty == {"teacher": "teacher", "scores": []}


@pytest.mark.parametrize("order", [("one", "one"), ("two", "one")])
def test_a_plan_whose_stages_cannot_be_run_in_order_is_refused(order: tuple[str, str], base: Path) -> None:
    needs = {"one": (), "two": ("one",)}
    stages = tuple(Stage(name, partial(made, name, []), needs[name]) for name in order)
    resolved = resolve(ModelRef.parse(str(base)))
    with pytest.raises(PolydistillError, match="is listed twice, or before one that it needs"):
        Plan(base, Origin(resolved, Checkpoint.open(base)), stages, lambda done, out: Report({}))
