"""MT-LLM: a multilingual encoder in front of an English LLM (Schmidt et al. 2024).

Phase 1 distils the LLM into the stack on plain English text: their vectors of the same text become the same. Phase 2
does so with the vectors of the LLM that has learnt a task, whose head is then copied. What the encoder knows of other
languages is never trained away, so the stack has them too.
"""

from __future__ import annotations

from polydistill.methods.stack.card import TOLD
from polydistill.methods.stack.options import StackOptions
from polydistill.runs.method import Method, later

METHOD = Method(
    name="stack",
    options=StackOptions,
    told=TOLD,
    about="""\
The text goes through the frozen ENCODER, one linear layer, and the LLM, which reads it in both directions with low-rank
updates of its weights (MT-LLM). Phase 1 needs plain English text: the stack's vectors become those that the LLM has of
the same text. Phase 2 does so with an LLM that has learnt a task from English labels. A run that was stopped goes on
with `resume`.""",
    prepare=later("polydistill.methods.stack.plan", "prepare"),
    table=later("polydistill.methods.stack.table", "table"),
    examples=(
        "polydistill stack intfloat/multilingual-e5-small sentence-transformers/all-MiniLM-L6-v2 text=en.txt",
        "polydistill stack ENCODER LLM text=en.txt task=nli data_dir=DATA languages=en languages=sw",
        "polydistill stack ENCODER LLM text=en.txt preset=paper precision=bfloat16 frozen=bfloat16",
        "polydistill stack ENCODER LLM text=en.txt baseline=linear",
    ),
)
