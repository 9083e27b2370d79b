"""Configurations of the methods from the flat names of their options: the one place where tests make them."""

from __future__ import annotations

from typing import Any

from polydistill.methods.bistil.method import BistilConfig
from polydistill.methods.finetune.method import FinetuneConfig
from polydistill.methods.prokd.method import ProkdConfig
from polydistill.methods.sparse_train.method import SparseTrainConfig
from polydistill.methods.stack.method import StackConfig


def bistil_config(**options: Any) -> BistilConfig:
    return BistilConfig(**{"source": "en", "target": "sw", **options})


def finetune_config(**options: Any) -> FinetuneConfig:
    return FinetuneConfig(**options)


def prokd_config(**options: Any) -> ProkdConfig:
    return ProkdConfig(**{"source": "en", "target": "sw", **options})


def sparse_train_config(**options: Any) -> SparseTrainConfig:
    return SparseTrainConfig(**options)


def stack_config(**options: Any) -> StackConfig:
    return StackConfig(**options)
