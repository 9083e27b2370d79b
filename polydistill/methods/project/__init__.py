"""Annotation projection: a tagger for a language without labels, from sentences and their translations."""

from __future__ import annotations

from polydistill.methods.project.card import TOLD
from polydistill.methods.project.options import ProjectOptions
from polydistill.runs.method import Method, later

METHOD = Method(
    name="project",
    options=ProjectOptions,
    told=TOLD,
    about="""\
A tagger of the SOURCE language tags one side of a parallel text. Its words are aligned with those of the translation by
the hidden states of a multilingual encoder, without training, and the tags of entities that align fully go along. A
student then learns these labels of the TARGET language and, beside them, the teacher's own probabilities. No label of
the target that anybody made is read. A run that was stopped continues with `resume`.""",
    prepare=later("polydistill.methods.project.plan", "prepare"),
    table=later("polydistill.methods.project.table", "table"),
    examples=(
        "polydistill project en sw parallel=en-sw.tsv teacher=my-ner-teacher data_dir=DATA",
        "polydistill project en sw parallel=en-sw.tsv teacher=my-ner-teacher text=sw.txt data_dir=DATA",
    ),
)
