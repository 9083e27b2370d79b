"""Training on the transformers Trainer: batches of like length, our own losses, the best step by dev score, resuming.

A run that was stopped goes on from its newest checkpoint with the same batches, the same dropout and so the same
losses. Under `torchrun` the processes share each batch, and a loss is the one that a single process would have.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import PartialState
from torch.utils.data import BatchSampler, Sampler

from polydistill.devices import CPU, CUDA, current
from polydistill.files.durable import make_folders, sync
from polydistill.models.loading import quiet_transformers
from polydistill.processes import is_main, told_by_main
from polydistill.progress import Progress
from polydistill.training.batching import NOT_TRAINED, Feature, padded
from polydistill.training.facts import TrainingFacts
from polydistill.training.resuming import has_ended, keep_only, needed_of, newest_checkpoint, writing
from polydistill.training.trainer import Clock, DevScore, DevTrainer, Reporter, StepLoss, Terms

POOL = 50  # batches among which lengths are sorted
LOOK_BATCH = 32
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
        accumulate: Parts of one size into which a step's batch is split; the loss is that of the whole batch.
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


@dataclass
class Curves:
    """What was seen on the way: (step, loss) of training and (step, score) of dev.

    `terms` are the values of each term of the loss at every step, in the order of the steps; `beside` is the other
    score of each check, where the dev score has one.
    """

    loss: list[tuple[int, float]] = field(default_factory=list)
    dev: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    best: float = 0.0
    steps: int = 0
    terms: list[dict[str, float]] = field(default_factory=list)
    beside: list[tuple[int, float]] = field(default_factory=list)


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


def train(
    network: Any,
    tokenizer: Any,
    features: Any,
    dev_score: Callable[[Any], DevScore],
    schedule: Schedule,
    work: Path,
    progress: Progress,
    *,
    step_loss: StepLoss,
    batches: Any = None,
    collate: Callable[[list[Feature]], dict[str, Any]] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Curves:
    """Trains a network in place, and leaves it as it was at its best dev score; see `Schedule.tolerance`.

    Args:
        network: The model; parameters that need no gradient stay.
        tokenizer: What pads.
        features: Inputs with labels: a sequence of `Feature`.
        dev_score: Network -> score, the higher the better, and maybe another one that is only noted.
        schedule: How long and how fast.
        work: The folder of checkpoints; training goes on from the newest one there.
        progress: Where to report.
        step_loss: The loss.
        batches: A batch sampler over the features; batches of like length if there is none.
        collate: Features -> batch; padded as the tokenizer does if there is none.
        optimizer: AdamW over all parameters if there is none.

    Raises:
        PolydistillError: A loss is not a number, or a checkpoint cannot be written.
    """
    batches = _of_like_length(features, schedule) if batches is None else batches
    collate = collate or collator(tokenizer, about=True)
    arguments = _arguments(schedule, len(batches), work)
    facts = _facts(arguments, len(batches), features)
    terms = Terms(step_loss, batches, facts, schedule.clip)
    with quiet_transformers(), writing(work):
        checkpoint = told_by_main(_begun(work, progress) if is_main() else None)
        trainer = DevTrainer(
            model=network,
            args=arguments,
            train_dataset=features,
            processing_class=tokenizer,
            eval_dataset=[features[0]],  # asked for, and not used: `evaluate` has its own
            data_collator=collate,
            callbacks=_callbacks(schedule, terms, progress),
            optimizers=(optimizer, None),
            dev_score=dev_score,
            batches=batches,
            terms=terms,
            tolerance=schedule.tolerance,
        )
        step_loss.begin(facts)
        if checkpoint:
            terms.restore(checkpoint)
        elif step_loss.looks:
            step_loss.look(_every_batch(features, collate, progress))
        _run(trainer, checkpoint)
    return _curves(trainer.state, terms)


def _run(trainer: DevTrainer, checkpoint: Path | None) -> None:
    """Trains from the beginning or from a checkpoint, and restores the best weights."""
    for unwanted in (transformers.PrinterCallback, transformers.ProgressCallback):
        trainer.remove_callback(unwanted)
    if checkpoint and has_ended(checkpoint):
        trainer.take_up_end(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.load_best()


def _of_like_length(features: Any, schedule: Schedule) -> BatchSampler:
    order = LengthGrouped([len(f["input_ids"]) for f in features], schedule.batch_size, schedule.seed)
    return BatchSampler(order, schedule.batch_size // schedule.accumulate, drop_last=False)


def _begun(work: Path, progress: Progress) -> Path | None:
    """The checkpoint to go on from; what is not needed for that goes."""
    make_folders(work)
    sync(work.parent)  # it may have been made before
    checkpoint = newest_checkpoint(work, progress)
    keep_only(work, needed_of(checkpoint) if checkpoint else ())
    return checkpoint


def _callbacks(schedule: Schedule, terms: Terms, progress: Progress) -> list[Any]:
    """The reporter looks at what those before it want."""
    found: list[Any] = [terms]
    if schedule.minutes is not None:
        found.append(Clock(schedule.minutes, progress))
    found.append(Reporter(progress))
    if schedule.patience:
        found.append(transformers.EarlyStoppingCallback(schedule.patience))
    return found


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
        output_dir=str(work),
        num_train_epochs=schedule.epochs,
        max_steps=schedule.steps or -1,
        learning_rate=schedule.lr,
        per_device_train_batch_size=schedule.batch_size,
        weight_decay=schedule.weight_decay,
        warmup_steps=round(schedule.warmup * total),
        lr_scheduler_type="linear",
        eval_strategy="steps",
        eval_steps=between,
        save_strategy="steps",
        save_steps=between,
        restore_callback_states_from_checkpoint=True,  # how many checks brought no better score
        gradient_accumulation_steps=schedule.accumulate,
        max_grad_norm=schedule.clip,
        accelerator_config={"split_batches": True},
        ddp_find_unused_parameters=True,  # poolers, language model heads
        metric_for_best_model="choice",
        greater_is_better=True,
        logging_strategy="steps",
        logging_steps=max(1, between // 10),
        report_to=[],
        disable_tqdm=True,
        seed=schedule.seed,
        data_seed=schedule.seed,
        bf16=schedule.bf16,
        remove_unused_columns=False,
        use_cpu=current() == CPU,  # it refuses bf16 otherwise
        dataloader_pin_memory=current() == CUDA,
        log_level="error",
    )


def _facts(arguments: transformers.TrainingArguments, batches: int, features: Any) -> TrainingFacts:
    an_epoch = -(-batches // arguments.gradient_accumulation_steps)
    total = arguments.max_steps if arguments.max_steps > 0 else math.ceil(an_epoch * arguments.num_train_epochs)
    return TrainingFacts(total, an_epoch, features, arguments.seed, PartialState().num_processes)


def _every_batch(
    features: Any, collate: Callable[[list[Feature]], dict[str, Any]], progress: Progress
) -> Iterator[dict[str, Any]]:
    """All inputs once, in their order."""
    with progress.bar("looking", len(features), "input") as done:
        for start in range(0, len(features), LOOK_BATCH):
            places = range(start, min(start + LOOK_BATCH, len(features)))
            yield collate([features[i] for i in places])
            done(len(places))


def _curves(state: Any, terms: Terms) -> Curves:
    curves = Curves(best_step=int(state.best_global_step or 0), terms=terms.steps)
    curves.steps = int(state.global_step)
    for entry in state.log_history:
        if "loss" in entry:
            curves.loss.append((entry["step"], float(entry["loss"])))
        if "eval_score" in entry:
            curves.dev.append((entry["step"], float(entry["eval_score"])))
        if "eval_beside" in entry:
            curves.beside.append((entry["step"], float(entry["eval_beside"])))
    curves.best = dict(curves.dev).get(curves.best_step, 0.0)
    return curves
