"""BiStil: a small bilingual model out of a multilingual one (Ansell et al. 2023).

Vocabulary of both languages -> student with some of the teacher's layers -> phase 1 on text of both languages -> task
teacher -> phase 2 on labelled source-language data with sparse fine-tuning -> scores in both languages.
"""

from __future__ import annotations

from polydistill.methods.bistil.card import TOLD
from polydistill.methods.bistil.options import BistilOptions
from polydistill.runs.method import Method, later

METHOD = Method(
    name="bistil",
    options=BistilOptions,
    told=TOLD,
    about="""\
The vocabulary is cut to both languages, and the student gets some of the layers. In phase 1 it learns from the whole
model on text of both languages (BiStil). With `task`, phase 2 teaches it the task on labelled data of the SOURCE
language alone, with sparse fine-tuning, and it is scored in both. A run that was stopped continues with `resume`.""",
    prepare=later("polydistill.methods.bistil.plan", "prepare"),
    examples=(
        "polydistill bistil en sw text=en=en.txt text=sw=sw.txt",
        "polydistill bistil en sw task=ner data_dir=DATA text=en=en.txt text=sw=sw.txt preset=smoke",
        "polydistill bistil en ro task=nli teacher=my-nli-teacher layers=3 vocab_size=20000",
        "polydistill bistil en sw objective=1:relations=1 objective=2:hidden=1 objective=logits=1 task=ner",
        "polydistill bistil en sw model=my-student task=ner teacher=my-ner-teacher",
    ),
    exclusive=(("min_share", "vocab_size"),),
    shared=True,
)
