"""Teachers: as deep as needed and no deeper, the same from disk, averaged, and aligned by word."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers

from polydistill.catalog import arch as find_arch
from polydistill.distill import cached as cache_module
from polydistill.distill.cached import CachedTeacher, bytes_of, cached, shapes_of
from polydistill.distill.observer import Observer, layers_of
from polydistill.distill.signals import (
    ATTENTION,
    HIDDEN,
    KEY,
    LOGITS,
    NEVER,
    POOLED,
    QUERY,
    SCORES,
    Batch,
    Signal,
    Signals,
)
from polydistill.distill.teachers.aligned import WordAligned
from polydistill.distill.teachers.base import Teacher
from polydistill.distill.teachers.ensemble import Ensemble
from polydistill.distill.teachers.frozen import FrozenTeacher, load_teacher
from polydistill.distill.teachers.labels import in_order
from polydistill.errors import PolydistillError
from polydistill.evaluation import classification, spans, tagging
from polydistill.evaluation.heads import TaskModel, new_head, open_model
from polydistill.labelled.examples import PairExample, QuestionExample, TaggedExample
from polydistill.progress import Progress
from polydistill.training.loop import collator

TAGS = ("O", "B-PER", "I-PER", "B-LOC")
NLI = ("entailment", "neutral", "contradiction")
TEXTS = tiny.sentences("en", "ro", "sw", count=40)
SENTENCES = [
    TaggedExample(str(i), tuple(t.split()), tuple(TAGS[(i + j) % 4] for j in range(len(t.split()))))
    for i, t in enumerate([*TEXTS, " ".join(TEXTS[:9])])
]
LAYERS = {"gpt2": "n_layer", "distilbert": "n_layers"}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))


def network_of(model_type: str, folder: Path, layers: int = 4) -> Any:
    config = {LAYERS.get(model_type, "num_hidden_layers"): layers}
    tiny.model_folder(model_type, "base", folder, config=config)
    return transformers.AutoModel.from_pretrained(folder).eval()


def tokens(rows: Sequence[int], width: int = 0) -> dict[str, Any]:
    """A batch of random ids with so many positions in each row."""
    width = max(width, *rows)
    random = torch.Generator().manual_seed(sum(rows))
    mask = (torch.arange(width) < torch.tensor(rows)[:, None]).long()
    ids = torch.randint(20, 200, (len(rows), 16), generator=random)[:, :width] * mask
    return {"input_ids": ids, "attention_mask": mask, "example_id": torch.arange(len(rows))}


def plain(network: Any, needs: frozenset[Signal], model_type: str, batch: Batch) -> Signals:
    """What the whole network says."""
    observer = Observer(network, needs, find_arch(model_type))
    with torch.no_grad():
        found = observer(batch)
    observer.close()
    return found


def as_deep(teacher: FrozenTeacher, model_type: str) -> int:
    return int(getattr(teacher.network.config, LAYERS.get(model_type, "num_hidden_layers")))


# ---- how deep


@pytest.mark.parametrize(
    ("model_type", "depth"),
    [(t, 2) for t in ("bert", "xlm-roberta", "distilbert", "electra", "mpnet", "deberta-v2", "albert")]
    + [(t, 3) for t in ("modernbert", "gpt2", "llama")],  # a norm stands after their last layer
)
def test_later_layers_are_left_out_and_nothing_changes(model_type: str, depth: int, tmp_path: Path) -> None:
    network, batch = network_of(model_type, tmp_path), tokens([9, 5])
    needs = frozenset({Signal(HIDDEN, 0), Signal(HIDDEN, 2)})
    expected = plain(network, needs, model_type, batch)
    teacher = FrozenTeacher(network, needs, find_arch(model_type))
    assert as_deep(teacher, model_type) == depth
    shared = find_arch(model_type).layers.shared  # type: ignore[union-attr]
    if not shared:
        assert len(layers_of(teacher.network, find_arch(model_type))) == depth
        for late in layers_of(network, find_arch(model_type))[depth:]:  # the same tensors: whoever runs them, shows it
            for parameter in late.parameters():
                parameter.data.fill_(float("nan"))
    found = teacher.signals(batch)
    assert found.keys() == needs
    assert all(torch.equal(found[s], expected[s]) for s in needs)
    assert as_deep_of(network, model_type) == 4


def as_deep_of(network: Any, model_type: str) -> int:
    return int(getattr(network.config, LAYERS.get(model_type, "num_hidden_layers")))


@pytest.mark.parametrize(
    ("needs", "depth"),
    [
        ({Signal(ATTENTION, 1)}, 2),
        ({Signal(QUERY, 2), Signal(KEY, 0)}, 3),
        ({Signal(SCORES, 0)}, 1),
        ({Signal(HIDDEN, 0)}, 1),
        ({Signal(HIDDEN, 3), Signal(ATTENTION, 0)}, 3),
        ({Signal(HIDDEN, 4)}, 4),
        ({Signal(POOLED), Signal(HIDDEN, 1)}, 4),
    ],
)
def test_depth_by_signal(needs: set[Signal], depth: int, tmp_path: Path) -> None:
    network, batch = network_of("bert", tmp_path), tokens([6, 8])
    network.set_attn_implementation("eager")
    teacher = FrozenTeacher(network, needs, find_arch("bert"))
    assert as_deep(teacher, "bert") == depth
    expected, found = plain(network, frozenset(needs), "bert", batch), teacher.signals(batch)
    assert found.keys() == needs and all(torch.equal(found[s], expected[s]) for s in needs)


def test_without_an_architecture_the_whole_network_runs(tmp_path: Path) -> None:
    network, batch = network_of("bert", tmp_path), tokens([4])
    teacher = FrozenTeacher(network, {Signal(HIDDEN, 1)})
    assert as_deep(teacher, "bert") == 4
    expected = plain(network, teacher.needs, "bert", batch)
    assert torch.equal(teacher.signals(batch)[Signal(HIDDEN, 1)], expected[Signal(HIDDEN, 1)])


def test_teachers_are_frozen_shared_and_quiet(tmp_path: Path) -> None:
    network = network_of("bert", tmp_path).train()
    bytes_before = {p.data_ptr() for p in network.parameters()}
    teacher = FrozenTeacher(network, {Signal(HIDDEN, 2)}, find_arch("bert"))
    assert not teacher.network.training and {p.data_ptr() for p in teacher.network.parameters()} <= bytes_before
    found = teacher.signals(tokens([4]))[Signal(HIDDEN, 2)]
    assert not found.requires_grad and not found.is_inference()
    assert not any(p.requires_grad for p in network.parameters())
    weight = torch.nn.Parameter(torch.ones_like(found))
    (weight * found).sum().backward()  # a backward pass may keep it
    assert torch.equal(weight.grad, found)
    assert not isinstance(teacher, torch.nn.Module)


def test_autocast_is_the_teachers_own(tmp_path: Path) -> None:
    network, batch, need = network_of("bert", tmp_path), tokens([9]), Signal(HIDDEN, 4)
    exact = FrozenTeacher(network, {need}).signals(batch)[need]
    half = FrozenTeacher(network, {need}, autocast=True).signals(batch)[need]
    assert half.dtype == torch.float32 and not torch.equal(half, exact)
    assert torch.allclose(half, exact, atol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(FrozenTeacher(network, {need}).signals(batch)[need], exact)


# ---- loading


def headed(folder: Path, kind: str, labels: Sequence[str], **options: Any) -> Path:
    """A random model with a head."""
    tiny.model_folder("bert", "base", folder, **{"tokenizer": "xlm-roberta", **options})
    model = new_head(folder, kind, labels, seed=3)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.network.save_pretrained(folder)
    return folder


def test_only_attention_probabilities_ask_for_plain_attention(tmp_path: Path) -> None:
    folder = headed(tmp_path / "m", "tagging", TAGS)
    for kind, named in ((None, {}), ("tagging", {"kind": "tagging", "labels": TAGS})):
        fused = load_teacher(folder, {Signal(HIDDEN, 1), Signal(SCORES, 0)}, **named)  # type: ignore[arg-type]
        eager = load_teacher(folder, {Signal(ATTENTION, 1)}, **named)  # type: ignore[arg-type]
        assert fused.network.config._attn_implementation == "sdpa", kind
        assert eager.network.config._attn_implementation == "eager", kind
        attention = eager.signals(tokens([7]))[Signal(ATTENTION, 1)]
        assert torch.allclose(attention.sum(-1), torch.ones(1, 2, 7), atol=1e-5)
    assert not hasattr(fused.network, "classifier")  # nothing asks for logits


def test_logits_come_in_the_students_order(tmp_path: Path) -> None:
    folder, batch = headed(tmp_path / "m", "classification", NLI), tokens([5, 7])
    theirs = load_teacher(folder, {Signal(LOGITS)}, kind="classification", labels=NLI).signals(batch)[Signal(LOGITS)]
    ours = load_teacher(folder, {Signal(LOGITS)}, kind="classification", labels=NLI[::-1]).signals(batch)
    assert theirs.shape == (2, 3) and torch.equal(ours[Signal(LOGITS)], theirs.flip(-1))
    with pytest.raises(PolydistillError, match="label"):
        load_teacher(folder, {Signal(LOGITS)}, kind="classification", labels=("yes", "no", "neutral"))
    network = open_model(folder, "classification", NLI).network
    with pytest.raises(PolydistillError, match=r"labels \(a, b\) are not those of the data \(b, c\)"):
        FrozenTeacher(network, {Signal(LOGITS)}, labels=("a", "b"), wanted=("b", "c"))


def test_types_that_are_not_scored_add_to_o(tmp_path: Path) -> None:
    folder = headed(tmp_path / "m", "tagging", (*TAGS, "B-DATE", "I-DATE"))
    wanted, need = TAGS[::-1], Signal(LOGITS)
    found = load_teacher(folder, {need}, kind="tagging", labels=wanted, not_scored=("DATE",)).signals(tokens([6]))[need]
    network = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        shares = network(input_ids=tokens([6])["input_ids"]).logits.softmax(-1)
    expected = torch.stack([shares[..., 3], shares[..., 2], shares[..., 1], shares[..., [0, 4, 5]].sum(-1)], -1)
    assert torch.allclose(found.softmax(-1), expected, atol=1e-6)


def test_labels_by_hand() -> None:
    logits = torch.tensor([1.0, 2.0, 3.0])
    assert in_order(logits, ("a", "b", "c"), ("c", "a", "b")).tolist() == [3, 1, 2]
    merged = in_order(torch.tensor([0.0, math.log(2), 1.0]), ("O", "O", "x"), ("x", "O"))
    assert merged.tolist() == pytest.approx([1, math.log(3)])


# ---- several


class Says(Teacher):
    """A teacher that always says the same."""

    def __init__(self, **signals: torch.Tensor) -> None:
        self.found = {Signal(kind): tensor for kind, tensor in signals.items()}
        self.needs, self.asked = frozenset(self.found), 0

    def signals(self, batch: Batch) -> Signals:
        self.asked += 1
        return self.found


def test_ensembles_by_hand() -> None:
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    both = Ensemble([(Says(logits=a, pooled=torch.ones(1, 3)), 3.0), (Says(logits=b), 1.0)])
    found = both.signals({})
    assert both.needs == found.keys() == {Signal(LOGITS), Signal(POOLED)}
    assert found[Signal(LOGITS)].tolist() == [[1.5, 1.0]] and found[Signal(POOLED)].tolist() == [[1, 1, 1]]
    mixed = Ensemble([(Says(logits=a), 3.0), (Says(logits=b), 1.0)], average="probabilities").signals({})
    first = 0.75 / (1 + math.exp(-2)) + 0.25 / (1 + math.exp(4))
    assert mixed[Signal(LOGITS)].softmax(-1).tolist()[0] == pytest.approx([first, 1 - first])
    padded = torch.tensor([[[1.0, 0.0, NEVER]]])
    answers = Ensemble([(Says(logits=padded), 1.0), (Says(logits=padded), 1.0)], average="probabilities").signals({})
    assert torch.allclose(answers[Signal(LOGITS)].softmax(-1), padded.softmax(-1)) and bool(
        answers[Signal(LOGITS)].isfinite().all()
    )
    with pytest.raises(PolydistillError, match="cannot share pooled"):
        Ensemble([(Says(pooled=a), 1.0), (Says(pooled=b), 1.0)])
    with pytest.raises(PolydistillError, match="weight"):
        Ensemble([(Says(logits=a), 0.0)])


# ---- features and batches that say what they are of


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> TaskModel:
    folder = headed(tmp_path_factory.mktemp("student") / "m", "tagging", TAGS)
    return open_model(folder, "tagging", TAGS, max_length=24)


def test_features_know_their_example_and_words(student: TaskModel) -> None:
    features = tagging.training_features(student, SENTENCES)
    assert len(features) > len(SENTENCES)  # the long one has windows
    words = {(f["example"], w) for f in features for w in f["word_ids"] if w >= 0}
    assert words == {(i, w) for i, e in enumerate(SENTENCES) for w in range(len(e.tokens))}
    for f in features:
        assert [w >= 0 for w in f["word_ids"]] == [label != tagging.NOT_TRAINED for label in f["labels"]]
        tags = SENTENCES[f["example"]].tags
        pairs = zip(f["word_ids"], f["labels"], strict=True)
        assert all(tags[w] == TAGS[label] for w, label in pairs if w >= 0)
    pairs_of = [PairExample("0", "a", "b", NLI[0]), PairExample("1", "c", "d", NLI[1])]
    model = TaskModel(None, student.tokenizer, NLI, 24)
    assert [f["example"] for f in classification.training_features(model, pairs_of)] == [0, 1]
    long = "the red house " * 12
    questions = [QuestionExample(str(i), "who?", long, (("red", 4),), "en", "en") for i in range(2)]
    found = [f["example"] for f in spans.training_features(model, questions)]
    assert found == sorted(found) and set(found) == {0, 1} and len(found) > 2


def test_batches_carry_what_distillation_needs(student: TaskModel) -> None:
    features = tagging.training_features(student, SENTENCES[:3])
    features = [{**f, "example_id": i, "language": "en"} for i, f in enumerate(features)]
    batch = collator(student.tokenizer, about=True)(features)
    assert batch["language"] == "en" and batch["example_id"].tolist() == list(range(len(features)))
    assert batch["example"].tolist() == [f["example"] for f in features] and set(batch["example"].tolist()) == {0, 1, 2}
    assert batch["word_ids"].shape == batch["input_ids"].shape and batch["word_ids"].dtype == torch.int64
    padding = batch["attention_mask"] == 0
    assert padding.any() and (batch["word_ids"][padding] == -1).all()
    mixed = collator(student.tokenizer, about=True)([features[0], {**features[1], "language": "sw"}])
    assert mixed["language"] == ["en", "sw"]
    assert set(collator(student.tokenizer)(features)) <= {"input_ids", "attention_mask", "token_type_ids", "labels"}


# ---- another vocabulary


def tagging_batches(model: TaskModel, size: int = 7) -> list[dict[str, Any]]:
    features = tagging.training_features(model, SENTENCES)
    features = [{**f, "example_id": i, "language": "en"} for i, f in enumerate(features)]
    collate = collator(model.tokenizer, about=True)
    return [collate(features[i : i + size]) for i in range(0, len(features), size)]


def test_words_bring_the_logits_of_another_vocabulary(student: TaskModel, tmp_path: Path) -> None:
    order = ("B-LOC", "I-PER", "O", "B-PER")
    folder = headed(tmp_path / "other", "tagging", order, tokenizer="bert")
    other = open_model(folder, "tagging", order, max_length=20)
    teacher = WordAligned(other, SENTENCES, TAGS)
    expected = tagging.predict(other, SENTENCES, batch_size=4)
    seen = 0
    for batch in tagging_batches(student):
        (logits,) = teacher.signals(batch).values()
        assert logits.shape == (*batch["input_ids"].shape, 4)
        for row, position in (batch["word_ids"] >= 0).nonzero().tolist():
            said = expected[int(batch["example"][row])]
            word = int(batch["word_ids"][row, position])
            shares = dict(zip(said["names"], said["probabilities"][word], strict=True))
            assert logits[row, position].softmax(-1).tolist() == pytest.approx([shares[t] for t in TAGS], abs=2e-6)
            seen += 1
        assert (logits[batch["word_ids"] < 0] == 0).all()
    assert seen == sum(len(e.tokens) for e in SENTENCES)
    with pytest.raises(PolydistillError, match="not those of the data"):
        WordAligned(other, SENTENCES, (*TAGS, "B-ORG"))


def test_words_without_tokens_say_nothing(student: TaskModel) -> None:
    example = TaggedExample("0", ("the", "\u200b\u200b", "house"), ("O",) * 3)
    (rows,) = tagging.word_logits(student, [example], batch_size=1)
    assert np.isnan(rows[1]).all() and not np.isnan(rows[[0, 2]]).any()
    teacher, zero = WordAligned(student, [example], TAGS), np.zeros(4, np.float32)
    batch = {"word_ids": torch.tensor([[-1, 0, 1, 2]]), "example": torch.tensor([0])}
    (logits,) = teacher.signals(batch).values()
    assert torch.equal(logits[0], torch.from_numpy(np.stack([zero, rows[0], zero, rows[2]])))


def test_several_teachers_with_other_vocabularies(student: TaskModel, tmp_path: Path) -> None:
    other = open_model(headed(tmp_path / "b", "tagging", TAGS, tokenizer="bert"), "tagging", TAGS, max_length=20)
    own = FrozenTeacher(student.network, {Signal(LOGITS), Signal(HIDDEN, 1)}, labels=TAGS, wanted=TAGS)
    aligned, batch = WordAligned(other, SENTENCES, TAGS), tagging_batches(student)[0]
    found = Ensemble([(own, 1.0), (aligned, 1.0)]).signals(batch)
    expected = (own.signals(batch)[Signal(LOGITS)] + aligned.signals(batch)[Signal(LOGITS)]) / 2
    assert torch.allclose(found[Signal(LOGITS)], expected) and Signal(HIDDEN, 1) in found


# ---- on disk


class Counted(Teacher):
    """A teacher that counts how often it is asked."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.needs, self.asked = inner, inner.needs, 0

    def signals(self, batch: Batch) -> Signals:
        self.asked += 1
        found: Signals = self.inner.signals(batch)
        return found


EVERY = frozenset(
    {
        Signal(HIDDEN, 0),
        Signal(HIDDEN, 2),
        Signal(ATTENTION, 1),
        Signal(SCORES, 0),
        Signal(KEY, 1),
        Signal(POOLED),
        Signal(LOGITS),
    }
)
ROWS = (6, 9, 4, 9, 5)


def teacher_of(folder: Path, kind: str, labels: Sequence[str], needs: frozenset[Signal] = EVERY) -> Counted:
    return Counted(load_teacher(headed(folder, kind, labels), needs, kind=kind, labels=labels))


def chosen(batch: Batch, rows: Sequence[int], width: int) -> dict[str, Any]:
    """Some rows of a batch at another width."""
    wide = tokens(ROWS, 16)
    return {key: wide[key][list(rows)][:, :width] for key in ("input_ids", "attention_mask")} | {
        "example_id": torch.tensor(rows)
    }


def near(found: Signals, expected: Signals, mask: torch.Tensor, answers: bool = False, atol: float = 0) -> None:
    """Read from disk and equal to what is expected wherever there is no padding."""
    assert found.keys() == expected.keys()
    for signal, tensor in expected.items():
        assert found[signal].shape == tensor.shape and found[signal].dtype == torch.float32
        for row, n in enumerate(mask.sum(-1).tolist()):
            a, b = found[signal][row], tensor[row]
            if signal.kind in (ATTENTION, SCORES):
                a, b = a[:, :n, :n], b[:, :n, :n]
            elif signal.kind == LOGITS and answers:
                assert (a[:, n:] == NEVER).all()
                a, b = a[:, :n], b[:, :n]
            elif a.ndim > 1:
                assert (a[n:] == 0).all()
                a, b = a[:n], b[:n]
            assert torch.allclose(a, b, rtol=0, atol=atol), signal


@pytest.mark.parametrize("kind", ["classification", "tagging", "span-extraction"])
def test_what_is_read_is_what_was_said(kind: str, tmp_path: Path) -> None:
    labels = {"classification": NLI, "tagging": TAGS, "span-extraction": ()}[kind]
    inner = teacher_of(tmp_path / "m", kind, labels)
    teacher = cached(inner, {"teacher": "x"}, ROWS, max_bytes=1 << 30)
    assert isinstance(teacher, CachedTeacher)
    batch, answers = tokens(ROWS), kind == "span-extraction"
    asked = inner.asked
    first, second = teacher.signals(batch), teacher.signals(batch)
    assert inner.asked == asked + 1 and teacher.hits == 1
    near(second, first, batch["attention_mask"], answers)
    other = chosen(batch, [3, 0, 4], 12)  # another order and another width of padding
    asked = inner.asked
    near(teacher.signals(other), inner.inner.signals(other), other["attention_mask"], answers, atol=1e-5)
    assert inner.asked == asked
    teacher.close()
    again = cached(inner, {"teacher": "x"}, ROWS, max_bytes=1 << 30)
    asked = inner.asked
    near(again.signals(batch), first, batch["attention_mask"], answers)
    assert inner.asked == asked
    size = sum(p.stat().st_size for p in teacher.folder.glob("*.f32"))
    assert size == bytes_of(shapes_of(inner), ROWS)
    assert teacher.folder.parent == tmp_path / "cache" / "signals"


def test_other_facts_data_or_needs_are_another_cache(tmp_path: Path) -> None:
    inner = teacher_of(tmp_path / "m", "classification", NLI, frozenset({Signal(LOGITS)}))
    more = Counted(load_teacher(tmp_path / "m", {Signal(LOGITS), Signal(HIDDEN, 1)}, kind="classification", labels=NLI))
    made = [
        cached(inner, {"teacher": "x"}, ROWS, max_bytes=1 << 30),
        cached(inner, {"teacher": "y"}, ROWS, max_bytes=1 << 30),
        cached(inner, {"teacher": "x"}, ROWS[:4], max_bytes=1 << 30),
        cached(more, {"teacher": "x"}, ROWS, max_bytes=1 << 30),
    ]
    assert len({teacher.folder for teacher in made if isinstance(teacher, CachedTeacher)}) == 4


class Said(Progress):
    def __init__(self) -> None:
        self.text = ""

    def note(self, text: str) -> None:
        self.text += text

    warn = note


def test_what_takes_too_much_room_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, said = teacher_of(tmp_path / "m", "tagging", TAGS), Said()
    needed = bytes_of(shapes_of(inner), ROWS)
    hidden = 2 * sum(ROWS) * 32 + 1 * sum(ROWS) * 32
    square = 2 * 2 * sum(n * n for n in ROWS)
    assert needed == 4 * (hidden + square + 5 * 32 + sum(ROWS) * 4)
    assert cached(inner, {}, ROWS, max_bytes=needed - 1, progress=said) is inner
    assert "in every step" in said.text and not (tmp_path / "cache").exists()
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "_free", lambda folder: cache_module.ROOM_LEFT + needed - 1)
        assert cached(inner, {}, ROWS, max_bytes=needed) is inner
    assert cached(inner, {}, ROWS, max_bytes=needed) is not inner


def test_signals_that_nobody_uses_make_room(tmp_path: Path) -> None:
    inner = teacher_of(tmp_path / "m", "tagging", TAGS)
    needed = bytes_of(shapes_of(inner), ROWS) + 4 * len(ROWS) + 1000  # with checksums and header
    kept = {}
    for name, days in (("old", 2.0), ("older", 3.0), ("used", 0.5)):
        teacher = cached(inner, {"run": name}, ROWS, max_bytes=9 * needed)
        assert isinstance(teacher, CachedTeacher)
        kept[name], then = teacher.folder, time.time() - days * 24 * 3600
        os.utime(teacher.folder / "header.json", (then, then))

    def left(run: str, max_bytes: int, **options: Any) -> set[str]:
        cached(inner, {"run": run}, ROWS, max_bytes=max_bytes, **options)
        return {name for name, folder in kept.items() if folder.exists()}

    assert left("new", 4 * needed) == left("new", 1, writes=True) == left("new", needed, writes=False) == set(kept)
    assert left("new", 3 * needed) == {"old", "used"}
    assert left("old", needed) == {"old", "used"}  # what is read now is in use
    assert left("new", needed) == {"old", "used"}


def test_a_full_disk_ends_the_cache_and_not_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, said, batch = teacher_of(tmp_path / "m", "classification", NLI), Said(), tokens(ROWS)
    teacher = cached(inner, {}, ROWS, max_bytes=1 << 30, progress=said)
    half = {key: value[:2] for key, value in batch.items()}
    expected = teacher.signals(half)

    def full(out: Any, data: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "write_all", full)
        found = teacher.signals(batch)
        assert all(torch.equal(found[s], t) for s, t in inner.inner.signals(batch).items())
    assert "disk is full" in said.text and "no further" in said.text
    near(teacher.signals(half), expected, half["attention_mask"])  # what was kept can be read
    asked = inner.asked
    teacher.signals(batch)
    assert inner.asked == asked + 1


def test_one_process_writes_and_the_others_read(tmp_path: Path) -> None:
    inner, batch = teacher_of(tmp_path / "m", "classification", NLI), tokens(ROWS)
    reader = cached(inner, {}, ROWS, max_bytes=1 << 30, writes=False)
    assert isinstance(reader, CachedTeacher)
    reader.signals(batch)
    assert not reader.folder.exists()
    writer = cached(inner, {}, ROWS, max_bytes=1 << 30)
    first, asked = writer.signals(batch), inner.asked
    reader.signals(batch)
    assert inner.asked == asked + 1  # not marked on disk yet
    writer.close()  # type: ignore[attr-defined]
    near(reader.signals(batch), first, batch["attention_mask"])
    assert inner.asked == asked + 1


@pytest.mark.parametrize("damaged", ["logits-0.f32", cache_module.MARKS])
def test_a_bit_that_flips_in_the_cache_is_noticed(damaged: str, tmp_path: Path) -> None:
    inner, batch = teacher_of(tmp_path / "m", "classification", NLI, frozenset({Signal(LOGITS)})), tokens(ROWS)
    writer = cached(inner, {}, ROWS, max_bytes=1 << 30)
    assert isinstance(writer, CachedTeacher)
    first = writer.signals(batch)
    writer.close()
    (file,) = [path for path in writer.folder.iterdir() if path.name.startswith(damaged.partition("-")[0])]
    content = bytearray(file.read_bytes())
    content[5] ^= 8
    file.write_bytes(content)
    reader = cached(inner, {}, ROWS, max_bytes=1 << 30, writes=False)
    with pytest.raises(PolydistillError, match=r"changed after they were written.*to resume"):
        reader.signals(batch)
    again, asked = cached(inner, {}, ROWS, max_bytes=1 << 30), inner.asked
    assert isinstance(again, CachedTeacher)
    again.signals(batch)
    assert inner.asked == asked + 1 and again.is_full
    again.close()
    assert all(torch.equal(reader.signals(batch)[s], t) for s, t in first.items())


def test_other_inputs_under_the_same_number_are_noticed(tmp_path: Path) -> None:
    inner = teacher_of(tmp_path / "m", "classification", NLI, frozenset({Signal(LOGITS)}))
    teacher = cached(inner, {}, ROWS, max_bytes=1 << 30)
    with pytest.raises(ValueError, match="positions"):
        teacher.signals(tokens([6, 8, 4, 9, 5]))


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path[:0] = {tests!r}
    import test_teachers as here
    from polydistill.distill import cached as module
    from polydistill.distill.teachers.frozen import load_teacher
    teacher = load_teacher(Path({folder!r}), here.EVERY, kind="classification", labels=here.NLI)
    module.FLUSH_SECONDS = -1  # marks every example at once
    keep = module.cached(teacher, {{}}, here.ROWS, max_bytes=1 << 30)
    write, left = module.write_all, [3 * len(here.EVERY) + 2]
    def dying(out, data):
        left[0] -= 1
        if left[0] == 0:
            out.write(memoryview(data).cast("B")[:10])
            os.kill(os.getpid(), signal.SIGKILL)
        write(out, data)
    module.write_all = dying
    keep.signals(here.tokens(here.ROWS))
"""


def test_a_kill_in_the_middle_leaves_marked_what_is_right(tmp_path: Path) -> None:
    inner, batch = teacher_of(tmp_path / "m", "classification", NLI), tokens(ROWS)
    script = textwrap.dedent(
        KILLED.format(tests=[str(Path(__file__).parents[1]), str(Path(__file__).parent)], folder=str(tmp_path / "m"))
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr.decode()[-2000:]
    teacher = cached(inner, {}, ROWS, max_bytes=1 << 30)
    assert isinstance(teacher, CachedTeacher)
    marks = np.fromfile(teacher.folder / cache_module.MARKS, np.uint32)
    assert (marks != 0).tolist() == [True, True, True, False, False]
    expected, asked = inner.inner.signals(batch), inner.asked
    start = {key: value[:3] for key, value in batch.items()}
    mask = start["attention_mask"]
    near(teacher.signals(start), {s: t[:3] for s, t in expected.items()}, mask, atol=1e-6)
    assert inner.asked == asked
    teacher.signals(batch)
    assert inner.asked == asked + 1
    near(teacher.signals(batch), expected, batch["attention_mask"])
