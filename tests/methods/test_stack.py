"""stack and embed: stages, baseline, resuming, what is written, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from answering import answer_here
from click.testing import CliRunner
from configs import stack
from kills import Killed, Listener, loss_curves
from safetensors.numpy import load_file
from snippets import run_snippet
from tiny_stacks import LABELS, config, weights
from transformers import AutoConfig
from transformers.models.bert.modeling_bert import BertSelfAttention

import polydistill
from polydistill.cli import cli, main
from polydistill.errors import PolydistillError, UsageError
from polydistill.hub.opening import open_model
from polydistill.methods.stack import stages as stack_stages
from polydistill.models.checkpoint import Checkpoint

pytest_plugins = ("tiny_stacks",)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))


def run(*args: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the command line."""
    with pytest.MonkeyPatch.context() as patch:
        out, err = io.StringIO(), io.StringIO()
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        try:
            main([str(arg) for arg in args])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


# ---- stages


def test_stage_1_learns_the_llms_vectors(first: Path) -> None:
    record = json.loads((first / "polydistill.json").read_text())
    result = record["result"]
    assert run_snippet(first).startswith("(1, ")  # one vector
    assert [stage["name"] for stage in result["stages"]] == ["projection", "self"]
    left = result["unexplained_variance"]
    assert left["last"] < left["first"]
    assert result["selection"]["languages"] == ["en"] and result["selection"]["split"] == "held-out text"
    assert (first / "stages/self/config.json").is_file() and result["kind"] == "stack"
    own = load_file(first / "model.safetensors")
    assert result["parameters"]["trained"] == sum(tensor.size for tensor in own.values())
    assert result["parameters"]["student"] > result["parameters"]["teacher"]
    texts = [part for part in record["texts"] if part["split"] == "text"]
    assert texts and texts[0]["language"] == "en"


def test_a_tiny_stack_overfits_32_texts(models: tuple[Path, Path], tmp_path: Path) -> None:
    lines = tiny.sentences("en", count=36)
    path = tmp_path / "few.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    result = stack(
        config(
            models,
            tmp_path / "s",
            text=(str(path),),
            steps=300,
            batch_size=32,
            lr=1e-2,
            lora_dropout=0,
            lora_r=32,
            lora_alpha=64,
        )
    )
    terms = result.stages[-1]["loss"]
    assert terms["first"]["vectors"] > 0.3 and terms["last"]["vectors"] < 0.02


def test_stage_2_learns_a_task_and_is_scored_like_any_model(second: Any, data: Path) -> None:
    assert [stage["name"] for stage in second.stages] == ["teacher", "task"]
    scores = {(Path(score["model"]).name, score["language"]): score["value"] for score in second.scores}
    assert set(scores) == {(name, code) for name in (second.output.name, "teacher") for code in ("en", "sw")}
    assert scores["teacher", "en"] > 0.9  # the label is a word of the text
    assert scores[second.output.name, "en"] > 0.6
    again = polydistill.evaluate([second.output], task="nli", languages=["en", "sw"], data_dir=data)
    assert [s.value for s in again.scores] == [scores[second.output.name, code] for code in ("en", "sw")]
    assert again.models[0]["parameters"]["rest"] == second.parameters["student"]
    record = json.loads((second.output / "polydistill.json").read_text())
    assert record["parent"]["command"] == "stack" and {s["language"] for s in record["scores"]} == {"en", "sw"}
    assert second.selection["split"] == "dev" and second.facts["separator"] == "native"
    head = load_file(second.output / "model.safetensors")["head.weight"]
    assert np.array_equal(head, load_file(second.output / "stages/teacher/model.safetensors")["head.weight"])


def test_the_labels_that_a_card_asks_for_are_those_that_are_scored(first: Path, second: Any) -> None:
    from polydistill.evaluation import classification, heads
    from polydistill.labelled.examples import PairExample

    pairs = [(f"the red house {i}", f"{word} a letter") for i, word in enumerate(("yes", "no", "maybe", "Who?" * 90))]
    examples = [PairExample(str(i), *pair, LABELS[0]) for i, pair in enumerate(pairs)]
    model = heads.open_model(second.output, "classification", LABELS)
    stack = polydistill.load_stack(second.output)
    found = [p["label"] for p in classification.predict(model, examples, batch_size=2)]
    assert stack.classify(pairs) == found and stack.classify([]) == []
    rows = np.stack(list(classification.logits(model, examples, batch_size=2)))
    assert np.ptp(rows, axis=0).max() > 1e-4  # the texts are told apart
    assert run_snippet(second.output).strip()[2:-2] in LABELS
    with pytest.raises(UsageError, match="gives vectors, not labels"):
        polydistill.load_stack(first).classify(pairs)


def test_the_projection_is_trained_in_both_stages(first: Path, second: Any) -> None:
    places = [first / "stages/projection", first / "stages/self", second.output / "stages/task"]
    begin, one, two = (load_file(place / "model.safetensors")["projection.weight"] for place in places)
    assert np.abs(one - begin).max() > 1e-4 and np.abs(two - one).max() > 1e-4


def test_a_trimmed_encoder_is_an_encoder(models: tuple[Path, Path], text: Path, tmp_path: Path) -> None:
    trimmed = polydistill.trim(
        models[0], languages=["en"], text=[text], vocab_size=80, output=tmp_path / "small"
    ).output
    result = stack(config((trimmed, models[1]), tmp_path / "s", text=(str(text),), steps=20))
    small, whole, llm, own = (Checkpoint.open(place).parameters for place in (trimmed, *models, result.output))
    assert small < whole and result.parameters["student"] == small + llm + own
    assert result.facts["unexplained_variance"]["last"] < result.facts["unexplained_variance"]["first"]


def test_both_stages_at_once_are_stage_1_and_then_2(
    models: tuple[Path, Path], first: Path, text: Path, data: Path, tmp_path: Path
) -> None:
    options = {"task": "nli", "data_dir": data, "limit": 16, "steps": 40}
    apart = stack(config(models, tmp_path / "apart", stack=str(first), **options)).output
    together = stack(config(models, tmp_path / "together", text=(str(text),), **options)).output
    names = [path.name for path in (together / "stages").iterdir()]
    assert sorted(names) == ["projection", "self", "task", "teacher"]
    assert weights(together) == weights(apart)
    taught = stack(
        config(models, tmp_path / "taught", stack=str(first), teacher=str(apart / "stages/teacher"), **options)
    )
    assert [stage["name"] for stage in taught.stages] == ["task"] and weights(taught.output) == weights(apart)


def test_stage_2_reads_as_much_of_a_pair_as_its_teacher(
    models: tuple[Path, Path], first: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stack whose stage 1 read short texts reads long pairs in stage 2."""
    long = tmp_path / "data"
    for path in data.rglob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        place = long / path.relative_to(data)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("".join(json.dumps({**r, "premise": 20 * "the red house "}) + "\n" for r in rows))
    seen: list[int] = []
    from polydistill.distill import stacking

    train = stacking.train_stack

    def noting(stack: Any, features: Any, *rest: Any) -> Any:
        seen.append(max(len(f["input_ids"]) for f in features))
        return train(stack, features, *rest)

    monkeypatch.setattr(stacking, "train_stack", noting)
    made = stack(
        config(models, tmp_path / "s", stack=str(first), task="nli", data_dir=long, task_max_length=60, limit=8)
    )
    assert seen == [60, 60]  # the LLM alone and the stack; stage 1 had 32
    assert polydistill.load_stack(made.output).reader.max_length > 60


def test_a_teachers_labels_are_matched_by_name(
    models: tuple[Path, Path], second: Any, data: Path, tmp_path: Path
) -> None:
    """Other labels are refused; the same ones in another order are put into the order of the task."""
    shipped = (Path(polydistill.__file__).parents[1] / "tasks/nli.toml").read_text(encoding="utf-8")
    labels = 'labels = ["entailment", "neutral", "contradiction"]'
    assert labels in shipped
    given = {
        "teacher": str(second.output / "stages/teacher"),
        "task": "nli",
        "data_dir": data,
        "phase": "2",
        "baseline": "linear",
    }
    made = [stack(config(models, tmp_path / "plain", **given))]
    for name, other in (
        ("turned", '["contradiction", "neutral", "entailment"]'),
        ("foreign", '["entailment", "neutral", "contradiction", "unsure"]'),
    ):
        (tmp_path / name / "tasks").mkdir(parents=True)
        text = shipped.replace(labels, f"labels = {other}")
        (tmp_path / name / "tasks/nli.toml").write_text(text, encoding="utf-8")
    made.append(stack(config(models, tmp_path / "other", **given, include_path=(tmp_path / "turned",))))
    heads = [load_file(result.output / "model.safetensors")["head.weight"] for result in made]
    assert (heads[0] == heads[1][::-1]).all() and not (heads[0] == heads[1]).all()
    plain, turned = ([s["facts"]["best"] for s in result.stages if s["name"] == "task"] for result in made)
    assert plain == turned
    with pytest.raises(PolydistillError, match="has learnt nli"):
        stack(config(models, tmp_path / "s", **given, include_path=(tmp_path / "foreign",)))


def test_the_beginning_is_kept_where_training_makes_it_worse(
    models: tuple[Path, Path], text: Path, tmp_path: Path
) -> None:
    listener = Listener()
    result = stack(config(models, tmp_path / "s", text=(str(text),), lr=5.0, steps=6), listener)
    left = result.facts["unexplained_variance"]
    assert "made it worse" in listener.said and left is not None and left["last"] == left["first"]
    assert weights(result.output) == weights(result.output / "stages/projection")


@pytest.mark.parametrize(("most", "told"), [(0.0, True), (100.0, False)])
def test_vectors_that_say_nothing_are_told_of(
    models: tuple[Path, Path], text: Path, tmp_path: Path, most: float, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_stages, "NOTHING_LEARNT", most)
    listener = Listener()
    result = stack(config(models, tmp_path / "s", text=(str(text),), lr=1e-2, steps=60), listener)
    left = result.facts["unexplained_variance"]
    assert left is not None and left["last"] < left["first"]
    assert (f"of a text: {100 * left['last']:.0f} % of variance is unexplained" in listener.said) == told


def test_changed_text_is_noticed_when_a_run_goes_on(models: tuple[Path, Path], text: Path, tmp_path: Path) -> None:
    own = tmp_path / "en.txt"
    own.write_text(text.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(Killed):
        stack(config(models, tmp_path / "s", text=(str(own),)), Listener(1))
    own.write_text("\n".join(tiny.sentences("ro", count=60)), encoding="utf-8")
    with pytest.raises(PolydistillError, match="had other options or data"):
        stack(config(models, tmp_path / "s", text=(str(own),), resume=True))


@pytest.fixture(scope="module")
def whole(
    models: tuple[Path, Path], text: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """What a run of both phases wrote, and its options."""
    root = tmp_path_factory.mktemp("whole")
    options = {"text": (str(text),), "task": "nli", "data_dir": data, "limit": 32, "lora_dropout": 0.1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYDISTILL_CACHE", str(root / "cache"))
        return stack(config(models, root / "whole", **options)).output, options


@pytest.mark.parametrize("checks", [1, 3, 5])
def test_a_killed_run_goes_on_to_the_same_weights(
    models: tuple[Path, Path], whole: tuple[Path, dict[str, Any]], tmp_path: Path, checks: int
) -> None:
    unbroken, options = whole
    with pytest.raises(Killed):
        stack(config(models, tmp_path / "cut", **options), Listener(checks))
    with pytest.raises(PolydistillError, match="unfinished training"):
        stack(config(models, tmp_path / "cut", **options))
    resumed = stack(config(models, tmp_path / "cut", resume=True, **options)).output
    assert weights(resumed) == weights(unbroken)
    assert loss_curves(resumed) == loss_curves(unbroken)
    assert not list(tmp_path.glob(".cut*"))


def test_the_baseline_is_the_best_linear_map(models: tuple[Path, Path], text: Path, data: Path, tmp_path: Path) -> None:
    result = stack(config(models, tmp_path / "s", text=(str(text),), baseline="linear", steps=8))
    assert result.facts["kind"] == "linear" and result.facts["unexplained_variance"]["last"] < 1.05
    assert set(load_file(result.output / "model.safetensors")) == {"projection.weight", "projection.bias"}
    task = stack(config(models, tmp_path / "t", baseline="linear", task="nli", data_dir=data, text=(str(text),)))
    assert [stage["name"] for stage in task.stages] == ["teacher", "task"] and task.stages[1]["steps"] == 0
    assert task.facts["unexplained_variance"]["last"] < 1 == task.facts["unexplained_variance"]["first"]
    assert task.settings["lora"] is None and task.settings["teacher_lora"]["r"] == 16
    assert {Path(score["model"]).name for score in task.scores} == {"t", "teacher"}


def test_an_encoder_with_language_codes(
    text: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_here(monkeypatch)
    monkeypatch.setattr("polydistill.evaluation.turns.PROCESSES", 1)
    monkeypatch.setattr("polydistill.evaluation.turns.ROUNDS", 1)
    encoder = tiny.model_folder("m2m_100", "seq2seq-lm", tmp_path / "nllb", tokenizer="nllb")
    llm = tiny.model_folder("llama", "causal-lm", tmp_path / "llama")
    languages = polydistill.load_stack(
        stack(config((encoder, llm), tmp_path / "s", text=(str(text),), steps=2)).output
    ).reader.codes
    result = stack(config((encoder, llm), tmp_path / "t", stack=str(tmp_path / "s"), task="nli", data_dir=data))
    assert result.facts["separator"] == "</s>" and result.facts["language_code"] == "eng_Latn"
    assert open_model(result.output)["problem"] is None
    loaded = polydistill.load_stack(result.output)
    assert loaded.reader.language is None  # nothing is taken for granted
    named = [["--lang", name] for name in ("swh_Latn", "eng_Latn", "Swahili", "Latin", "swa_Latn")]
    named.insert(3, [])
    asked = [CliRunner().invoke(cli, ["embed", str(result.output), *more], input="42\n") for more in named]
    assert asked[0].stdout_bytes == asked[2].stdout_bytes == asked[5].stdout_bytes != asked[1].stdout_bytes
    assert "needs to know the language" in str(asked[3].exception) and "Latin" in str(asked[4].exception)
    names = [code for code in languages if code.startswith(("eng", "ron", "swh"))]
    found = [loaded.encode(["42"], language=name) for name in names]
    assert len(names) > 1 and not np.allclose(found[0], found[1], atol=1e-5)
    more = Path(shutil.copytree(data, tmp_path / "more"))
    shutil.copytree(data / "nli/sw", more / "nli/la")
    with pytest.raises(PolydistillError, match="no code for Latin"):  # before anything is trained
        stack(
            config(
                (encoder, llm), tmp_path / "u", stack=str(tmp_path / "s"), task="nli", data_dir=more, languages=("la",)
            )
        )
    assert not list(tmp_path.glob(".u*"))
    timed = polydistill.evaluate([result.output], task="nli", languages=["en"], data_dir=data, latency=True)
    assert timed.latency is not None and timed.latency["models"][0]["peak_memory_bytes"] > 0
    pairs = tmp_path / "pairs/parallel"
    pairs.mkdir(parents=True)
    (pairs / "en-ro.tsv").write_text("The red house.\tThe red house.\nBread\tBread\n")
    asked: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        from polydistill.stacks.reading import Reader

        read = Reader.__call__
        patch.setattr(Reader, "__call__", lambda self, *a, **k: (asked.append(self.language), read(self, *a, **k))[1])
        polydistill.evaluate([tmp_path / "s"], task="bitext", languages=["ro"], data_dir=pairs.parent)
    assert {code[:3] for code in asked} == {"eng", "ron"}


def test_eight_bits_need_their_package(
    models: tuple[Path, Path], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with pytest.raises(PolydistillError, match="need the package bitsandbytes"):
        stack(config(models, tmp_path / "s", text=(str(text),), frozen="int8"))


WAYS: list[dict[str, Any]] = [
    {"frozen": "bfloat16"},
    {"frozen": "int8", "whole": True},
    {"checkpointing": True},
    {"pooling": "last"},
    {"pooling": "first"},
    {"init": "random"},
    {"precision": "bfloat16"},
]


@pytest.mark.parametrize("options", WAYS)
def test_ways_of_training(models: tuple[Path, Path], text: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    forwards, trained = [0], BertSelfAttention.forward
    kinds: set[str] = set()

    def counted(self: Any, *args: Any, **given: Any) -> Any:
        forwards[0] += torch.is_grad_enabled()
        kinds.add(type(self.query.base_layer if hasattr(self.query, "base_layer") else self.query).__name__)
        return trained(self, *args, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BertSelfAttention, "forward", counted)
        result = stack(config(models, tmp_path / "s", text=(str(text),), steps=28, **options))
    layers = 28 * AutoConfig.from_pretrained(models[1]).num_hidden_layers
    assert forwards[0] == layers * (2 if options.get("checkpointing") else 1)  # activations are computed again
    assert ("Linear8bitLt" in kinds) == (options.get("frozen") == "int8")
    assert result.stages[-1]["loss"]["last"]["vectors"] < result.stages[-1]["loss"]["first"]["vectors"]
    loaded = polydistill.load_stack(result.output)
    assert loaded.encode(["The red house."]).shape == (1, 32) and np.isfinite(loaded.encode(["x"])).all()
    if options.get("frozen") == "bfloat16":
        dtypes = {str(p.dtype) for p in loaded.network.encoder.parameters()}
        assert dtypes == {"torch.bfloat16"} and loaded.network.projection.weight.dtype.is_floating_point


def test_a_whole_stack(models: tuple[Path, Path], text: Path, tmp_path: Path) -> None:
    copies = tuple(Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in models)
    stack(config(copies, tmp_path / "whole", text=(str(text),), steps=2, whole=True))
    referring = polydistill.load_stack(tmp_path / "whole/stages/self").encode(["The red house."])
    for folder in copies:
        shutil.rmtree(folder)
    assert np.allclose(polydistill.load_stack(tmp_path / "whole").encode(["The red house."]), referring, atol=1e-5)
    assert open_model(tmp_path / "whole") == {"class": "load_stack", "problem": None}  # what `publish` looks at
    code, out, _ = run("publish", tmp_path / "whole", "org/name", "--dry-run", "--license", "mit", "--json")
    sent = {file["path"] for file in json.loads(out)["files"]}
    assert code == 0 and {"encoder/model.safetensors", "llm/model.safetensors", "model.safetensors"} <= sent
    assert str(tmp_path) not in out


def test_a_stack_teaches_a_student(
    models: tuple[Path, Path], second: Any, text: Path, data: Path, tmp_path: Path
) -> None:
    swahili = tmp_path / "sw.txt"
    swahili.write_text("\n".join(tiny.sentences("sw", count=60)) + "\n", encoding="utf-8")
    options: dict[str, Any] = {
        "model": models[0],
        "task": "nli",
        "teacher": second.output,
        "data_dir": data,
        "preset": "smoke",
        "phase": "2",
        "text": [f"en={text}", f"sw={swahili}"],
        "task_epochs": 12,
        "task_sparse_epochs": 0,
        "task_lr": 5e-3,
        "layers": 1,
        "min_share": 1e-9,
        "task_batch_size": 8,
    }
    student = polydistill.bistil("en", "sw", **options, objective=["2:logits=1"], output=tmp_path / "student")
    scores = {(Path(s["model"]).name, s["language"]): s["value"] for s in student.scores}
    assert scores["student", "en"] > 0.6 and (second.output.name, "en") in scores
    terms = next(stage for stage in student.stages if stage["name"] == "full")["loss"]
    assert set(terms["last"]) == {"logits"} and terms["last"]["logits"] < terms["first"]["logits"]
    with pytest.raises(PolydistillError, match="only logits"):
        polydistill.bistil("en", "sw", **options, objective=["2:hidden=1"], output=tmp_path / "other")


def test_a_stack_on_what_is_not_on_the_hub_is_not_published(first: Path, tmp_path: Path) -> None:
    """Folders of this machine, and models whose weights came from a package: they have a name and no commit."""
    package = Path(shutil.copytree(first, tmp_path / "s"))
    values = json.loads((package / "config.json").read_text())
    for role in ("encoder", "llm"):
        values[role] |= {"name": f"org/{role}", "source": f"org/{role} (from a package)"}
    (package / "config.json").write_text(json.dumps(values))
    for folder in (first, package):
        code, out, err = run("publish", folder, "org/name", "--dry-run", "--license", "mit")
        assert code == 1 and "which is not on the Hub" in err and "--whole" in err and not out


# ---- embed


def test_embed_writes_a_row_a_line(first: Path, tmp_path: Path) -> None:
    lines = ["The red house.", "", "barua kutoka\u2028Nairobi\x0c", "x"]
    command = [sys.executable, "-m", "polydistill", "embed", str(first)]
    done = subprocess.run(command, input="\n".join(lines).encode(), capture_output=True, check=True)
    found = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    wanted = polydistill.load_stack(first).encode(lines)
    assert found.dtype == np.float32 and np.allclose(found, wanted, atol=1e-5)
    assert np.allclose(polydistill.embed(first, lines), wanted, atol=1e-5)
    place = tmp_path / "v.npy"
    asked = CliRunner().invoke(cli, ["embed", str(first), "-o", str(place), "--json", "-q"], input="x\n")
    assert json.loads(asked.stdout) == {"command": "embed", "output": str(place), "texts": 1, "width": 32}
    assert np.load(place).shape == (1, 32)
    for more, content, said in (
        (["-o", str(place)], b"x\n", "already exists"),
        (["--json"], b"x\n", "--json is for standard output"),
        (["--long", "no"], b"x\n", "unknown"),
        (["--long", "refuse"], b"x\n" + 900 * b"red " + b"\n", "Text 2 has"),
        ([], b"\xff\xfe\n", "not UTF-8"),
        ([], b"", "There is no text"),
    ):
        asked = CliRunner().invoke(cli, ["embed", str(first), *more], input=content)
        assert isinstance(asked.exception, PolydistillError) and said in str(asked.exception) and not asked.stdout


def test_embed_leaves_the_text_that_it_reads_alone(first: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("x\n")
    command = [sys.executable, "-m", "polydistill", "embed", str(first), "--overwrite", "-o", str(text)]
    with text.open("rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "text.txt is read here" in done.stderr and text.read_text() == "x\n"


# ---- bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "ner"], "one vector a text"),
        (["--phase", "2"], "Phase 2 learns a task"),
        (["--phase", "3"], "--phase 3 is unknown"),
        (["--lora-r", "0"], "--lora-r must be at least 1 and at most 4,096, not 0"),
        (["--stack", "nowhere", "--task", "nli"], "There is no folder nowhere"),
        (["--text", "nowhere.txt"], "does not exist"),
        (["--frozen", "int4"], "--frozen int4 is unknown"),
        (["--phase", "1", "--teacher", "x"], "for phase 2"),
        (["--phase", "1", "--task", "nli"], "Phase 1 learns no task"),
        (["--task", "nli", "--baseline", "linear", "--limit", "19"], "19 labelled examples are too few"),
        (["-o", ".", "--overwrite"], "is the folder that you are in"),
        (["--include-path", "nowhere"], "does not exist"),
    ],
)
def test_mistakes_on_the_command_line(
    models: tuple[Path, Path], text: Path, data: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    given = [] if "--text" in options else ["--text", text]
    code, out, err = run("stack", *models, *given, "--data-dir", data, "-o", tmp_path / "s", *options)
    assert code in (1, 2) and said in err and not out and "Traceback" not in err
    assert not list(tmp_path.glob("*s*"))


def test_models_that_do_not_fit(models: tuple[Path, Path], first: Path, text: Path, data: Path, tmp_path: Path) -> None:
    encoder, llm = models
    seq2seq = tiny.model_folder("t5", "base", tmp_path / "t5")
    nameless = Path(shutil.copytree(llm, tmp_path / "nameless"))
    (nameless / "config.json").write_text('{"hidden_size": 32}')
    for parts, said in (
        ((encoder, seq2seq), "is an encoder-decoder"),
        ((tiny.model_folder("llama", "base", tmp_path / "llama"), llm), "is a decoder"),
        ((first, llm), "is a stack"),
        ((encoder, tiny.model_folder("bloom", "base", tmp_path / "bloom")), "a bloom model, which cannot be stacked"),
        ((encoder, nameless), "does not say its model_type"),
        ((encoder, tmp_path / "none"), "none"),
    ):
        code, _, err = run("stack", *parts, "--text", text, "--preset", "smoke", "-o", tmp_path / "s")
        assert code in (1, 2) and said in err and "Traceback" not in err, err
    other = tiny.model_folder("bert", "base", tmp_path / "other", seed=5)
    task = ("--task", "nli", "--data-dir", data, "-o", tmp_path / "s")
    code, _, err = run("stack", encoder, other, "--stack", first, *task)
    assert code == 1 and "has other weights than the LLM that --stack" in err
    code, _, err = run("stack", encoder, llm, "--teacher", first, *task)
    assert code == 2 and "is not an LLM alone" in err
    code, _, err = run("stack", encoder, llm, "--stack", first, "--pooling", "last", *task)
    assert code == 2 and "was made with --pooling mean" in err
    changed = Path(shutil.copytree(llm, tmp_path / "changed"))
    values = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps({**values, "layer_norm_eps": 0.1}))
    code, _, err = run("stack", encoder, changed, "--stack", first, *task)
    assert code == 1 and "has another config.json than the LLM that --stack" in err
    few = tmp_path / "few.txt"
    few.write_text("one line\n\none line\n")
    code, _, err = run("stack", encoder, llm, "--text", few, "-o", tmp_path / "s")
    assert code == 2 and "1 different lines" in err
    code, _, err = run("trim", "--model", first, "--lang", "en", "-o", tmp_path / "s")
    assert code == 1 and "is a stack of two models" in err


def test_a_stack_has_no_tags(first: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(PolydistillError, match="without a head"):
        polydistill.evaluate([first], task="nli", languages=["en"], data_dir=data)


def test_idle_options_are_named(models: tuple[Path, Path], text: Path, tmp_path: Path) -> None:
    listener = Listener()
    stack(config(models, tmp_path / "s", text=(str(text),), baseline="linear", lora_r=4, steps=8), listener)
    assert "`lora_r`" in listener.said and "neither LoRA nor steps" in listener.said
    listener = Listener()
    stack(config(models, tmp_path / "r", text=(str(text),), init="random", fit_lines=5, dev_split="other"), listener)
    assert "`fit_lines` changes nothing: a random" in listener.said and "`dev_split` change nothing" in listener.said


def test_lora_options_are_the_teachers_where_the_stack_has_its_own(
    models: tuple[Path, Path], first: Path, data: Path, tmp_path: Path
) -> None:
    listener = Listener()
    result = stack(config(models, tmp_path / "s", stack=str(first), task="nli", data_dir=data, lora_r=4), listener)
    assert "`lora_r`" not in listener.said
    teacher = load_file(result.output / "stages/teacher/model.safetensors")
    assert {tensor.shape[0] for name, tensor in teacher.items() if "lora_A" in name} == {4}
    assert result.settings["lora"]["r"] == 16 and result.settings["teacher_lora"]["r"] == 4
    listener = Listener()
    given = {"stack": str(first), "teacher": str(result.output / "stages/teacher")}
    stack(config(models, tmp_path / "t", task="nli", data_dir=data, lora_r=4, **given), listener)
    assert "`lora_r` changes nothing" in listener.said


def test_a_stack_is_not_replaced_by_what_is_made_of_it(
    models: tuple[Path, Path], text: Path, data: Path, tmp_path: Path
) -> None:
    made = stack(config(models, tmp_path / "s", text=(str(text),), steps=2)).output
    for begin in (made, made / "stages/self"):
        given = config(models, made, stack=str(begin), task="nli", data_dir=data, overwrite=True)
        with pytest.raises(PolydistillError, match="is read here"):
            stack(given)
    with pytest.raises(PolydistillError, match=r"is part of .* which is read here"):
        polydistill.embed(made, ["a"], output=made / "config.json", overwrite=True)
    with pytest.raises(PolydistillError, match="Put it in a list"):
        polydistill.embed(made, "a")
    assert len(polydistill.embed(made, ["a"])) == 1


def test_text_whose_vectors_are_all_the_same_teaches_nothing(models: tuple[Path, Path], tmp_path: Path) -> None:
    same = tmp_path / "same.txt"
    same.write_text("".join(f"{'a ' * 40} {i}\n" for i in range(60)))
    with pytest.raises(PolydistillError, match="vectors of all held-out texts are the same"):
        stack(config(models, tmp_path / "s", text=(str(same),), max_length=8))


def test_no_target_text_or_label_is_read(
    models: tuple[Path, Path], first: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training and selection see English alone: without any other language's files the weights are the same."""
    both = stack(config(models, tmp_path / "a", stack=str(first), task="nli", data_dir=data, languages=("en", "sw")))
    alone = tmp_path / "english"
    shutil.copytree(data / "nli/en", alone / "nli/en")
    one = stack(config(models, tmp_path / "b", stack=str(first), task="nli", data_dir=alone))
    assert weights(both.output) == weights(one.output)
