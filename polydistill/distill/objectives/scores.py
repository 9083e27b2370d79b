"""Attention scores: mean squared error before the softmax."""

from __future__ import annotations

from typing import ClassVar

from polydistill.distill.objectives.attention import AttentionProbabilities
from polydistill.distill.signals import SCORES


class AttentionScores(AttentionProbabilities):
    """Mean squared error between attention scores Q K^T / sqrt(d) (TinyBERT, Jiao et al. 2020, arXiv 1909.10351).

    As `AttentionProbabilities`, but before the softmax, so that the error does not vanish in long texts. It works with
    SDPA, and only for architectures whose file says `scores = true`.
    """

    kind: ClassVar[str] = SCORES
