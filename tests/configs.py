"""Options of the methods from flat names, and their runs: the one place where tests make them."""

from __future__ import annotations

from typing import Any

from polydistill.methods.bistil import METHOD as BISTIL
from polydistill.methods.bistil.options import BistilOptions
from polydistill.methods.finetune import METHOD as FINETUNE
from polydistill.methods.finetune.options import FinetuneOptions
from polydistill.methods.prokd import METHOD as PROKD
from polydistill.methods.prokd.options import ProkdOptions
from polydistill.methods.sparse_train import METHOD as SPARSE_TRAIN
from polydistill.methods.sparse_train.options import SparseTrainOptions
from polydistill.methods.stack import METHOD as STACK
from polydistill.methods.stack.options import StackOptions
from polydistill.progress import SILENT, Progress
from polydistill.runs.result import Result
from polydistill.runs.runner import run


def bistil_config(**options: Any) -> BistilOptions:
    return BistilOptions.of(**{"source": "en", "target": "sw", **options})


def bistil(options: BistilOptions, progress: Progress = SILENT) -> Result:
    return run(BISTIL, options, progress)


def finetune_config(**options: Any) -> FinetuneOptions:
    return FinetuneOptions.of(**options)


def finetune(options: FinetuneOptions, progress: Progress = SILENT) -> Result:
    return run(FINETUNE, options, progress)


def prokd_config(**options: Any) -> ProkdOptions:
    return ProkdOptions.of(**{"source": "en", "target": "sw", **options})


def prokd(options: ProkdOptions, progress: Progress = SILENT) -> Result:
    return run(PROKD, options, progress)


def sparse_train_config(**options: Any) -> SparseTrainOptions:
    return SparseTrainOptions.of(**options)


def sparse_train(options: SparseTrainOptions, progress: Progress = SILENT) -> Result:
    return run(SPARSE_TRAIN, options, progress)


def stack_config(**options: Any) -> StackOptions:
    return StackOptions.of(**options)


def stack(options: StackOptions, progress: Progress = SILENT) -> Result:
    return run(STACK, options, progress)
