"""Options of the methods from flat names, and their runs: the one place where tests make them."""

from __future__ import annotations

from typing import Any

from polydistill.methods.bistil.method import BistilConfig
from polydistill.methods.finetune import METHOD as FINETUNE
from polydistill.methods.finetune.options import FinetuneOptions
from polydistill.methods.prokd.method import ProkdConfig
from polydistill.methods.sparse_train import METHOD as SPARSE_TRAIN
from polydistill.methods.sparse_train.options import SparseTrainOptions
from polydistill.methods.stack.method import StackConfig
from polydistill.progress import SILENT, Progress
from polydistill.runs.result import Result
from polydistill.runs.runner import run


def bistil_config(**options: Any) -> BistilConfig:
    return BistilConfig(**{"source": "en", "target": "sw", **options})


def finetune_config(**options: Any) -> FinetuneOptions:
    return FinetuneOptions.of(**options)


def finetune(options: FinetuneOptions, progress: Progress = SILENT) -> Result:
    return run(FINETUNE, options, progress)


def prokd_config(**options: Any) -> ProkdConfig:
    return ProkdConfig(**{"source": "en", "target": "sw", **options})


def sparse_train_config(**options: Any) -> SparseTrainOptions:
    return SparseTrainOptions.of(**options)


def sparse_train(options: SparseTrainOptions, progress: Progress = SILENT) -> Result:
    return run(SPARSE_TRAIN, options, progress)


def stack_config(**options: Any) -> StackConfig:
    return StackConfig(**options)
