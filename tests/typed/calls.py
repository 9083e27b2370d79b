"""Calls of the public functions; a type checker accepts those without a remark, and refuses those with one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polydistill.runs.result import Result

import polydistill

result: Result = polydistill.bistil("en", "sw", task="ner", teacher=["ner-teacher", "past"], precision="auto")
polydistill.bistil("en", "sw", objective="2:logits=1", text=[Path("en.txt"), "sw.txt"], device="cpu", layers=6)
trimmed: Path | None = polydistill.trim("org/name", languages=["ro"], text="ro.txt", vocab_size=32_000).output
polydistill.finetune(task="classification", languages="en", data=[("a text", "a label")], dev_data="dev.csv")
polydistill.finetune(task="ner", languages="en", data={"tokens": [["Ana"]], "tags": [["B-PER"]]})
scores = polydistill.evaluate(["model"], task="ner", languages=["en"], latency=True).scores
width = polydistill.embed("stack", ["a text"], language="sw").shape[1]
polydistill.publish(Path("folder"), "org/name", dry_run=True)
polydistill.sparse_train(language="sw", text="sw.txt", density=0.05)

polydistill.bistil("en")  # type: ignore[call-arg]
polydistill.bistil("en", "sw", layres=6)  # type: ignore[call-arg]
polydistill.bistil("en", "sw", layers="six")  # type: ignore[arg-type]
polydistill.bistil("en", "sw", precision="float16")  # type: ignore[arg-type]
polydistill.trim(languages=["ro"], vocab_size="many")  # type: ignore[arg-type]
polydistill.evaluate("model", task="ner", languages=["en"], bf16=True)  # type: ignore[call-arg]
polydistill.embed("stack")  # type: ignore[call-arg]
polydistill.distil("en", "sw")  # type: ignore[attr-defined]
