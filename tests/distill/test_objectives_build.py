"""Several objectives together, their names, options and weights."""

from __future__ import annotations

import json
import subprocess
import sys
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
from polydistill.cli import main
from polydistill.distill.listing import LISTED, parse_weights
from polydistill.distill.objectives.base import Weighted
from polydistill.distill.objectives.build import Options, build
from polydistill.distill.objectives.cosine import Cosine
from polydistill.distill.objectives.hidden import HiddenStates
from polydistill.distill.objectives.logits import Logits
from polydistill.distill.signals import HIDDEN, LOGITS, Observer, Signal
from polydistill.errors import PolydistillError, UsageError

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


HEAD_OF = {"mlm": "masked-lm", "logits": "token-classification", "labels": "token-classification"}


def losses(weighted: Weighted, student: Any, teacher: Any, steps: int, bf16: bool) -> list[float]:
    """The loss at each step of training the student."""
    ids = torch.tensor([[5, 17, 60, 44, 9, 30], [5, 21, 9, 1, 1, 1]])
    mask = torch.tensor([[1] * 6, [1] * 3 + [0] * 3])
    batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([[-100, 1, 0, 1] + [-100] * 2] * 2)}
    arch, optimizer, found = catalog.arch("bert"), torch.optim.Adam(student.parameters(), lr=5e-3), []
    watcher, taught = Observer(student, weighted.needs.student, arch), Observer(teacher, weighted.needs.teacher, arch)
    for _ in range(steps):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            with torch.no_grad():
                known = taught(batch)
            loss, _ = weighted(watcher(batch), known, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("name", [listed.name for listed in LISTED])
@pytest.mark.parametrize("bf16", [False, True])
def test_every_objective_can_be_learnt(name: str, bf16: bool, folders: Callable[[str, str], Path]) -> None:
    import transformers

    head = HEAD_OF.get(name, "base")
    cls = getattr(transformers, tiny.AUTO_CLASS[head])
    size = "small" if name == "relations" else "student"
    student, teacher = (cls.from_pretrained(folders(s, head), attn_implementation="eager") for s in (size, "teacher"))
    pairs = ((0, 3),) if name == "relations" else ((0, 1), (1, 3))
    weighted = build({name: 1.0}, pairs=pairs, options=Options(logit_form="kl", relation_heads=None))
    found = losses(weighted, student, teacher.eval(), 40, bf16)
    assert min(found[-5:]) < 0.7 * found[0]
    assert {term.split("_")[0] for term in weighted.first} == {name}


def test_options_reach_the_objectives() -> None:
    pairs = ((0, 1), (1, 3))
    student, teacher, batch = hidden_example()
    plain, relative = (
        build({"hidden": 2.0}, pairs=((0, 1),), options=Options(scale=scale)) for scale in ("none", "teacher")
    )
    assert float(plain(student, teacher, batch)[0]) == pytest.approx(2 * 1.875)
    assert float(relative(student, teacher, batch)[0]) == pytest.approx(13 / 17 + 0.5 / 4)
    assert build({"hidden": 1.0}, pairs=pairs, options=Options(scale="first")).by_first and not relative.by_first
    assert Signal("query", 3) in build({"relations": 1.0}, pairs=pairs, options=Options()).needs.teacher
    chosen = build({"relations": 1.0}, pairs=pairs, options=Options(relation_layers=(0, 2)))
    assert Signal("query", 0) in chosen.needs.student and Signal("query", 2) in chosen.needs.teacher
    with pytest.raises(PolydistillError, match="3 relation heads"):
        one = build({"relations": 1.0}, pairs=((0, 0),), options=Options(relation_heads=3))
        one(relations_of(torch.ones(2, 4)), relations_of(torch.ones(2, 4)), {"attention_mask": torch.ones(1, 2)})
    one, other, batch = tensor([1, 0, 0]), tensor([2, 0, 0]), {"attention_mask": torch.ones(1, 3)}
    for options, by_hand in ((Options(squared_temperature=False), 1.006318), (Options(logit_form="kl"), 0.123962)):
        found = build({"logits": 1.0}, pairs=pairs, options=options)(*logits(one[0][None], other[0][None]), batch)
        assert float(found[0]) == pytest.approx(by_hand, abs=1e-6)
    with pytest.raises(UsageError, match="temperature of 0"):
        build({"logits": 1.0}, pairs=pairs, options=Options(temperature=0))


def test_what_is_turned_off_is_left_out() -> None:
    assert list(build({"hidden": 1.0, "logits": 0.0}, pairs=PAIRS, options=Options()).parts) == ["hidden"]
    with pytest.raises(UsageError, match="No objective has a weight above 0"):
        build({"hidden": 0.0}, pairs=PAIRS, options=Options())
    with pytest.raises(UsageError, match="Unknown scale 'last'"):
        build({"hidden": 1.0}, pairs=PAIRS, options=Options(scale="last"))
    with pytest.raises(UsageError, match="Unknown objective 'hiden'"):
        build({"hiden": 1.0}, pairs=PAIRS, options=Options())


@pytest.mark.parametrize(
    ("given", "first", "second"),
    [
        (["hidden=1", "logits=0.5"], {"hidden": 1.0}, {"hidden": 1.0, "logits": 0.5}),
        (["1:hidden=2", "hidden=1"], {"hidden": 2.0}, {"hidden": 1.0}),
        (["2:hidden=2"], {}, {"hidden": 2.0}),
        (["mlm=1", "labels=3e-1"], {"mlm": 1.0}, {"labels": 0.3}),
        ([" hidden = 1", "hidden=0"], {"hidden": 0.0}, {"hidden": 0.0}),
        ([], {}, {}),
    ],
)
def test_weights_as_they_are_given(given: list[str], first: dict[str, float], second: dict[str, float]) -> None:
    assert parse_weights(given, 1) == first and parse_weights(given, 2) == second


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("hiddn=1", "Unknown objective 'hiddn'. Did you mean hidden?"),
        ("nothing=1", "Known are hidden, attention"),
        ("hidden", "'hidden' is no weight"),
        ("3:hidden=1", "'3:hidden=1' is no weight"),
        (":hidden=1", "':hidden=1' is no weight"),
        ("=1", "Unknown objective ''"),
        ("hidden=", "weight '' of hidden"),
        ("hidden=much", "weight 'much' of hidden"),
        ("hidden=-1", "weight '-1' of hidden"),
        ("hidden=nan", "weight 'nan' of hidden"),
        ("hidden=1e999", "weight '1e999' of hidden"),
        ("1:logits=1", "`logits` cannot be used in phase 1. It can be used in phase 2."),
        ("2:mlm=1", "`mlm` cannot be used in phase 2. It can be used in phase 1."),
    ],
)
@pytest.mark.parametrize("phase", [1, 2])
def test_weights_that_make_no_sense(given: str, message: str, phase: int) -> None:
    with pytest.raises(UsageError) as error:
        parse_weights([given], phase)
    assert message in str(error.value) and error.value.hint


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    main(["ls", "objectives", "--json"])
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["objectives"]}
    names = {"hidden", "attention", "scores", "relations", "logits", "cosine", "pooled", "mlm", "labels"}
    assert set(rows) == names and all(row["summary"] and row["source"] for row in rows.values())
    assert rows["logits"]["phases"] == [2] and "Wang et al. 2021" in rows["relations"]["source"]
    main(["ls", "objectives"])
    assert "MiniLMv2 (Wang et al. 2021)" in capsys.readouterr().out


def test_listing_them_loads_no_torch() -> None:
    code = (
        "import sys; from polydistill.cli import main; main(['ls', 'objectives', '-q']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
