"""Phase 2: the student, its teachers and its data, as training wants them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.devices import precision_name
from polydistill.labelled.plain import plain_split
from polydistill.methods.bistil.job import Job
from polydistill.methods.bistil.places import asked_of, folders_of, student_of, teachers_of
from polydistill.methods.bistil.presets import NEW_HEAD, Tuning
from polydistill.runs.made import Made, chosen_facts, save_network
from polydistill.runs.precision import multiplies_in_bfloat16
from polydistill.runs.stages import Work
from polydistill.sparse import files as sparse_files
from polydistill.sparse.weights import keep_beside
from polydistill.texts.sources import read_texts
from polydistill.training.deciding import SIGNALS
from polydistill.training.hacking import ADVICE, is_hacking

if TYPE_CHECKING:
    from polydistill.distill.task_teachers import TaskInputs
    from polydistill.distill.tuning import Job as TuningJob
    from polydistill.labelled.examples import LabelledSplit
    from polydistill.training.loop import Schedule

TUNING_CHECKS = 1  # of an epoch of phase 2


@dataclass(frozen=True)
class Phase2:
    """A student at theta0 and its teachers; each stage of its training begins there.

    Attributes:
        job: What is done.
        tuning: The settings of phase 2.
        work: Of the stage.
    """

    job: Job
    tuning: Tuning
    work: Work

    @property
    def student(self) -> Path:
        """Folder of the student that phase 1 made."""
        return student_of(self.job, folders_of(self.work))

    def train(self, stage: str, epochs: float, tuned: Path | None) -> Made:
        """Trains everything, or with the result of that the entries that moved furthest."""
        from polydistill.sparse import training as sparse

        work, include = self.work, self.job.options.include_path
        bf16 = multiplies_in_bfloat16(self.job.options.computing.precision, self.student, work)
        plain = self._plain()
        job = self._job(bf16, plain)
        student, network = job.student, job.student.model.network
        before, entries = None, None
        if tuned is not None:
            work.checkpoints.mkdir(parents=True, exist_ok=True)
            before = sparse.save_parameters(network, work.checkpoints / "theta0.safetensors")
            number = student.chosen_count(self.job.density)
            entries = sparse.choose_entries(before, sparse.Stored(tuned), number, dense=student.head)
        curves = job.tune(self._schedule(epochs, bf16), work.checkpoints, work.progress, entries)
        hacked = is_hacking([score for _, score in curves.dev], [score for _, score in curves.beside])
        if hacked:
            work.progress.warn(ADVICE)

        def write(out: Path) -> dict[str, Any]:
            facts = {
                **chosen_facts(curves),
                "metric": job.metric,
                "dev_gold": curves.beside,
                "teacher_hacking": hacked,
                "precision": precision_name(bf16),
                "untrained": job.untrained,
                "texts": [split.facts() for split in plain],
            }
            if entries is None or before is None:
                save_network(network, self.student, out, include, work.progress)
                return facts
            found = sparse.difference_of(
                network,
                before,
                entries,
                names=student.base,
                kind=sparse_files.TASK,
                languages=self.job.codes[:1],
                tasks=(self.job.options.task,),
            )
            save_network(network, self.student, out, include, work.progress)
            keep_beside(out, found, before.checkpoint)
            return {**facts, "entries": found.count, "density": found.density, "base": found.base_hash}

        return Made(write, curves.steps, curves.terms)

    def _job(self, bf16: bool, plain: Sequence[LabelledSplit]) -> TuningJob:
        from polydistill.distill import tuning

        job = self.job
        asked = asked_of(job, self.tuning)
        if job.vectors:
            return tuning.vector_job(self._inputs(bf16), self._lines(), asked)
        assert job.labelled is not None
        return tuning.task_job(
            self._inputs(bf16), job.labelled.training, job.labelled.dev, asked, plain, self.tuning.text
        )

    def _inputs(self, bf16: bool) -> TaskInputs:
        from polydistill.distill.task_teachers import TaskInputs, TeacherFolder

        job = self.job
        given = [(t.weight, t.aligned) for t in job.teachers] or [(1.0, False)]
        folders = teachers_of(job, folders_of(self.work))
        return TaskInputs(
            student=self.student,
            teachers=tuple(TeacherFolder(f, *about) for f, about in zip(folders, given, strict=True)),
            arch=job.source.arch,
            task=None if job.vectors else job.task,
            language=job.codes[0],
            length=self.tuning.max_length,
            seed=job.options.computing.seed,
            by_loyalty=job.by_loyalty,
            bf16=bf16,
            cache_bytes=int(1e9 * job.options.cache_gb),
            note=self.work.note(SIGNALS),
            progress=self.work.progress,
            include=job.options.include_path,
            own=job.past,
            combine=job.options.combined.combine,
            sampler=job.task_sampler,
            augmentations=job.augmentations,
            augmented=job.options.tuning.augment_share,
            new_head=self.tuning.head == NEW_HEAD,
        )

    def _lines(self) -> Mapping[str, list[str]]:
        """Lines of both texts, equally many at most."""
        return {
            code: list(itertools.islice((line for t in texts for line in read_texts(t)), self.job.lines))
            for code, texts in self.job.texts.items()
        }

    def _plain(self) -> list[LabelledSplit]:
        """The text of both languages as inputs of the task."""
        job = self.job
        if not job.reads_text or job.task is None:
            return []
        where = {code: ", ".join(text.where for text in texts) for code, texts in job.texts.items()}
        lines = self._lines()
        return [plain_split(job.task, lang, lines[lang.code], where[lang.code]) for lang in job.languages]

    def _schedule(self, epochs: float, bf16: bool) -> Schedule:
        from polydistill.training.loop import Schedule

        return Schedule(
            epochs=epochs,
            lr=self.tuning.lr,
            batch_size=self.tuning.batch_size,
            warmup=self.tuning.warmup,
            weight_decay=self.tuning.weight_decay,
            checks=TUNING_CHECKS,
            seed=self.job.options.computing.seed,
            bf16=bf16,
            accumulate=self.job.options.computing.accumulate,
            minutes=self.work.minutes,
        )
