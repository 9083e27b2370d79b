"""Training on the transformers Trainer: batches of like length, our own losses, the best step by dev score, resuming.

A run that was stopped goes on from its newest checkpoint with the same batches, the same dropout and so the same
losses. Under `accelerate launch` the processes share
each batch, and a loss is the one that a single process would have.
"""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson
import torch
import transformers
from safetensors import SafetensorError
from torch.utils.data import BatchSampler, DataLoader, Sampler

from polydistill.attention import trained_attention
from polydistill.batching import Feature, padded
from polydistill.errors import PolydistillError
from polydistill.evaluation.tagging import NOT_TRAINED
from polydistill.loading import quiet_transformers
from polydistill.processes import told_by_main
from polydistill.progress import Progress
from polydistill.stages import LOSSES

POOL = 50  # batches among which lengths are sorted
LOSS_STATE = "loss.json"
LABELS = ("labels", "start_positions", "end_positions")
ABOUT = ("word_ids", "feature_tags", "example", "example_id")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast is trained.

    Args:
        epochs: Passes over the training data.
        lr: Highest learning rate; it rises during `warmup` and falls linearly to 0.
        batch_size: Examples a step, over all processes.
        warmup: Share of the steps.
        weight_decay: Of AdamW.
        checks: Times an epoch that the dev score is taken and a checkpoint is written.
        patience: Checks without a better dev score after which training stops; 0 for never.
        seed: Of the order of the data and of dropout.
        bf16: Whether matrices are multiplied in bfloat16.
        accumulate: Parts into which a step's batch is split; their losses count alike.
        clip: Largest norm of the gradients.
        minutes: Training stops after so long, with what it has by then; None for never.
        steps: In place of `epochs`, where it is given.
        every: Steps between checks, in place of `checks`.
        tolerance: The checkpoint kept is the last whose dev score is at most this much below the best; 0 for the best.
    """

    epochs: float
    lr: float
    batch_size: int
    warmup: float = 0.06
    weight_decay: float = 0.01
    checks: int = 2
    patience: int = 0
    seed: int = 0
    bf16: bool = False
    accumulate: int = 1
    clip: float = 1.0
    minutes: float | None = None
    steps: int | None = None
    every: int | None = None
    tolerance: float = 0.0


class StepLoss(Protocol):
    """The loss of a batch, where it is not the model's own."""

    def __call__(
        self, network: Any, batch: dict[str, Any], agree: Callable[[torch.Tensor], torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """(scalar with a gradient, term -> its value); `agree` takes the mean of a scalar over all processes."""

    def on_step(self, step: int, losses: Mapping[str, float]) -> None:
        """Called after each step with the mean terms of its batches."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep, as JSON."""

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what a checkpoint kept."""


@dataclass
class Curves:
    """What was seen on the way: (step, loss) of training and (step, score) of dev.

    With a loss of our own `terms` are the values of each term at every step, in the order of the steps.
    """

    loss: list[tuple[int, float]] = field(default_factory=list)
    dev: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    best: float = 0.0
    steps: int = 0
    terms: list[dict[str, float]] = field(default_factory=list)


class LengthGrouped(Sampler[int]):
    """A new order each epoch in which neighbours have like lengths; it follows from seed and epoch alone.

    The last batch is filled up with the first examples of the order, so that several processes can share it evenly and
    have the loss of one.

    Args:
        lengths: (n,) of the inputs.
        batch_size: Examples a step.
        seed: Of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed, self._epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._batch_size) * self._batch_size

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(itertools.cycle(list(self.once())), len(self))

    def once(self) -> Iterator[int]:
        """Every example once; the last batch may be short."""
        order = torch.Generator().manual_seed(1_000_003 * self._seed + self._epoch)
        shuffled = torch.randperm(len(self._lengths), generator=order).tolist()
        pool = POOL * self._batch_size
        batches = []
        for start in range(0, len(shuffled), pool):
            near = sorted(shuffled[start : start + pool], key=lambda i: -self._lengths[i])
            batches += [near[i : i + self._batch_size] for i in range(0, len(near), self._batch_size)]
        last = batches.pop() if batches and len(batches[-1]) < self._batch_size else []
        for place in torch.randperm(len(batches), generator=order).tolist():
            yield from batches[place]
        yield from last


class DevTrainer(transformers.Trainer):
    """The Trainer with batches of our own, a dev score of our own predict loop and, if given, a loss of our own."""

    def __init__(
        self,
        *args: Any,
        dev_score: Callable[[Any], float],
        batches: Any,
        step_loss: StepLoss | None,
        tolerance: float,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._dev_score, self._batches, self._step_loss, self._tolerance = dev_score, batches, step_loss, tolerance
        self.terms: list[dict[str, float]] = []  # of the batches of the present step
        if step_loss is not None:
            self.model_accepts_loss_kwargs = False  # the mean over the batches of a step is taken by the Trainer

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The batches, each shared by all processes."""
        features: Any = self.train_dataset
        loader: DataLoader[Any] = DataLoader(features, batch_sampler=self._batches, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of our own, with its terms noted."""
        if self._step_loss is None:
            with trained_attention(inputs["input_ids"]):
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss, terms = self._step_loss(model, inputs, self._agree)
        _check_finite({f"its term {term}": value for term, value in terms.items()})
        self.terms.append(terms)
        return loss

    def _agree(self, value: torch.Tensor) -> torch.Tensor:
        return self.accelerator.reduce(value, "mean") if self.accelerator.num_processes > 1 else value

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """The dev score, and by how much a checkpoint is the one to keep."""
        score = self._dev_score(self.model)
        _check_finite({"the dev score": score})  # before the checkpoint is written
        before = [entry["eval_score"] for entry in self.state.log_history if "eval_score" in entry]
        metrics = {"eval_score": score, "eval_choice": score}
        if self._tolerance:
            fits = score >= max([score, *before]) - self._tolerance
            metrics["eval_choice"] = float(self.state.global_step) if fits else -1.0
        self.log({"eval_score": score})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The model, and beside it the state of the loss."""
        super().save_model(output_dir, _internal_call)
        if self._step_loss is not None and output_dir and self.args.should_save:
            (Path(output_dir) / LOSS_STATE).write_bytes(orjson.dumps(self._step_loss.state()))


def _check_finite(values: Mapping[str, float]) -> None:
    """Refuses to go on with weights that are no numbers any more.

    Raises:
        PolydistillError: A value is infinite or none.
    """
    for what, value in values.items():
        if not math.isfinite(value):
            raise PolydistillError(
                f"The loss is no longer a number: {what} is {value}. The last good checkpoint stays.",
                "Begin again with a lower learning rate or without bfloat16, and with --overwrite.",
            )


def train(
    network: Any,
    tokenizer: Any,
    features: Any,
    dev_score: Callable[[Any], float],
    schedule: Schedule,
    work: Path,
    progress: Progress,
    *,
    batches: Any = None,
    collate: Callable[[list[Feature]], dict[str, Any]] | None = None,
    step_loss: StepLoss | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Curves:
    """Trains a network in place, and leaves it as it was at its best dev score, or where the schedule says at its last
    one that is hardly worse.

    Args:
        network: The model; parameters that need no gradient stay.
        tokenizer: What pads.
        features: Inputs with labels: a sequence of `Feature`.
        dev_score: Network -> score, the higher the better.
        schedule: How long and how fast.
        work: The folder of checkpoints; training goes on from the newest one there.
        progress: Where to report.
        batches: A batch sampler over the features; batches of like length if there is none.
        collate: Features -> batch; padded as the tokenizer does if there is none.
        step_loss: The loss, if it is not the model's own.
        optimizer: AdamW over all parameters if there is none.

    Raises:
        PolydistillError: A loss is no number, or a checkpoint cannot be written.
    """
    if batches is None:
        part = schedule.batch_size // schedule.accumulate
        order = LengthGrouped([len(f["input_ids"]) for f in features], part, schedule.seed)
        batches = BatchSampler(order, part, drop_last=False)
    options = _arguments(schedule, len(batches), work)
    terms = _Terms(work / LOSSES, step_loss) if step_loss is not None else None
    callbacks: list[Any] = [_Reporter(progress), *([terms] if terms else [])]
    if schedule.patience:
        callbacks.append(transformers.EarlyStoppingCallback(schedule.patience))
    if schedule.minutes is not None:
        callbacks.append(_Clock(schedule.minutes, progress))
    checkpoint = newest_checkpoint(work)
    with quiet_transformers(), _writing(work):
        trainer = DevTrainer(
            model=network, args=options, train_dataset=features, processing_class=tokenizer,
            eval_dataset=[features[0]],  # asked for, and not used: `evaluate` has its own
            data_collator=collate or collator(tokenizer, about=step_loss is not None), callbacks=callbacks,
            optimizers=(optimizer, None), dev_score=dev_score, batches=batches, step_loss=step_loss,
            tolerance=schedule.tolerance,
        )  # fmt: skip
        if terms:
            terms.trainer = trainer
        if step_loss is not None and checkpoint:
            step_loss.restore(orjson.loads((Path(checkpoint) / LOSS_STATE).read_bytes()))
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.remove_callback(transformers.ProgressCallback)
        trainer.train(resume_from_checkpoint=checkpoint)
    return _curves(trainer.state, work / LOSSES)


@contextmanager
def _writing(work: Path) -> Iterator[None]:
    """Says in one sentence that a checkpoint could not be written; a half-written one is never gone on from.

    Raises:
        PolydistillError: It could not.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        full = re.search(r"os error 28|No space left|PytorchStreamWriter|file write failed", str(error))
        if not full and not (isinstance(error, OSError) and error.errno):
            raise
        why = "the disk is full" if full else str(error)
        raise PolydistillError(
            f"A checkpoint could not be written to {work}: {why}.",
            "Make room; the same command with --resume goes on from the last whole checkpoint.",
        ) from error


def collator(tokenizer: Any, *, about: bool = False) -> Callable[[list[Feature]], dict[str, Any]]:
    """Pads inputs as the tokenizer does, and labels of words with what the loss leaves out.

    Args:
        tokenizer: What pads.
        about: Whether a batch also says what distillation needs to know of it: `example_id` and `example` (B,),
            `word_ids` (B, N), -1 for none, `feature_tags` (B, N) where there are any, and `language`, a list of B where
            there are several. Models refuse them.
    """

    def collate(features: list[Feature]) -> dict[str, Any]:
        extra = [k for k in (*LABELS, *(ABOUT if about else ())) if k in features[0]]
        batch = padded(tokenizer, features)
        width = batch["input_ids"].shape[1]
        for key in extra:
            values = [f[key] for f in features]
            if isinstance(values[0], list):
                nothing = -1 if key == "word_ids" else NOT_TRAINED
                values = [v + [nothing] * (width - len(v)) for v in values]
            batch[key] = torch.tensor(values)
        if about and "language" in features[0]:
            languages = [f["language"] for f in features]
            batch["language"] = languages if len(set(languages)) > 1 else languages[0]
        return batch

    return collate


def _arguments(schedule: Schedule, batches: int, work: Path) -> transformers.TrainingArguments:
    steps_an_epoch = -(-batches // schedule.accumulate)
    between = schedule.every or max(1, steps_an_epoch // max(1, schedule.checks))
    total = schedule.steps or steps_an_epoch * schedule.epochs
    return transformers.TrainingArguments(
        output_dir=str(work), num_train_epochs=schedule.epochs, max_steps=schedule.steps or -1,
        learning_rate=schedule.lr, per_device_train_batch_size=schedule.batch_size, weight_decay=schedule.weight_decay,
        warmup_steps=round(schedule.warmup * total), lr_scheduler_type="linear",
        eval_strategy="steps", eval_steps=between, save_strategy="steps", save_steps=between, save_total_limit=2,
        restore_callback_states_from_checkpoint=True,  # how many checks were in vain
        gradient_accumulation_steps=schedule.accumulate, max_grad_norm=schedule.clip,
        accelerator_config={"split_batches": True}, ddp_find_unused_parameters=True,  # poolers, language model heads
        load_best_model_at_end=True, metric_for_best_model="choice", greater_is_better=True,
        logging_strategy="steps", logging_steps=max(1, between // 10), report_to=[], disable_tqdm=True,
        seed=schedule.seed, data_seed=schedule.seed, bf16=schedule.bf16, remove_unused_columns=False,
        use_cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),  # it refuses bf16 otherwise
        dataloader_pin_memory=torch.cuda.is_available(), log_level="error",
    )  # fmt: skip


def newest_checkpoint(work: Path) -> str | None:
    """The newest whole checkpoint in a folder."""
    found = [p for p in work.glob("checkpoint-*") if (p / "trainer_state.json").is_file()]
    return str(max(found, key=lambda p: int(p.name.rpartition("-")[2]))) if found else None


def _curves(state: Any, losses: Path) -> Curves:
    curves = Curves(best_step=int(state.best_global_step or 0))
    if losses.is_file():
        curves.terms = [orjson.loads(line) for line in losses.read_bytes().splitlines()]
    curves.steps = int(state.global_step)
    for entry in state.log_history:
        if "loss" in entry:
            curves.loss.append((entry["step"], float(entry["loss"])))
        if "eval_score" in entry:
            curves.dev.append((entry["step"], float(entry["eval_score"])))
    curves.best = dict(curves.dev).get(curves.best_step, 0.0)
    return curves


class _Reporter(transformers.TrainerCallback):
    """Shows steps as a bar, and each dev score as a note."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._stack = progress, ExitStack()
        self._done: Callable[[int], object] = lambda n: None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Opens the bar, from where training goes on."""
        self._done = self._stack.enter_context(self._progress.bar("training", state.max_steps, "step"))
        self._done(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One step; after the last one there is always a dev score and a checkpoint."""
        self._done(1)
        if state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        """A dev score, or a loss where that is what dev data are scored by: turned round, it is below 0."""
        score = metrics["eval_score"]
        seen = f"dev loss {-score:.4f}" if score < 0 else f"dev {score:.4f}"
        self._progress.note(f"step {state.global_step:,}: {seen}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Closes the bar."""
        self._stack.close()


class _Terms(transformers.TrainerCallback):
    """Writes the terms of the loss at each step, a line a step, and passes them on."""

    trainer: DevTrainer

    def __init__(self, path: Path, step_loss: StepLoss) -> None:
        self._path, self._step_loss = path, step_loss

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forgets steps after the checkpoint that training goes on from."""
        if state.is_world_process_zero:
            lines = self._path.read_bytes().splitlines(keepends=True) if self._path.is_file() else []
            self._path.write_bytes(b"".join(lines[: state.global_step]))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The means over the batches of the step."""
        seen, self.trainer.terms = self.trainer.terms, []
        means = {term: sum(s[term] for s in seen) / len(seen) for term in seen[0]}
        if state.is_world_process_zero:
            with self._path.open("ab") as file:
                file.write(orjson.dumps(means) + b"\n")
        self._step_loss.on_step(state.global_step, means)


class _Clock(transformers.TrainerCallback):
    """Stops after some minutes, with a dev score and a checkpoint."""

    def __init__(self, minutes: float, progress: Progress) -> None:
        self._minutes, self._progress, self._started = minutes, progress, time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Looks at the clock; the main process's, so that all of them stop at the same step."""
        over = time.monotonic() - self._started > 60 * self._minutes
        if told_by_main(over) and state.global_step < state.max_steps:
            done = f"{state.global_step:,} of {state.max_steps:,} steps"
            self._progress.warn(f"The time is up after {done}; going on with what was learnt.")
            control.should_evaluate = control.should_save = control.should_training_stop = True
