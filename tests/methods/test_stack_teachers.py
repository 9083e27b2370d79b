"""How a stack learns: kept vectors, text of the fit, rate, one LLM in memory, one device, what records say of it."""

from __future__ import annotations

import gc
import json
import os
import shutil
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from configs import stack, stack_config
from kills import Listener
from safetensors.torch import load_file
from tiny_stacks import config, weights

import polydistill
from polydistill.distill import stacking
from polydistill.distill.stacking import input_means, text_features, unexplained_variance, vectors
from polydistill.evaluation import classification
from polydistill.methods.stack import METHOD
from polydistill.methods.stack.plan import _preset
from polydistill.progress import SILENT
from polydistill.runs.plan import Plan, Scored
from polydistill.stacks import folder as stacks_folder
from polydistill.stacks.network import Stack
from polydistill.stacks.parts import open_llm

pytest_plugins = ("tiny_stacks",)
Two = tuple[Path, Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Changes the cache to one of another name."""

    def use(name: str) -> None:
        monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / name))

    use("cache")
    return use


@pytest.mark.parametrize("way", [{"llm": "other"}, {"pooling": "first"}, {"frozen": "bfloat16"}])
def test_kept_vectors_are_those_of_this_llm(
    models: Two, text: Path, tmp_path: Path, own_cache: Callable[[str], None], way: dict[str, str]
) -> None:
    parts = models
    if way.pop("llm", None):
        parts = (models[0], tiny.model_folder("bert", "base", tmp_path / "other", seed=5))
    options = {"text": (str(text),), "baseline": "linear"}
    before = weights(stack(config(models, tmp_path / "a", **options)).output)
    shared = weights(stack(config(parts, tmp_path / "b", **options, **way)).output)
    own_cache("another")
    assert shared == weights(stack(config(parts, tmp_path / "c", **options, **way)).output) != before


def test_kept_vectors_are_those_of_this_teacher(
    models: Two, data: Path, tmp_path: Path, own_cache: Callable[[str], None]
) -> None:
    options: dict[str, Any] = {"baseline": "linear", "task": "nli", "data_dir": data, "teacher_lr": 1e-2}
    one, other = (stack(config(models, tmp_path / f"{seed}", seed=seed, **options)).output for seed in (0, 1))
    given = {**options, "teacher": str(other / "stages/teacher"), "seed": 1}
    shared = weights(stack(config(models, tmp_path / "shared", **given)).output)
    own_cache("another")
    assert shared == weights(stack(config(models, tmp_path / "apart", **given)).output) == weights(other)
    assert shared["projection.weight"] != weights(one)["projection.weight"]


def test_vectors_that_nobody_uses_make_room(
    models: Two, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack(config(models, tmp_path / "a", text=(str(text),), baseline="linear"))
    kept = sorted((tmp_path / "cache/vectors").iterdir())
    assert len(kept) == 2  # of training and held-out text
    then = time.time() - 2 * 24 * 3600
    for file in kept:
        os.utime(file, (then, then))
    stack(config(models, tmp_path / "b", text=(str(text),), baseline="linear"))
    assert min(file.stat().st_mtime for file in kept) > then + 3600  # read, and so in use
    os.utime(kept[0], (then, then))
    monkeypatch.setattr(stacking, "MOST_KEPT", 0)
    stack(config(models, tmp_path / "c", text=(str(text),), baseline="linear", pooling="first"))
    assert not kept[0].exists() and kept[1].exists()


def test_the_projection_begins_at_the_llms_own_inputs(models: Two, text: Path, tmp_path: Path) -> None:
    lines = text.read_text(encoding="utf-8").splitlines()
    left = {}
    for init in ("least-squares", "random"):
        made = stack(config(models, tmp_path / init, text=(str(text),), steps=2, init=init)).output
        state = load_file(made / "stages/projection/model.safetensors")
        loaded = polydistill.load_stack(made / "stages/projection")
        assert loaded.network.encoder is not None
        means = []
        for feature in text_features(loaded, lines):
            ids = torch.tensor([feature["input_ids"]])
            means.append(loaded.network.states(ids, torch.ones_like(ids))[0].mean(0))
        found = torch.stack(means) @ state["projection.weight"].T + state["projection.bias"]
        own = stacks_folder.Reader.open(models[1], None, 32)
        rows = own(lines)["input_ids"]
        wanted = input_means(open_llm(models[1]), [{"input_ids": ids} for ids in rows])
        left[init] = unexplained_variance(found.detach().numpy(), wanted)
    assert left["least-squares"] < 0.8 < left["random"]


def test_the_fit_reads_as_much_text_as_asked_for(models: Two, text: Path, tmp_path: Path) -> None:
    """However few lines the steps of stage 1 take: of 60 lines 6 are held out."""
    options = {"text": (str(text),), "steps": 2, "batch_size": 8}
    found = {}
    for lines in (20, 50, 1_000):
        result = stack(config(models, tmp_path / f"{lines}", fit_lines=lines, **options))
        facts = {stage["name"]: stage["facts"]["texts"] for stage in result.stages}
        found[lines] = facts
    assert {lines: facts["projection"] for lines, facts in found.items()} == {20: 20, 50: 50, 1_000: 54}
    assert {facts["self"] for facts in found.values()} == {16}


@pytest.mark.parametrize(
    ("preset", "steps", "rising"),
    [
        ("small", None, 45),
        ("small", 300, 45),
        ("small", 6_000, 180),
        ("smoke", None, 15),
        ("smoke", 4, 1),
        ("paper", None, 100),
        ("paper", 500, 45),
    ],
)
def test_the_rate_of_stage_1_rises_slowly_in_a_short_run_too(preset: str, steps: int | None, rising: int) -> None:
    chosen = _preset(stack_config(encoder="encoder", llm="llm", preset=preset, steps=steps))
    assert round(chosen.warmup * chosen.steps, 6) == rising


@pytest.mark.parametrize("baseline", [None, "linear"])
@pytest.mark.parametrize("stage", ["1", "2"])
def test_one_llm_is_in_memory_and_all_of_a_stack_on_one_device(
    models: Two,
    first: Path,
    text: Path,
    data: Path,
    tmp_path: Path,
    stage: str,
    baseline: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What runs is counted and looked at, each time that it runs; parameters of tiny models stand for a GPU's."""
    made, most, run, train = weakref.WeakSet[Stack](), [0], stacking.run, stacking.train
    begin = Stack.__init__

    def init(self: Stack, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        made.add(self)

    def on_device(network: Any) -> Any:
        for parameter in network.parameters():
            parameter.moved = True
        return network

    def looked_at(network: Any, *args: Any, **options: Any) -> Any:
        gc.collect()
        most[0] = max(most[0], len({id(next(one.llm.parameters())) for one in made if one.llm is not None}))
        assert len({hasattr(parameter, "moved") for parameter in network.parameters()}) == 1
        return run(network, *args, **options)

    given: dict[str, Any] = {"text": (str(text),)} if stage == "1" else {"task": "nli", "data_dir": data}
    if stage == "2" and baseline is None:
        given["stack"] = str(first)
    monkeypatch.setattr(Stack, "__init__", init)
    monkeypatch.setattr("polydistill.runs.scoring.Scoring.score", lambda *args: Scored((), ()))
    monkeypatch.setattr(
        stacking, "train", lambda network, *args, **options: train(on_device(network), *args, **options)
    )
    for module in (stacking, stacks_folder, classification):
        monkeypatch.setattr(module, "run", looked_at)
    for place in ("polydistill.distill.stacking.on_device", "polydistill.stacks.parts.on_device"):
        monkeypatch.setattr(place, on_device)
    stack(config(models, tmp_path / "s", phase=stage, baseline=baseline, **given))
    assert most == [1]


def test_what_stage_2_leaves_unexplained_is_measured_on_dev_examples(models: Two, second: Any, data: Path) -> None:
    left = second.facts["unexplained_variance"]
    assert left["last"] < left["first"]
    loaded = polydistill.load_stack(second.output)
    teacher = polydistill.load_stack(second.output / "stages/teacher")
    rows = [json.loads(line) for line in (data / "nli/en/dev.jsonl").read_text().splitlines()]
    found, wanted = (
        vectors(
            one, [{**{k: v[i] for k, v in inputs.items()}, "example": i} for i in range(len(rows))], progress=SILENT
        )
        for one in (loaded, teacher)
        for inputs in [one.reader([r["premise"] for r in rows], [r["hypothesis"] for r in rows], max_length=48)]
    )
    assert left["last"] == pytest.approx(unexplained_variance(found, wanted), abs=1e-5)


def test_records_say_what_was_trained_and_what_it_took(models: Two, text: Path, tmp_path: Path) -> None:
    options = {"text": (str(text),), "steps": 2}
    whole, referring = (stack(config(models, tmp_path / f"{w}", whole=w, **options)) for w in (True, False))
    assert whole.parameters["trained"] == referring.parameters["trained"]
    assert whole.parameters["trained"] == sum(
        t.numel() for t in load_file(referring.output / "model.safetensors").values()
    )
    assert whole.peak_memory_bytes > 50e6  # of this process


def test_models_in_folders_of_sentence_transformers(models: Two, text: Path, tmp_path: Path) -> None:
    """Encoder and LLM in folders whose model lies in `0_Transformer`."""
    inner = []
    for model in models:
        outer = tmp_path / model.name
        shutil.copytree(model, outer / "0_Transformer")
        modules = [{"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
        (outer / "modules.json").write_text(json.dumps(modules))
        inner.append(outer)
    options = {"text": (str(text),), "steps": 2}
    assert weights(stack(config((inner[0], inner[1]), tmp_path / "a", **options)).output) == weights(
        stack(config(models, tmp_path / "b", **options)).output
    )


def test_idle_options_of_a_linear_map_on_a_task(models: Two, second: Any, data: Path, tmp_path: Path) -> None:
    options = {"baseline": "linear", "task": "nli", "data_dir": data, "checkpointing": True}
    own, given = Listener(), Listener()
    stack(config(models, tmp_path / "own", **options), own)
    assert "`checkpointing`" not in own.said and "`task_batch_size`" not in own.said  # they are the teacher's
    assert "`steps`" in own.said and "`batch_size`" in own.said
    teacher = str(second.output / "stages/teacher")
    stack(config(models, tmp_path / "given", teacher=teacher, max_minutes=5, **options), given)
    assert all(name in given.said for name in ("`checkpointing`", "`task_batch_size`", "`max_minutes`"))


def test_the_plan_says_which_stages_there_are_and_how_long_each_may_take(
    models: Two, text: Path, data: Path, first: Path, tmp_path: Path
) -> None:
    """Trainings share the minutes alike; a linear map is fitted and takes none of them."""

    def plan(**options: Any) -> Plan:
        return METHOD.prepare(config(models, tmp_path / "out", text=(str(text),), **options), SILENT)

    task = {"task": "nli", "data_dir": data}
    both = plan(**task)
    shares = [("projection", 0), ("self", 1), ("teacher", 1), ("task", 1)]
    assert [(stage.name, stage.share) for stage in both.stages] == shares
    assert both.settings["phases"] == [1, 2] and both.settings["max_length"] == 32 and both.task == "nli"
    assert [other.role for other in both.others] == ["llm"] and both.parent is None
    assert both.scoring is not None and not both.scoring.loyalty
    alone = plan()
    assert [stage.name for stage in alone.stages] == ["projection", "self"] and alone.scoring is None
    linear = plan(baseline="linear", **task)
    assert [(stage.name, stage.share) for stage in linear.stages] == [("teacher", 1), ("task", 0)]
    assert [(stage.name, stage.share) for stage in plan(baseline="linear").stages] == [("projection", 0)]
    going_on = plan(stack=str(first), **task)
    assert [stage.name for stage in going_on.stages] == ["teacher", "task"] and going_on.parent == first
    assert going_on.idle.keys() <= config(models, tmp_path / "out").values().keys()
    assert not (tmp_path / "out").exists()


def test_what_comes_out_does_not_depend_on_where_things_lie_nor_on_the_minutes(models: Two, tmp_path: Path) -> None:
    """A run goes on with text or data that were moved; their content is compared."""
    places = {"text": (str(tmp_path),), "data_dir": tmp_path, "include_path": (tmp_path,), "max_minutes": 5}
    passing = {"checkpointing": True, "whole": True, "languages": ("sw",), "test_split": "dev", "resume": True}
    there = config(models, tmp_path / "there", **places, **passing, overwrite=True)
    assert there.deciding() == config(models, tmp_path / "here").deciding()
    assert config(models, tmp_path / "here", pooling="first").deciding() != there.deciding()


def test_vectors_are_a_text_each(first: Path) -> None:
    loaded = polydistill.load_stack(first)
    for texts, long, said in (("The red house.", "window", "Put it in a list"), (["x"], "no", "window, refuse")):
        with pytest.raises(polydistill.PolydistillError) as wrong:
            loaded.encode(texts, long=long)
        assert said in (wrong.value.hint or "")
    assert np.isfinite(loaded.encode(["x"])).all()
