"""Ranges and choices of options."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import pytest

from polydistill.errors import UsageError
from polydistill.evaluation.evaluate import EvaluateOptions
from polydistill.methods.bistil.options import BistilOptions
from polydistill.methods.embed import EmbedOptions
from polydistill.methods.export.options import ExportOptions
from polydistill.methods.finetune.options import FinetuneOptions
from polydistill.methods.plan import PlanOptions
from polydistill.methods.project.options import ProjectOptions
from polydistill.methods.prokd.options import ProkdOptions
from polydistill.methods.sparse_train.options import SparseTrainOptions
from polydistill.methods.stack.options import StackOptions
from polydistill.methods.trim.options import TrimOptions
from polydistill.options.settings import Options, Range, declared, group, setting, value_type

CONFIGS: list[Options] = [
    BistilOptions("en", "sw"),
    EmbedOptions("m"),
    EvaluateOptions(),
    ExportOptions("m"),
    FinetuneOptions(),
    PlanOptions("en", "sw"),
    ProkdOptions("en", "sw"),
    ProjectOptions("en", "sw"),
    SparseTrainOptions(),
    StackOptions("m", "n"),
    TrimOptions(),
]
# Looked at where they are used, as what they may be depends on the model or on other options.
ELSEWHERE: dict[type[Options], set[str]] = {
    TrimOptions: {"coverage", "vocab_size", "min_count", "min_share"},
    BistilOptions: {"layers", "reduction"},
    PlanOptions: {"layers", "reduction"},
}
CHOSEN: dict[type[Options], set[str]] = {
    TrimOptions: {"dtype"},
    EmbedOptions: {"long", "precision", "device"},
    EvaluateOptions: {"precision", "device"},
    PlanOptions: {"device"},
    BistilOptions: {"select", "preset", "phase", "scale", "precision", "device", "combine", "task_head"},
    ProkdOptions: {"precision", "device", "method", "classes", "tokens", "weigh", "preset", "combine", "student_from"},
    FinetuneOptions: {"precision", "device"},
    ProjectOptions: {"precision", "device", "student_from"},
    SparseTrainOptions: {"precision", "device"},
    StackOptions: {"phase", "precision", "device", "init", "pooling", "baseline", "preset", "frozen"},
}


@dataclass(frozen=True)
class Toy(Options):
    share: float | None = setting(None, "A share.", "Toy", above=0, most=1)
    n: int = setting(1, "A number.", "Toy", flags=("-n", "--how-many"), least=1, most=1999)
    kind: str | None = setting("a", "A kind.", "Toy", choices=("a", "b"))


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        ({"least": 0}, (0, 1, 1e300), (-1e-9, -1)),
        ({"above": 0}, (1e-300, 1), (0, -1)),
        ({"least": 1, "most": 3}, (1, 2, 3), (0.999, 3.001)),
        ({"least": 1}, (10**400,), (-(10**400), None, "1")),
    ],
)
def test_a_range_holds_its_numbers(bounds: dict[str, float], inside: Any, outside: Any) -> None:
    found = Range(**bounds)
    assert all(map(found.holds, inside))
    assert not any(map(found.holds, (*outside, math.nan, math.inf, -math.inf)))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"share": 0.0}, "`share` must be above 0 and at most 1, not 0."),
        ({"share": math.nan}, "`share` must be above 0 and at most 1, not nan."),
        ({"n": 2000}, "`n` must be at least 1 and at most 1,999, not 2,000."),
        ({"share": 1.0000001}, "`share` must be above 0 and at most 1, not 1.0000001."),
        ({"n": None}, "`n` must be at least 1 and at most 1,999, not None."),
        ({"kind": "c"}, "`kind=c` is unknown. Choose a, b."),
    ],
)
def test_what_is_refused_is_named_with_what_would_do(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        Toy(**values).check()
    assert said in f"{refused.value} {refused.value.hint}"


def test_what_is_left_out_is_not_looked_at() -> None:
    Toy(share=None, n=1999).check()


def numbers(config: Options) -> dict[str, type]:
    """Name of each option that is a number -> int or float."""
    kinds = {one.name: value_type(one.hint)[0] for one in declared(type(config)).values()}
    return {name: kind for name, kind in kinds.items() if kind in (int, float)}


def changed(config: Options, name: str, value: Any) -> Options:
    """Options with one value in place of another."""
    return type(config).of(**{**config.values(), name: value})


SENSELESS: dict[str, Any] = {
    "10^23": 10**23,
    "10^5000": 10**5000,
    "-1": -1,
    "-10^23": -(10**23),
    "1e300": 1e300,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "text": "3",
    "true": True,
}


@pytest.mark.parametrize("said", SENSELESS)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_no_number_that_makes_no_sense_passes_the_check(config: Options, said: str) -> None:
    value = SENSELESS[said]
    for name in numbers(config):
        if said in ("-1", "-10^23") and name in ELSEWHERE.get(type(config), ()):
            continue
        with pytest.raises(UsageError) as refused:
            changed(config, name, value).check()
        option = f"`{name}`"
        assert refused.value.message.startswith(f"{option} must be ") and len(str(refused.value)) < 200


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_a_whole_number_is_whole(config: Options) -> None:
    for name, kind in numbers(config).items():
        if kind is int:
            with pytest.raises(UsageError, match=r"must be a whole number, not 48\.5\."):
                changed(config, name, 48.5).check()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_every_default_is_allowed_and_every_number_has_a_range(config: Options) -> None:
    config.check()
    known = declared(type(config)).values()
    without = {one.name for one in known if one.name in numbers(config) and one.asked("range") is None}
    assert without == ELSEWHERE.get(type(config), set())
    assert {one.name for one in known if one.asked("choices")} == CHOSEN.get(type(config), set())


@dataclass(frozen=True)
class Speed(Options):
    lr: float = setting(1e-3, "A rate.", "Toy", above=0)
    steps: int | None = setting(None, "Steps.", "Toy", least=1, decides=False)


@dataclass(frozen=True)
class Grouped(Options):
    model: str
    text: tuple[str, ...] = setting((), "Texts.", "Toy", metavar="PATH")
    first: Speed = group(Speed)
    task: Speed = group(Speed, prefix="task")


def test_the_options_of_groups_have_flat_names_in_the_order_of_the_fields() -> None:
    assert list(declared(Grouped)) == ["model", "text", "lr", "steps", "task_lr", "task_steps"]
    assert declared(Grouped)["task_lr"].flag == "--task-lr" and declared(Grouped)["task_lr"].path == ("task", "lr")


def test_flat_names_make_groups_and_groups_make_flat_names() -> None:
    made = Grouped.of("m", text="a.txt", task_lr=0.5, steps=3)
    assert made == Grouped("m", ("a.txt",), Speed(1e-3, 3), Speed(0.5))
    values = {"model": "m", "text": ("a.txt",), "lr": 1e-3, "steps": 3, "task_lr": 0.5, "task_steps": None}
    assert made.values() == values and Grouped.of(**values) == made
    assert made.to_json() == {**values, "text": ["a.txt"]} and made.reads() == ["a.txt"]
    assert set(made.deciding()) == {"model", "text", "lr", "task_lr"}


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((), {}, "`model` is missing"),
        (("m", "n"), {}, "2 values were given for 1 argument"),
        (("m",), {"model": "n"}, "`model` is given twice"),
        (("m",), {"tsk_lr": 1.0}, "no option `tsk_lr`.*Did you mean `task_lr`"),
        (("m",), {"nothing": 1}, "no option `nothing`.*model, text, lr"),
    ],
)
def test_names_that_do_not_exist_or_are_missing(arguments: tuple[str, ...], options: Any, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        Grouped.of(*arguments, **options)
    assert re.search(said, f"{refused.value} {refused.value.hint}")


def test_a_group_is_checked_and_what_is_idle_in_it_is_named() -> None:
    with pytest.raises(UsageError, match="`task_lr` must be above 0"):
        Grouped.of("m", task_lr=0.0).check()
    said = Grouped.of("m", task_lr=1.0, lr=1.0).in_vain({"task_lr": "there is no task", "task_steps": "no task"})
    assert said == ["`task_lr` changes nothing: there is no task."]
