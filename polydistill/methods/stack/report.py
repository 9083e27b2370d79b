"""What a stacking reports: its settings, what it read, and its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from polydistill.devices import CUDA, current
from polydistill.methods.stack.material import Material
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.folder import model_folder
from polydistill.runs.plan import Report
from polydistill.runs.scoring import Beside, Scoring, Test
from polydistill.runs.stages import Done, copy_result
from polydistill.stacks.description import Description, sizes


def settings(material: Material) -> dict[str, Any]:
    """Every value that the run goes by, presets resolved."""
    options, job = material.options, material.job
    return {
        "preset": options.preset,
        **asdict(job.preset),
        "phases": list(job.phases),
        "init": options.init,
        "lora": material.lora,
        "teacher_lora": None if job.teacher or not job.task else material.description().lora,
        "pooling": options.pooling,
        "frozen": options.frozen,
        **asdict(options.computing),
    }


def inputs(material: Material) -> dict[str, Any]:
    """Hashes of the models, texts and labels, which have to be the same for a run to go on."""
    job = material.job
    splits = (*job.training, *([job.dev] if job.dev else []))
    return {
        "models": [[part.weights_hash, part.config_hash] for part in material.parents],
        "given": [Checkpoint.open(folder).weights_hash for folder in (job.begin, job.teacher) if folder],
        "data": [split.sha256 for split in splits],
        "text": material.lines.sha256 if job.texts else None,
        "labels": list(material.labels) if job.task else None,
    }


def texts_read(material: Material, done: Mapping[str, Done]) -> Sequence[Mapping[str, Any]]:
    """The labelled data and the text."""
    job = material.job
    found: list[Mapping[str, Any]] = [split.facts() for split in (*job.training, *([job.dev] if job.dev else []))]
    if job.texts:
        lines = material.lines
        about = {
            "language": job.english.code,
            "where": " and ".join(text.where for text in job.texts),
            "split": "text",
            "examples": len(lines.training) + len(lines.dev),
            "sha256": lines.sha256,
        }
        found.append(about)
    return found


def placed(material: Material, done: Mapping[str, Done], out: Path) -> None:
    """Writes the finished stack, on its own with both models if that was asked for."""
    final = list(done.values())[-1]
    if not material.options.whole:
        copy_result(final, out)
        return
    from polydistill.stacks.folder import load_stack, save_stack

    dtype = "bfloat16" if material.options.frozen == "bfloat16" else "float32"  # 8 bits are for training alone
    save_stack(load_stack(final.folder, dtype=dtype), out, whole=True)


def report(material: Material, done: Mapping[str, Done], out: Path) -> Report:
    """Sizes, unexplained variance and what chose the checkpoint."""
    from polydistill.stacks.folder import load_reader

    job, made, reader = material.job, Description.read(out), load_reader(out)
    parameters, nbytes = sizes(out)
    llm = Checkpoint.open(model_folder(job.llm.folder))
    final = list(done.values())[-1]
    measured = next((stage.facts for stage in done.values() if "unexplained" in stage.facts), None)
    return Report(
        parameters={"teacher": llm.parameters, "student": parameters, "trained": _own_parameters(final)},
        bytes={"teacher": llm.nbytes, "student": nbytes},
        selection=_selection(material, done),
        facts={
            "llm": job.llm.source,
            "kind": "linear" if made.llm is None else "stack",
            "unexplained_variance": measured
            and {"first": measured["unexplained"][0][1], "last": measured["unexplained_at_best"]},
            "separator": reader.separator,
            "peak_gpu_bytes": _peak_gpu_bytes(),
            "language_code": reader.read_language(job.english, material.options.include_path),
        },
    )


def _own_parameters(final: Done) -> int:
    """Weights of the stack alone, without its two models."""
    return Checkpoint.open(final.folder).parameters


def _selection(material: Material, done: Mapping[str, Done]) -> dict[str, Any] | None:
    chosen = done.get("task") or done.get("self")
    if chosen is None or "best" not in chosen.facts:
        return None
    named = {name: chosen.facts[key] for name, key in (("split", "split"), ("metric", "metric"), ("value", "best"))}
    return {"languages": [material.job.english.code], **named, "step": chosen.facts["best_step"]}


def _peak_gpu_bytes() -> int:
    """The most memory that tensors on the GPU have taken in this process; 0 without one."""
    import torch

    return int(torch.cuda.max_memory_allocated()) if current() == CUDA else 0


def scoring(material: Material, output: Path) -> Scoring | None:
    """Scores of the stack in every language, and of the LLM alone."""
    job, labelled = material.job, material.options.labelled
    if job.task is None:
        return None
    return Scoring(
        output=output,
        task=job.task.name,
        tests=tuple(Test(language.code, labelled.test_split) for language in job.tests),
        beside=partial(_llm, material, output),
        loyalty=False,
        data_dir=labelled.data_dir,
        seed=material.options.computing.seed,
        include_path=material.options.include_path,
    )


def _llm(material: Material, output: Path, done: Mapping[str, Done]) -> Beside:
    """The LLM that has learnt the task."""
    if material.job.teacher is not None:
        return Beside(material.job.teacher, str(material.options.teacher))
    return Beside(done["teacher"].folder, str(output / "stages/teacher"))
