"""A head that a model to tune already has is reused by the names of its labels, never by shape or position."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import trainings
import transformers
from kills import Killed, Listener

from polydistill.catalog import arch, language, task
from polydistill.distill.listing import OBJECTIVES
from polydistill.distill.objectives.build import build
from polydistill.distill.signals import LOGITS, Signal
from polydistill.distill.task_teachers import TaskInputs, TeacherFolder
from polydistill.distill.tuning import task_job
from polydistill.errors import PolydistillError
from polydistill.evaluation.evaluate import EvaluateOptions, evaluate
from polydistill.evaluation.heads import AUTO_CLASSES, TaskModel, new_head, open_model
from polydistill.evaluation.reuse import output_layer, rows_by_name
from polydistill.labelled.sources import load_split
from polydistill.progress import SILENT
from polydistill.training.loop import collator

NLI = ("entailment", "neutral", "contradiction")
TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
BY_LETTER = tuple(sorted(TAGS))
TASKS = {"classification": NLI, "tagging": TAGS}
CLASSIFIERS = ["distilbert", "xlm-roberta", "deberta-v2", "electra", "modernbert", "llama", "t5"]
TAGGERS = ["bert", "deberta-v2", "modernbert", "llama"]


def headed(folder: Path, kind: str, names: Sequence[str], model_type: str = "bert") -> Path:
    """A random model with a head of its own; its outputs have these names."""
    tiny.model_folder(model_type, "base", folder)
    network = getattr(transformers, AUTO_CLASSES[kind]).from_pretrained(
        folder, id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)}
    )
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    network.save_pretrained(folder)
    return folder


def renamed(folder: Path, out: Path, names: Sequence[str]) -> Path:
    """The same weights, their outputs called otherwise."""
    shutil.copytree(folder, out)
    about = json.loads((out / "config.json").read_text())
    about |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    (out / "config.json").write_text(json.dumps(about))
    return out


def logits(model: TaskModel | Any) -> torch.Tensor:
    network = getattr(model, "network", model).eval()
    ids = torch.tensor([[5, 6, 7, 8, 9, 1], [5, 9, 11, 7, 6, 1]])
    with torch.no_grad():
        found: torch.Tensor = network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return found


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "kind"),
    [*((name, "classification") for name in CLASSIFIERS), *((name, "tagging") for name in TAGGERS)],
)
def test_outputs_follow_the_names_in_every_architecture(model_type: str, kind: str, tmp_path: Path) -> None:
    labels = TASKS[kind]
    names = [label.upper() for label in sorted(labels)]
    folder = headed(tmp_path / "m", kind, names, model_type)
    before = logits(getattr(transformers, AUTO_CLASSES[kind]).from_pretrained(folder))
    model = new_head(folder, kind, labels, seed=1)
    order = [names.index(label.upper()) for label in labels]
    assert order != list(range(len(labels))) and model.reused and model.reused.kept == labels
    assert same(logits(model), before[..., order])
    assert [model.network.config.id2label[i] for i in range(len(labels))] == list(labels) == list(model.labels)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return headed(tmp_path_factory.mktemp("tagger") / "m", "tagging", BY_LETTER)


def test_a_head_with_more_labels_gives_those_of_the_task(tagger: Path) -> None:
    wanted = ("O", "B-LOC", "I-LOC")
    before = logits(open_model(tagger, "tagging", BY_LETTER))
    model = new_head(tagger, "tagging", wanted, seed=1)
    assert same(logits(model), before[..., [BY_LETTER.index(label) for label in wanted]])
    assert model.reused and model.reused.kept == wanted and not model.reused.new
    assert model.reused.dropped == ("B-ORG", "B-PER", "I-ORG", "I-PER")
    assert "Dropped: B-ORG, B-PER, I-ORG, I-PER." in model.reused.sentence


def test_labels_that_a_head_lacks_begin_from_the_seed(tagger: Path) -> None:
    wanted = ("O", "B-DATE", "B-PER", "I-DATE", "I-PER")
    before = logits(open_model(tagger, "tagging", BY_LETTER))
    model, again, other = (new_head(tagger, "tagging", wanted, seed=seed) for seed in (1, 1, 2))
    places, rows = [0, 2, 4], [BY_LETTER.index(label) for label in ("O", "B-PER", "I-PER")]
    assert same(logits(model)[..., places], before[..., rows])
    assert same(logits(model), logits(again))
    alike = [same(logits(model)[..., i], logits(other)[..., i]) for i in range(5)]
    assert alike == [True, False, True, False, True]
    assert model.reused and model.reused.new == ("B-DATE", "I-DATE")
    assert "New: B-DATE, I-DATE." in model.reused.sentence


def test_as_many_labels_with_other_names_are_not_the_same_ones(tagger: Path, tmp_path: Path) -> None:
    """A head of the right size whose labels are partly others keeps its rows for the names that match alone."""
    names = [name.replace("PER", "DATE") for name in BY_LETTER]
    model = new_head(renamed(tagger, tmp_path / "m", names), "tagging", TAGS, seed=1)
    before, after = logits(open_model(tagger, "tagging", BY_LETTER)), logits(model)
    for place, label in enumerate(TAGS):
        assert same(after[..., place], before[..., BY_LETTER.index(label)]) == ("PER" not in label)
    assert model.reused and model.reused.dropped == ("B-DATE", "I-DATE")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([f"LABEL_{i}" for i in range(7)], r"no names \(LABEL_0, .*Name|name its labels in id2label"),
        ([f"x{i}" for i in range(7)], r"none of the labels .*\(x0, x1, x2, x3, x4, x5, x6\) is one of the task"),
        (["O", "B-PER"], "has the shape .* names 2 labels"),
    ],
)
def test_a_head_whose_labels_mean_nothing_here_is_not_used(
    names: list[str], reason: str, tagger: Path, tmp_path: Path
) -> None:
    model = new_head(renamed(tagger, tmp_path / "m", names), "tagging", TAGS, seed=1)
    found, own = output_layer(model.network, 7), output_layer(open_model(tagger, "tagging", BY_LETTER).network, 7)
    assert found and own and not (found[1].weight == own[1].weight).all(1).any()
    assert float(found[1].weight.detach().abs().max()) < 1.5 and not found[1].bias.any()
    assert model.reused and not model.reused.kept and model.reused.new == TAGS
    assert re.search(reason, model.reused.sentence)


def test_a_head_for_another_kind_of_task_is_not_used(tmp_path: Path) -> None:
    folder = headed(tmp_path / "m", "classification", NLI)
    model = new_head(folder, "tagging", NLI, seed=1)
    assert model.reused and not model.reused.kept and "another kind of task (BertForSequence" in model.reused.why_not
    answers = new_head(folder, "span-extraction", (), seed=1)
    assert answers.reused and answers.reused.new == ("start", "end") and answers.network.qa_outputs.out_features == 2


def test_a_head_for_answers_is_used_as_it_is(tmp_path: Path) -> None:
    folder = headed(tmp_path / "m", "span-extraction", ("LABEL_0", "LABEL_1"))
    model = new_head(folder, "span-extraction", (), seed=1)
    own = open_model(folder, "span-extraction", ()).network.qa_outputs
    assert model.reused and model.reused.kept == ("start", "end")
    assert torch.equal(model.network.qa_outputs.weight, own.weight)


def test_a_model_without_a_head_has_nothing_to_say(tmp_path: Path) -> None:
    model = new_head(tiny.model_folder("bert", "base", tmp_path / "m"), "tagging", TAGS, seed=1)
    assert model.reused and model.reused.new == TAGS and not model.reused.sentence


def test_rows_by_name() -> None:
    assert rows_by_name(("a", "B", "c"), ("b", "x", "C")) == [1, None, 2]
    assert rows_by_name(("b", "B"), ("B",)) == [1] and rows_by_name(("B", "b"), ("B",)) == [0]
    assert rows_by_name(("B-LOCATION", "B-person", "O"), ("O", "B-PER", "B-LOC")) == [2, 1, 0]
    assert rows_by_name(("LABEL_1", "LABEL_0"), ("0", "1")) == [1, 0]
    assert rows_by_name(("LABEL_0", "LABEL_1"), ("1", "2")) == [None, None]


# ---- trainings


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainings.prepare(tmp_path_factory.mktemp("root") / "data")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))


def tuned(root: Path, out: Path, kind: str, names: Sequence[str]) -> Path:
    """A random head of the task on the trainings' base model, its outputs in some order."""
    shutil.copytree(root / "base", out)
    model = new_head(out, kind, names, seed=3)
    layer = output_layer(model.network, len(names))
    assert layer
    torch.manual_seed(5)
    with torch.no_grad():
        rows = {label: 0.5 * torch.randn(layer[1].in_features) for label in sorted(names)}
        layer[1].weight.copy_(torch.stack([rows[name] for name in names]))
    model.network.save_pretrained(out)
    return out


@pytest.mark.parametrize(("kind", "name"), [("classification", "nli"), ("tagging", "ner")])
def test_a_model_that_learns_next_to_nothing_stays_loyal_to_itself(
    kind: str, name: str, root: Path, tmp_path: Path
) -> None:
    """Whatever the order of its labels: the dev score is the one that `evaluate` gives, and loyalty is 1."""
    scores = []
    for number, names in enumerate((TASKS[kind], sorted(TASKS[kind]))):
        model = tuned(root, tmp_path / f"m{number}", kind, names)
        options = {"model": str(model), "task": name, "lr": 1e-12, "epochs": 1, "checks": 1}
        result = trainings.tune(root, tmp_path / f"out{number}", **options)
        assert result.facts["head"] == {"kept": list(TASKS[kind]), "new": [], "dropped": [], "why_not": ""}
        about = EvaluateOptions(
            model=(str(result.output),), teacher=str(model), task=name, languages=("en",), data_dir=root, split="dev"
        )
        found = evaluate(about)
        assert found.loyalty and found.loyalty["scores"]
        assert [row["value"] for row in found.loyalty["scores"]] == pytest.approx([1.0] * len(found.loyalty["scores"]))
        scores += [result.selection["value"], *(s.value for s in found.scores if s.normalisation != "strict-iob2")]
    assert len(scores) == 6 and len(set(scores)) == 1


def test_a_run_goes_on_with_the_head_that_it_began_with(root: Path, tmp_path: Path) -> None:
    named = tuned(root, tmp_path / "named", "tagging", TAGS)
    model = renamed(named, tmp_path / "m", [f"LABEL_{i}" for i in range(7)])
    listener = Listener()
    whole = trainings.tune(root, tmp_path / "whole", listener, model=str(model))
    assert whole.facts["head"]["new"] == list(TAGS) and "have no names (LABEL_0" in listener.said
    with pytest.raises(Killed):
        trainings.tune(root, tmp_path / "cut", Listener(1), model=str(model))
    about = (model / "config.json").read_text()
    shutil.copyfile(named / "config.json", model / "config.json")
    with pytest.raises(PolydistillError, match="had other options or data"):
        trainings.tune(root, tmp_path / "cut", model=str(model), resume=True)
    (model / "config.json").write_text(about)
    resumed = trainings.tune(root, tmp_path / "cut", model=str(model), resume=True)
    assert (
        trainings.weights(resumed.output) == trainings.weights(whole.output)
        and resumed.facts["head"] == whole.facts["head"]
    )


def test_a_teachers_signals_on_disk_are_those_of_its_labels(root: Path, tmp_path: Path) -> None:
    """The same weights under other names say something else, and what was kept of them is not read again."""
    first = tuned(root, tmp_path / "first", "tagging", TAGS)
    teachers = [first, renamed(first, tmp_path / "second", TAGS[::-1])]
    wanted, english = task("ner"), language("en")
    data = [load_split(wanted, english, name, data_dir=root, limit=6) for name in ("train", "dev")]
    asked = build({"logits": OBJECTIVES.parse("logits")})

    def says(folder: Path) -> torch.Tensor:
        inputs = TaskInputs(
            root / "base",
            (TeacherFolder(folder),),
            arch("bert"),
            wanted,
            "en",
            32,
            0,
            False,
            False,
            1 << 30,
            tmp_path / f"{folder.name}.json",
            SILENT,
        )
        job = task_job(inputs, data[:1], data[1:], asked)
        assert job.teacher
        batch = collator(job.student.model.tokenizer, about=True)(list(job.features[:4]))
        found: torch.Tensor = job.teacher.signals(batch)[Signal(LOGITS)]
        return found

    kept = [says(folder) for folder in teachers]
    assert same(kept[1], kept[0].flip(-1)) and not same(kept[0], kept[1])


def test_a_class_that_reads_nothing_of_the_model_is_refused(tmp_path: Path) -> None:
    folder = tiny.model_folder("llama", "causal-lm", tmp_path / "llama")
    with pytest.raises(PolydistillError, match="LlamaForQuestionAnswering reads none of the weights") as stop:
        new_head(folder, "span-extraction", (), seed=1)
    assert "architecture that has such a head" in stop.value.hint
