"""`polydistill sparse train`: a sparse language fine-tuning with masked tokens (LT-SFT, Ansell et al. 2022).

text in blocks -> everything is trained -> the entries that moved furthest -> from the beginning again, these alone ->
what was added to them, as a file and on the model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.card import write_card
from polydistill.catalog import Language, language
from polydistill.distill.student import check_masked
from polydistill.errors import UsageError
from polydistill.files.outputs import check_output
from polydistill.methods.sparse import Given, SparseResult, compose, new_model, open_source
from polydistill.models.refs import DEFAULT_MODEL
from polydistill.models.source import Source
from polydistill.options.settings import MOST_BATCH, Options, include_setting, output_setting, seed_setting, setting
from polydistill.processes import several
from polydistill.progress import SILENT, Progress
from polydistill.records.record import RunRecord, parent_of, peak_memory_bytes, source_facts
from polydistill.runs.stages import Made, Stage, Stages, work_folder
from polydistill.sparse.files import NAME
from polydistill.sparse.weights import Weights
from polydistill.texts.sources import assign_corpora, text_sources
from polydistill.training.batching import check_parts

if TYPE_CHECKING:
    from polydistill.distill.blocks import Blocks
    from polydistill.distill.language import LanguageTuning
    from polydistill.training.loop import Curves

OUTPUTS = Path("polydistill-out")
STEPS = 1_500
CHECKS = 8  # validations and checkpoints of a stage


@dataclass(frozen=True)
class SparseTrainConfig(Options):
    """The configuration of a sparse language fine-tuning; each field is an option of the command line."""

    model: str = setting(DEFAULT_MODEL, "Folder, org/name or org/name@revision.", "Model", metavar="M")
    density: float = setting(
        0.043, "Share of the model's parameters that gets entries.", "Model", metavar="SHARE", above=0, most=1
    )
    lang: str = setting("", "The language.", "Data", metavar="LANG")
    text: tuple[str, ...] = setting(
        (),
        "Text of it: as --corpus of `trim`. Repeat for several. [default: the language's corpus on the Hub]",
        "Data",
        metavar="PATH",
    )
    steps: int | None = setting(
        None, "Steps of each of the two stages. [default: 1500]", "Training", metavar="N", least=1
    )
    epochs: float | None = setting(
        None, "Passes over the text in each stage, in place of --steps.", "Training", metavar="N", above=0
    )
    lr: float = setting(5e-5, "Highest learning rate.", "Training", metavar="X", above=0)
    batch_size: int = setting(8, "Blocks a step.", "Training", metavar="N", least=1, most=MOST_BATCH)
    length: int = setting(256, "Tokens of a block.", "Training", metavar="N", least=8)
    warmup: float = setting(
        0.06, "Share of the steps in which the learning rate rises.", "Training", metavar="SHARE", least=0, most=1
    )
    accumulate: int = setting(
        1, "Split each step's batch into this many parts: less memory.", "Training", metavar="N", least=1
    )
    bf16: bool = setting(False, "Multiply in bfloat16. Faster on some machines, slower on others.", "Training")
    seed: int = seed_setting("Of a new head, order, masks and dropout.", "Training")
    resume: bool = setting(False, "Go on with a run that was stopped.", "Output")
    output: Path | None = output_setting("polydistill-out/<model>-<lang>-sft", "Output")
    overwrite: bool = setting(False, "Replace the output folder if it exists.", "Output")
    include_path: tuple[Path, ...] = include_setting("Model")


@dataclass(frozen=True)
class SparseTrainResult(SparseResult):
    """What a sparse fine-tuning did; `to_json` is the object of `--json`.

    Args:
        density: Share of the base model's values that differ.
        settings: Every value that the run had.
        stages: Both stages: steps, losses, seconds, held-out losses.
        peak_memory_bytes: The most memory that the process has used.
    """

    density: float
    settings: dict[str, Any]
    stages: tuple[dict[str, Any], ...]
    peak_memory_bytes: int


def sparse_train(config: SparseTrainConfig, progress: Progress = SILENT) -> SparseTrainResult:
    """Tunes a model to a language, so that it differs in exactly K of its weights.

    Args:
        config: What to do.
        progress: Where to report.

    Returns:
        Entries, stages with their losses; they also stand in the output's polydistill.json and README.md.

    Raises:
        PolydistillError: Text or model are missing or do not fit; what was done until then stays for `--resume`.
    """
    started = time.perf_counter()
    _check(config)
    lang = language(config.lang, config.include_path)
    output = (config.output or OUTPUTS / f"{Path(config.model.partition('@')[0]).name}-{lang.code}-sft").expanduser()
    check_output(output, overwrite=config.overwrite, reads=config.reads())
    source = open_source(config.model, output, progress, config.include_path)
    check_masked(source, "A sparse language fine-tuning")
    blocks = _blocks(config, source, lang, progress)
    tuning = _tuning(config, source, blocks, progress)
    texts = [{"language": lang.code, **asdict(text)} for text in blocks.texts]
    passing = ("output", "overwrite", "resume", "text", "steps", "epochs")
    identity = {
        **{k: v for k, v in config.to_json().items() if k not in passing},
        "steps": tuning.steps,
        "model": source.checkpoint.weights_hash,
        "texts": [text["sha256"] for text in texts],
    }
    with work_folder(output, identity, resume=config.resume, overwrite=config.overwrite, progress=progress) as work:
        stages = Stages(work, progress)
        tuned = stages.run("full", partial(_full, tuning)).folder
        chosen = stages.run("sparse", partial(_sparse, tuning, tuned)).folder
        given = Given.load(chosen)
        weights = replace(Weights.open(source.checkpoint, given.difference.base), undo=None)  # the base is what it is
        with new_model(source, output, config.overwrite, progress) as (folder, target):
            composed = compose(source, weights, [given], target, progress)
            result = _result(config, tuning, composed, stages.done, output)
            result = replace(result, seconds=round(time.perf_counter() - started, 1))
            _document(config, source, texts, result, folder)
    return result


def _check(config: SparseTrainConfig) -> None:
    config.check()
    if not config.lang:
        raise UsageError("No language was given.", "Add --lang, for instance --lang sw.")
    if config.steps is not None and config.epochs is not None:
        raise UsageError("--steps and --epochs both say how long.", "Give one of them.")
    check_parts(config.batch_size, config.accumulate)
    if several():
        raise UsageError(
            "A sparse language fine-tuning has one process.", "Start it without `torchrun` or `accelerate launch`."
        )


def _blocks(config: SparseTrainConfig, source: Source, lang: Language, progress: Progress) -> Blocks:
    """The text in blocks, twice as much as will be seen at most."""
    from polydistill.distill.blocks import pack
    from polydistill.models.loading import load_config, load_tokenizer, longest_input
    from polydistill.models.offline import cache_root

    sources = text_sources(lang, assign_corpora([lang], config.text, "text")[lang.code], option="text")
    tokenizer = load_tokenizer(source.model)
    longest = longest_input(tokenizer, load_config(source.model))
    if config.length > longest:
        raise UsageError(f"The model takes {longest} tokens at most.", f"Give --length {longest} or less.")
    steps = None if config.epochs is not None else config.steps or STEPS
    limit = None if steps is None else 2 * steps * config.batch_size * config.length
    return pack(
        tokenizer,
        sources,
        lang.code,
        config.length,
        limit_tokens=limit,
        folder=cache_root() / "blocks",
        progress=progress,
    )


def _tuning(config: SparseTrainConfig, source: Source, blocks: Blocks, progress: Progress) -> LanguageTuning:
    from polydistill.distill.general import GeneralText
    from polydistill.distill.language import LanguageTuning
    from polydistill.training.loop import Schedule

    text = GeneralText.split([blocks])
    steps = config.steps or STEPS
    if config.epochs is not None:
        steps = math.ceil(config.epochs * len(text.training[0]) / config.batch_size)
    schedule = Schedule(
        epochs=1,
        lr=config.lr,
        batch_size=config.batch_size,
        warmup=config.warmup,
        checks=CHECKS,
        seed=config.seed,
        bf16=config.bf16,
        accumulate=config.accumulate,
    )
    return LanguageTuning(source.model, text, blocks.language, config.density, schedule, steps, progress)


def _full(tuning: LanguageTuning, checkpoints: Path) -> Made:
    curves, save = tuning.full(checkpoints)

    def write(out: Path) -> dict[str, Any]:
        save(out)
        return _seen(curves)

    return Made(write, curves.steps, curves.terms)


def _sparse(tuning: LanguageTuning, tuned: Path, checkpoints: Path) -> Made:
    curves, difference = tuning.chosen(tuned, checkpoints)

    def write(out: Path) -> dict[str, Any]:
        difference.save(out / NAME)
        return _seen(curves)

    return Made(write, curves.steps, curves.terms)


def _seen(curves: Curves) -> dict[str, Any]:
    return {
        "validation": [[step, -score] for step, score in curves.dev],
        "best": -curves.best,
        "best_step": curves.best_step,
    }


def _result(
    config: SparseTrainConfig, tuning: LanguageTuning, composed: SparseResult, done: Sequence[Stage], output: Path
) -> SparseTrainResult:
    known = {f.name: getattr(composed, f.name) for f in fields(composed)}
    stages = [asdict(stage) for stage in done]
    return SparseTrainResult(
        **{**known, "command": "sparse train", "output": output},
        density=composed.entries / composed.parameters,
        settings={**asdict(tuning.schedule), "steps": tuning.steps, "length": config.length, "density": config.density},
        stages=tuple({k: v for k, v in stage.items() if k != "folder"} for stage in stages),
        peak_memory_bytes=peak_memory_bytes(),
    )


def _document(
    config: SparseTrainConfig, source: Source, texts: list[dict[str, Any]], result: SparseTrainResult, folder: Path
) -> None:
    """The record and the card."""
    record = RunRecord(
        command="sparse train",
        config=config.to_json(),
        source=source_facts(source.resolved, source.checkpoint),
        texts=texts,
        result=result.to_json(),
        parent=parent_of(source.resolved.folder),
    )
    record.save(folder)
    write_card(record, folder)
