"""Ranges and choices of options."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, get_type_hints

import pytest

from polydistill.errors import UsageError
from polydistill.methods.bistil.method import BistilConfig
from polydistill.methods.embed import EmbedConfig
from polydistill.methods.evaluate import EvaluateConfig
from polydistill.methods.export.plan import ExportConfig
from polydistill.methods.finetune.method import FinetuneConfig
from polydistill.methods.plan import PlanConfig
from polydistill.methods.prokd.method import ProkdConfig
from polydistill.methods.sparse_train.method import SparseTrainConfig
from polydistill.methods.stack.method import StackConfig
from polydistill.methods.trim import TrimConfig
from polydistill.options.settings import Options, Range, setting, value_type

CONFIGS: list[Options] = [
    BistilConfig("en", "sw"),
    EmbedConfig("m"),
    EvaluateConfig(),
    ExportConfig("m"),
    FinetuneConfig(),
    PlanConfig("en", "sw"),
    ProkdConfig("en", "sw"),
    SparseTrainConfig(),
    StackConfig("m", "n"),
    TrimConfig(),
]
# Looked at where they are used, as what they may be depends on the model or on other options.
ELSEWHERE: dict[type[Options], set[str]] = {
    TrimConfig: {"coverage", "vocab_size", "min_count", "min_share"},
    BistilConfig: {"layers", "reduction"},
    PlanConfig: {"layers", "reduction"},
}
CHOSEN: dict[type[Options], set[str]] = {
    TrimConfig: {"dtype"},
    EmbedConfig: {"long"},
    BistilConfig: {"select", "preset", "phase", "scale", "logit_form", "precision"},
    ProkdConfig: {"method", "classes", "tokens", "loss", "pseudo_labels", "distance", "features", "weigh", "preset"},
    StackConfig: {"stage", "init", "pooling", "baseline", "preset", "frozen"},
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
    hints = get_type_hints(type(config))
    kinds = {f.name: value_type(hints[f.name])[0] for f in fields(config)}
    return {name: kind for name, kind in kinds.items() if kind in (int, float)}


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
            replace(config, **{name: value}).check()
        option = f"`{name}`"
        assert refused.value.message.startswith(f"{option} must be ") and len(str(refused.value)) < 200


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_a_whole_number_is_whole(config: Options) -> None:
    for name, kind in numbers(config).items():
        if kind is int:
            with pytest.raises(UsageError, match=r"must be a whole number, not 48\.5\."):
                replace(config, **{name: 48.5}).check()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_every_default_is_allowed_and_every_number_has_a_range(config: Options) -> None:
    config.check()
    without = {f.name for f in fields(config) if f.name in numbers(config) and f.metadata["range"] is None}
    assert without == ELSEWHERE.get(type(config), set())
    assert {f.name for f in fields(config) if f.metadata.get("choices")} == CHOSEN.get(type(config), set())
