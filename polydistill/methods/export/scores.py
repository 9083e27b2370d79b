"""Scores of torch and of the files that an export has written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from polydistill.evaluation.heads import TaskModel
from polydistill.evaluation.scoring import loyalty, score
from polydistill.evaluation.subjects import Subject
from polydistill.evaluation.summaries import loyalty_rows
from polydistill.files.hashing import file_sha256
from polydistill.methods.export.stages import Job
from polydistill.progress import Progress
from polydistill.runs.plan import Scored
from polydistill.runs.stages import Done


@dataclass
class FileSubject(Subject):
    """An ONNX file to score, in the place of the network that it was made from."""

    path: Path
    network: Any
    torch: Subject

    @cached_property
    def weights_hash(self) -> str:
        """Hash of the file."""
        return file_sha256(self.path)

    @cached_property
    def loaded(self) -> TaskModel:
        """The model of torch with the file in the network's place."""
        from polydistill.exporting.networks import with_network

        return with_network(self.torch.loaded, self.network)


@dataclass(frozen=True)
class FileScoring:
    """Scores torch and the files, and how far the files predict what torch does.

    Attributes:
        job: The export.
        output: The place that its result will have.
        recorded: Whether the files' scores go into the record.
    """

    job: Job
    output: Path
    recorded: bool

    def score(self, done: Mapping[str, Done], out: Path, progress: Progress) -> Scored:
        """See `runs.plan.Scores`."""
        from polydistill.exporting.networks import onnx_network

        job, task = self.job, self.job.task
        assert task is not None
        torch, cells = task.subject, task.cells
        scores, reference = score(torch, cells, progress)
        rows: list[dict[str, Any]] = []
        kept = []
        for below in job.files.values():
            path, called = out / job.source.inner / below, str(self.output / job.source.inner / below)
            network = onnx_network(path, torch.loaded.network.config)
            subject = FileSubject(called, torch.resolved, torch.wanted, torch.settings, path, network, torch)
            own, predictions = score(subject, cells, progress)
            kept += own
            for cell, before, after in zip(cells, reference, predictions, strict=True):
                rows += loyalty_rows(called, cell, loyalty(torch.wanted, cell, before, after), torch.settings.seed)
        return Scored([*scores, *kept], kept if self.recorded else [], rows)
