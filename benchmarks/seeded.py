"""What benchmarks of several seeds share: scores with intervals of items and seeds together."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from bistil_tables import percent

from polydistill.evaluation.cache import Items
from polydistill.metrics.items import Measured
from polydistill.metrics.seeds import Estimate, mean_difference
from polydistill.records.record import Score

SEEDS = (0, 1, 2)
SPLITS = ("--train-split", "train_wikineural", "--dev-split", "dev_wikineural", "--test-split", "en=test_wikineural")
TEACHER = ("--lr", "2e-4", "--epochs", "4", "--freeze-layers", "3", "--freeze-embeddings", "--precision", "bfloat16")


def teacher_command(data: object, models: object, seed: int) -> list[str]:
    """The command of a seed's English tagger."""
    where = ["--data-dir", str(data), *SPLITS[:4], *TEACHER, "--seed", str(seed), "-o", f"{models}/ner-{seed}"]
    return ["finetune", "--task", "ner", "--lang", "en", *where]


def items_of(items: Items, score: dict[str, Any]) -> Measured:
    """What a score is made of; it stops the benchmark where that is not in the cache."""
    found = items.of(Score.from_json(score))
    if found is None:
        sys.exit("Predictions that were made just now are not in the cache.")
    return found


def shown(found: Estimate | None, signed: bool = False) -> str:
    """`74.2 [71.4, 77.1]`, or nothing."""
    return percent(found.value, found.interval, signed) if found else ""


def differences(methods: Mapping[str, Sequence[Measured]]) -> dict[str, tuple[str, str]]:
    """Method -> (its mean difference to the first, the difference with each seed)."""
    first, *others = methods
    return {
        name: (
            shown(mean_difference(methods[name], methods[first]), signed=True),
            ", ".join(f"{100 * (a.value - b.value):+.1f}" for a, b in zip(methods[name], methods[first], strict=True)),
        )
        for name in others
    }
