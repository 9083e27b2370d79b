"""The stages of `polydistill bistil`: what each of them trains, and what it writes."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.catalog import languages as every_language
from polydistill.distill.matched import check_writable, trim_together
from polydistill.distill.student import RANDOM, randomise_layers, reduce_layers
from polydistill.files.hashing import file_sha256
from polydistill.methods.bistil.plan import Prepared
from polydistill.methods.bistil.presets import Tuning
from polydistill.methods.finetune.plan import DEFAULTS
from polydistill.methods.sparse.method import Given
from polydistill.methods.sparse.method import apply as apply_differences
from polydistill.models.refs import ModelRef, model_folder, resolve
from polydistill.models.source import Source
from polydistill.progress import Progress
from polydistill.runs.made import Made, cut_models, save_network
from polydistill.sparse import files as sparse_files
from polydistill.sparse.weights import keep_beside
from polydistill.texts.sources import read_texts
from polydistill.training.deciding import SIGNALS, decided
from polydistill.trimming.counting import count
from polydistill.trimming.plan import Wishes
from polydistill.vocab.keep import KeepRule
from polydistill.vocab.letters import unwritten

if TYPE_CHECKING:
    from polydistill.distill.objectives.build import Options
    from polydistill.distill.tuning import Job, TaskInputs
    from polydistill.methods.bistil.method import BistilConfig
    from polydistill.training.loop import Schedule

CHECKS = 8  # validations and checkpoints of phase 1
TUNING_CHECKS = 1  # of an epoch of phase 2
FASTER = 1.1  # bfloat16 rounds, so it has to be worth it


class Clock:
    """Shares the minutes of a run out between its stages.

    Args:
        minutes: Of the whole run; None for as long as it takes.
        todo: Which stages there are.
    """

    def __init__(self, minutes: float | None, todo: Prepared) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self._tuning = todo.tuning

    def minutes(self, stage: str) -> float | None:
        """How long a stage may take: half of what is left for phase 1, a third for a teacher, then by the epochs."""
        if self._end is None:
            return None
        left = max(0.0, self._end - time.monotonic()) / 60
        if self._tuning is None or stage == "sparse":
            return left
        both = self._tuning.epochs + self._tuning.sparse_epochs
        return left * {"general": 1 / 2, "teacher": 1 / 3}.get(stage, self._tuning.epochs / both)


def vocabulary(config: BistilConfig, todo: Prepared, progress: Progress, checkpoints: Path) -> Made:
    """All models with the tokens of both languages; the student with some of the layers, without dropout."""

    def write(out: Path) -> dict[str, Any]:
        source = todo.source
        counts = count(
            source.vocabulary, todo.languages, config.text, seed=config.seed, progress=progress, option="text"
        )
        check_writable(source, counts, todo.languages, allow_unknown=config.allow_unknown)
        alike = {f"tuned-{i}": teacher.source for i, teacher in enumerate(todo.teachers) if not teacher.aligned}
        with tempfile.TemporaryDirectory(dir=out) as scratch:
            for code, folder in todo.language_sft.items():
                carrying = Path(scratch) / code
                apply_differences(str(source.folder), [folder], carrying)
                alike[f"teacher-{code}"] = Source.open(resolve(ModelRef.parse(str(carrying))), config.include_path)
            outs = [out / name for name in ("teacher", *alike)]
            (trimmed, *_) = trim_together(
                [source, *alike.values()], counts, wishes(config, todo), outs, progress=progress
            )
        teacher = Source.open(resolve(ModelRef.parse(str(out / "teacher"))), config.include_path)
        reduce_layers(teacher, todo.layers, out / "student", dropout=0.0)
        if config.init == RANDOM:
            randomise_layers(model_folder(out / "student"), source.arch, config.seed)
        texts = [{"language": code, **asdict(text)} for code, found in counts.languages.items() for text in found.texts]
        tried = every_language(config.include_path)
        letters = {"languages": len(tried), "lost": unwritten(source.vocabulary, teacher.vocabulary, tried)}
        return {
            "vocabulary": {"before": len(source.vocabulary.spaces[0].ids), "after": len(trimmed.keeps[0].tokens)},
            "coverage": trimmed.coverage,
            "texts": texts,
            "letters": letters,
        }

    return Made(write)


def teachers_cut(todo: Prepared, progress: Progress, checkpoints: Path) -> Made:
    """Teachers with the vocabulary of a student that was given."""
    return cut_models({f"tuned-{i}": teacher.cut for i, teacher in enumerate(todo.teachers) if teacher.cut}, progress)


def wishes(config: BistilConfig, todo: Prepared) -> Wishes:
    """What the vocabulary is cut to."""
    rule = KeepRule(vocab_size=config.vocab_size) if config.vocab_size else KeepRule(min_share=config.min_share)
    return Wishes(todo.languages, rule, seed=config.seed)


def general(
    config: BistilConfig, todo: Prepared, student: Path, clock: Clock, progress: Progress, checkpoints: Path
) -> Made:
    """Phase 1."""
    from polydistill.distill.blocks import pack
    from polydistill.distill.general import GeneralText, distil_general
    from polydistill.distill.objectives.build import build
    from polydistill.models.loading import load_tokenizer
    from polydistill.models.offline import cache_root
    from polydistill.training.loop import Schedule

    phase = todo.general
    assert phase is not None
    tokenizer = load_tokenizer(student)
    parts = len(todo.languages)
    blocks = [
        pack(
            tokenizer,
            todo.texts[code],
            code,
            phase.length,
            limit_tokens=2 * phase.tokens // parts,
            folder=cache_root() / "blocks",
            progress=progress,
        )
        for code in todo.codes
    ]
    teachers = {code: student.parent / f"teacher-{code}" for code in todo.codes}
    teachers = {code: own if own.is_dir() else student.parent / "teacher" for code, own in teachers.items()}
    objectives = build(phase.objectives, pairs=todo.pairs, options=options(config, todo))
    bf = bf16(config, todo, student, checkpoints)
    schedule = Schedule(
        epochs=1,
        lr=phase.lr,
        batch_size=phase.batch_size,
        warmup=phase.warmup,
        checks=CHECKS,
        seed=config.seed,
        bf16=bf,
        accumulate=config.accumulate,
        minutes=clock.minutes("general"),
    )
    network, curves = distil_general(
        student,
        teachers,
        todo.source.arch,
        GeneralText.split(blocks),
        objectives,
        schedule,
        phase.steps,
        checkpoints,
        progress,
        config.include_path,
    )

    def write(out: Path) -> dict[str, Any]:
        save_network(network, student, out, config.include_path, progress)
        return {
            "validation": [[step, -score] for step, score in curves.dev],
            "best_step": curves.best_step,
            "tokens": curves.steps * phase.batch_size * phase.length,
            "bf16": bf,
        }

    return Made(write, curves.steps, curves.terms)


def options(config: BistilConfig, todo: Prepared) -> Options:
    """How objectives are measured."""
    from polydistill.distill.objectives.build import Options

    return Options(
        temperature=config.temperature,
        squared_temperature=config.squared_temperature,
        logit_form=config.logit_form,
        relation_heads=config.relation_heads,
        relation_layers=todo.relation_layers,
        scale=todo.scale,
    )


def bf16(config: BistilConfig, todo: Prepared, student: Path, checkpoints: Path) -> bool:
    """Whether to multiply in bfloat16: as asked, or if a step is a tenth faster here with it; measured once a run.

    The student has itself as the teacher there: the task's may have other layers.
    """
    if config.precision != "auto":
        return config.precision == "bfloat16"
    from polydistill.distill.objectives.build import build
    from polydistill.distill.speed import random_network, tokens_per_second

    def is_faster() -> bool:
        asked = build(
            {"hidden": 1.0}, pairs=tuple((i, i) for i in range(len(todo.layers))), options=options(config, todo)
        )
        networks = random_network(student, None, 0), random_network(student, None, 0)
        rates = tokens_per_second(*networks, asked, todo.source.arch, 8, 64)
        return bool(rates["bfloat16"] > FASTER * rates["float32"])

    return decided(checkpoints.with_name("precision.json"), is_faster)


def made_teacher(
    config: BistilConfig, todo: Prepared, base: Path, student: Path, clock: Clock, progress: Progress, checkpoints: Path
) -> Made:
    """The task's teacher: all layers, tuned on the source language, as `finetune` does it."""
    assert todo.task is not None and todo.tuning is not None
    tuning = todo.tuning
    from polydistill.methods.finetune.method import FinetuneConfig, finetune  # type: ignore  # moved next

    result = finetune(
        FinetuneConfig(
            model=str(base),
            freeze_embeddings=True,
            task=todo.task.name,
            lang=(todo.codes[0],),
            data_dir=config.data_dir,
            train_split=config.train_split,
            dev_split=config.dev_split,
            data=config.data,
            dev_data=config.dev_data,
            limit=todo.limit,
            epochs=tuning.teacher_epochs,
            lr=tuning.teacher_lr,
            max_length=tuning.length,
            bf16=bf16(config, todo, student, checkpoints),
            seed=config.seed,
            resume=True,
            overwrite=True,
            output=checkpoints / "tuned-0",
            include_path=config.include_path,
            max_minutes=clock.minutes("teacher"),
            accumulate=_parts(DEFAULTS[todo.task.kind][2], config.accumulate),
        ),
        progress,
    )

    def write(out: Path) -> dict[str, Any]:
        result.output.rename(out / "tuned-0")
        return {"selection": result.selection, "settings": result.settings, "head": result.head}

    return Made(write, result.steps)


def _parts(batch_size: int, asked: int) -> int:
    """Equal parts of a batch whose size the user does not choose: as many as asked for, or the next number of them."""
    return next((n for n in range(asked, batch_size) if batch_size % n == 0), batch_size)


@dataclass(frozen=True)
class Phase2:
    """Phase 2: a student at theta0 and its teachers; each stage of its training begins there.

    Args:
        config: Of the command.
        todo: What it comes to.
        student: Folder of the student that phase 1 made.
        teachers: Folders of the teachers, in the order of `todo.teachers`; or the one that was made or gives vectors.
        clock: Shares out the time.
        progress: Where to report.
    """

    config: BistilConfig
    todo: Prepared
    student: Path
    teachers: tuple[Path, ...]
    clock: Clock
    progress: Progress

    @property
    def tuning(self) -> Tuning:
        """Its settings."""
        assert self.todo.tuning is not None
        return self.todo.tuning

    @property
    def is_sparse(self) -> bool:
        """Whether there is a second stage."""
        return self.tuning.sparse_epochs > 0 and self.todo.density < 1

    def full(self, checkpoints: Path) -> Made:
        """The first stage: everything is trained."""
        return self._train(checkpoints, "full", self.tuning.epochs, None)

    def sparse(self, tuned: Path, checkpoints: Path) -> Made:
        """The second stage, from the beginning again: the entries that moved furthest, and the head."""
        return self._train(checkpoints, "sparse", self.tuning.sparse_epochs, tuned)

    def _train(self, checkpoints: Path, stage: str, epochs: float, tuned: Path | None) -> Made:
        from polydistill.sparse import training as sparse

        bf = bf16(self.config, self.todo, self.student, checkpoints)
        job = self._job(bf, checkpoints.with_name(SIGNALS))
        student, network = job.student, job.student.model.network
        before, entries = None, None
        if tuned is not None:
            checkpoints.mkdir(parents=True, exist_ok=True)
            before = sparse.save_parameters(network, checkpoints / "theta0.safetensors")
            number = student.chosen_count(self.todo.density)
            entries = sparse.choose_entries(before, sparse.Stored(tuned), number, dense=student.head)
        curves = job.tune(self._schedule(stage, epochs, bf), checkpoints, self.progress, entries)

        def write(out: Path) -> dict[str, Any]:
            facts = {
                "metric": job.metric,
                "dev": curves.dev,
                "best": curves.best,
                "best_step": curves.best_step,
                "bf16": bf,
                "untrained": job.untrained,
            }
            if entries is None or before is None:
                save_network(network, self.student, out, self.config.include_path, self.progress)
                return facts
            found = sparse.difference_of(
                network,
                before,
                entries,
                names=student.base,
                kind=sparse_files.TASK,
                languages=self.todo.codes[:1],
                tasks=(self.config.task,),
            )
            save_network(network, self.student, out, self.config.include_path, self.progress)
            keep_beside(out, found, before.checkpoint)
            return {**facts, "entries": found.count, "density": found.density, "base": found.base_hash}

        return Made(write, curves.steps, curves.terms)

    def _job(self, bf: bool, note: Path) -> Job:
        from polydistill.distill import tuning
        from polydistill.distill.objectives.build import build

        asked = build(self.tuning.objectives, pairs=self.todo.pairs, options=options(self.config, self.todo))
        if self.todo.vectors:
            return tuning.vector_job(self._inputs(bf, note), self._lines(), asked)
        assert self.todo.labelled is not None
        return tuning.task_job(self._inputs(bf, note), self.todo.labelled.training, self.todo.labelled.dev, asked)

    def _inputs(self, bf: bool, note: Path) -> TaskInputs:
        from polydistill.distill.tuning import TaskInputs, TeacherFolder

        given = [(t.weight, t.aligned) for t in self.todo.teachers] or [(1.0, False)]
        teachers = tuple(TeacherFolder(f, *about) for f, about in zip(self.teachers, given, strict=True))
        return TaskInputs(
            self.student,
            teachers,
            self.todo.source.arch,
            None if self.todo.vectors else self.todo.task,
            self.todo.codes[0],
            self.tuning.length,
            self.config.seed,
            self.todo.by_loyalty,
            bf,
            int(1e9 * self.config.cache_gb),
            note,
            self.progress,
            self.config.include_path,
        )

    def _lines(self) -> Mapping[str, list[str]]:
        """Lines of both texts, equally many at most."""
        return {
            code: list(itertools.islice((line for t in texts for line in read_texts(t)), self.todo.lines))
            for code, texts in self.todo.texts.items()
        }

    def _schedule(self, stage: str, epochs: float, bf: bool) -> Schedule:
        from polydistill.training.loop import Schedule

        return Schedule(
            epochs=epochs,
            lr=self.tuning.lr,
            batch_size=self.tuning.batch_size,
            warmup=self.tuning.warmup,
            checks=TUNING_CHECKS,
            seed=self.config.seed,
            bf16=bf,
            accumulate=self.config.accumulate,
            minutes=self.clock.minutes(stage),
        )


def settings(config: BistilConfig, todo: Prepared) -> dict[str, Any]:
    """Every value that the run had, presets resolved."""
    return {
        "preset": config.preset,
        "phase_1": asdict(todo.general) if todo.general else None,
        "phase_2": asdict(todo.tuning) if todo.tuning else None,
        "density": todo.density,
        "scale": todo.scale,
        "temperature": config.temperature,
        "squared_temperature": config.squared_temperature,
        "logit_form": config.logit_form,
        "relation_heads": config.relation_heads,
        "relation_layers": todo.relation_layers,
        "layers": list(todo.layers),
        "examples": todo.limit,
        "by_loyalty": todo.by_loyalty,
        "dev_examples": todo.dev_limit,
        "pairs": [list(p) for p in todo.pairs],
        "seed": config.seed,
        "accumulate": config.accumulate,
        "precision": config.precision,
        "labelled": todo.task.facts() if todo.task else None,
    }


def identity(config: BistilConfig, todo: Prepared) -> dict[str, Any]:
    """What has to be the same for a run to go on: all but where it goes and how long it may take."""
    passing = ("output", "overwrite", "resume", "max_minutes", "cache_gb", "data_dir", "data", "dev_data")
    options = {k: v for k, v in config.to_json().items() if k not in passing}
    data = [s.sha256 for s in todo.labelled.training + todo.labelled.dev] if todo.labelled else []
    sources = [teacher.source for teacher in todo.teachers]
    teachers = [[s.checkpoint.weights_hash, file_sha256(s.model / "config.json")] for s in sources]
    labels = todo.task.scored_labels if todo.task else None
    text = {code: [source.facts() for source in sources] for code, sources in todo.texts.items()}
    carried = {code: Given.load(folder).sha256 for code, folder in todo.language_sft.items()}
    return {
        **options,
        "settings": settings(config, todo),
        "model": todo.source.checkpoint.weights_hash,
        "teachers": teachers,
        "labels": labels,
        "data": data,
        "languages": list(todo.codes),
        "texts": text,
        "language_sft": carried,
    }
