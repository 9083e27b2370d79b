"""The one stage of an export: a model as ONNX files beside its tokenizer, checked against torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.errors import PolydistillError
from polydistill.evaluation.scoring import Cell
from polydistill.evaluation.subjects import Subject
from polydistill.files.jsonfiles import read_json
from polydistill.models.checkpoint import copy_file
from polydistill.models.copying import CONFIG, copy_rest
from polydistill.models.folder import MODULES, modules_of
from polydistill.models.source import Source
from polydistill.progress import Progress
from polydistill.runs.made import Made
from polydistill.runs.stages import Work

if TYPE_CHECKING:
    from polydistill.exporting.beside import Outputs
    from polydistill.exporting.networks import Head
    from polydistill.exporting.sample import Sample

FOLDER = "onnx"
# As transformers.js and optimum look for them; the second is what transformers.js calls q8, its default in a browser.
FILES = {"onnx": "model.onnx", "int8": "model_quantized.onnx"}
LEAST_LENGTH = 8  # tokens of what the exporter follows


@dataclass(frozen=True)
class ScoredTask:
    """What is to be scored: the model as torch has it, and the data."""

    subject: Subject
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Job:
    """Everything that is known before a network is loaded.

    Attributes:
        source: The model.
        head: What it gives.
        int8: Whether a second file has weights of 8 bits.
        sample: Texts on which the files are compared with torch.
        task: What is scored, None for nothing.
    """

    source: Source
    head: Head
    int8: bool
    sample: Sample
    task: ScoredTask | None

    @property
    def files(self) -> dict[str, str]:
        """Kind -> place of each ONNX file below the model's folder."""
        return {kind: f"{FOLDER}/{name}" for kind, name in FILES.items() if kind != "int8" or self.int8}


def written(job: Job, work: Work) -> Made:
    """Writes the files, and measures them beside torch.

    Raises:
        PolydistillError: A file does not give torch's outputs.
    """

    def write(out: Path) -> Mapping[str, Any]:
        for note in copy_rest(job.source, out, vocabulary=True):
            work.progress.note(note)
        place = job.source.place_in(out)
        copy_file(job.source.model / CONFIG, place / CONFIG)
        return _measured(job, out, place, work.progress)

    return Made(write)


def _measured(job: Job, out: Path, place: Path, progress: Progress) -> dict[str, Any]:
    """Writes the files into a folder with the rest of the model; what the result says of them."""
    from polydistill.exporting import beside, sample
    from polydistill.exporting.networks import input_names, load_network
    from polydistill.models.loading import load_tokenizer, longest_input

    tokenizer = load_tokenizer(job.source.model)
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    network, head = load_network(job.source.model, job.head), job.head
    longest = longest_input(tokenizer, network.config)
    features = sample.features_of(tokenizer, job.sample, longest)
    inputs = _traced(tokenizer, features, input_names(tokenizer, network))
    networks = _networks(job, network, inputs, place, progress)
    every = [*features, *sample.extremes_of(features, longest)]
    found = {
        name: [beside.outputs_of(n, tokenizer, every, head, size) for size in (1, beside.TOGETHER)]
        for name, n in networks.items()
    }
    difference = _difference(found, len(every))
    ordinary = {name: single[: len(features)] for name, (single, _) in found.items()}
    files = {name: place / path for name, path in job.files.items()}
    return {
        "files": [{"path": str(f.relative_to(out)), "bytes": f.stat().st_size} for f in files.values()],
        "head": head.name,
        "inputs": list(inputs),
        "outputs": list(head.outputs),
        "pooling": _pooling(job.source, head),
        "parameters": job.source.checkpoint.parameters,
        "bytes": {"safetensors": job.source.checkpoint.nbytes, **{n: f.stat().st_size for n, f in files.items()}},
        "difference": difference,
        "agreement": {name: beside.agreement(ordinary["torch"], ordinary[name], head) for name in files},
        "latency": beside.latency(job.source.model, files, features, head, progress),
    }


def _networks(job: Job, network: Any, inputs: dict[str, Any], place: Path, progress: Progress) -> dict[str, Any]:
    """Writes the files; gives torch's network and the files, as networks."""
    from polydistill.exporting import graph, quantise
    from polydistill.exporting.networks import onnx_network

    (place / FOLDER).mkdir()
    files = {kind: place / path for kind, path in job.files.items()}
    progress.note("Following the network to write its graph.")
    graph.write_onnx(network, inputs, job.head.outputs, files["onnx"])
    if job.int8:
        progress.note("Rounding the weights to 8 bits.")
        quantise.quantise(files["onnx"], files["int8"])
    return {"torch": network} | {kind: onnx_network(path, network.config) for kind, path in files.items()}


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


def _pooling(source: Source, head: Head) -> list[str]:
    """What a sentence-transformers folder has behind the encoder, such as `Pooling (mean)`, `Normalize`."""
    from polydistill.exporting.networks import FEATURES

    if head.name != FEATURES or not (source.folder / MODULES).is_file():
        return []
    found = []
    for module in modules_of(source.folder)[1:]:
        settings = module.place / CONFIG
        chosen = read_json(settings) if module.name == "Pooling" and settings.is_file() else {}
        old = [key for key, value in chosen.items() if key.startswith("pooling_mode_") and value is True]
        modes = [key.removeprefix("pooling_mode_").rpartition("_")[0] for key in old]  # pooling_mode_mean_tokens
        modes += [chosen["pooling_mode"]] if isinstance(chosen.get("pooling_mode"), str) else []
        found.append(f"{module.name} ({', '.join(modes)})" if modes else module.name)
    return found
