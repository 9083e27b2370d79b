"""ProKD: a tagger for a language without a single label (reconstruction of Ge et al. 2023).

A teacher is tuned on the source's labels while its prototypes of both languages are aligned; a student then learns from
it on the target's sentences without tags, with pseudo-labels that prototypes rectify. TSL (Wu et al. 2020), TSL with
plain self-training and direct transfer run from the same command.
"""

from __future__ import annotations

from polydistill.methods.prokd.card import TOLD
from polydistill.methods.prokd.options import ProkdOptions
from polydistill.runs.method import Method, later

METHOD = Method(
    name="prokd",
    options=ProkdOptions,
    told=TOLD,
    about="""\
A teacher is tuned on labels of the SOURCE language while the classes' prototypes in both languages are aligned. A
student then learns from it on sentences of the TARGET language, whose tags are never read: the teacher's probabilities,
and its labels after prototypes have rectified them. This is a reconstruction of ProKD: the paper's code is not public,
and every choice that the paper leaves open is an option. A run that was stopped continues with `resume`.""",
    prepare=later("polydistill.methods.prokd.plan", "prepare"),
    table=later("polydistill.methods.prokd.table", "table"),
    examples=(
        "polydistill prokd en sw data_dir=DATA",
        "polydistill prokd en sw teacher=my-ner-teacher data_dir=DATA method=tsl",
        "polydistill prokd en sw sources=es weigh=similarity data_dir=DATA preset=smoke",
        "polydistill prokd en sw teacher=my-ner-teacher model=my-bistil-student data_dir=DATA text=sw.txt",
    ),
)
