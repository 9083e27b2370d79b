"""The transformers Trainer with batches, losses and a dev score of our own, and checkpoints that appear whole.

A checkpoint holds all that training goes on from: weights, optimizer, random numbers, the Trainer's state, the loss's,
and the terms of every step until then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import orjson
import torch
import transformers
from accelerate.utils import reduce
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from polydistill.errors import PolydistillError
from polydistill.files.sealing import is_whole
from polydistill.processes import told_by_main, wait
from polydistill.progress import Progress
from polydistill.training.facts import TrainingFacts
from polydistill.training.resuming import LOSSES, PARTIAL, STATE, checkpoint_of, finish, keep_only, writing

DevScore = float | tuple[float, float]
LOSS_STATE, BATCHES_STATE = "loss.safetensors", "batches.json"


class StepLoss(Protocol):
    """The loss of a batch."""

    @property
    def looks(self) -> bool:
        """Whether `look` is to be called."""

    def begin(self, facts: TrainingFacts) -> None:
        """Called before training begins or resumes."""

    def look(self, batches: Iterable[dict[str, Any]]) -> None:
        """Called with all training data before training begins, and not when it resumes."""

    def parameters(self) -> list[torch.nn.Parameter]:
        """What is trained beside the network, and not saved with it."""

    def begin_epoch(self, epoch: int) -> None:
        """Called before the first step of each epoch, counted from 0."""

    def __call__(
        self, network: Any, batch: dict[str, Any], agree: Callable[[torch.Tensor], torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """(scalar with a gradient, term -> its value); `agree` takes the mean of a scalar over all processes."""

    def begin_step(
        self, network: Any, parts: Sequence[dict[str, Any]], agree: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        """Called before each step with all parts of its batch, each of which the loss is then called for."""

    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        """Called after each step with the mean terms of its batches."""

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint has to keep."""

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restores what a checkpoint kept."""


class Terms(transformers.TrainerCallback):
    """The loss: its terms at every step, and its state; checkpoints keep both.

    Args:
        loss: The loss.
        batches: What says which examples come next; its `state` and `restore` are called if it has them.
        facts: Of the training.
        clip: Largest norm of the gradients of what the loss trains beside the network.

    Attributes:
        batches: Terms of each batch of the present step.
        steps: Mean terms of every step, in order.
    """

    def __init__(self, loss: StepLoss, batches: Any, facts: TrainingFacts, clip: float) -> None:
        self.loss, self.batches, self.steps = loss, list[dict[str, float]](), list[dict[str, float]]()
        self._order = batches if hasattr(batches, "state") else None
        self._facts, self._clip = facts, clip

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Says that an epoch begins; the Trainer would say so again when training resumes in the middle of one."""
        epoch, step = divmod(state.global_step, self._facts.steps_an_epoch)
        if step == 0:
            self.loss.begin_epoch(epoch)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Agrees on the gradients of what the loss trains, and clips them; the Trainer does so only for the network."""
        trained = [parameter for parameter in self.loss.parameters() if parameter.grad is not None]
        for parameter in trained:
            parameter.grad = reduce(parameter.grad, "mean")
        torch.nn.utils.clip_grad_norm_(trained, self._clip)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The means over the batches of the step."""
        for parameter in self.loss.parameters():
            parameter.grad = None
        seen, self.batches = self.batches, []
        self.steps.append({term: sum(s[term] for s in seen) / len(seen) for term in seen[0]})
        self.loss.on_step(state.global_step, self.steps[-1])

    def save(self, folder: Path) -> None:
        """Writes them into a checkpoint."""
        save_file({name: t.cpu().contiguous() for name, t in self.loss.state().items()}, folder / LOSS_STATE)
        if self._order is not None:
            (folder / BATCHES_STATE).write_bytes(orjson.dumps(self._order.state()))
        (folder / LOSSES).write_bytes(b"".join(orjson.dumps(step) + b"\n" for step in self.steps))

    def restore(self, folder: Path) -> None:
        """Restores what a checkpoint kept."""
        self.loss.restore(load_file(folder / LOSS_STATE))
        if self._order is not None:
            self._order.restore(orjson.loads((folder / BATCHES_STATE).read_bytes()))
        self.steps = [orjson.loads(line) for line in (folder / LOSSES).read_bytes().splitlines()]


class DevTrainer(transformers.Trainer):
    """The Trainer with batches of our own, a dev score of our own predict loop and a loss of our own.

    Args:
        dev_score: Network -> score, the higher the better, and maybe another one that is only noted.
        batches: Yields the places of a batch.
        terms: Of the loss.
        tolerance: See `training.Schedule`.
    """

    def __init__(
        self,
        *args: Any,
        dev_score: Callable[[Any], DevScore],
        batches: Any,
        terms: Terms,
        tolerance: float,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._dev_score, self._batches, self._terms, self._tolerance = dev_score, batches, terms, tolerance
        self._work = Path(self.args.output_dir or ".")
        self._partial: Path | None = None  # where a checkpoint is being written
        self.model_accepts_loss_kwargs = False  # the mean over the batches of a step is taken by the Trainer

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The optimizer, which also trains what the loss has to train; biases and norms of it without weight decay."""
        optimizer = super().create_optimizer(model)
        beside = self._terms.loss.parameters()
        there = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for decay, group in (
            (self.args.weight_decay, [p for p in beside if p.ndim > 1]),
            (0.0, [p for p in beside if p.ndim < 2]),
        ):
            if group and id(group[0]) not in there:
                optimizer.add_param_group({"params": group, "weight_decay": decay})
        return optimizer

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The batches, each shared by all processes."""
        features: Any = self.train_dataset
        loader: DataLoader[Any] = DataLoader(features, batch_sampler=self._batches, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)

    def get_batch_samples(self, *args: Any, **options: Any) -> Any:
        """The parts of a step's batch, which the loss sees before it is asked for each of them."""
        parts, items = super().get_batch_samples(*args, **options)
        if parts:
            self._terms.loss.begin_step(self.model, parts, self._agree)
        return parts, items

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss, with its terms noted."""
        loss, terms = self._terms.loss(model, inputs, self._agree)
        self._check_finite({f"its term {term}": value for term, value in terms.items()})
        self._terms.batches.append(terms)
        return loss

    def _check_finite(self, values: Mapping[str, float]) -> None:
        """Refuses to go on with weights that are no longer finite, or never were.

        Raises:
            PolydistillError: A value is infinite or NaN.
        """
        for what, value in values.items():
            if math.isfinite(value):
                continue
            if self.state.global_step == 0:
                raise PolydistillError(
                    f"The loss is not a number from the first step on: {what} is {value}.",
                    "The weights of the model, or of its teacher, are damaged or overflow: fetch or save it again, or "
                    "train without bfloat16.",
                )
            raise PolydistillError(
                f"The loss is no longer a number: {what} is {value}. The last good checkpoint stays.",
                "Start again with `overwrite`, a lower learning rate or without bfloat16.",
            )

    def _agree(self, value: torch.Tensor) -> torch.Tensor:
        return self.accelerator.reduce(value, "mean") if self.accelerator.num_processes > 1 else value

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """The dev score, and by how much a checkpoint is the one to keep."""
        found = self._dev_score(self.model)
        score, beside = found if isinstance(found, tuple) else (found, None)
        self._check_finite({"the dev score": score})  # before the checkpoint is written
        before = [entry["eval_score"] for entry in self.state.log_history if "eval_score" in entry]
        metrics = {"eval_score": score, "eval_choice": score}
        if self._tolerance:
            fits = score >= max([score, *before]) - self._tolerance
            metrics["eval_choice"] = float(self.state.global_step) if fits else -1.0
        self.log({"eval_score": score} if beside is None else {"eval_score": score, "eval_beside": beside})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # --- checkpoints

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The model, and beside it the state of the loss."""
        super().save_model(output_dir, _internal_call)
        if output_dir and self.args.should_save:
            self._terms.save(Path(output_dir))

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._partial or self._work)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Writes a checkpoint beside, puts it in its place when it is on the disk, and then removes older ones."""
        self._partial = self._work / PARTIAL
        written = checkpoint_of(self._partial, self.state.global_step)
        try:
            with writing(self._work):  # torch does not say that the disk is full, which is seen while the rest is there
                super()._save_checkpoint(model, trial)
                wait()  # each process writes its random numbers
                if self.args.should_save:
                    finish(written, self._work)
        finally:
            self._partial = None
        if self.args.should_save:
            kept = {self.state.global_step, self.state.best_global_step}
            keep_only(self._work, [checkpoint_of(self._work, step) for step in kept if step is not None])
        wait()

    def take_up_end(self, checkpoint: Path) -> None:
        """Restores the last checkpoint of a training that had stopped early and would otherwise take another step."""
        self.state = transformers.TrainerState.load_from_json(str(checkpoint / STATE))

    def load_best(self) -> None:
        """Puts the weights of the best dev score into the network.

        Raises:
            PolydistillError: They are not what was saved.
        """
        best = checkpoint_of(self._work, self.state.best_global_step or self.state.global_step)
        if not is_whole(best):
            raise PolydistillError(
                f"{best} has the best weights, and was damaged or removed.", "Resume the run to train them again."
            )
        self.state.best_model_checkpoint = str(best)
        self._load_best_model()


class Reporter(transformers.TrainerCallback):
    """Shows steps as a bar, and each dev score as a note."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._stack = progress, ExitStack()
        self._done: Callable[[int], object] = lambda n: None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Opens the bar, from where training goes on."""
        self._done = self._stack.enter_context(self._progress.bar("training", state.max_steps, "step"))
        self._done(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One step; after the last one there is always a dev score and a checkpoint.

        No loss is on its way to the log then, which going on from the checkpoint would miss.
        """
        self._done(1)
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
        if control.should_save:
            control.should_log = True

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        """A dev score, or a loss where that is what dev data are scored by: turned round, it is below 0."""
        score = metrics["eval_score"]
        seen = f"dev loss {-score:.4f}" if score < 0 else f"dev {score:.4f}"
        self._progress.note(f"step {state.global_step:,}: {seen}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Closes the bar."""
        self._stack.close()


class Clock(transformers.TrainerCallback):
    """Stops after some minutes, with a dev score and a checkpoint."""

    def __init__(self, minutes: float, progress: Progress) -> None:
        self._minutes, self._progress, self._started = minutes, progress, time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Looks at the clock; the main process's, so that all of them stop at the same step."""
        over = time.monotonic() - self._started > 60 * self._minutes
        if told_by_main(over) and state.global_step < state.max_steps:
            done = f"{state.global_step:,} of {state.max_steps:,} steps"
            self._progress.warn(f"The time is up after {done}; continuing with what was learned.")
            control.should_evaluate = control.should_save = control.should_training_stop = True
