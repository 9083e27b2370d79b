"""The networks of a stacking, as its stages build, open and train them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.errors import UsageError
from polydistill.methods.stack.job import Job
from polydistill.methods.stack.material import Material
from polydistill.methods.stack.presets import LINEAR
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.folder import model_folder
from polydistill.runs.made import Made
from polydistill.runs.precision import multiplies_in_bfloat16
from polydistill.runs.stages import Work
from polydistill.stacks.description import Description

if TYPE_CHECKING:
    import numpy as np

    from polydistill.evaluation.heads import TaskModel
    from polydistill.labelled.examples import LabelledSplit
    from polydistill.stacks.folder import LoadedStack
    from polydistill.training.batching import Feature
    from polydistill.training.loop import Curves, Schedule


@dataclass(frozen=True)
class Networks:
    """The networks of one stage.

    Attributes:
        material: What all stages share.
        work: Of the stage.
    """

    material: Material
    work: Work

    @property
    def job(self) -> Job:
        """What the stages come to."""
        return self.material.job

    @property
    def bf16(self) -> bool:
        """Whether matrices are multiplied in bfloat16."""
        precision = self.material.options.computing.precision
        return multiplies_in_bfloat16(precision, model_folder(self.job.llm.folder), self.work)

    # --- parts

    def new_stack(self, length: int, width: int | None = None) -> LoadedStack:
        """Encoder, projection and LLM; or a linear map to vectors of a width, without the LLM."""
        from polydistill.stacks.folder import build

        about = self.material.description()
        llm: Path | None = self.job.llm.folder
        if width is not None:
            about, llm = replace(about, llm=None, lora=None, widths=(0, width, width)), None
        loaded = build(about, self.job.encoder.folder, llm, length)
        loaded.reader.read_language(self.job.english, self.material.options.include_path)
        self.prepare_to_train(loaded)
        return loaded

    def open(self, folder: Path, length: int) -> LoadedStack:
        """A stack that was made before, ready to be trained."""
        from polydistill.stacks.folder import load_stack

        encoder, llm = (
            self.job.encoder.folder,
            None if self.material.options.baseline == LINEAR else self.job.llm.folder,
        )
        loaded = load_stack(folder, length, self.material.options.frozen, encoder=encoder, llm=llm)
        loaded.reader.read_language(self.job.english, self.material.options.include_path)
        self.prepare_to_train(loaded)
        return loaded

    def prepare_to_train(self, loaded: LoadedStack) -> None:
        """Saves memory where that is asked for."""
        if not self.material.options.checkpointing or loaded.network.llm is None:
            return
        llm = loaded.network.llm
        enable = getattr(llm, "activation_checkpointing_enable", None) or llm.gradient_checkpointing_enable
        try:
            enable({"use_reentrant": False})
        except ValueError as error:
            raise UsageError(
                f"{self.job.llm.ref} cannot compute its activations again.", "Leave `checkpointing` out."
            ) from error

    def alone(self) -> LoadedStack:
        """The LLM as it is, which is the teacher of phase 1; loaded before the stack and gone when it is."""
        from polydistill.stacks.folder import build

        about = replace(self.material.description(), encoder=None, lora=None)
        return build(about, None, self.job.llm.folder, self.job.preset.max_length)

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
        return [vectors(encoder, part, bf16=self.bf16, progress=self.work.progress, what="encoding") for part in parts]

    def with_head_of(self, loaded: LoadedStack, teacher: Path) -> LoadedStack:
        """A stack with the head that the tuned LLM has, in the order of the task's labels, which stays as it is."""
        from polydistill.stacks.folder import load_head

        tuned = Description.read(teacher)
        head = load_head(teacher).requires_grad_(False)
        head.weight.copy_(head.weight[[tuned.labels.index(label) for label in self.material.labels]])
        loaded.network.head = head
        return replace(loaded, description=replace(loaded.description, labels=self.material.labels, task=tuned.task))

    # --- teachers

    def wanted(self, parts: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """(n, H) of each: the LLM's vectors of texts, from the cache if they are there."""
        from polydistill.distill.stacking import text_features, vectors

        llm = self.alone()
        return [
            vectors(
                llm,
                text_features(llm, texts),
                bf16=self.bf16,
                facts=self.material.llm_facts,
                progress=self.work.progress,
                what="teacher",
            )
            for texts in parts
        ]

    def taught(self, teacher: Path) -> tuple[np.ndarray, np.ndarray]:
        """(n, H) and (m, H) the tuned LLM's vectors of the task's training and dev examples, or from the cache."""
        from polydistill.distill.stacking import vectors
        from polydistill.stacks.folder import load_stack

        llm = self.job.llm.folder
        tuned = load_stack(teacher, self.job.preset.task_max_length, self.material.options.frozen, llm=llm)
        facts = {**self.material.llm_facts, "tuned": Checkpoint.open(teacher).weights_hash}
        assert self.job.dev is not None
        training, dev = (
            vectors(
                tuned,
                self.pairs(self.task_model(tuned), splits),
                bf16=self.bf16,
                facts=facts,
                progress=self.work.progress,
                what="teacher",
            )
            for splits in (self.job.training, (self.job.dev,))
        )
        return training, dev

    # --- the task

    def task_model(self, loaded: LoadedStack) -> TaskModel:
        """A stack as the predict loops know models."""
        from polydistill.evaluation.heads import TaskModel

        return TaskModel(loaded.network, loaded.reader, self.material.labels, loaded.reader.max_length)

    def pairs(self, model: TaskModel, splits: Sequence[LabelledSplit]) -> list[Feature]:
        """Their examples as inputs with `labels` and `example`."""
        from polydistill.evaluation.kinds import trainable_kind_of

        assert self.job.task is not None
        examples = [e for split in splits for e in split.examples]
        return trainable_kind_of(self.job.task).training_features(model, examples)

    def accuracy(self, model: TaskModel) -> Callable[[Any], float]:
        """Network -> the task's metric on the dev split."""
        from polydistill.evaluation.kinds import dev_score

        assert self.job.task is not None and self.job.dev is not None
        wanted, dev = self.job.task, [self.job.dev]
        return lambda network: dev_score(wanted, replace(model, network=network), dev)

    # --- schedules and results

    def text_schedule(self) -> Schedule:
        """How long phase 1 goes on."""
        from polydistill.training.loop import Schedule

        preset = self.job.preset
        return Schedule(
            epochs=1,
            steps=preset.steps,
            every=max(1, preset.steps // preset.checks),
            lr=preset.lr,
            batch_size=preset.batch_size,
            warmup=preset.warmup,
            seed=self.material.options.computing.seed,
            bf16=self.bf16,
            minutes=self.work.minutes,
        )

    def task_schedule(self, epochs: float, lr: float) -> Schedule:
        """How long the LLM, or phase 2, learns the task."""
        from polydistill.training.loop import Schedule

        preset = self.job.preset
        return Schedule(
            epochs=epochs,
            lr=lr,
            batch_size=preset.task_batch_size,
            warmup=preset.task_warmup,
            checks=2,
            seed=self.material.options.computing.seed,
            bf16=self.bf16,
            minutes=self.work.minutes,
        )

    def chosen_by_task(self, curves: Curves) -> dict[str, Any]:
        """What chose a checkpoint."""
        assert self.job.task is not None
        return {
            "metric": self.job.task.metric,
            "split": self.material.options.labelled.dev_split,
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
        networks: Of the stage.
        loaded: The stack that is trained.
        features: (m,) inputs.
        wanted: (m, H) the teacher's vectors.
    """

    def __init__(
        self, networks: Networks, loaded: LoadedStack, features: Sequence[Feature], wanted: np.ndarray
    ) -> None:
        self._networks, self._loaded, self._features, self._wanted = networks, loaded, features, wanted

    def __call__(self, network: Any) -> float:
        """The higher the better."""
        from polydistill.distill.stacking import unexplained_variance, vectors

        found = vectors(
            replace(self._loaded, network=network),
            self._features,
            bf16=self._networks.bf16,
            progress=self._networks.work.progress,
            what="held-out",
        )
        return -unexplained_variance(found, self._wanted)
