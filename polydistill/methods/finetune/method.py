"""`polydistill finetune`: a model tuned for a task on a source language, and chosen on that language's dev data."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.card import write_card
from polydistill.catalog import Language, Task, arch, resolve_languages, task
from polydistill.catalog.task import CLASSIFICATION, SPAN_EXTRACTION, TAGGING, WORD_TAGGING
from polydistill.errors import UsageError
from polydistill.evaluation.kinds import dev_score, trainable_kind_of, training_inputs
from polydistill.files.outputs import check_output, new_folder
from polydistill.labelled.custom import TrainingData, Wanted, check_request, training_data
from polydistill.labelled.examples import LabelledSplit
from polydistill.models.checkpoint import Checkpoint, file_sha256
from polydistill.models.copying import copy_beside
from polydistill.models.folder import model_folder, model_type
from polydistill.models.refs import DEFAULT_MODEL, ModelRef, ResolvedModel, resolve
from polydistill.options.settings import (
    MOST_BATCH,
    Options,
    Outcome,
    data_dir_setting,
    dev_data_setting,
    include_setting,
    output_setting,
    seed_setting,
    setting,
)
from polydistill.processes import several
from polydistill.progress import SILENT, Progress
from polydistill.records.record import RunRecord, parent_of, peak_memory_bytes, source_facts
from polydistill.runs.stages import work_folder
from polydistill.training.batching import check_parts

if TYPE_CHECKING:
    from polydistill.training.loop import Curves, Schedule

OUTPUTS = Path("polydistill-out")
# Epochs, learning rate, batch size and most tokens of a kind of task, for encoders of 20 to 300 million parameters.
DEFAULTS: dict[str, tuple[float, float, int, int]] = {
    CLASSIFICATION: (3, 5e-5, 32, 128),
    TAGGING: (3, 5e-5, 16, 256),
    WORD_TAGGING: (3, 5e-5, 16, 256),
    SPAN_EXTRACTION: (3, 5e-5, 16, 384),
}


@dataclass(frozen=True)
class FinetuneConfig(Options):
    """The configuration of a fine-tuning; each field is an option of the command line."""

    model: str = setting(DEFAULT_MODEL, "Folder, org/name or org/name@revision.", "Model", metavar="M")
    freeze_embeddings: bool = setting(False, "Do not train the word embeddings: faster, in far less memory.", "Model")
    freeze_layers: int = setting(
        0,
        "Do not train the lowest N layers, nor word embeddings; other languages often keep more of it.",
        "Model",
        metavar="N",
        least=0,
    )
    task: str = setting("", "What to tune for; `polydistill ls tasks` lists them.", "Data", metavar="TASK")
    lang: tuple[str, ...] = setting(
        (), "Language of the training and dev data. Repeat for several.", "Data", metavar="LANG"
    )
    data_dir: Path | None = data_dir_setting("Data")
    train_split: tuple[str, ...] = setting(
        (), "Split to train on. Repeat to join several. [default: train]", "Data", metavar="NAME"
    )
    dev_split: str = setting("dev", "Split that chooses the best checkpoint.", "Data", metavar="NAME")
    data: Path | None = setting(
        None, "A file of your own to train on, in place of a split; its labels are the model's.", "Data", metavar="FILE"
    )
    dev_data: Path | None = dev_data_setting("Data")
    limit: int | None = setting(None, "Use at most this many examples of each split.", "Data", metavar="N", least=1)
    epochs: float | None = setting(
        None, "Passes over the training data. [default: 3]", "Training", metavar="N", above=0
    )
    lr: float | None = setting(None, "Highest learning rate. [default: 5e-5]", "Training", metavar="X", above=0)
    batch_size: int | None = setting(
        None,
        "Examples a step. [default: 32 for classification, else 16]",
        "Training",
        metavar="N",
        least=1,
        most=MOST_BATCH,
    )
    max_length: int | None = setting(
        None,
        "Most tokens of an input; longer ones are windowed, texts to classify cut. "
        "[default: 128 for classification, 256 for tagging, 384 for questions]",
        "Training",
        metavar="N",
        least=16,
    )
    warmup: float = setting(
        0.06, "Share of the steps in which the learning rate rises.", "Training", metavar="SHARE", least=0, most=1
    )
    weight_decay: float = setting(0.01, "Of AdamW.", "Training", metavar="X", least=0)
    checks: int = setting(2, "Dev scores and checkpoints an epoch.", "Training", metavar="N", least=1)
    patience: int = setting(
        4,
        "Stop after so many checks without a better dev score; 0 never stops early.",
        "Training",
        metavar="N",
        least=0,
    )
    accumulate: int = setting(
        1, "Split each step's batch into this many parts: less memory.", "Training", metavar="N", least=1
    )
    bf16: bool = setting(False, "Multiply in bfloat16. Faster on some machines, slower on others.", "Training")
    max_minutes: float | None = setting(
        None, "Stop training after so long, and finish with what was learnt.", "Training", metavar="N", above=0
    )
    seed: int = seed_setting("Of the new head, the order of the data and dropout.", "Training")
    resume: bool = setting(False, "Go on with a training that was stopped.", "Output")
    output: Path | None = output_setting("polydistill-out/<model>-<task>-<langs>", "Output")
    overwrite: bool = setting(False, "Replace the output folder if it exists.", "Output")
    include_path: tuple[Path, ...] = include_setting("Model")


@dataclass(frozen=True)
class FinetuneResult(Outcome):
    """What a fine-tuning did; `to_json` is the object of `--json`."""

    model: str
    output: Path
    task: str
    languages: tuple[str, ...]
    examples: dict[str, int]
    parameters: dict[str, int]
    settings: dict[str, Any]
    head: dict[str, Any]
    selection: dict[str, Any]
    curves: dict[str, list[tuple[int, float]]]
    steps: int
    seconds: float
    peak_memory_bytes: int
    command: str = field(default="finetune", init=False)


def finetune(config: FinetuneConfig, progress: Progress = SILENT) -> FinetuneResult:
    """Tunes a model for a task and keeps its best checkpoint by the source language's dev score.

    Args:
        config: What to do.
        progress: Where to report.

    Returns:
        The dev score, curves and sizes; they also stand in the output's polydistill.json and README.md.

    Raises:
        PolydistillError: Data or model are missing or do not fit; nothing was written.
    """
    started = time.perf_counter()
    if several():
        raise UsageError("`finetune` runs in one process.", "Start it without `torchrun` or `accelerate launch`.")
    config.check()
    if not config.task:
        raise UsageError("No task was given.", "Add --task, for instance --task ner.")
    wanted, languages = task(config.task, config.include_path), resolve_languages(config.lang, config.include_path)
    schedule, max_length = _schedule(config, wanted)
    check_request(languages, _wanted_data(config))
    output = (config.output or _default_output(config, wanted, languages)).expanduser()
    check_output(output, overwrite=config.overwrite, reads=config.reads())
    found = training_data(wanted, languages, _wanted_data(config), progress)
    wanted, training, dev = found.task, found.training, found.dev
    resolved = resolve(ModelRef.parse(config.model), progress=progress.note)

    from polydistill.distill.freezing import freeze
    from polydistill.distill.loss import label_loss
    from polydistill.evaluation.heads import new_head, refuse_stack
    from polydistill.evaluation.reuse import tell
    from polydistill.models.loading import quiet_transformers
    from polydistill.training.loop import train

    folder = model_folder(resolved.folder)
    refuse_stack(folder)
    architecture = arch(model_type(folder), config.include_path)
    model = new_head(folder, wanted.kind, wanted.scored_labels, seed=config.seed, max_length=max_length)
    assert model.reused is not None
    tell(progress, model.reused)
    freeze(model.network, architecture, embeddings=config.freeze_embeddings, layers=config.freeze_layers)
    inputs = [training_inputs(wanted, model, split, progress) for split in training]
    features, training = [f for part, _ in inputs for f in part], tuple(split for _, split in inputs)
    facts = {
        **asdict(schedule),
        "max_length": model.max_length,
        "freeze_embeddings": config.freeze_embeddings,
        "freeze_layers": config.freeze_layers,
        "labelled": wanted.facts(),
    }
    checkpoint = Checkpoint.open(folder)
    identity = {
        "model": resolved.source,
        "weights": checkpoint.weights_hash,
        "configuration": file_sha256(folder / "config.json"),
        "task": wanted.name,
        "labels": model.labels,
        **facts,
        "data": [split.sha256 for split in (*training, *dev)],
    }
    with (
        work_folder(output, identity, resume=config.resume, overwrite=config.overwrite, progress=progress) as work,
        new_folder(output, overwrite=config.overwrite) as out,
    ):
        curves = train(
            model.network,
            model.tokenizer,
            features,
            lambda network: dev_score(wanted, model, dev),
            replace(schedule, minutes=config.max_minutes),
            work,
            progress,
            step_loss=label_loss(model.network, answers=wanted.kind == SPAN_EXTRACTION),
        )
        with quiet_transformers():
            model.network.save_pretrained(out)
        for note in copy_beside(resolved.folder, checkpoint, out):
            progress.note(note)
        result = FinetuneResult(
            model=resolved.source,
            output=output,
            task=wanted.name,
            languages=tuple(lang.code for lang in languages),
            examples={"train": sum(len(s.examples) for s in training), "dev": sum(len(s.examples) for s in dev)},
            parameters=_parameters(model.network),
            settings=facts,
            head=model.reused.to_json(),
            selection=_selection(found, languages, curves),
            curves={"loss": curves.loss, "dev": curves.dev},
            steps=curves.steps,
            seconds=round(time.perf_counter() - started, 1),
            peak_memory_bytes=peak_memory_bytes(),
        )
        record = _record(config, resolved, checkpoint, (*training, *dev), result)
        record.save(out)
        write_card(record, out)
    return result


def _schedule(config: FinetuneConfig, wanted: Task) -> tuple[Schedule, int]:
    """The schedule and the most tokens of an input, with the kind's defaults."""
    from polydistill.training.loop import Schedule

    trainable_kind_of(wanted)
    epochs, lr, batch_size, max_length = DEFAULTS[wanted.kind]
    schedule = Schedule(
        config.epochs if config.epochs is not None else epochs,
        config.lr if config.lr is not None else lr,
        config.batch_size if config.batch_size is not None else batch_size,
        config.warmup,
        config.weight_decay,
        config.checks,
        config.patience,
        config.seed,
        config.bf16,
        config.accumulate,
    )
    check_parts(schedule.batch_size, schedule.accumulate)
    longest = config.max_length if config.max_length is not None else max_length
    return schedule, longest


def _default_output(config: FinetuneConfig, wanted: Task, languages: Sequence[Language]) -> Path:
    name = Path(config.model.partition("@")[0]).name
    return OUTPUTS / f"{name}-{wanted.name}-{'-'.join(lang.code for lang in languages)}"


def _wanted_data(config: FinetuneConfig) -> Wanted:
    return Wanted(
        data=config.data,
        dev_data=config.dev_data,
        data_dir=config.data_dir,
        train_splits=config.train_split or ("train",),
        dev_split=config.dev_split,
        limit=config.limit,
        dev_limit=config.limit,
    )


def _selection(found: TrainingData, languages: Sequence[Language], curves: Curves) -> dict[str, Any]:
    return {
        "languages": [lang.code for lang in languages],
        "split": found.dev[0].split,
        "metric": found.task.metric,
        "value": curves.best,
        "step": curves.best_step,
    }


def _parameters(network: Any) -> dict[str, int]:
    counted = [(p.numel(), p.requires_grad) for p in network.parameters()]
    return {"total": sum(n for n, _ in counted), "trained": sum(n for n, trained in counted if trained)}


def _record(
    config: FinetuneConfig,
    resolved: ResolvedModel,
    checkpoint: Checkpoint,
    splits: Sequence[LabelledSplit],
    result: FinetuneResult,
) -> RunRecord:
    texts = [split.facts() for split in splits]
    return RunRecord(
        command="finetune",
        config=config.to_json(),
        source=source_facts(resolved, checkpoint),
        texts=texts,
        result=result.to_json(),
        parent=parent_of(resolved.folder),
    )
