"""`polydistill export`: a model as ONNX files, checked against torch, with what it gains and what it loses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.card import write_card
from polydistill.errors import PolydistillError
from polydistill.evaluation.heads import TaskModel
from polydistill.evaluation.scoring import loyalty, score
from polydistill.evaluation.subjects import Subject
from polydistill.evaluation.summaries import loyalty_rows
from polydistill.files.jsonfiles import read_json
from polydistill.files.outputs import new_folder
from polydistill.methods.export.plan import PACKAGES, ExportConfig, Job, prepare
from polydistill.models.checkpoint import copy_file, file_sha256
from polydistill.models.copying import CONFIG, copy_rest
from polydistill.models.folder import MODULES, modules_of
from polydistill.models.source import Source
from polydistill.options.settings import Outcome
from polydistill.progress import SILENT, Progress
from polydistill.records.record import RunRecord, Score, parent_of, peak_memory_bytes, source_facts, versions

if TYPE_CHECKING:
    from polydistill.exporting.beside import Outputs
    from polydistill.exporting.networks import Head

FOLDER = "onnx"
# As transformers.js and optimum look for them; the second is what transformers.js calls q8, its default in a browser.
FILES = {"onnx": "model.onnx", "int8": "model_quantized.onnx"}
LEAST_LENGTH = 8  # tokens of what the exporter follows


@dataclass(frozen=True)
class ExportResult(Outcome):
    """What an export did; `to_json` is what the command prints as JSON.

    Args:
        model: Where the model came from.
        output: The new folder.
        files: Path below it and bytes of each ONNX file.
        head: As pipelines of transformers and transformers.js call it.
        inputs: What the graph takes, each (batch_size, sequence_length) whole numbers of 64 bits.
        outputs: What it gives.
        pooling: What sentence-transformers does with the features; not part of the graph.
        languages: Which the model was made for, as far as its record says.
        parameters: Number of weights.
        bytes: Of the weights as safetensors, and of each file.
        difference: Largest absolute difference of outputs from torch's, on `inputs` inputs.
        agreement: For each file the share of predictions that are torch's.
        latency: Time of torch and of the files.
        scores: Of torch and of the files on a task.
        loyalty: How far each file predicts what torch does, on the task's data.
        seconds: Taken by all of it.
        peak_memory_bytes: Most memory used.
    """

    model: str
    output: Path
    files: tuple[dict[str, Any], ...]
    head: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    pooling: tuple[str, ...]
    languages: tuple[str, ...]
    parameters: int
    bytes: dict[str, int]
    difference: dict[str, Any]
    agreement: dict[str, dict[str, Any]]
    latency: dict[str, Any]
    scores: tuple[dict[str, Any], ...]
    loyalty: tuple[dict[str, Any], ...]
    seconds: float
    peak_memory_bytes: int
    command: str = field(default="export", init=False)


@dataclass
class _FileSubject(Subject):
    """An ONNX file to score, in the place of the network that it was made from."""

    path: Path
    network: Any
    torch: Subject

    @cached_property
    def weights_hash(self) -> str:
        """Hash of the file."""
        return file_sha256(self.path)

    @cached_property
    def loaded(self) -> TaskModel:
        """The model of torch with the file in the network's place."""
        from polydistill.exporting.networks import with_network

        return with_network(self.torch.loaded, self.network)


def export(config: ExportConfig, progress: Progress = SILENT) -> ExportResult:
    """Writes a model as ONNX files beside its tokenizer, and measures them beside torch.

    Args:
        config: What to do.
        progress: Where to report.

    Returns:
        Sizes, differences, times and scores; they also stand in the output's polydistill.json and README.md.

    Raises:
        PolydistillError: The model cannot be exported, or a file does not give torch's outputs; nothing was written.
    """
    started = time.perf_counter()
    job = prepare(config, progress)
    with new_folder(job.output, overwrite=config.overwrite) as out:
        for note in copy_rest(job.source, out, vocabulary=True):
            progress.note(note)
        place = job.source.place_in(out)
        copy_file(job.source.model / CONFIG, place / CONFIG)
        result, scores = _write(config, job, out, place / FOLDER, progress)
        seconds = round(time.perf_counter() - started, 1)
        result = replace(result, seconds=seconds, peak_memory_bytes=peak_memory_bytes())
        record = _record(config, job, result, () if config.limit else scores)
        record.save(out)
        write_card(record, out)
    return result


def _write(
    config: ExportConfig, job: Job, out: Path, place: Path, progress: Progress
) -> tuple[ExportResult, list[Score]]:
    """Writes the files and measures them.

    Args:
        config: What to do.
        job: What is known.
        out: The unfinished output.
        place: The folder of the ONNX files, in it.
        progress: Where to report.

    Returns:
        The result, and the files' scores.

    Raises:
        PolydistillError: A file does not give torch's outputs.
    """
    from polydistill.exporting import beside, sample
    from polydistill.exporting.networks import input_names, load_network
    from polydistill.models.loading import load_tokenizer, longest_input

    tokenizer = load_tokenizer(job.source.model)
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    network, head = load_network(job.source.model, job.head), job.head
    longest = longest_input(tokenizer, network.config)
    features = sample.features_of(tokenizer, job.sample, longest)
    inputs = _traced(tokenizer, features, input_names(tokenizer, network))
    networks = _networks(config, network, inputs, head, place, progress)
    every = [*features, *sample.extremes_of(features, longest)]
    found = {
        name: [beside.outputs_of(n, tokenizer, every, head, size) for size in (1, beside.TOGETHER)]
        for name, n in networks.items()
    }
    difference = _difference(found, len(every))
    ordinary = {name: single[: len(features)] for name, (single, _) in found.items()}
    files = {name: place / FILES[name] for name in networks if name != "torch"}
    scores, kept = _scores(job, files, networks, progress) if job.task else ([], [])
    result = ExportResult(
        model=job.source.resolved.source,
        output=job.output,
        files=tuple({"path": str(f.relative_to(out)), "bytes": f.stat().st_size} for f in files.values()),
        head=head.name,
        inputs=tuple(inputs),
        outputs=head.outputs,
        pooling=_pooling(job.source, head),
        languages=tuple(language.code for language in job.languages),
        parameters=job.source.checkpoint.parameters,
        bytes={"safetensors": job.source.checkpoint.nbytes, **{n: f.stat().st_size for n, f in files.items()}},
        difference=difference,
        agreement={name: beside.agreement(ordinary["torch"], ordinary[name], head) for name in files},
        latency=beside.latency(job.source.model, files, features, head, progress),
        scores=tuple(one.to_json() for one in scores),
        loyalty=tuple(kept),
        seconds=0.0,
        peak_memory_bytes=0,
    )
    return result, [given for given in scores if given.model != config.model]


def _networks(
    config: ExportConfig, network: Any, inputs: dict[str, Any], head: Head, place: Path, progress: Progress
) -> dict[str, Any]:
    """Writes the files; gives torch's network and the files, as networks."""
    from polydistill.exporting import graph, quantise
    from polydistill.exporting.networks import onnx_network

    place.mkdir()
    progress.note("Following the network to write its graph.")
    graph.write_onnx(network, inputs, head.outputs, place / FILES["onnx"])
    if config.int8:
        progress.note("Rounding the weights to 8 bits.")
        quantise.quantise(place / FILES["onnx"], place / FILES["int8"])
    files = {name: place / file for name, file in FILES.items() if (place / file).exists()}
    return {"torch": network} | {name: onnx_network(path, network.config) for name, path in files.items()}


def _traced(tokenizer: Any, features: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Two inputs for the exporter to follow: neither axis has the size 1, which it would take for a constant."""
    from polydistill.training.batching import padded

    repeated = [{k: (v * LEAST_LENGTH)[: max(len(v), LEAST_LENGTH)] for k, v in features[0].items()}] * 2
    batch = padded(tokenizer, repeated)
    return {name: batch[name] for name in names}


def _difference(found: dict[str, list[Outputs]], inputs: int) -> dict[str, Any]:
    """Of each file from torch, in batches of one and of several.

    Raises:
        PolydistillError: That of the file in float32 is too large.
    """
    from polydistill.exporting.beside import TOLERANCE, largest_difference

    largest = {
        name: max(largest_difference(a, b) for a, b in zip(found["torch"], found[name], strict=True))
        for name in found
        if name != "torch"
    }
    if not largest["onnx"] <= TOLERANCE:
        raise PolydistillError(
            f"The ONNX file's outputs differ from torch's by up to {largest['onnx']:.3g}; at most {TOLERANCE:g} is "
            "rounding.",
            "Report it with the model's name; nothing was written.",
        )
    return {**largest, "tolerance": TOLERANCE, "inputs": inputs}


def _scores(
    job: Job, files: dict[str, Path], networks: dict[str, Any], progress: Progress
) -> tuple[list[Score], list[dict[str, Any]]]:
    """Scores of torch and of the files, and how far the files predict what torch does."""
    assert job.task is not None
    torch, cells = job.task.subject, job.task.cells
    scores, reference = score(torch, cells, progress)
    rows: list[dict[str, Any]] = []
    for name, path in files.items():
        called = str(job.output / job.source.inner / FOLDER / path.name)
        subject = _FileSubject(called, torch.resolved, torch.wanted, torch.settings, path, networks[name], torch)
        own, predictions = score(subject, cells, progress)
        scores += own
        for cell, before, after in zip(cells, reference, predictions, strict=True):
            rows += loyalty_rows(called, cell, loyalty(torch.wanted, cell, before, after), torch.settings.seed)
    return scores, rows


def _pooling(source: Source, head: Head) -> tuple[str, ...]:
    """What a sentence-transformers folder has behind the encoder, such as `Pooling (mean)`, `Normalize`."""
    from polydistill.exporting.networks import FEATURES

    if head.name != FEATURES or not (source.folder / MODULES).is_file():
        return ()
    found = []
    for module in modules_of(source.folder)[1:]:
        settings = module.place / CONFIG
        chosen = read_json(settings) if module.name == "Pooling" and settings.is_file() else {}
        old = [key for key, value in chosen.items() if key.startswith("pooling_mode_") and value is True]
        modes = [key.removeprefix("pooling_mode_").rpartition("_")[0] for key in old]  # pooling_mode_mean_tokens
        modes += [chosen["pooling_mode"]] if isinstance(chosen.get("pooling_mode"), str) else []
        found.append(f"{module.name} ({', '.join(modes)})" if modes else module.name)
    return tuple(found)


def _record(config: ExportConfig, job: Job, result: ExportResult, scores: Sequence[Score]) -> RunRecord:
    return RunRecord(
        command="export",
        config=config.to_json(),
        source=source_facts(job.source.resolved, job.source.checkpoint),
        texts=job.sample.facts,
        result=result.to_json(),
        versions=versions() | {name: metadata.version(name) for name in PACKAGES},
        scores=list(scores),
        parent=parent_of(job.source.folder),
    )
