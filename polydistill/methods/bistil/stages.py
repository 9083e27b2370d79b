"""The stages of a bilingual distillation: what each of them trains, and what it writes."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.catalog import languages as every_language
from polydistill.devices import precision_name
from polydistill.distill.listing import SAMPLERS
from polydistill.distill.matched import check_writable, trim_together
from polydistill.distill.samplers.base import Sampler
from polydistill.distill.student import RANDOM, randomise_layers, reduce_layers
from polydistill.labelled.plain import plain_split
from polydistill.methods.bistil.job import Job
from polydistill.methods.bistil.presets import NEW_HEAD, General, Tuning
from polydistill.methods.finetune.options import Frozen
from polydistill.methods.finetune.plan import DEFAULTS
from polydistill.methods.finetune.stages import Tuning as TeacherTuning
from polydistill.methods.finetune.stages import record_of, tuned
from polydistill.methods.sparse.method import apply as apply_differences
from polydistill.models.folder import model_folder
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.runs.made import Made, chosen_facts, cut_models, save_network
from polydistill.runs.precision import multiplies_in_bfloat16
from polydistill.runs.stages import Stage, Work, in_order
from polydistill.sparse import files as sparse_files
from polydistill.sparse.weights import keep_beside
from polydistill.texts.sources import read_texts
from polydistill.training.deciding import SIGNALS
from polydistill.trimming.counting import count
from polydistill.trimming.plan import Wishes
from polydistill.vocab.keep import KeepRule
from polydistill.vocab.letters import unwritten

if TYPE_CHECKING:
    from polydistill.distill.objectives.base import Weighted
    from polydistill.distill.task_teachers import TaskInputs
    from polydistill.distill.tuning import Job as TuningJob
    from polydistill.labelled.examples import LabelledSplit
    from polydistill.training.loop import Schedule

CHECKS = 8  # validations and checkpoints of phase 1
TUNING_CHECKS = 1  # of an epoch of phase 2


def stages_of(job: Job) -> tuple[Stage, ...]:
    """The stages of a run.

    Phase 1 takes half of its minutes, a teacher that is made a third of the rest, and the others share by their epochs.
    """
    made: list[tuple[str, Callable[[Job, Work], Made], float]] = []
    if not job.student_given:
        made.append(("vocabulary", vocabulary, 0))
    elif any(given.cut for given in job.teachers):
        made.append(("vocabulary", teachers_cut, 0))
    epochs = job.tuning.epochs if job.tuning else 0
    sparse_epochs = job.tuning.sparse_epochs if job.tuning and job.is_sparse else 0
    learning = (epochs + sparse_epochs) * (1.5 if job.makes_teacher else 1)
    if job.general:
        made.append(("general", general, learning or 1))
    if job.makes_teacher:
        made.append(("teacher", teacher, (epochs + sparse_epochs) / 2))
    if job.tuning:
        made.append(("full", full, epochs))
    if job.is_sparse:
        made.append(("sparse", sparse, sparse_epochs))
    return in_order(job, made)


# --- where things lie


def base_of(job: Job, work: Mapping[str, Path]) -> Path:
    """The teacher with all its layers, with the student's vocabulary."""
    return job.base if job.student_given else work["vocabulary"] / "teacher"


def student_of(job: Job, work: Mapping[str, Path]) -> Path:
    """The student so far."""
    if "general" in work:
        return work["general"]
    return job.source.folder if job.student_given else work["vocabulary"] / "student"


def teachers_of(job: Job, work: Mapping[str, Path]) -> tuple[Path, ...]:
    """The teachers of phase 2."""
    if not job.teachers:
        return (base_of(job, work) if job.vectors else work["teacher"],)
    cut = [t.cut is not None if job.student_given else not t.aligned for t in job.teachers]
    return tuple(
        work["vocabulary"] / f"tuned-{i}" if cut[i] else given.source.folder for i, given in enumerate(job.teachers)
    )


def _folders(work: Work) -> dict[str, Path]:
    return {name: done.folder for name, done in work.done.items()}


# --- vocabulary and layers


def vocabulary(job: Job, work: Work) -> Made:
    """All models with the tokens of both languages; the student with some of the layers, without dropout."""

    def write(out: Path) -> dict[str, Any]:
        source, options = job.source, job.options
        counts = count(
            source.vocabulary, job.languages, options.text, seed=options.computing.seed, progress=work.progress
        )
        check_writable(source, counts, job.languages, allow_unknown=options.student.allow_unknown)
        alike = {f"tuned-{i}": given.source for i, given in enumerate(job.teachers) if not given.aligned}
        with tempfile.TemporaryDirectory(dir=out) as scratch:
            for code, folder in job.language_sft.items():
                carrying = Path(scratch) / code
                apply_differences(str(source.folder), [folder], carrying)
                alike[f"teacher-{code}"] = Source.open(resolve(ModelRef.parse(str(carrying))), options.include_path)
            outs = [out / name for name in ("teacher", *alike)]
            (trimmed, *_) = trim_together([source, *alike.values()], counts, wishes(job), outs, progress=work.progress)
        teacher = Source.open(resolve(ModelRef.parse(str(out / "teacher"))), options.include_path)
        reduce_layers(teacher, job.layers, out / "student", dropout=0.0)
        if options.student.init == RANDOM:
            randomise_layers(model_folder(out / "student"), source.arch, options.computing.seed)
        texts = [{"language": code, **asdict(text)} for code, found in counts.languages.items() for text in found.texts]
        tried = every_language(options.include_path)
        letters = {"languages": len(tried), "lost": unwritten(source.vocabulary, teacher.vocabulary, tried)}
        sizes = {"before": len(source.vocabulary.spaces[0].ids), "after": len(trimmed.keeps[0].tokens)}
        return {"vocabulary": sizes, "coverage": trimmed.coverage, "texts": texts, "letters": letters}

    return Made(write)


def teachers_cut(job: Job, work: Work) -> Made:
    """Teachers with the vocabulary of a student that was given."""
    cuts = {f"tuned-{i}": given.cut for i, given in enumerate(job.teachers) if given.cut}
    return cut_models(cuts, work.progress)


def wishes(job: Job) -> Wishes:
    """What the vocabulary is cut to."""
    asked = job.options.student
    rule = KeepRule(vocab_size=asked.vocab_size) if asked.vocab_size else KeepRule(min_share=asked.min_share)
    return Wishes(job.languages, rule, seed=job.options.computing.seed)


# --- phase 1


def general(job: Job, work: Work) -> Made:
    """Phase 1: the student learns from the whole model on text of both languages."""
    from polydistill.distill.general import distil_general
    from polydistill.training.loop import Schedule

    phase, student = job.general, student_of(job, _folders(work))
    assert phase is not None
    if job.student_given:
        teachers = dict.fromkeys(job.codes, teachers_of(job, _folders(work))[0])
    else:
        teachers = {code: student.parent / f"teacher-{code}" for code in job.codes}
        teachers = {code: own if own.is_dir() else student.parent / "teacher" for code, own in teachers.items()}
    computing = job.options.computing
    schedule = Schedule(
        epochs=1,
        lr=phase.lr,
        batch_size=phase.batch_size,
        warmup=phase.warmup,
        weight_decay=phase.weight_decay,
        checks=CHECKS,
        seed=computing.seed,
        bf16=multiplies_in_bfloat16(computing.precision, student, work),
        accumulate=computing.accumulate,
        minutes=work.minutes,
    )
    made: list[Sampler] = []

    def sampler(sizes: Mapping[str, int]) -> Sampler:
        made.append(SAMPLERS.make(job.sampler, {"sizes": sizes}))
        return made[-1]

    network, curves = distil_general(
        student,
        teachers,
        job.source.arch,
        _blocks(job, student, work),
        asked_of(job, phase),
        schedule,
        phase.steps,
        work.checkpoints,
        work.progress,
        job.options.include_path,
        sampler,
    )

    def write(out: Path) -> dict[str, Any]:
        save_network(network, student, out, job.options.include_path, work.progress)
        return {
            "validation": [[step, -score] for step, score in curves.dev],
            "best_step": curves.best_step,
            "tokens": curves.steps * phase.batch_size * phase.max_length,
            "shares": made[-1].weights(),
            "precision": precision_name(schedule.bf16),
        }

    return Made(write, curves.steps, curves.terms)


def _blocks(job: Job, student: Path, work: Work) -> Any:
    """The text of both languages in blocks, twice as much as will be seen at most."""
    from polydistill.distill.blocks import pack
    from polydistill.distill.general import GeneralText
    from polydistill.models.loading import load_tokenizer
    from polydistill.models.offline import cache_root

    assert job.general is not None
    tokenizer = load_tokenizer(student)
    return GeneralText.split(
        [
            pack(
                tokenizer,
                job.texts[code],
                code,
                job.general.max_length,
                limit_tokens=2 * job.general.tokens // len(job.codes),
                folder=cache_root() / "blocks",
                progress=work.progress,
            )
            for code in job.codes
        ]
    )


def asked_of(job: Job, phase: General | Tuning) -> Weighted:
    """What a phase asks of the student."""
    from polydistill.distill.objectives.build import build
    from polydistill.models.loading import load_config

    outputs = len(job.task.scored_labels) if job.task and not job.vectors else 0
    width = load_config(job.source.model).hidden_size
    return build(
        phase.asked,
        scale=job.scale,
        pairs=job.pairs,
        depths=(len(job.layers), job.depth),
        outputs=outputs,
        widths=(width, width),
    )


# --- phase 2


def teacher(job: Job, work: Work) -> Made:
    """The task's teacher: all layers, tuned on the source language, as `finetune` does it."""
    assert job.task is not None and job.tuning is not None and job.labelled is not None
    batch_size, computing = DEFAULTS[job.task.kind][2], job.options.computing
    tuning = TeacherTuning(
        folder=base_of(job, _folders(work)),
        task=job.task,
        training=job.labelled.training,
        dev=job.labelled.dev,
        epochs=job.tuning.teacher_epochs,
        lr=job.tuning.teacher_lr,
        batch_size=batch_size,
        max_length=job.tuning.max_length,
        frozen=Frozen(freeze_embeddings=True),
        computing=replace(computing, accumulate=_parts(batch_size, computing.accumulate)),
        include_path=job.options.include_path,
    )
    made = tuned(tuning, work)

    def write(out: Path) -> Mapping[str, Any]:
        facts = made.write(out)
        record_of(tuning, facts, made.steps, job.codes[:1]).save(out)
        return facts

    return replace(made, write=write)


def _parts(batch_size: int, asked: int) -> int:
    """Equal parts of a batch whose size the user does not choose: as many as asked for, or the next number of them."""
    return next((n for n in range(asked, batch_size) if batch_size % n == 0), batch_size)


def full(job: Job, work: Work) -> Made:
    """The first stage of phase 2: everything is trained."""
    assert job.tuning is not None
    return Phase2(job, job.tuning, work).train("full", job.tuning.epochs, None)


def sparse(job: Job, work: Work) -> Made:
    """The second stage, from the beginning again: the entries that moved furthest, and the head."""
    assert job.tuning is not None
    return Phase2(job, job.tuning, work).train("sparse", job.tuning.sparse_epochs, work.folder("full"))


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
        return student_of(self.job, _folders(self.work))

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

        def write(out: Path) -> dict[str, Any]:
            facts = {
                **chosen_facts(curves),
                "metric": job.metric,
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
        folders = teachers_of(job, _folders(self.work))
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
