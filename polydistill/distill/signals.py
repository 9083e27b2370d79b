"""What an objective sees of a network: hidden states, attention, its projections, logits, one vector a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

HIDDEN, ATTENTION, SCORES = "hidden", "attention", "scores"
QUERY, KEY, VALUE = "query", "key", "value"
LOGITS, POOLED, VECTOR = "logits", "pooled", "vector"
PROJECTIONS = (QUERY, KEY, VALUE)
NEVER = -1e4  # logit of a padded position: its probability is 0 in every precision


class Signal(NamedTuple):
    """One thing that a network can be asked for.

    Attributes:
        kind: `HIDDEN` (B, N, H); `ATTENTION` (B, A, N, N) probabilities; `SCORES` (B, A, N, N) before the softmax;
            `QUERY`, `KEY`, `VALUE` (B, N, H), the heads side by side; `LOGITS` (B, L) of classes, (B, N, L) of tags or
            tokens, (B, 2, N) of the start and the end of an answer; `POOLED` (B, H), the mean of the last hidden
            states over the text; `VECTOR` (B, H), what a stack makes of a text.
        layer: For `HIDDEN` 0 is what the embeddings give and j what layer j gives, counted from 1; for the others,
            the layer counted from 0; 0 for logits and vectors.
    """

    kind: str
    layer: int = 0


Signals = Mapping[Signal, "Tensor"]
Batch = Mapping[str, Any]


def needs_attention(needs: Iterable[Signal]) -> bool:
    """Whether attention probabilities are asked for, which only the plain implementation gives."""
    return any(signal.kind == ATTENTION for signal in needs)
