"""Training on the transformers Trainer: batches of like length, the best step by dev score, and resuming.

Checkpoints lie beside the output in `.NAME.training` until the output is written; a run that was stopped goes on from
there with the same batches, the same dropout and so the same losses.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import torch
import transformers
from torch.utils.data import DataLoader, Sampler

from polydistill.errors import PolydistillError
from polydistill.evaluation.batching import Feature, padded
from polydistill.evaluation.tagging import NOT_TRAINED
from polydistill.loading import quiet_transformers
from polydistill.progress import Progress

POOL = 50  # batches among which lengths are sorted


@dataclass(frozen=True)
class Schedule:
    """How long and how fast is trained.

    Args:
        epochs: Passes over the training data.
        lr: Highest learning rate; it rises during `warmup` and falls linearly to 0.
        batch_size: Examples a step.
        warmup: Share of the steps.
        weight_decay: Of AdamW.
        checks: Times an epoch that the dev score is taken and a checkpoint is written.
        patience: Checks without a better dev score after which training stops; 0 for never.
        seed: Of the order of the data and of dropout.
        bf16: Whether matrices are multiplied in bfloat16.
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


@dataclass
class Curves:
    """What was seen on the way: (step, loss) of training and (step, score) of dev."""

    loss: list[tuple[int, float]] = field(default_factory=list)
    dev: list[tuple[int, float]] = field(default_factory=list)
    best_step: int = 0
    best: float = 0.0
    steps: int = 0


class LengthGrouped(Sampler[int]):
    """A new order each epoch in which neighbours have like lengths; it follows from seed and epoch alone.

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
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
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
    """The Trainer with batches of like length, and a dev score of our own predict loop instead of a loss."""

    def __init__(self, *args: Any, dev_score: Callable[[Any], float], **options: Any) -> None:
        super().__init__(*args, **options)
        self._dev_score = dev_score

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of like length."""
        features: Any = self.train_dataset
        sampler = LengthGrouped([len(f["input_ids"]) for f in features], self.args.train_batch_size, self.args.seed)
        loader: DataLoader[Any] = DataLoader(
            features, batch_size=self.args.train_batch_size, sampler=sampler, collate_fn=self.data_collator
        )
        return self.accelerator.prepare(loader)

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """The dev score."""
        metrics = {"eval_score": self._dev_score(self.model)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def train(
    network: Any,
    tokenizer: Any,
    features: Sequence[Feature],
    dev_score: Callable[[Any], float],
    schedule: Schedule,
    work: Path,
    progress: Progress,
) -> Curves:
    """Trains a network in place, and leaves it as it was at its best dev score.

    Args:
        network: The model; parameters that need no gradient stay.
        tokenizer: What pads.
        features: Inputs with labels.
        dev_score: Network -> score, the higher the better.
        schedule: How long and how fast.
        work: The folder of checkpoints; training goes on from the newest one there.
        progress: Where to report.
    """
    options = _arguments(schedule, len(features), work)
    callbacks: list[Any] = [_Reporter(progress)]
    if schedule.patience:
        callbacks.append(transformers.EarlyStoppingCallback(schedule.patience))
    with quiet_transformers():
        trainer = DevTrainer(
            model=network, args=options, train_dataset=features, processing_class=tokenizer,
            eval_dataset=features[:1],  # asked for, and not used: `evaluate` has its own
            data_collator=collator(tokenizer), callbacks=callbacks, dev_score=dev_score,
        )  # fmt: skip
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.remove_callback(transformers.ProgressCallback)
        trainer.train(resume_from_checkpoint=newest_checkpoint(work))
    return _curves(trainer.state)


def collator(tokenizer: Any) -> Callable[[list[Feature]], dict[str, torch.Tensor]]:
    """Pads inputs as the tokenizer does, and labels of words with what the loss leaves out."""

    def collate(features: list[Feature]) -> dict[str, torch.Tensor]:
        extra = [k for k in ("labels", "start_positions", "end_positions") if k in features[0]]
        batch = padded(tokenizer, features)
        width = batch["input_ids"].shape[1]
        for key in extra:
            values = [f[key] for f in features]
            if isinstance(values[0], list):
                values = [v + [NOT_TRAINED] * (width - len(v)) for v in values]
            batch[key] = torch.tensor(values)
        return batch

    return collate


def _arguments(schedule: Schedule, examples: int, work: Path) -> transformers.TrainingArguments:
    steps_an_epoch = -(-examples // schedule.batch_size)
    between = max(1, steps_an_epoch // max(1, schedule.checks))
    return transformers.TrainingArguments(
        output_dir=str(work), num_train_epochs=schedule.epochs, learning_rate=schedule.lr,
        per_device_train_batch_size=schedule.batch_size, weight_decay=schedule.weight_decay,
        warmup_steps=round(schedule.warmup * steps_an_epoch * schedule.epochs), lr_scheduler_type="linear",
        eval_strategy="steps", eval_steps=between, save_strategy="steps", save_steps=between, save_total_limit=2,
        restore_callback_states_from_checkpoint=True,  # how many checks were in vain
        load_best_model_at_end=True, metric_for_best_model="score", greater_is_better=True,
        logging_strategy="steps", logging_steps=max(1, between // 10), report_to=[], disable_tqdm=True,
        seed=schedule.seed, data_seed=schedule.seed, bf16=schedule.bf16, remove_unused_columns=False,
        use_cpu=not (torch.cuda.is_available() or torch.backends.mps.is_available()),  # it refuses bf16 otherwise
        dataloader_pin_memory=torch.cuda.is_available(), log_level="error",
    )  # fmt: skip


def newest_checkpoint(work: Path) -> str | None:
    """The newest whole checkpoint in a folder."""
    found = [p for p in work.glob("checkpoint-*") if (p / "trainer_state.json").is_file()]
    return str(max(found, key=lambda p: int(p.name.rpartition("-")[2]))) if found else None


def _curves(state: Any) -> Curves:
    curves = Curves(best=float(state.best_metric or 0.0), best_step=int(state.best_global_step or 0))
    curves.steps = int(state.global_step)
    for entry in state.log_history:
        if "loss" in entry:
            curves.loss.append((entry["step"], float(entry["loss"])))
        if "eval_score" in entry:
            curves.dev.append((entry["step"], float(entry["eval_score"])))
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
        """A dev score."""
        self._progress.note(f"step {state.global_step:,}: dev {metrics['eval_score']:.4f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Closes the bar."""
        self._stack.close()


@contextmanager
def work_folder(
    output: Path, config: dict[str, Any], *, resume: bool, overwrite: bool, progress: Progress
) -> Iterator[Path]:
    """The folder of checkpoints of an output; it goes when the block ends well, and stays for `--resume` otherwise.

    With both `resume` and `overwrite`, what is replaced is the output alone: training goes on.

    Raises:
        PolydistillError: An unfinished run is there and neither `resume` nor `overwrite` was asked for, or it was
            made with another configuration.
    """
    work = output.with_name(f".{output.name}.training")
    settings = work / "config.json"
    written = orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    if newest_checkpoint(work) and (resume or not overwrite):
        if not resume:
            raise PolydistillError(
                f"An unfinished training of {output} is there.", "Go on with --resume, or begin anew with --overwrite."
            )
        if not settings.is_file() or settings.read_bytes() != written:
            raise PolydistillError(
                f"The unfinished training of {output} had other options or data.",
                f"Give the options that stand in {settings}, or begin anew with --overwrite instead of --resume.",
            )
    else:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        settings.write_bytes(written)
    try:
        yield work
    except BaseException:
        if newest_checkpoint(work):
            progress.warn(f"The checkpoints stay in {work}: the same command with --resume goes on from there.")
        else:
            shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)
