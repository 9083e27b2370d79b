"""Several objectives together, their names, options and weights."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from objective_cases import PAIRS, example, hidden_example, logits, relations_of, tensor
from torch import Tensor

from polydistill import catalog
from polydistill.distill.listing import OBJECTIVES, TASK, TEXT
from polydistill.distill.objectives.base import LayerPairs, Weighted
from polydistill.distill.objectives.build import build
from polydistill.distill.objectives.cosine import Cosine
from polydistill.distill.objectives.hidden import HiddenStates
from polydistill.distill.objectives.logits import Logits
from polydistill.distill.observer import Observer
from polydistill.distill.signals import HIDDEN, LOGITS, Signal
from polydistill.errors import PolydistillError, UsageError
from polydistill.options.specs import Spec
from polydistill.training.facts import TrainingFacts

# --- several together


def test_weights_scale_terms_and_values_stay() -> None:
    student, teacher, batch = hidden_example()
    objectives = {"hidden": (HiddenStates(((0, 1),)), 3.0), "cosine": (Cosine(((0, 1),)), 0.5)}
    loss, values = Weighted(objectives)(student, teacher, batch)
    assert set(values) == {"hidden", "cosine"} and values["hidden"] == pytest.approx(1.875)
    assert float(loss) == pytest.approx(3 * values["hidden"] + 0.5 * values["cosine"])


def test_by_first_divides_by_the_value_of_the_first_step() -> None:
    student, teacher, batch = hidden_example()
    weighted = Weighted({"hidden": (HiddenStates(((0, 1),)), 3.0)}, by_first=True)
    assert float(weighted(student, teacher, batch)[0]) == pytest.approx(3)
    nearer = {Signal(HIDDEN, 0): student[Signal(HIDDEN, 0)], Signal(HIDDEN, 1): teacher[Signal(HIDDEN, 2)]}
    loss, values = weighted(nearer, teacher, batch)
    assert values["hidden"] == pytest.approx(13 / 8) and weighted.first == {"hidden": pytest.approx(1.875)}
    assert float(loss) == pytest.approx(3 * (13 / 8) / 1.875)


def test_the_needs_of_several_are_those_of_each() -> None:
    weighted = Weighted({"hidden": (HiddenStates(((1, 3),)), 1.0), "logits": (Logits(), 1.0)})
    assert weighted.needs.student == {Signal(HIDDEN, 0), Signal(HIDDEN, 2), Signal(LOGITS)}
    assert weighted.needs.teacher == {Signal(HIDDEN, 0), Signal(HIDDEN, 4), Signal(LOGITS)}


@pytest.mark.parametrize("by_first", [False, True])
@pytest.mark.parametrize("name", ["hidden-relative", "attention", "relations", "logits-tags", "logits-answers"])
def test_processes_that_share_a_batch_get_its_loss(name: str, by_first: bool) -> None:
    """Two threads play two processes with texts of different lengths; gradients are the mean over them."""
    objective, student, teacher, batch = example(name)
    whole = Weighted({name: (objective, 2.0)}, by_first=by_first)(student, teacher, batch)
    shares, barrier, found = [0.0, 0.0], threading.Barrier(2), {}

    def process(rank: int, rows: slice) -> None:
        def agree(number: Tensor) -> Tensor:
            shares[rank] = number
            barrier.wait(timeout=20)
            mean = (shares[0] + shares[1]).div_(2)  # in place, as a collective does
            barrier.wait(timeout=20)
            return mean

        own = ({k: x[rows] for k, x in each.items()} for each in (student, teacher, batch))
        found[rank] = Weighted({name: (objective, 2.0)}, by_first=by_first)(*own, agree)

    shared = enumerate((slice(0, 1), slice(1, 3)))
    threads = [threading.Thread(target=process, args=each) for each in shared]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0][1] == found[1][1] == pytest.approx(whole[1], rel=1e-5)
    assert float(found[0][0] + found[1][0]) / 2 == pytest.approx(float(whole[0]), rel=1e-5)


# --- by their names


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """A teacher of 4 layers, a student of 2 and a small one with other heads and width, with any head."""
    root = tmp_path_factory.mktemp("models")
    sizes = {
        "teacher": {"num_hidden_layers": 4},
        "student": {},
        "small": {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 1},
    }

    def folder(size: str, head: str) -> Path:
        path = root / f"{size}-{head}"
        if not path.exists():
            tiny.model_folder("bert", head, path, seed=int(size == "teacher"), config=sizes[size])
        return path

    return folder


HEAD_OF = {"mlm": "masked-lm", **dict.fromkeys(("logits", "labels", "taid", "ps-kd"), "token-classification")}


def losses(weighted: Weighted, student: Any, teacher: Any, steps: int, bf16: bool) -> list[float]:
    """The loss at each step of training the student."""
    ids = torch.tensor([[5, 17, 60, 44, 9, 30], [5, 21, 9, 1, 1, 1]])
    mask = torch.tensor([[1] * 6, [1] * 3 + [0] * 3])
    batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([[-100, 1, 0, 1] + [-100] * 2] * 2)}
    batch["example_id"] = torch.tensor([0, 1])
    features = [{key: batch[key][row].tolist() for key in ("input_ids", "labels")} for row in (0, 1)]
    weighted.begin(TrainingFacts(steps, steps, features))
    arch, optimizer, found = catalog.arch("bert"), torch.optim.Adam(student.parameters(), lr=5e-3), []
    watcher, taught = Observer(student, weighted.needs.student, arch), Observer(teacher, weighted.needs.teacher, arch)
    for _ in range(steps):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            with torch.no_grad():
                known = taught(batch)
            loss, values = weighted(watcher(batch), known, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        weighted.on_step(len(found) + 1, values)
        found.append(loss.item())
    return found


def spec(text: str) -> Spec:
    return OBJECTIVES.parse(text)


def built(*texts: str, scale: str = "none", pairs: LayerPairs = PAIRS) -> Weighted:
    """What a user asks for."""
    return build({spec(text).name: spec(text) for text in texts}, scale=scale, pairs=pairs, outputs=2)


ELSEWHERE = ("mi-alpha", "answers")  # they need three texts at once, or questions
LEARNT = [one.name for one in OBJECTIVES if {TEXT, TASK} & set(one.uses) and one.name not in ELSEWHERE]


@pytest.mark.parametrize("name", LEARNT)
@pytest.mark.parametrize("bf16", [False, True])
def test_every_objective_can_be_learnt(name: str, bf16: bool, folders: Callable[[str, str], Path]) -> None:
    import transformers

    head = HEAD_OF.get(name, "base")
    cls = getattr(transformers, tiny.AUTO_CLASS[head])
    size = "small" if name == "relations" else "student"
    student, teacher = (cls.from_pretrained(folders(s, head), attn_implementation="eager") for s in (size, "teacher"))
    pairs = ((0, 3),) if name == "relations" else ((0, 1), (1, 3))
    weighted = built(f"{name}=1:form=kl" if name == "logits" else name, pairs=pairs)
    found = losses(weighted, student, teacher.eval(), 40, bf16)
    if name != "taid":  # its target has an entropy that is left, and moves away
        assert min(found[-5:]) < 0.7 * found[0]
    else:
        assert found[-1] < found[0]
    assert {term.split("_")[0] for term in weighted.first} == {name.partition("-")[0]}


def test_options_reach_the_objectives() -> None:
    student, teacher, batch = hidden_example()
    plain, relative = (built("hidden=2", scale=scale, pairs=((0, 1),)) for scale in ("none", "teacher"))
    assert float(plain(student, teacher, batch)[0]) == pytest.approx(2 * 1.875)
    assert float(relative(student, teacher, batch)[0]) == pytest.approx(13 / 17 + 0.5 / 4)
    assert built("hidden", scale="first").by_first and not relative.by_first
    assert Signal("query", 3) in built("relations").needs.teacher
    chosen = built("relations:layers=0,2")
    assert Signal("query", 0) in chosen.needs.student and Signal("query", 2) in chosen.needs.teacher
    with pytest.raises(PolydistillError, match="3 relation heads"):
        one = built("relations:heads=3", pairs=((0, 0),))
        one(relations_of(torch.ones(2, 4)), relations_of(torch.ones(2, 4)), {"attention_mask": torch.ones(1, 2)})
    one, other, batch = tensor([1, 0, 0]), tensor([2, 0, 0]), {"attention_mask": torch.ones(1, 3)}
    for text, by_hand in (("logits:squared=no", 1.006318), ("logits=1:form=kl", 0.123962)):
        assert float(built(text)(*logits(one[0][None], other[0][None]), batch)[0]) == pytest.approx(by_hand, abs=1e-6)


def test_what_is_turned_off_is_left_out() -> None:
    assert list(built("hidden=1", "logits=0").parts) == ["hidden"]
    with pytest.raises(UsageError, match="No objective has a weight above 0"):
        built("hidden=0")
    with pytest.raises(UsageError, match="Unknown scale 'last'"):
        built("hidden", scale="last")
