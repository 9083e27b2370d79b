"""The stages of a bilingual distillation: what each of them trains, and what it writes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.catalog import languages as every_language
from polydistill.devices import precision_name
from polydistill.distill.listing import SAMPLERS
from polydistill.distill.matched import check_writable, trim_together
from polydistill.distill.samplers.base import Sampler
from polydistill.distill.student import RANDOM, randomise_layers, reduce_layers
from polydistill.methods.bistil.job import Job
from polydistill.methods.bistil.phase2 import Phase2
from polydistill.methods.bistil.places import asked_of, base_of, folders_of, student_of, teachers_of
from polydistill.methods.finetune.options import Frozen
from polydistill.methods.finetune.plan import DEFAULTS
from polydistill.methods.finetune.stages import Tuning as TeacherTuning
from polydistill.methods.finetune.stages import record_of, tuned
from polydistill.methods.sparse.method import apply as apply_differences
from polydistill.models.folder import model_folder
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.runs.made import Made, cut_models, save_network
from polydistill.runs.precision import multiplies_in_bfloat16
from polydistill.runs.stages import Stage, Work, in_order
from polydistill.trimming.counting import count
from polydistill.trimming.plan import Wishes
from polydistill.vocab.keep import KeepRule
from polydistill.vocab.letters import unwritten

if TYPE_CHECKING:
    pass

CHECKS = 8  # validations and checkpoints of phase 1


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

    phase, student = job.general, student_of(job, folders_of(work))
    assert phase is not None
    if job.student_given:
        teachers = dict.fromkeys(job.codes, teachers_of(job, folders_of(work))[0])
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


# --- phase 2


def teacher(job: Job, work: Work) -> Made:
    """The task's teacher: all layers, tuned on the source language, as `finetune` does it."""
    assert job.task is not None and job.tuning is not None and job.labelled is not None
    batch_size, computing = DEFAULTS[job.task.kind][2], job.options.computing
    tuning = TeacherTuning(
        folder=base_of(job, folders_of(work)),
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
