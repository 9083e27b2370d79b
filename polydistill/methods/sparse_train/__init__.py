"""A sparse language fine-tuning with masked tokens (LT-SFT, Ansell et al. 2022)."""

from __future__ import annotations

from polydistill.methods.sparse_train.card import TOLD
from polydistill.methods.sparse_train.options import SparseTrainOptions
from polydistill.runs.method import Method, later

METHOD = Method(
    name="sparse train",
    options=SparseTrainOptions,
    told=TOLD,
    about="""\
It learns masked tokens so that only a share of its weights differs (LT-SFT): first everything is trained; then, from
the beginning again, the weights that moved furthest. The result also goes into `polydistill bistil` as
`language_sft`. A run that was stopped continues with `resume`.""",
    prepare=later("polydistill.methods.sparse_train.plan", "prepare"),
    table=later("polydistill.methods.sparse_train.table", "table"),
    examples=("polydistill sparse train language=sw text=sw.txt output=sw-sft",),
    exclusive=(("steps", "epochs"),),
)
