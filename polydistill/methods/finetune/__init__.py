"""Fine-tuning: a model tuned for a task on a source language, and chosen by that language's dev data."""

from __future__ import annotations

from polydistill.methods.finetune.card import TOLD
from polydistill.methods.finetune.options import FinetuneOptions
from polydistill.runs.method import Method, later

METHOD = Method(
    name="finetune",
    options=FinetuneOptions,
    told=TOLD,
    about="""\
The checkpoint with the best dev score is kept. A head that the model already has is reused: its labels are matched with
the task's by name, and those that are new or dropped are listed. After Ctrl-C or a kill the same command with `resume`
continues, with the same losses.""",
    prepare=later("polydistill.methods.finetune.plan", "prepare"),
    table=later("polydistill.methods.finetune.table", "table"),
    examples=(
        "polydistill finetune task=ner languages=en data_dir=DATA train_split=train_wikineural",
        "polydistill finetune model=polydistill-out/multilingual-e5-small-en-sw task=nli languages=en lr=1e-4",
        "polydistill finetune task=qa languages=en freeze_embeddings=True resume=True",
    ),
)
