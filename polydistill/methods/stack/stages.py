"""The stages of `polydistill stack`: what each of them fits or trains, and what it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.errors import UsageError
from polydistill.methods.stack.plan import LEAST_SQUARES, LINEAR, Lines, Prepared, read_lines
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.loading import LONGEST
from polydistill.progress import Progress
from polydistill.records.record import versions
from polydistill.runs.stages import Made
from polydistill.stacks.description import Description, Parent

if TYPE_CHECKING:
    import numpy as np

    from polydistill.distill.stacking import LinearMap
    from polydistill.evaluation.heads import TaskModel
    from polydistill.labelled.examples import LabelledSplit
    from polydistill.methods.stack.method import StackConfig
    from polydistill.stacks.folder import LoadedStack
    from polydistill.training.batching import Feature
    from polydistill.training.loop import Curves, Schedule

UNEXPLAINED = "unexplained variance"
TEXT_SPLIT = "held-out text"
NOTHING_LEARNT = 0.98  # unexplained variance above which vectors are hardly better than the mean of all


@dataclass(frozen=True)
class Run:
    """What all stages share.

    Args:
        config: Of the command.
        todo: What it comes to.
        progress: Where to report.
    """

    config: StackConfig
    todo: Prepared
    progress: Progress

    # --- stages

    def projection(self, checkpoints: Path) -> Made:
        """A stack that has learnt nothing: the projection fitted or random, LoRA without effect."""
        import torch

        from polydistill.distill.stacking import input_means, least_squares, text_features

        lines = (self.lines.training[: self.todo.preset.fit_lines], self.lines.dev)
        fits, wanted = self.config.init == LEAST_SQUARES, []
        if fits:
            llm = self.alone()
            wanted = [input_means(llm.network.llm, text_features(llm, part)) for part in lines]
            del llm  # one LLM in memory is enough
        torch.manual_seed(self.config.seed)
        loaded = self.new_stack(self.todo.preset.length)
        facts: dict[str, Any] = {}
        if fits:
            states = self.encoded(loaded, [text_features(loaded, part) for part in lines])
            fitted = least_squares(states[0], wanted[0], states[1], wanted[1])
            loaded.network.begin_with(fitted.weight, fitted.bias)
            facts = {"texts": len(lines[0]), "penalty": fitted.penalty, "unexplained_inputs": fitted.unexplained}
        return self.made(loaded, facts)

    def linear(self, checkpoints: Path) -> Made:
        """The baseline: the best linear map from the encoder's vectors to the LLM's."""
        from polydistill.distill.stacking import text_features

        parts = (self.training_lines, self.lines.dev)
        wanted = self.wanted(parts)
        loaded = self.new_stack(self.todo.preset.length, wanted[0].shape[1])
        features = [text_features(loaded, part) for part in parts]
        fitted = self._fit(loaded, features, wanted)
        return self.made(
            loaded,
            {
                "penalty": fitted.penalty,
                "unexplained": [(0, 1.0)],
                "unexplained_at_best": fitted.unexplained,
                "texts": len(features[0]),
                "metric": UNEXPLAINED,
                "split": TEXT_SPLIT,
                "best": fitted.unexplained,
                "best_step": 0,
            },
        )

    def self_distilled(self, begins: Path, checkpoints: Path) -> Made:
        """Stage 1: the stack's vectors of plain English text become the LLM's."""
        from polydistill.distill.stacking import VectorLoss, text_features, train_stack

        wanted, held = self.wanted((self.training_lines, self.lines.dev))
        loaded = self.open(begins, self.todo.preset.length)
        seen = Unexplained(self, loaded, text_features(loaded, self.lines.dev), held)
        first = -seen(loaded.network)
        curves = train_stack(
            loaded,
            text_features(loaded, self.training_lines),
            VectorLoss(wanted),
            seen,
            self.text_schedule(),
            checkpoints,
            self.progress,
        )
        best, best_step = -curves.best, curves.best_step
        if best > first:
            self.progress.warn(
                f"Stage 1 made it worse: {best:.3f} of the variance is unexplained, {first:.3f} was at first. The "
                "beginning is kept; try a lower --lr or more --steps."
            )
            loaded, best, best_step = self.open(begins, self.todo.preset.length), first, 0
        elif best > NOTHING_LEARNT:
            self.progress.warn(
                f"The stack's vectors say next to nothing of a text: {100 * best:.0f} % of variance is unexplained. "
                "Try a lower --lr or more --steps."
            )
        facts = {
            "unexplained": [(0, first), *((step, -score) for step, score in curves.dev)],
            "unexplained_at_best": best,
            "texts": len(self.training_lines),
            "metric": UNEXPLAINED,
            "split": TEXT_SPLIT,
            "best": best,
            "best_step": best_step,
        }
        return self.made(loaded, facts, curves)

    def teacher(self, checkpoints: Path) -> Made:
        """The LLM alone learns the task: LoRA and a head of its own."""
        import torch

        from polydistill.distill.stacking import LabelLoss, train_stack
        from polydistill.stacks.folder import build

        assert self.todo.task is not None
        torch.manual_seed(self.config.seed)
        about = replace(self.description(), encoder=None, labels=self.labels, task=self.todo.task.name)
        loaded = build(about, None, self.todo.llm.folder, self.todo.preset.task_length)
        self.prepare_to_train(loaded)
        model = self.task_model(loaded)
        curves = train_stack(
            loaded,
            self.pairs(model, self.todo.training),
            LabelLoss(),
            self.accuracy(model),
            self.task_schedule(self.todo.preset.teacher_epochs, self.todo.preset.teacher_lr),
            checkpoints,
            self.progress,
        )
        return self.made(loaded, self.chosen_by_task(curves), curves)

    def task_distilled(self, begins: Path | None, teacher: Path, checkpoints: Path) -> Made:
        """Stage 2: the stack's vectors of the task's examples become those of the tuned LLM, whose head it gets."""
        from polydistill.distill.stacking import VectorLoss, train_stack

        assert begins is not None and self.todo.task is not None and self.todo.dev is not None
        wanted, held = self.taught(teacher)
        loaded = self.with_head_of(self.open(begins, self.todo.preset.task_length), teacher)
        model = self.task_model(loaded)
        seen = Unexplained(self, loaded, self.pairs(model, (self.todo.dev,)), held)
        first = -seen(loaded.network)
        curves = train_stack(
            loaded,
            self.pairs(model, self.todo.training),
            VectorLoss(wanted),
            self.accuracy(model),
            self.task_schedule(self.todo.preset.task_epochs, self.todo.preset.task_lr),
            checkpoints,
            self.progress,
        )
        last = -seen(loaded.network)
        facts = {"unexplained": [(0, first), (curves.best_step, last)], "unexplained_at_best": last}
        return self.made(loaded, {**self.chosen_by_task(curves), **facts}, curves)

    def linear_task(self, teacher: Path, checkpoints: Path) -> Made:
        """The baseline's stage 2: a linear map to the tuned LLM's vectors, and its head."""
        from polydistill.stacks.parts import on_device

        assert self.todo.task is not None and self.todo.dev is not None
        wanted, apart = self.taught(teacher)
        new = self.new_stack(self.todo.preset.task_length, wanted.shape[1])
        loaded = self.with_head_of(new, teacher)
        model = self.task_model(loaded)
        features = self.pairs(model, self.todo.training)
        held = max(2, len(features) // 20)  # of the training examples: the penalty is no matter of the dev split
        fitted = self._fit(loaded, (features[held:], features[:held]), (wanted[held:], wanted[:held]))
        left = -Unexplained(self, loaded, self.pairs(model, (self.todo.dev,)), apart)(loaded.network)
        return self.made(
            loaded,
            {
                "penalty": fitted.penalty,
                "unexplained": [(0, 1.0)],
                "unexplained_at_best": left,
                "texts": len(features) - held,
                "metric": self.todo.task.metric,
                "split": self.config.dev_split,
                "best": self.accuracy(model)(on_device(loaded.network)),
                "best_step": 0,
            },
        )

    def _fit(
        self, loaded: LoadedStack, features: Sequence[Sequence[Feature]], wanted: Sequence[np.ndarray]
    ) -> LinearMap:
        """Fits a stack's projection on the first of two parts; the second chooses the penalty."""
        from polydistill.distill.stacking import PENALTIES, least_squares

        fitted = least_squares(*(pair[i] for i in (0, 1) for pair in (self.encoded(loaded, features), wanted)))
        loaded.network.begin_with(fitted.weight, fitted.bias)
        if fitted.penalty in (PENALTIES[0], PENALTIES[-1]):
            self.progress.note(f"The best penalty, {fitted.penalty:g}, is the last one that was tried.")
        return fitted

    # --- parts

    @cached_property
    def lines(self) -> Lines:
        """The text of stage 1, read once."""
        preset, config = self.todo.preset, self.config
        trained = preset.steps * preset.batch_size if 1 in self.todo.stages else 0
        fitted = preset.fit_lines if config.init == LEAST_SQUARES and config.baseline != LINEAR else 0
        return read_lines(self.todo.texts, max(trained, fitted), preset.dev_lines, config.seed)

    @property
    def training_lines(self) -> Sequence[str]:
        """Those that the steps of stage 1 see."""
        return self.lines.training[: self.todo.preset.steps * self.todo.preset.batch_size]

    @cached_property
    def parents(self) -> tuple[Parent, Parent]:
        """Encoder and LLM, hashed once."""
        return self.todo.parents(self.config)

    @cached_property
    def llm_facts(self) -> dict[str, Any]:
        """What the LLM's vectors depend on."""
        llm = self.parents[1]
        return {
            "llm": llm.weights_hash,
            "config": llm.config_hash,
            "transformers": versions().get("transformers"),
            "dtype": self.config.frozen,
            "pooling": self.config.pooling,
        }

    @property
    def labels(self) -> tuple[str, ...]:
        """Those of the task."""
        assert self.todo.task is not None
        return tuple(self.todo.task.scored_labels)

    @property
    def lora(self) -> Mapping[str, float] | None:
        """Of the stack that is gone on from, or of a new one; None for a linear map."""
        if self.config.baseline == LINEAR:
            return None
        return Description.read(self.todo.begin).lora if self.todo.begin else self.description().lora

    def description(self) -> Description:
        """What a new stack of this run says of itself."""
        encoder, llm = self.parents
        lora = {"r": self.config.lora_r, "alpha": self.config.lora_alpha, "dropout": self.config.lora_dropout}
        return Description(
            encoder=encoder, llm=llm, widths=(0, 0, 0), lora=lora, max_length=LONGEST, pooling=self.config.pooling
        )

    def new_stack(self, length: int, width: int | None = None) -> LoadedStack:
        """Encoder, projection and LLM; or a linear map to vectors of a width, without the LLM."""
        from polydistill.stacks.folder import build

        about = self.description()
        llm: Path | None = self.todo.llm.folder
        if width is not None:
            about, llm = replace(about, llm=None, lora=None, widths=(0, width, width)), None
        loaded = build(about, self.todo.encoder.folder, llm, length)
        loaded.reader.read_language(self.todo.english, self.config.include_path)
        self.prepare_to_train(loaded)
        return loaded

    def open(self, folder: Path, length: int) -> LoadedStack:
        """A stack that was made before, ready to be trained."""
        from polydistill.stacks.folder import load_stack

        encoder, llm = self.todo.encoder.folder, None if self.config.baseline == LINEAR else self.todo.llm.folder
        loaded = load_stack(folder, length, self.config.frozen, encoder=encoder, llm=llm)
        loaded.reader.read_language(self.todo.english, self.config.include_path)
        self.prepare_to_train(loaded)
        return loaded

    def prepare_to_train(self, loaded: LoadedStack) -> None:
        """Saves memory where that is asked for."""
        if not self.config.checkpointing or loaded.network.llm is None:
            return
        llm = loaded.network.llm
        enable = getattr(llm, "activation_checkpointing_enable", None) or llm.gradient_checkpointing_enable
        try:
            enable({"use_reentrant": False})
        except ValueError as error:
            raise UsageError(
                f"{self.todo.llm.ref} cannot compute its activations again.", "Leave --checkpointing out."
            ) from error

    def alone(self) -> LoadedStack:
        """The LLM as it is, which is the teacher of stage 1; loaded before the stack and gone when it is."""
        from polydistill.stacks.folder import build

        about = replace(self.description(), encoder=None, lora=None)
        return build(about, None, self.todo.llm.folder, self.todo.preset.length)

    def encoder_alone(self, loaded: LoadedStack) -> LoadedStack:
        """The encoder of a stack, whose vectors are the means of its own states."""
        import torch

        from polydistill.stacks.network import Stack

        width = loaded.description.widths[0]
        same = torch.nn.Linear(width, width, bias=False)
        torch.nn.init.eye_(same.weight)
        about = replace(loaded.description, widths=(width, width, width))
        return replace(loaded, network=Stack(loaded.network.encoder, same, None), description=about)

    def encoded(self, loaded: LoadedStack, parts: Sequence[Sequence[Feature]]) -> list[np.ndarray]:
        """The encoder's vectors of some inputs."""
        from polydistill.distill.stacking import vectors

        encoder = self.encoder_alone(loaded)
        return [
            vectors(encoder, part, bf16=self.config.bf16, progress=self.progress, what="encoding") for part in parts
        ]

    def with_head_of(self, loaded: LoadedStack, teacher: Path) -> LoadedStack:
        """A stack with the head that the tuned LLM has, in the order of the task's labels, which stays as it is."""
        from polydistill.stacks.folder import load_head

        tuned = Description.read(teacher)
        head = load_head(teacher).requires_grad_(False)
        head.weight.copy_(head.weight[[tuned.labels.index(label) for label in self.labels]])
        loaded.network.head = head
        return replace(loaded, description=replace(loaded.description, labels=self.labels, task=tuned.task))

    # --- teachers

    def wanted(self, parts: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """(n, H) of each: the LLM's vectors of texts, from the cache if they are there."""
        from polydistill.distill.stacking import text_features, vectors

        llm = self.alone()
        return [
            vectors(
                llm,
                text_features(llm, texts),
                bf16=self.config.bf16,
                facts=self.llm_facts,
                progress=self.progress,
                what="teacher",
            )
            for texts in parts
        ]

    def taught(self, teacher: Path) -> tuple[np.ndarray, np.ndarray]:
        """(n, H) and (m, H) the tuned LLM's vectors of the task's training and dev examples, or from the cache."""
        from polydistill.distill.stacking import vectors
        from polydistill.stacks.folder import load_stack

        llm = self.todo.llm.folder
        tuned = load_stack(teacher, self.todo.preset.task_length, self.config.frozen, llm=llm)
        facts = {**self.llm_facts, "tuned": Checkpoint.open(teacher).weights_hash}
        assert self.todo.dev is not None
        training, dev = (
            vectors(
                tuned,
                self.pairs(self.task_model(tuned), splits),
                bf16=self.config.bf16,
                facts=facts,
                progress=self.progress,
                what="teacher",
            )
            for splits in (self.todo.training, (self.todo.dev,))
        )
        return training, dev

    # --- the task

    def task_model(self, loaded: LoadedStack) -> TaskModel:
        """A stack as the predict loops know models."""
        from polydistill.evaluation.heads import TaskModel

        return TaskModel(loaded.network, loaded.reader, self.labels, loaded.reader.max_length)

    def pairs(self, model: TaskModel, splits: Sequence[LabelledSplit]) -> list[Feature]:
        """Their examples as inputs with `labels` and `example`."""
        from polydistill.evaluation.kinds import trainable_kind_of

        assert self.todo.task is not None
        examples = [e for split in splits for e in split.examples]
        return trainable_kind_of(self.todo.task).training_features(model, examples)

    def accuracy(self, model: TaskModel) -> Callable[[Any], float]:
        """Network -> the task's metric on the dev split."""
        from polydistill.evaluation.kinds import dev_score

        assert self.todo.task is not None and self.todo.dev is not None
        wanted, dev = self.todo.task, [self.todo.dev]
        return lambda network: dev_score(wanted, replace(model, network=network), dev)

    # --- schedules and results

    def text_schedule(self) -> Schedule:
        """How long stage 1 goes on."""
        from polydistill.training.loop import Schedule

        preset = self.todo.preset
        return Schedule(
            epochs=1,
            steps=preset.steps,
            every=max(1, preset.steps // preset.checks),
            lr=preset.lr,
            batch_size=preset.batch_size,
            warmup=preset.warmup,
            seed=self.config.seed,
            bf16=self.config.bf16,
            minutes=self.config.max_minutes,
        )

    def task_schedule(self, epochs: float, lr: float) -> Schedule:
        """How long the LLM, or stage 2, learns the task."""
        from polydistill.training.loop import Schedule

        preset = self.todo.preset
        return Schedule(
            epochs=epochs,
            lr=lr,
            batch_size=preset.task_batch,
            warmup=preset.task_warmup,
            checks=2,
            seed=self.config.seed,
            bf16=self.config.bf16,
            minutes=self.config.max_minutes,
        )

    def chosen_by_task(self, curves: Curves) -> dict[str, Any]:
        """What chose a checkpoint."""
        assert self.todo.task is not None
        return {
            "metric": self.todo.task.metric,
            "split": self.config.dev_split,
            "best": curves.best,
            "best_step": curves.best_step,
            "dev": curves.dev,
        }

    def made(self, loaded: LoadedStack, facts: dict[str, Any], curves: Curves | None = None) -> Made:
        """A stage whose result is a stack."""
        from polydistill.stacks.folder import save_stack

        def write(out: Path) -> dict[str, Any]:
            save_stack(loaded, out)
            return facts

        return Made(write, curves.steps if curves else 0, curves.terms if curves else ())


class Unexplained:
    """Network -> minus the share of the teacher's variance that it leaves unexplained on held-out text or examples.

    Args:
        run: Of the command.
        loaded: The stack that is trained.
        features: (m,) inputs.
        wanted: (m, H) the teacher's vectors.
    """

    def __init__(self, run: Run, loaded: LoadedStack, features: Sequence[Feature], wanted: np.ndarray) -> None:
        self._run, self._loaded, self._features, self._wanted = run, loaded, features, wanted

    def __call__(self, network: Any) -> float:
        """The higher the better."""
        from polydistill.distill.stacking import unexplained_variance, vectors

        config = self._run.config
        found = vectors(
            replace(self._loaded, network=network),
            self._features,
            bf16=config.bf16,
            progress=self._run.progress,
            what="held-out",
        )
        return -unexplained_variance(found, self._wanted)


def peak_gpu_bytes() -> int:
    """The most memory that tensors on the GPU have taken in this process; 0 without one."""
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0


def settings(run: Run) -> dict[str, Any]:
    """Every value that the run had, presets resolved."""
    config = run.config
    return {
        "preset": config.preset,
        **asdict(run.todo.preset),
        "stages": list(run.todo.stages),
        "init": config.init,
        "lora": run.lora,
        "teacher_lora": None if run.todo.teacher or not run.todo.task else run.description().lora,
        "pooling": config.pooling,
        "frozen": config.frozen,
        "bf16": config.bf16,
        "seed": config.seed,
    }


def identity(run: Run) -> dict[str, Any]:
    """What has to be the same for a run to go on: all but where it goes and how long it may take."""
    config, todo = run.config, run.todo
    passing = (
        "output",
        "overwrite",
        "resume",
        "max_minutes",
        "data_dir",
        "checkpointing",
        "whole",
        "lang",
        "test_split",
        "include_path",
        "text",
    )
    options = {k: v for k, v in config.to_json().items() if k not in passing}
    data = [s.sha256 for s in (*todo.training, *([todo.dev] if todo.dev else []))]
    given = [Checkpoint.open(folder).weights_hash for folder in (todo.begin, todo.teacher) if folder]
    models = [[part.weights_hash, part.config_hash] for part in run.parents]
    text = run.lines.sha256 if todo.texts else None
    return {
        **options,
        "settings": settings(run),
        "models": models,
        "given": given,
        "data": data,
        "text": text,
        "labels": run.labels if todo.task else None,
    }
