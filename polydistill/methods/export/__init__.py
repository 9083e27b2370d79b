"""Export: a model as ONNX files, checked against torch, with what it gains and what it loses."""

from __future__ import annotations

from polydistill.methods.export.card import TOLD
from polydistill.methods.export.options import ExportOptions
from polydistill.runs.method import Method, later

METHOD = Method(
    name="export",
    options=ExportOptions,
    told=TOLD,
    about="""\
ONNX files run without torch: in a browser, on a phone, in onnxruntime. The file must give torch's outputs, or nothing
is written. Sizes, times and, with `task`, scores of torch and of the files are measured side by side.""",
    prepare=later("polydistill.methods.export.plan", "prepare"),
    table=later("polydistill.methods.export.table", "table"),
    examples=(
        "polydistill export polydistill-out/multilingual-e5-small-ro int8=True",
        "polydistill export STUDENT int8=True task=ner languages=sw data_dir=DATA output=student-onnx",
        "polydistill export STUDENT text=sw.txt",
    ),
    exclusive=(("data", "data_dir"),),
)
