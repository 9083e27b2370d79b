"""Scores at the end of a run: of its result and, for comparison, of its teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from polydistill.evaluation.evaluate import EvaluateOptions, evaluate
from polydistill.progress import Progress
from polydistill.records.record import Score
from polydistill.runs.plan import Scored
from polydistill.runs.stages import Done


@dataclass(frozen=True)
class Test:
    """Data to score.

    Attributes:
        language: Code of its language.
        split: Its split.
        data: A file of the user's own, None for that of a data folder or the Hub.
    """

    language: str
    split: str
    data: Path | None = None


@dataclass(frozen=True)
class Beside:
    """A model that is scored beside the result.

    Attributes:
        folder: Where it is now.
        name: What the scores call it.
    """

    folder: Path
    name: str


@dataclass(frozen=True)
class Scoring:
    """What is scored at the end of a run.

    Attributes:
        output: The place that the result will have, which the scores name.
        task: Name of the task.
        tests: The data.
        beside: Stages that are done -> the teacher, or None where there is none.
        loyalty: Whether the loyalty to it is measured as well.
        data_dir: Folder of local data.
        seed: Of the intervals.
        include_path: Folders with the user's own languages, tasks and architectures.
    """

    output: Path
    task: str
    tests: tuple[Test, ...]
    beside: Callable[[Mapping[str, Done]], Beside | None] = lambda done: None
    loyalty: bool = True
    data_dir: Path | None = None
    seed: int = 0
    include_path: tuple[Path, ...] = ()

    def score(self, done: Mapping[str, Done], out: Path, progress: Progress) -> Scored:
        """See `runs.plan.Scores`."""
        beside = self.beside(done)
        named = {str(out): str(self.output), **({str(beside.folder): beside.name} if beside else {})}
        scores: list[Score] = []
        rows: list[dict[str, Any]] = []
        for test in self.tests:
            found = evaluate(self._evaluation(test, out, beside), progress)
            scores += [replace(score, model=named[score.model]) for score in found.scores]
            if found.loyalty is not None:
                rows += [{**row, "model": named[row["model"]]} for row in found.loyalty["scores"]]
        kept = [score for score in scores if score.model == str(self.output)]
        return Scored(scores, kept, {"teacher": beside.name, "scores": rows} if beside and rows else None)

    def _evaluation(self, test: Test, out: Path, beside: Beside | None) -> EvaluateOptions:
        teacher = str(beside.folder) if beside and self.loyalty else None
        others = [str(beside.folder)] if beside and not self.loyalty else []
        return EvaluateOptions(
            model=(str(out), *others),
            teacher=teacher,
            task=self.task,
            languages=(test.language,),
            split=test.split,
            data=test.data,
            data_dir=self.data_dir,
            seed=self.seed,
            include_path=self.include_path,
        )
