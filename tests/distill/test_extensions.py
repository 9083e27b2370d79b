"""What an objective, a sampler or a teacher may have, each shown with a small one; and runs that are killed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from polydistill import catalog
from polydistill.distill.loss import DistilLoss
from polydistill.distill.objectives.base import AddsUp, Mean, Needs, Objective, Weighted
from polydistill.distill.objectives.labels import HardLabels
from polydistill.distill.objectives.logits import Logits
from polydistill.distill.objectives.ps_kd import PsKd, PsKdOptions
from polydistill.distill.objectives.taid import Taid
from polydistill.distill.signals import HIDDEN, LOGITS, Batch, Signal, Signals
from polydistill.distill.teachers.average import AverageOptions, AverageStudent
from polydistill.distill.teachers.base import Teacher
from polydistill.distill.teachers.frozen import FrozenTeacher
from polydistill.distill.teachers.past import PastStudent
from polydistill.errors import UsageError
from polydistill.evaluation.heads import new_head
from polydistill.progress import SILENT
from polydistill.training import trainer
from polydistill.training.facts import TrainingFacts
from polydistill.training.loop import Schedule, train
from polydistill.training.resuming import newest_checkpoint

TAGS = ("O", "B-PER", "I-PER")
LAST, LOGIT = Signal(HIDDEN, 2), Signal(LOGITS)
NOTHING: frozenset[Signal] = frozenset()


class Projected(Objective):
    """Has parameters: a layer that the student's hidden states go through, to the number 1."""

    def __init__(self) -> None:
        self.needs = Needs(frozenset({LAST}), NOTHING)

    def begin(self, facts: TrainingFacts) -> None:
        self.module = nn.Sequential(nn.Linear(32, 4))

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        assert self.module is not None
        mask = batch["attention_mask"].bool()
        return {"projected": Mean((self.module(student[LAST])[mask] - 1).square().mean(-1).sum(), mask.sum())}


class Slower(Objective):
    """Has state: it asks for less after each step, as a tensor says."""

    def __init__(self) -> None:
        self.needs = Needs(frozenset({LAST}), NOTHING)

    def begin(self, facts: TrainingFacts) -> None:
        self.module = nn.Module()
        self.module.register_buffer("share", torch.tensor(1.0))

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        assert self.module is not None
        share = self.module.get_buffer("share")
        return {"slower": Mean(share * student[LAST].square().mean(-1).sum(), self.weight(batch))}

    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        assert self.module is not None
        self.module.get_buffer("share").mul_(0.5 + losses["slower"] / 100)


class Centred(Objective):
    """Looks at all data first: the mean of the teacher's logits over the training data is what it asks for."""

    looks = True

    def __init__(self) -> None:
        self.needs = Needs(frozenset({LOGIT}), frozenset({LOGIT}))
        self.looked_at: list[int] = []
        self.ended = 0

    def begin(self, facts: TrainingFacts) -> None:
        self.module = nn.Module()
        self.module.register_buffer("centre", torch.zeros(3))
        self._count = 0

    def look(self, teacher: Signals, batch: Batch) -> None:
        assert self.module is not None
        mask = batch["attention_mask"].bool()
        self.looked_at += batch["example_id"].tolist()
        self.module.get_buffer("centre").add_(teacher[LOGIT][mask].sum(0))
        self._count += int(mask.sum())

    def end_look(self) -> None:
        assert self.module is not None
        self.module.get_buffer("centre").div_(self._count)
        self.ended += 1

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        assert self.module is not None
        error = (student[LOGIT] - self.module.get_buffer("centre")).square().mean(-1)
        return {"centred": Mean((error * batch["attention_mask"]).sum(), self.weight(batch))}


class Remembers(Objective):
    """Has a target for each example: what the student said of it last time."""

    def __init__(self) -> None:
        self.needs = Needs(frozenset({LOGIT}), NOTHING)

    def begin(self, facts: TrainingFacts) -> None:
        self.module = nn.Module()
        self.module.register_buffer("said", torch.zeros(len(facts.features), 3))

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        assert self.module is not None
        now, said = student[LOGIT][:, 1], self.module.get_buffer("said")
        loss = (now - said[batch["example_id"]] - 0.1).square().sum()
        if self.learns:
            said[batch["example_id"]] = now.detach()
        return {"remembers": Mean(loss, self.weight(batch))}

    def weight(self, batch: Batch) -> Tensor:
        return torch.tensor(len(batch["example_id"]))


# --- a training of a few steps


def feature(number: int, length: int) -> dict[str, Any]:
    ids = [5 + (7 * number + 3 * i) % 60 for i in range(length)]
    labels = [-100, *((number + i) % 3 for i in range(length - 1))]
    return {"input_ids": ids, "attention_mask": [1] * length, "labels": labels, "example_id": number}


FEATURES = [feature(i, 4 + i % 5) for i in range(10)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model_folder("bert", "base", tmp_path_factory.mktemp("m") / "m", config={"hidden_dropout_prob": 0.1})


@dataclass
class Trained:
    network: Any
    loss: DistilLoss
    objectives: Weighted
    terms: list[dict[str, float]] = field(default_factory=list)

    def everything(self) -> dict[str, bytes]:
        """The weights, and all that the loss keeps."""
        tensors = {**self.network.state_dict(), **self.loss.state()}
        return {name: tensor.contiguous().numpy().tobytes() for name, tensor in tensors.items()}


class Stop(Exception):
    """What ends a training, as a kill would."""


def trained(
    folder: Path,
    work: Path,
    parts: Mapping[str, Objective],
    teacher: Callable[[Any, frozenset[Signal]], Teacher] | None = None,
    *,
    stop_at: int | None = None,
    epochs: float = 3,
    **options: Any,
) -> Trained:
    """Three epochs of five steps, with two checks each."""
    model = new_head(folder, "tagging", TAGS, seed=1)
    objectives = Weighted({name: (part, 1.0) for name, part in parts.items()})
    found = teacher(model.network, objectives.needs.teacher) if teacher else None
    loss, checks = DistilLoss(model.network, objectives, found, catalog.arch("bert")), 0

    def score(network: Any) -> float:
        nonlocal checks
        checks += 1
        if checks == stop_at:
            raise Stop
        return float(checks)  # the last is the best

    schedule = Schedule(epochs, 1e-2, 2, checks=2, **options)
    curves = train(model.network, model.tokenizer, FEATURES, score, schedule, work, SILENT, step_loss=loss)
    return Trained(model.network, loss, objectives, curves.terms)


def other(folder: Path) -> Callable[[Any, frozenset[Signal]], Teacher]:
    """A teacher that says something else."""

    def made(student: Any, needs: frozenset[Signal]) -> Teacher:
        network = new_head(folder, "tagging", TAGS, seed=9).network
        torch.manual_seed(3)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        return FrozenTeacher(network, needs)

    return made


def past(student: Any, needs: frozenset[Signal]) -> Teacher:
    return PastStudent(student=student, needs=needs, arch=catalog.arch("bert"))


def average(student: Any, needs: frozenset[Signal]) -> Teacher:
    return AverageStudent(AverageOptions(decay=0.5), student=student, needs=needs, arch=catalog.arch("bert"))


CASES: dict[str, tuple[Callable[[], dict[str, Objective]], Any]] = {
    "parameters": (lambda: {"projected": Projected(), "labels": HardLabels()}, None),
    "state": (lambda: {"slower": Slower()}, None),
    "looks": (lambda: {"centred": Centred()}, other),
    "by example": (lambda: {"remembers": Remembers()}, None),
    "taid": (lambda: {"taid": Taid()}, other),
    "ps-kd": (lambda: {"ps-kd": PsKd(outputs=3)}, None),
    "past": (lambda: {"labels": HardLabels(), "logits": Logits()}, past),
    "average": (lambda: {"labels": HardLabels(), "logits": Logits()}, average),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_killed_goes_on_bit_for_bit(case: str, folder: Path, tmp_path: Path) -> None:
    """It is stopped in the middle of the second epoch, and everything is made anew."""
    parts, teacher = CASES[case]
    teacher = teacher(folder) if teacher is other else teacher
    whole = trained(folder, tmp_path / "whole", parts(), teacher)
    with pytest.raises(Stop):
        trained(folder, tmp_path / "cut", parts(), teacher, stop_at=4)
    resumed = trained(folder, tmp_path / "cut", parts(), teacher)
    assert resumed.terms == whole.terms and len(whole.terms) == 15
    assert resumed.everything() == whole.everything()
    assert len(set(map(str, whole.terms))) > 10


# --- parameters


def test_parameters_reach_the_optimizer_and_checkpoints_and_not_the_model(folder: Path, tmp_path: Path) -> None:
    made = trained(folder, tmp_path, {"projected": Projected()})
    checkpoint = newest_checkpoint(tmp_path, SILENT)
    assert checkpoint is not None
    kept = load_file(checkpoint / "loss.safetensors")
    names = {"objectives/projected.0.weight", "objectives/projected.0.bias"}
    assert names <= kept.keys()
    assert not any("projected" in name for name in load_file(checkpoint / "model.safetensors"))
    torch.manual_seed(0)
    before = nn.Linear(32, 4)  # as it began: it follows from the seed
    assert not torch.allclose(kept["objectives/projected.0.weight"], before.weight)
    assert made.terms[-1]["projected"] < 0.5 * made.terms[0]["projected"]
    assert all(p.grad is None for p in made.loss.parameters())


def test_parameters_follow_from_the_seed_and_draw_no_numbers_of_the_training(folder: Path, tmp_path: Path) -> None:
    def first(name: str, **parts: Objective) -> dict[str, float]:
        return trained(folder, tmp_path / name, {"labels": HardLabels(), **parts}, epochs=0.2).terms[0]

    alone, beside, again = first("a"), first("b", projected=Projected()), first("c", projected=Projected())
    assert alone["labels"] == beside["labels"] and beside == again  # the same dropout


def test_gradients_of_parameters_are_clipped(folder: Path, tmp_path: Path) -> None:
    class Steep(Projected):
        def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
            (mean,) = super().__call__(student, teacher, batch).values()
            return {"projected": Mean(1e6 * mean.total, mean.weight)}

        def on_step(self, step: int, losses: Mapping[str, float]) -> None:
            assert self.module is not None
            self.end = {name: p.detach().clone() for name, p in self.module.named_parameters()}

    steep = Steep()
    model = new_head(folder, "tagging", TAGS, seed=1)
    loss = DistilLoss(model.network, Weighted({"projected": (steep, 1.0)}), None, catalog.arch("bert"))
    optimizer = torch.optim.SGD(model.network.parameters(), lr=1.0)
    schedule = Schedule(1, 1.0, 10, warmup=0.0, weight_decay=0.0, checks=1, clip=0.01, steps=1)
    train(
        model.network,
        model.tokenizer,
        FEATURES,
        lambda n: 1.0,
        schedule,
        tmp_path,
        SILENT,
        step_loss=loss,
        optimizer=optimizer,
    )
    torch.manual_seed(0)
    before = dict(nn.Sequential(nn.Linear(32, 4)).named_parameters())
    moved = torch.cat([(steep.end[name] - before[name]).flatten() for name in before])
    assert float(moved.norm()) == pytest.approx(0.01, rel=1e-3)


def test_processes_agree_on_gradients_of_parameters(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process is played by a sum of gradients that is zero."""
    asked = []

    def agreed(gradient: Tensor, how: str) -> Tensor:
        asked.append(how)
        return torch.zeros_like(gradient)

    monkeypatch.setattr(trainer, "reduce", agreed)
    made = trained(folder, tmp_path, {"projected": Projected()}, epochs=0.2, weight_decay=0.0)
    torch.manual_seed(0)
    before = nn.Linear(32, 4)
    assert asked == ["mean", "mean"]
    assert torch.equal(made.loss.state()["objectives/projected.0.weight"], before.weight)


# --- a look at all data


def test_it_looks_at_all_training_data_once_before_training(folder: Path, tmp_path: Path) -> None:
    objective = Centred()
    made = trained(folder, tmp_path, {"centred": objective}, other(folder), stop_at=None)
    assert sorted(objective.looked_at) == list(range(10)) and objective.ended == 1
    resumed = Centred()
    again = trained(folder, tmp_path, {"centred": resumed}, other(folder))
    assert resumed.looked_at == []  # the checkpoint knows
    assert again.everything() == made.everything()
    centre = made.loss.state()["objectives/centred.centre"]
    teacher, total, count = other(folder)(None, frozenset({LOGIT})), torch.zeros(3), 0
    for one in FEATURES:
        ids = torch.tensor([one["input_ids"]])
        total += teacher.signals({"input_ids": ids, "attention_mask": torch.ones_like(ids)})[LOGIT][0].sum(0)
        count += ids.shape[1]
    torch.testing.assert_close(centre, total / count)


# --- how losses add up


class Largest(Objective):
    """The largest of all examples' numbers: it depends on how a batch is split."""

    adds_up = AddsUp.BATCHES

    def __init__(self) -> None:
        self.needs = Needs(NOTHING, NOTHING)

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        return {"largest": Mean(batch["numbers"].max(), self.weight(batch))}

    def weight(self, batch: Batch) -> Tensor:
        return torch.tensor(1)


class Average(Largest):
    """Their mean, whose totals and weights add up."""

    adds_up = AddsUp.ITEMS

    def __call__(self, student: Signals, teacher: Signals, batch: Batch) -> dict[str, Mean]:
        return {"average": Mean(batch["numbers"].sum(), self.weight(batch))}

    def weight(self, batch: Batch) -> Tensor:
        return torch.tensor(len(batch["numbers"]))


class Together(Average):
    """Needs them all in one place."""

    adds_up = AddsUp.ALONE


def shared(objective: Objective) -> list[float]:
    """The loss of each of two processes, which have 1 and 3 numbers of a batch, and both of its parts alike."""
    numbers, barrier, shares, found = (torch.tensor([1.0]), torch.tensor([2.0, 6.0, 3.0])), threading.Barrier(2), {}, {}

    def process(rank: int) -> None:
        def agree(value: Tensor) -> Tensor:
            shares[rank] = value
            barrier.wait(timeout=20)
            mean = (shares[0] + shares[1]) / 2
            barrier.wait(timeout=20)
            return mean

        found[rank] = float(Weighted({"x": (objective, 1.0)})({}, {}, {"numbers": numbers[rank]}, agree)[0])

    threads = [threading.Thread(target=process, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[0], found[1]]


def test_how_losses_of_processes_add_up_is_the_objective_s_own() -> None:
    assert sum(shared(Average())) / 2 == pytest.approx(3.0)  # that of the whole batch
    assert sum(shared(Largest())) / 2 == pytest.approx((1 + 6) / 2)  # the mean of both
    for processes in (1, 2):
        weighted, facts = Weighted({"x": (Together(), 1.0)}), TrainingFacts(1, 1, processes=processes)
        if processes == 1:
            weighted.begin(facts)
            continue
        with pytest.raises(UsageError, match="`x` needs all examples in one process, and there are 2"):
            weighted.begin(facts)


# --- TAID and PS-KD by hand


def logits(*rows: list[float]) -> dict[Signal, Tensor]:
    return {LOGIT: torch.tensor(rows)}


def test_taid_by_hand() -> None:
    batch = {"attention_mask": torch.ones(1, 3, dtype=torch.int64)}
    objective = Taid()
    objective.begin(TrainingFacts(10, 10))
    assert objective.share == 0.4
    assert objective.module.get_buffer("share").fill_(0.5) == 0.5
    found = objective(logits([1.0, 0.0]), logits([0.0, 1.0]), batch)
    assert float(found["taid"].value) == pytest.approx(0.813262, abs=1e-6)
    note = objective.noted["taid_kl"]
    assert isinstance(note, Mean) and float(note.value) == pytest.approx(0.120115, abs=1e-6)
    objective.begin(TrainingFacts(10**9, 10))  # so that the linear way is not ahead
    objective.on_step(1, {"taid": 2.0})
    assert objective.share == 0.4  # the first step only stores the loss
    objective.on_step(2, {"taid": 1.8})
    assert objective.share == pytest.approx(0.400150, abs=1e-6)


def test_taid_goes_from_the_student_to_the_teacher() -> None:
    batch, student = {"attention_mask": torch.ones(2, 3, dtype=torch.int64)}, torch.tensor([[1.0, 0.0], [3.0, -1.0]])
    teacher, objective, shares = logits([0.0, 1.0], [0.2, 0.4]), Taid(), []
    objective.begin(TrainingFacts(5, 5))
    for step in range(1, 6):
        objective.on_step(step, {"taid": 5.0 - step % 2})
        shares.append(objective.share)
    assert shares == sorted(shares) and shares[-1] == 1.0
    ours = objective({LOGIT: student}, teacher, batch)["taid"].value
    from polydistill.distill.objectives.logits import LogitsOptions

    plain = Logits(LogitsOptions(temperature=1.0))({LOGIT: student}, teacher, batch)["logits"].value
    assert float(ours) == pytest.approx(float(plain))
    objective.module.get_buffer("share").fill_(0.0)
    watched = student.clone().requires_grad_()
    objective({LOGIT: watched}, teacher, batch)["taid"].value.backward()
    assert watched.grad is not None and float(watched.grad.abs().max()) < 1e-6


def ps_kd(alpha: float, features: list[dict[str, Any]], epochs: int = 4, outputs: int = 2) -> PsKd:
    objective = PsKd(PsKdOptions(alpha=alpha), outputs=outputs)
    objective.begin(TrainingFacts(epochs * 5, 5, features))
    return objective


def test_ps_kd_by_hand() -> None:
    """The second epoch of four: a = .8 x 2 / 4 = .4; before (.6, .4), now (.7, .3)."""
    mask, gold = torch.ones(1, 3, dtype=torch.int64), torch.tensor([0])
    batch = {"attention_mask": mask, "labels": gold, "example_id": torch.tensor([1])}
    objective = ps_kd(0.8, [{"labels": 1}, {"labels": 0}])
    objective.begin_epoch(0)
    first = objective(logits([0.6, 0.4]), {}, batch)  # logits of which the softmax is not (.6, .4)
    assert float(first["ps_kd"].value) == pytest.approx(-float(torch.tensor([0.6, 0.4]).log_softmax(-1)[0]))
    before, now = ({LOGIT: torch.tensor([shares]).log()} for shares in ([0.6, 0.4], [0.7, 0.3]))
    objective(before, {}, batch)
    objective.begin_epoch(1)
    assert float(objective(now, {}, batch)["ps_kd"].value) == pytest.approx(0.492243, abs=1e-4)  # kept as float16
    other_example = {**batch, "example_id": torch.tensor([0])}
    fresh = float(objective(now, {}, other_example)["ps_kd"].value)
    assert fresh == pytest.approx(0.356675, abs=1e-6)  # not seen before: -log .7


def test_the_weight_of_the_past_grows_with_the_epochs() -> None:
    """With before = (0, 1) and a uniform present the target's mass on the wrong class does not change the loss, so the
    present is (e^-1, 1 - e^-1): -log of the right class is 1."""
    gold = {"attention_mask": torch.ones(1, 3, dtype=torch.int64), "labels": torch.tensor([0])}
    batch, objective = {**gold, "example_id": torch.tensor([0])}, ps_kd(0.8, [{"labels": 0}])
    right = torch.tensor([[1.0, 1e-30]]).log()
    now = torch.tensor([[torch.e**-1, 1 - torch.e**-1]]).log()
    for epoch, share in enumerate((0.2, 0.4, 0.6, 0.8)):
        objective.begin_epoch(epoch)
        objective.module.get_buffer("past").copy_(torch.tensor([0.0, 1.0]))
        loss = float(objective({LOGIT: now}, {}, batch)["ps_kd"].value)
        assert loss == pytest.approx((1 - share) * 1 + share * -float(now[0, 1]), rel=1e-5)
    assert float(objective({LOGIT: right}, {}, batch)["ps_kd"].value) > 10


@pytest.mark.parametrize("kind", ["classes", "tags", "answers"])
def test_without_its_past_ps_kd_is_plain_labels(kind: str) -> None:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    generator = torch.Generator().manual_seed(2)
    shape = {"classes": (2, 3), "tags": (2, 4, 3), "answers": (2, 2, 4)}[kind]
    student = {LOGIT: torch.randn(shape, generator=generator)}
    gold: dict[str, Any] = {
        "classes": {"labels": torch.tensor([2, 0])},
        "tags": {"labels": torch.tensor([[-100, 1, 2, 0], [0, 1, -100, -100]])},
        "answers": {"start_positions": torch.tensor([1, 0]), "end_positions": torch.tensor([3, 2])},
    }[kind]
    features = [
        {"input_ids": list(range(n)), **{key: value[row].tolist() for key, value in gold.items()}}
        for row, n in enumerate((4, 3))
    ]
    batch = {"attention_mask": mask, "example_id": torch.tensor([0, 1]), **gold}
    objective = ps_kd(0.0, features, outputs=3)
    for epoch in (0, 1):
        objective.begin_epoch(epoch)
        found, plain = objective(student, {}, batch)["ps_kd"], HardLabels()(student, {}, batch)["labels"]
        assert float(found.value) == pytest.approx(float(plain.value)) and found.weight == plain.weight
        kept = objective.module.get_buffer("present")
        assert float(kept.float().nansum()) == pytest.approx({"classes": 2, "tags": 5, "answers": 4}[kind], abs=5e-3)
    full = ps_kd(1.0, features, epochs=1, outputs=3)
    full.begin_epoch(0)
    full(student, {}, batch)
    full.module.get_buffer("past").copy_(full.module.get_buffer("present"))
    own = full(student, {}, batch)["ps_kd"]  # the target is what it says itself: cross-entropy is its entropy
    rows = student[LOGIT]
    if kind == "tags":
        rows = rows[gold["labels"] != -100]
    if kind == "answers":
        rows = rows.masked_fill(mask.unsqueeze(1) == 0, -1e4)
    entropy = -(rows.softmax(-1) * rows.log_softmax(-1)).sum()
    assert float(own.total) == pytest.approx(float(entropy), rel=1e-3)


# --- teachers that are the student's own past


def test_the_past_is_the_student_as_the_epoch_began(folder: Path) -> None:
    network = new_head(folder, "tagging", TAGS, seed=1).network.eval()
    teacher = past(network, frozenset({LOGIT}))
    batch = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.int64)}

    def says(of: Any) -> Tensor:
        with torch.no_grad():
            return of(**batch).logits

    begun = says(network)
    teacher.begin_epoch(0)
    with torch.no_grad():
        network.classifier.bias.add_(torch.tensor([1.0, 2.0, 3.0]))
    teacher.on_step()
    assert torch.equal(teacher.signals(batch)[LOGIT], begun)
    teacher.begin_epoch(1)
    assert torch.equal(teacher.signals(batch)[LOGIT], says(network)) and not torch.equal(says(network), begun)


def test_the_average_moves_by_hand(folder: Path) -> None:
    network = new_head(folder, "tagging", TAGS, seed=1).network
    teacher, bias = average(network, frozenset({LOGIT})), network.classifier.bias
    start = bias.detach().clone()
    assert teacher.module is not None
    for expected in (0.5, 0.75, 0.875):
        with torch.no_grad():
            bias.copy_(start + 1)
        teacher.on_step()
        torch.testing.assert_close(teacher.module.classifier.bias, start + expected)
    assert teacher.signals({"input_ids": torch.tensor([[5]]), "attention_mask": torch.ones(1, 1)})[LOGIT].shape == (
        1,
        1,
        3,
    )
    assert bias.requires_grad and not teacher.module.classifier.bias.requires_grad
