"""plan: the sizes are those of what is then written, and times follow from rates, presets and data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from polydistill.catalog import arch, resolve_languages, task
from polydistill.cli import main
from polydistill.cli.plan import _duration
from polydistill.distill import speed
from polydistill.distill.listing import OBJECTIVES
from polydistill.distill.objectives.build import build
from polydistill.distill.signals import needs_attention
from polydistill.distill.student import reduce_layers
from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation.heads import new_head
from polydistill.evaluation.kinds import trainable_kind_of
from polydistill.labelled.sources import load_split
from polydistill.methods.bistil.presets import PRESETS
from polydistill.methods.plan import PlanOptions, PlanResult, plan
from polydistill.methods.trim.method import trim
from polydistill.methods.trim.options import TrimOptions
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.loading import load_tokenizer
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source

RATES = {"float32": 100.0, "bfloat16": 50.0}
LANGUAGES = resolve_languages(("en", "sw"), ())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of four layers, text of both languages, and 30 tagged sentences."""
    folder = tmp_path_factory.mktemp("plan")
    config = {"num_hidden_layers": 4, "max_position_embeddings": 140}
    tiny.model_folder("bert", "base", folder / "m", tokenizer="xlm-roberta", rows=421, config=config)
    for code in ("en", "sw"):
        (folder / f"{code}.txt").write_text("\n".join(tiny.sentences(code, count=60)), encoding="utf-8")
    (folder / "ner" / "en").mkdir(parents=True)
    sentences = ["The O\nsister O\nof O\nAna B-PER\nsees O\n" + "bread O\n" * (i % 5) for i in range(30)]
    (folder / "ner" / "en" / "train.conll").write_text("\n".join(sentences))
    return folder


def config(home: Path, **options: Any) -> PlanOptions:
    texts = tuple(f"{code}={home / code}.txt" for code in ("en", "sw"))
    values = {"model": str(home / "m"), "text": texts, "measure": False, **options}
    return PlanOptions("en", "sw", **values)


def student(home: Path, tmp_path: Path, result: PlanResult, model: str = "m", **rule: Any) -> Path:
    """What `trim` and then the layers' choice write."""
    texts = tuple(f"{code}={home / code}.txt" for code in ("en", "sw"))
    trim(
        TrimOptions(
            model=str(home / model),
            languages=("en", "sw"),
            text=texts,
            verify=False,
            output=tmp_path / "cut",
            **(rule or {"min_share": 1e-6}),
        )
    )
    (tmp_path / "student").mkdir()
    reduce_layers(tmp_path / "cut", result.layers, tmp_path / "student", dropout=0.0)
    return tmp_path / "student"


def opened(folder: Path) -> Source:
    return Source.open(resolve(ModelRef.parse(str(folder))))


@pytest.mark.parametrize(
    ("model_type", "head", "options"),
    [
        ("bert", "base", {"tokenizer": "xlm-roberta", "rows": 421}),
        ("xlm-roberta", "masked-lm", {"tied": False, "shards": 2}),
        ("distilbert", "base", {}),
    ],
)
def test_the_sizes_are_those_of_what_is_then_written(
    model_type: str, head: str, options: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    key = "n_layers" if model_type == "distilbert" else "num_hidden_layers"
    folder = tiny.model_folder(model_type, head, tmp_path / "m", config={key: 4}, **options)
    result = plan(config(home, model=str(folder), reduction=2))
    made = student(home, tmp_path, result, str(folder))
    sizes = {"teacher": folder, "student": made}
    for who, where in sizes.items():
        assert result.parameters[who]["total"] == Checkpoint.open(where).parameters
        assert result.parameters[who]["total"] == sum(result.parameters[who][k] for k in ("embeddings", "rest", "head"))
        assert result.bytes[who] == opened(where).nbytes
        assert (result.parameters[who]["head"] > 0) == (head == "masked-lm")
    assert result.layers == (1, 3) and result.presets == {}
    assert result.share == Checkpoint.open(made).parameters / Checkpoint.open(folder).parameters
    assert result.vocabulary["student"] == len(opened(made).vocabulary.ids) < result.vocabulary["teacher"]


@pytest.mark.parametrize("name", ["ner", "nli", "qa"])
def test_with_a_task_they_have_its_head(name: str, home: Path, tmp_path: Path) -> None:
    result = plan(config(home, task=name, layers=1, vocab_size=200))
    made, wanted = student(home, tmp_path, result, vocab_size=200), task(name, ())
    for who, folder in (("teacher", home / "m"), ("student", made)):
        network = new_head(folder, wanted.kind, wanted.scored_labels, seed=0).network
        counted = {name: p.numel() for name, p in network.named_parameters()}
        head = sum(n for name, n in counted.items() if not name.startswith("bert."))
        assert result.parameters[who] == {
            "embeddings": counted["bert.embeddings.word_embeddings.weight"],
            "rest": sum(counted.values()) - head - counted["bert.embeddings.word_embeddings.weight"],
            "head": head,
            "total": sum(counted.values()),
        }
    assert result.parameters["student"]["embeddings"] == 200 * 32 and result.vocabulary["student"] == 200


# ---- time ----


class Measured:
    """Stands for the measurement: the same rates for everything, and what was asked for."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self, teacher: Any, student: Any, objectives: Any, arch: Any, batch_size: int, length: int, *, kind: Any = None
    ) -> dict[str, float]:
        self.calls.append(
            {
                "layers": (teacher.config.num_hidden_layers, student.config.num_hidden_layers),
                "kind": kind,
                "shape": (batch_size, length),
                "eager": student.config._attn_implementation == "eager",
                "rows": {n.get_input_embeddings().num_embeddings for n in (teacher, student)},
            }
        )
        return RATES


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    found = Measured()
    monkeypatch.setattr(speed, "tokens_per_second", found)
    return found


def test_times_follow_from_rates_presets_and_data(home: Path, tmp_path: Path, measured: Measured) -> None:
    result = plan(config(home, task="ner", data_dir=home, measure=True))
    folder, wanted = student(home, tmp_path, result), task("ner", ())
    split = load_split(wanted, LANGUAGES[0], "train", data_dir=home)
    model = new_head(folder, wanted.kind, wanted.scored_labels, seed=0)
    assert load_tokenizer(folder).get_vocab() == model.tokenizer.get_vocab()
    tokens = sum(len(f["input_ids"]) for f in trainable_kind_of(wanted).training_features(model, split.examples))
    assert list(result.presets) == ["smoke", "small", "paper"] and not result.notes
    for name, found in result.presets.items():
        preset, phase = PRESETS[name], PRESETS[name].tuning["tagging"]
        assert (
            found["general"]["tokens"] == preset.general.steps * preset.general.batch_size * preset.general.max_length
        )
        assert found["tuning"]["tokens"] == (phase.epochs + phase.sparse_epochs) * tokens
        assert found["teacher"]["tokens"] == phase.teacher_epochs * tokens
        parts = [found[key] for key in ("general", "teacher", "tuning")]
        for part in parts:
            assert part["tokens_per_second"] == RATES and part["faster"] == "float32"
            assert part["seconds"] == pytest.approx(part["tokens"] / 100)
        assert found["seconds"] == pytest.approx(sum(part["seconds"] for part in parts))
    assert [call["kind"] for call in measured.calls] == [None, "tagging", "tagging"] * 3
    assert [call["layers"] for call in measured.calls] == [(4, 2), (4, 2), (4, 4)] * 3
    assert all(call["rows"] == {result.vocabulary["student"]} for call in measured.calls)
    small = PRESETS["small"]
    assert measured.calls[3]["shape"] == (small.general.batch_size, small.general.max_length)
    assert measured.calls[6]["shape"] == (PRESETS["paper"].general.batch_size, 138)  # as many positions as there are
    assert [call["eager"] for call in measured.calls] == [False] * 6 + [True, True, False]  # the paper's attention term


def test_a_teacher_runs_only_as_deep_as_it_is_looked_at(home: Path, measured: Measured) -> None:
    result = plan(config(home, init="1", measure=True))
    assert result.task is None and all(found["tuning"] is None for found in result.presets.values())
    assert {call["layers"] for call in measured.calls} == {(2, 1)} and len(measured.calls) == 3
    plan(config(home, init="1", task="ner", data_dir=home, measure=True))
    assert [call["layers"] for call in measured.calls[3::3]] == [(2, 1)] * 3
    assert [call["layers"] for call in measured.calls[4::3]] == [(4, 1)] * 3  # logits come from all of it
    measured.calls.clear()
    plan(config(home, layers=1, init="bottom", measure=True))
    assert {call["layers"] for call in measured.calls} == {(4, 1)}  # it is to learn what the last layer knows


def test_without_its_data_there_is_no_time_for_phase_2(home: Path, tmp_path: Path, measured: Measured) -> None:
    result = plan(config(home, task="nli", data_dir=tmp_path, measure=True))
    assert len(result.notes) == 1 and "No time for phase 2" in result.notes[0]
    for found in result.presets.values():
        assert found["tuning"]["tokens"] is None and found["tuning"]["tokens_per_second"] == RATES
        assert found["seconds"] is None and found["general"]["seconds"] > 0


def test_vectors_are_learnt_from_the_lines_of_both_texts(home: Path, measured: Measured) -> None:
    result = plan(config(home, task="embedding", measure=True))
    counts = 0
    vocabulary = opened(home / "m").vocabulary
    for code in ("en", "sw"):
        counts += sum(len(ids) + 2 for ids in vocabulary.encoders[0]((home / f"{code}.txt").read_text().splitlines()))
    phase = PRESETS["small"].tuning["retrieval"]
    tokens = result.presets["small"]["tuning"]["tokens"]
    assert tokens == pytest.approx((phase.epochs + phase.sparse_epochs) * counts, rel=0.03)  # some lines are held out
    assert result.parameters["student"]["head"] == 0 and measured.calls[1]["kind"] == "retrieval"
    assert result.presets["small"]["teacher"] is None  # nothing is tuned for it


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        (None, {"hidden": 1.0, "attention": 1.0}),
        ("tagging", {"hidden": 1.0, "logits": 1.0}),
        ("classification", {"logits": 1.0, "labels": 1.0}),
        ("word-tagging", {"logits": 1.0}),
        ("span-extraction", {"logits": 1.0}),
        ("retrieval", {"hidden": 1.0, "pooled": 1.0}),
    ],
)
def test_steps_of_every_kind_are_measured(kind: str | None, weights: dict[str, float], home: Path) -> None:
    specs = {name: OBJECTIVES.parse(f"{name}={weight}") for name, weight in weights.items()}
    objectives = build(specs, scale="teacher", pairs=((0, 1), (1, 3)))
    eager = needs_attention(objectives.needs.student)
    assert eager == ("attention" in weights)
    teacher, student = (speed.random_network(home / "m", kind, 3, eager=eager) for _ in range(2))
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    rates = speed.tokens_per_second(teacher, student, objectives, arch("bert"), 4, 16, kind=kind, seconds=0.01)
    assert set(rates) == set(speed.PRECISIONS) and all(0 < rate < 1e9 for rate in rates.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())


# ---- the command ----


def test_the_command_prints_one_object_or_a_table(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [part for code in ("en", "sw") for part in ("--text", f"{code}={home / code}.txt")]
    words = ["plan", "en", "sw", "--model", str(home / "m"), *texts, "--layers", "2", "-q"]
    main([*words, "--no-measure", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["command"] == "plan" and found["languages"] == ["en", "sw"] and found["layers"] == [1, 3]
    main(words)
    said = capsys.readouterr().out
    assert f"{found['parameters']['student']['total']:,}" in said and "1, 3" in said
    assert all(name in said for name in PRESETS) and "phase 1" in said and "phase 2" not in said


def test_times_are_readable() -> None:
    said = [_duration(s) for s in (None, 3.0, 90, 5400, 200_000)]
    assert said == ["?", "3.0 s", "1.5 min", "1.5 h", "2.3 days"]


def test_what_cannot_be_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the same language, English"):
        plan(PlanOptions("en", "eng", model=str(home / "m")))
    with pytest.raises(UsageError, match="Choose 1, 2 or 4"):
        plan(config(home, reduction=3))
    with pytest.raises(UsageError, match="have no labels to distil"):
        plan(config(home, task="bitext"))
    with pytest.raises(UsageError, match="A `vocab_size` of 3 is too small"):
        plan(config(home, vocab_size=3))
    with pytest.raises(UsageError, match="`limit` must be at least 1"):
        plan(config(home, limit=0))
    with pytest.raises(UsageError, match="`min_share` must be above 0 and at most 1, not 0"):
        plan(config(home, min_share=0.0))
    (tmp_path / "zh.txt").write_text("𖫐𖫑𖫒 𖫓𖫔𖫕 𖫖𖫗𖫘\n" * 20, encoding="utf-8")
    texts = {"text": (f"en={tmp_path / 'zh.txt'}", f"sw={home / 'sw.txt'}")}
    with pytest.raises(PolydistillError, match="cannot write English"):
        plan(config(home, **texts))
    assert plan(config(home, allow_unknown=True, **texts)).share < 1
