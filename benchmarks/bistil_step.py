"""What a step of phase 1 teaches, by yardsticks that do not depend on how its loss is scaled, and what it costs."""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import measure

# Term -> what the table calls it.
YARDSTICKS = {
    "hidden": "hidden states, MSE",
    "attention": "attention, MSE",
    "relative hidden": "hidden states, relative",
    "relative attention": "attention, relative",
}


def default_model() -> str:
    from polydistill.models.default import DEFAULT_MODEL

    return DEFAULT_MODEL


@dataclass
class Run:
    """A run of phase 1 as its folder tells it: what would be needed to train it again.

    Attributes:
        folder: The run's output.
        sources: LANG=PATH of both texts.
        length: Tokens of a block.
        tokens: Most tokens that are read of each text.
    """

    folder: Path
    sources: Sequence[str]
    length: int
    tokens: int
    arch: Any = field(init=False)
    layers: list[int] = field(init=False)

    def __post_init__(self) -> None:
        from polydistill.models.refs import ModelRef, resolve
        from polydistill.models.source import Source

        self.arch = Source.open(resolve(ModelRef.parse(str(self.teacher)))).arch
        self.layers = json.loads((self.folder / "polydistill.json").read_text(encoding="utf-8"))["result"]["layers"]

    @property
    def teacher(self) -> Path:
        return self.folder / "stages/vocabulary/teacher"

    @property
    def student(self) -> Path:
        """As it was before phase 1."""
        return self.folder / "stages/vocabulary/student"

    def text(self) -> Any:
        """The blocks to train on and those held out, as the stage has them."""
        from polydistill.catalog import resolve_languages
        from polydistill.distill.blocks import pack
        from polydistill.distill.general import GeneralText
        from polydistill.models.loading import load_tokenizer
        from polydistill.models.offline import cache_root
        from polydistill.texts.sources import assign_corpora, text_sources

        languages = resolve_languages([source.partition("=")[0] for source in self.sources], ())
        given, tokenizer = assign_corpora(languages, self.sources), load_tokenizer(self.student)
        blocks = [
            pack(
                tokenizer,
                text_sources(lang, given[lang.code]),
                lang.code,
                self.length,
                limit_tokens=self.tokens,
                folder=cache_root() / "blocks",
            )
            for lang in languages
        ]
        return GeneralText.split(blocks)

    def objectives(self, specs: Sequence[str], scale: str) -> Any:
        from polydistill.distill.listing import TEXT, objectives
        from polydistill.distill.objectives.build import build
        from polydistill.distill.student import layer_pairs

        return build(objectives(specs, TEXT), scale=scale, pairs=layer_pairs(self.layers, max(self.layers) + 1))


def yardsticks(student: Path, folder: Path, sources: Sequence[str]) -> dict[str, float]:
    """Means over the held-out blocks of a run.

    Args:
        student: The student to measure.
        folder: The run.
        sources: LANG=PATH of both texts.
    """
    import torch

    from polydistill.distill.blocks import MaskedBlocks
    from polydistill.distill.general import batches_of
    from polydistill.distill.loss import DistilLoss
    from polydistill.distill.teachers.frozen import load_teacher
    from polydistill.models.loading import load_encoder, load_tokenizer

    record = json.loads((folder / "polydistill.json").read_text(encoding="utf-8"))
    phase = record["result"]["settings"]["phase_1"]
    run = Run(folder, sources, phase["max_length"], phase["steps"] * phase["batch_size"] * phase["max_length"])
    held = MaskedBlocks(run.text().held_out, load_tokenizer(run.student))
    network = load_encoder(student, eager=True).eval()
    sums: dict[str, float] = {}
    rows = 0
    for prefix, scale in (("", "none"), ("relative ", "teacher")):
        asked, rows = run.objectives(("hidden=1", "attention=1"), scale), 0
        loss = DistilLoss(network, asked, load_teacher(run.teacher, asked.needs.teacher), run.arch)
        with torch.no_grad():
            for batch in batches_of(held, phase["batch_size"]):
                count = len(batch["input_ids"])
                for term, value in loss(network, batch, lambda found: found)[1].items():
                    sums[prefix + term] = sums.get(prefix + term, 0.0) + count * value
                rows += count
        loss.close()
    return {term: value / rows for term, value in sums.items()}


# --- speed


@dataclass(frozen=True)
class Pace:
    """Seconds of one round.

    Attributes:
        step: A training step, the median.
        stall: What a step takes longer after which there is a validation and a checkpoint; 0 where there is none.
        validation: The part of it that is the validation.
    """

    step: float
    stall: float = 0.0
    validation: float = 0.0

    def __str__(self) -> str:
        stalled = f", validation and checkpoint {self.stall:.2f} s" if self.stall else ""
        return f"{self.step:.3f} s a step{stalled}"


def trained(run: Run, text: Any, phase: Any, steps: int, checks: int, bf16: bool) -> Pace:
    """Steps of phase 1 as bistil takes them, timed from the beginning of each loss to that of the next."""
    from polydistill.distill import general
    from polydistill.distill.loss import DistilLoss
    from polydistill.progress import SILENT
    from polydistill.training.loop import Schedule

    starts: list[float] = []
    validations: list[float] = []

    class Timed(DistilLoss):
        def __call__(self, network: Any, batch: Any, agree: Any) -> Any:
            if network.training:
                starts.append(time.perf_counter())
            return super().__call__(network, batch, agree)

        def mean(self, network: Any, batches: Any) -> float:
            started = time.perf_counter()
            found = super().mean(network, batches)
            validations.append(time.perf_counter() - started)
            return found

    schedule = Schedule(
        epochs=1, lr=phase.lr, batch_size=phase.batch_size, warmup=phase.warmup, checks=checks, bf16=bf16
    )
    teachers = dict.fromkeys((blocks.language for blocks in text.training), run.teacher)
    asked = run.objectives(phase.objectives, "teacher")
    with tempfile.TemporaryDirectory() as work, mock.patch.object(general, "DistilLoss", Timed):
        general.distil_general(run.student, teachers, run.arch, text, asked, schedule, steps, Path(work), SILENT)
    between = steps // checks
    taken = [b - a for a, b in itertools.pairwise(starts)]
    plain = [s for i, s in enumerate(taken, 1) if i % between]
    stalled = [s for i, s in enumerate(taken, 1) if i % between == 0]
    step = measure.median(plain[1:])
    return Pace(step, max(0.0, measure.median(stalled) - step), measure.median(validations))


def bare(run: Run, batches: Sequence[dict[str, Any]], lr: float, bf16: bool, plain: bool = True) -> Pace:
    """The same batches, ready made: teacher forward, student forward and backward, optimizer step; nothing else.

    Args:
        run: Where both models are.
        batches: What `batches_of_run` gives.
        lr: Learning rate.
        bf16: Whether matrices are multiplied in bfloat16.
        plain: Whether the student's attention is computed as it is in training, or as PyTorch chooses.
    """
    import torch
    from torch.nn.functional import mse_loss

    from polydistill.models.attention import trained_attention
    from polydistill.models.loading import load_encoder
    from polydistill.training.batching import MODEL_KEYS

    teacher = load_encoder(run.teacher).eval().requires_grad_(False)
    student = load_encoder(run.student).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=lr, fused=True)
    pairs = [(0, 0), *((s + 1, t + 1) for s, t in enumerate(run.layers))]
    starts = []
    for batch in batches:
        starts.append(time.perf_counter())
        inputs = {key: batch[key] for key in MODEL_KEYS if key in batch}
        with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
            with torch.no_grad():
                wanted = teacher(**inputs, output_hidden_states=True).hidden_states
            with trained_attention(inputs["input_ids"]) if plain else nullcontext():
                found = student(**inputs, output_hidden_states=True).hidden_states
            loss = sum(mse_loss(found[s], wanted[t]) for s, t in pairs)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    taken = [b - a for a, b in itertools.pairwise(starts)]
    return Pace(measure.median(taken[1:]))


def batches_of_run(run: Run, text: Any, phase: Any, steps: int) -> list[dict[str, Any]]:
    """The batches that phase 1 begins with."""
    from polydistill.distill.batches import GroupBatches
    from polydistill.distill.blocks import MaskedBlocks, stacked
    from polydistill.distill.samplers.even import Even
    from polydistill.models.loading import load_tokenizer

    data = MaskedBlocks(text.training, load_tokenizer(run.student))
    order = GroupBatches(
        data.groups,
        Even({group: len(places) for group, places in data.groups.items()}),
        phase.batch_size,
        steps,
        turns=True,
    )
    return [stacked([data[i] for i in places]) for places in order]


def speed(
    folder: Path, sources: Sequence[str], *, preset: str, rounds: int, steps: int, tuned: Path | None, data: Path
) -> str:
    """The section about speed.

    Args:
        folder: A run of phase 1, for its vocabulary stage.
        sources: LANG=PATH of both texts.
        preset: Whose phase 1 is timed.
        rounds: Of both loops, turn about.
        steps: A round.
        tuned: A finished run for a task, for what its validations take; None if there is none.
        data: The data folder.
    """
    from polydistill.methods.bistil.presets import PRESETS
    from polydistill.methods.bistil.stages import CHECKS

    phase = PRESETS[preset].general
    run = Run(folder, sources, phase.max_length, phase.tokens)
    text = run.text()
    checks = 3
    steps = max(steps, 4 * checks) // checks * checks
    batches = batches_of_run(run, text, phase, steps)
    rows, stalls = [], []
    tokens = phase.batch_size * phase.max_length
    for name, bf16 in (("float32", False), ("bfloat16", True)):
        found = measure.alternate(
            {
                "bistil": lambda bf16=bf16: trained(run, text, phase, steps, checks, bf16),
                "bare loop": lambda bf16=bf16: bare(run, batches, phase.lr, bf16),
                "fused attention": lambda bf16=bf16: bare(run, batches, phase.lr, bf16, plain=False),
            },
            rounds,
        )
        ratios = [b.step / a.step for a, b in zip(found["bistil"], found["bare loop"], strict=True)]
        rates = [tokens / measure.median(p.step for p in paces) for paces in found.values()]
        ratio = measure.median(ratios)
        rows.append(
            [
                name,
                *(f"{rate:,.0f}" for rate in rates),
                f"{ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
                "yes" if ratio >= 0.85 else "no",
            ]
        )
        pace = [measure.median(getattr(p, what) for p in found["bistil"]) for what in ("step", "stall", "validation")]
        stalls.append([f"phase 1, {name}", *_share(CHECKS, pace[1], pace[2], phase.steps * pace[0])])
    if tuned is not None:
        checkpoint = measure.median(p.stall - p.validation for p in found["bistil"])
        stalls += _phase_2(tuned, data, max(0.0, checkpoint))
    head = [
        "precision",
        "bistil, tokens/s",
        "bare loop, tokens/s",
        "with PyTorch's choice of attention, tokens/s",
        "bistil to bare loop (rounds)",
        "at least 0.85",
    ]
    stall_head = [
        "",
        "checks",
        "s a check",
        "of it validation",
        "training without, s",
        "share of the time, %",
        "at most 5",
    ]
    words = (
        f"Phase 1 at `{preset}`: {phase.batch_size} blocks of {phase.max_length} tokens a step, hidden states. Both "
        f"loops in one process, turn about, {rounds} rounds of {steps} steps on the same batches; a step is the median "
        "of its round, the ratio the median over rounds of tokens per second against the bare loop of the same round. "
        "The bare loop has its batches ready and does teacher forward, student forward, a plain mean squared error of "
        "the hidden states, backward and the optimizer step; the student's attention is computed as in bistil (plain "
        "products on a CPU), and beside it as PyTorch chooses (a fused kernel). bistil also draws and masks blocks, "
        "clips, and logs."
    )
    stall_words = (
        f"A check is a validation and a checkpoint. Phase 1: measured in the rounds above, {CHECKS} checks in "
        f"{phase.steps:,} steps. Phase 2: checks and seconds from the record of the run, the time of a validation "
        "measured now, that of a checkpoint as in phase 1."
    )
    return "\n\n".join(
        [
            "## Speed",
            words,
            measure.table(head, rows),
            stall_words,
            measure.table(stall_head, stalls),
            "Padding in packed blocks:",
            _padding(run, text),
        ]
    )


def _share(checks: int, stall: float, validation: float, without: float) -> list[str]:
    share = checks * stall / (checks * stall + without)
    return [
        str(checks),
        f"{stall:.2f}",
        f"{validation:.2f}",
        f"{without:,.0f}",
        f"{100 * share:.1f}",
        "yes" if share <= 0.05 else "no",
    ]


def _phase_2(folder: Path, data: Path, checkpoint: float) -> list[list[str]]:
    """Rows of the stages of phase 2 of a finished run."""
    from polydistill.catalog import language, task
    from polydistill.evaluation.heads import open_model
    from polydistill.evaluation.kinds import dev_score
    from polydistill.labelled.sources import load_split
    from polydistill.methods.bistil.presets import PRESETS

    record = json.loads((folder / "polydistill.json").read_text(encoding="utf-8"))
    config, result = record["config"], record["result"]
    wanted = task(config["task"])
    limit = config["limit"] or PRESETS[config["preset"]].dev_examples
    dev = load_split(wanted, language(config["source"]), config["dev_split"], data_dir=data, limit=limit)
    model = open_model(
        folder,
        wanted.kind,
        wanted.labels,
        not_scored=wanted.not_scored,
        max_length=result["settings"]["phase_2"]["max_length"],
    )
    validation = measure.median(measure.timed(lambda: dev_score(wanted, model, [dev])) for _ in range(3))
    rows = []
    for stage in result["stages"]:
        if stage["name"] in ("full", "sparse"):
            checks, stall = len(stage["facts"]["dev"]), validation + checkpoint
            without = stage["seconds"] - checks * stall
            rows.append([f"{folder.name}, {stage['name']}", *_share(checks, stall, validation, without)])
    return rows


def _padding(run: Run, text: Any) -> str:
    """Positions of all blocks of each language that are padding, and those of special tokens around the text."""
    import numpy as np

    from polydistill.distill.blocks import edges_of
    from polydistill.models.loading import load_tokenizer

    tokenizer = load_tokenizer(run.student)
    edges = edges_of(tokenizer)
    rows = []
    for part, held in zip(text.training, text.held_out, strict=True):
        ids = np.stack([blocks[i]["input_ids"] for blocks in (part, held) for i in range(len(blocks))])
        masks = np.stack([blocks[i]["attention_mask"] for blocks in (part, held) for i in range(len(blocks))])
        padding = ((ids == tokenizer.pad_token_id) | (masks == 0)).mean()
        around = (len(edges.prefix) + len(edges.suffix)) / run.length
        rows.append(
            [
                part.language,
                f"{len(ids):,}",
                f"{ids.size:,}",
                f"{100 * padding:.2f}",
                f"{100 * around:.1f}",
                "yes" if padding < 0.02 else "no",
            ]
        )
    head = ["language", "blocks", "positions", "padding, %", "special tokens around, %", "under 2"]
    return measure.table(head, rows)
