"""Which objectives there are, and their weights as a user gives them; without torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from polydistill.catalog.tables import closest
from polydistill.errors import UsageError
from polydistill.options.settings import MOST

PHASES = (1, 2)
SCALES = ("none", "first", "teacher")  # what makes terms compare, see `objectives.build.Options`


@dataclass(frozen=True)
class Listed:
    """An objective.

    Attributes:
        name: What users call it.
        where: `module:Class`.
        phases: Where it can be used: 1 on plain text, 2 on a task's labelled text.
        summary: What it compares.
        source: Where it comes from.
    """

    name: str
    where: str
    phases: tuple[int, ...]
    summary: str
    source: str


def _listed(name: str, class_name: str, phases: tuple[int, ...], summary: str, source: str) -> Listed:
    return Listed(name, f"polydistill.distill.objectives.{name}:{class_name}", phases, summary, source)


LISTED = (
    _listed(
        "hidden",
        "HiddenStates",
        (1, 2),
        "squared error of hidden states, layer by layer",
        "BiStil (Ansell et al. 2023)",
    ),
    _listed(
        "attention",
        "AttentionProbabilities",
        (1, 2),
        "squared error of attention probabilities, layer by layer",
        "BiStil (Ansell et al. 2023)",
    ),
    _listed(
        "scores",
        "AttentionScores",
        (1, 2),
        "squared error of attention scores before the softmax",
        "TinyBERT (Jiao et al. 2020)",
    ),
    _listed(
        "relations",
        "Relations",
        (1, 2),
        "KL of Q-Q, K-K and V-V relations of one layer; any width and heads",
        "MiniLMv2 (Wang et al. 2021)",
    ),
    _listed(
        "logits", "Logits", (2,), "soft cross-entropy or KL of logits at a temperature", "Hinton et al. 2015; BiStil"
    ),
    _listed("cosine", "Cosine", (1, 2), "1 - cosine of the last hidden states", "DistilBERT (Sanh et al. 2019)"),
    _listed(
        "pooled", "PooledVectors", (2,), "1 - cosine of the vectors of whole texts", "after Reimers and Gurevych 2020"
    ),
    _listed(
        "mlm", "MaskedTokens", (1,), "cross-entropy of masked tokens, without a teacher", "BERT (Devlin et al. 2019)"
    ),
    _listed("labels", "HardLabels", (2,), "cross-entropy with gold labels, without a teacher", "Hinton et al. 2015"),
)


def find(name: str) -> Listed:
    """The objective of that name.

    Raises:
        UsageError: There is none; says what is close.
    """
    known = {listed.name: listed for listed in LISTED}
    if name not in known:
        close = closest(name, known)
        hint = f"Did you mean {' or '.join(close)}?" if close else f"Known are {', '.join(known)}."
        raise UsageError(f"Unknown objective '{name}'.", hint)
    return known[name]


def parse_weights(given: Iterable[str], phase: int) -> dict[str, float]:
    """The weights of a phase out of what was given for all of them.

    Args:
        given: `NAME=WEIGHT` goes to every phase in which the objective can be used, `PHASE:NAME=WEIGHT` to that one,
            where it wins; a later one wins over an earlier one. 0 turns an objective off.
        phase: 1 or 2.

    Raises:
        UsageError: One of them is not of that form, has a name that is unknown or cannot be used in its phase, or a
            weight that is no number from 0 on.
    """
    everywhere: dict[str, float] = {}
    here: dict[str, float] = {}
    for text in given:
        only, listed, weight = _parsed(text)
        if only == phase:
            here[listed.name] = weight
        elif only is None and phase in listed.phases:
            everywhere[listed.name] = weight
    return {**everywhere, **here}


def _parsed(text: str) -> tuple[int | None, Listed, float]:
    """(the phase if one is named, the objective, its weight)."""
    name, equals, number = (part.strip() for part in text.partition("="))
    prefix, colon, rest = (part.strip() for part in name.partition(":"))
    only = {str(phase): phase for phase in PHASES}.get(prefix) if colon else None
    if not equals or (colon and only is None):
        raise UsageError(
            f"'{text}' is no weight of an objective.", "Write hidden=1, or 1:hidden=1 for the first phase alone."
        )
    listed = find(rest if colon else name)
    if only is not None and only not in listed.phases:
        raise UsageError(
            f"The objective `{listed.name}` cannot be used in phase {only}.",
            f"It can be used in phase {' and '.join(map(str, listed.phases))}.",
        )
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not 0 <= weight <= MOST:
        raise UsageError(
            f"The weight '{number}' of {listed.name} makes no sense.", f"Give a number from 0 to {MOST:,}."
        )
    return only, listed, weight
