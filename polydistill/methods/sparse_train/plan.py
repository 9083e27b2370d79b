"""What a sparse language fine-tuning is to do, with everything that can be checked before it begins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.catalog import Language, language
from polydistill.distill.student import check_masked
from polydistill.errors import UsageError
from polydistill.files.outputs import check_output
from polydistill.methods.sparse.method import open_source
from polydistill.methods.sparse_train import stages
from polydistill.methods.sparse_train.options import SparseTrainOptions
from polydistill.methods.sparse_train.stages import Training
from polydistill.models.source import Source
from polydistill.progress import Progress
from polydistill.runs.plan import OUTPUTS, Origin, Plan, Report
from polydistill.runs.stages import Done, Stage
from polydistill.texts.sources import assign_corpora, text_sources
from polydistill.training.batching import check_parts

if TYPE_CHECKING:
    from polydistill.distill.blocks import Blocks

STEPS = 1_500


def prepare(options: SparseTrainOptions, progress: Progress) -> Plan:
    """Opens the model and packs the text into blocks.

    Raises:
        PolydistillError: Text or model are missing or do not fit.
    """
    _check(options)
    lang = language(options.language, options.include_path)
    name = f"{Path(options.model.partition('@')[0]).name}-{lang.code}-sft"
    output = (options.place.output or OUTPUTS / name).expanduser()
    check_output(output, overwrite=options.place.overwrite, reads=options.reads())  # before the text is read
    source = open_source(options.model, output, progress, options.include_path)
    check_masked(source, "A sparse language fine-tuning")
    blocks = _blocks(options, source, lang, progress)
    job = _training(options, source, blocks)
    texts = [{"language": lang.code, **asdict(text)} for text in blocks.texts]
    return Plan(
        output=output,
        origin=Origin(source.resolved, source.checkpoint),
        stages=(
            Stage("full", partial(stages.full, job), share=1, keep=False),
            Stage("sparse", partial(stages.sparse, job), needs=("full",), share=1, keep=False),
            Stage("model", partial(stages.model, job), needs=("sparse",), keep=False),
        ),
        report=_report,
        languages=(lang.code,),
        settings=job.settings(),
        inputs={"weights": source.checkpoint.weights_hash, "texts": [text["sha256"] for text in texts]},
        texts=lambda done: texts,
    )


def _check(options: SparseTrainOptions) -> None:
    if not options.language:
        raise UsageError("No language was given.", "Name one, for instance `language=sw`.")
    if options.steps is not None and options.epochs is not None:
        raise UsageError("`steps` and `epochs` both say how long to train.", "Give one of them.")
    check_parts(options.batch_size, options.computing.accumulate)


def _blocks(options: SparseTrainOptions, source: Source, lang: Language, progress: Progress) -> Blocks:
    """The text in blocks, twice as much as will be seen at most."""
    from polydistill.distill.blocks import pack
    from polydistill.models.loading import load_config, load_tokenizer, longest_input
    from polydistill.models.offline import cache_root

    assigned = assign_corpora([lang], options.text)[lang.code]
    tokenizer = load_tokenizer(source.model)
    longest = longest_input(tokenizer, load_config(source.model))
    if options.max_length > longest:
        raise UsageError(f"The model takes {longest} tokens at most.", f"Give `max_length={longest}` or less.")
    steps = None if options.epochs is not None else options.steps or STEPS
    return pack(
        tokenizer,
        text_sources(lang, assigned),
        lang.code,
        options.max_length,
        limit_tokens=None if steps is None else 2 * steps * options.batch_size * options.max_length,
        folder=cache_root() / "blocks",
        progress=progress,
    )


def _training(options: SparseTrainOptions, source: Source, blocks: Blocks) -> Training:
    from polydistill.distill.general import GeneralText

    text = GeneralText.split([blocks])
    steps = options.steps or STEPS
    if options.epochs is not None:
        steps = math.ceil(options.epochs * len(text.training[0]) / options.batch_size)
    return Training(
        source=source,
        text=text,
        language=blocks.language,
        density=options.density,
        steps=steps,
        lr=options.lr,
        batch_size=options.batch_size,
        max_length=options.max_length,
        warmup=options.warmup,
        computing=options.computing,
    )


def _report(done: Mapping[str, Done], out: Path) -> Report:
    facts: dict[str, Any] = done["model"].facts
    return Report(parameters={"base": facts["parameters"]}, facts=facts)
