"""`polydistill plan`: how large a bilingual student will be and how long it takes, before anything is trained."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.catalog import Language, Task
from polydistill.catalog.task import RETRIEVAL
from polydistill.devices import using
from polydistill.distill.matched import MIN_SHARE, check_writable, plan_together
from polydistill.distill.student import (
    ALTERNATE,
    Parameters,
    check_masked,
    chosen_layers,
    layer_count,
    layer_pairs,
    parameters,
    student_config,
    student_names,
)
from polydistill.errors import PolydistillError
from polydistill.labelled.custom import settled
from polydistill.labelled.examples import LabelledSplit
from polydistill.labelled.sources import load_split
from polydistill.methods.bistil.plan import WITH_HEAD, both_languages, task_of
from polydistill.methods.bistil.presets import PRESETS, General, Preset, Tuning
from polydistill.models.default import DEFAULT_MODEL
from polydistill.models.files import own_files
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import CONFIG, Source
from polydistill.options.settings import Options, Outcome, data_dir_setting, device_setting, include_setting, setting
from polydistill.progress import SILENT, Progress
from polydistill.trimming.counting import count
from polydistill.trimming.plan import TrimPlan, Wishes, new_config, write_vocabulary
from polydistill.trimming.surgery import renamed_bytes
from polydistill.vocab.counts import TokenCounts
from polydistill.vocab.keep import KeepRule
from polydistill.vocab.tokenizer_config import write_json

if TYPE_CHECKING:
    from polydistill.distill.objectives.base import LayerPairs
    from polydistill.training.batching import Feature

SAMPLE = 1_000  # labelled examples whose length is looked at
FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class PlanOptions(Options):
    """The configuration of a plan; each field is an argument or an option of the command line."""

    source: str
    target: str
    model: str = setting(
        DEFAULT_MODEL, "The multilingual teacher: folder, org/name or org/name@revision.", "Model", metavar="M"
    )
    layers: int | None = setting(None, "Layers of the student. [default: half of the teacher's]", "Model", metavar="N")
    reduction: int | None = setting(None, "Layer reduction factor, in place of `layers`.", "Model", metavar="R")
    init: str = setting(
        ALTERNATE,
        "Which of the teacher's layers it begins with: alternate, bottom, top, or a list such as 1,5,9.",
        "Model",
        metavar="HOW",
    )
    vocab_size: int | None = setting(
        None,
        "Keep exactly this many tokens. [default: those with a share of at least `min_share`]",
        "Model",
        metavar="N",
        least=1,
    )
    min_share: float = setting(
        MIN_SHARE,
        "Keep a token that makes up at least this share of either language's text.",
        "Model",
        metavar="X",
        above=0,
        most=1,
    )
    allow_unknown: bool = setting(False, "Go on with a language that the tokenizer cannot write well.", "Model")
    text: tuple[str, ...] = setting(
        (),
        "Text of a language, LANG=PATH, as for `polydistill trim`. [default: the language's corpus on the Hub, else "
        "its word list]",
        "Data",
        metavar="LANG=PATH",
    )
    limit: int | None = setting(None, "Read at most this many lines of each text.", "Data", metavar="N", least=1)
    task: str = setting(
        "",
        "Plan this task too: ner, nli, qa, ... (see `polydistill ls tasks`), or `embedding`. [default: phase 1 alone]",
        "Data",
        metavar="TASK",
    )
    data_dir: Path | None = data_dir_setting("Data")
    train_split: tuple[str, ...] = setting(
        (), "Split to train on. Repeat to join several. [default: train]", "Data", metavar="NAME"
    )
    measure: bool = setting(True, "Measure speed on this machine; without it only sizes are given.", "Speed")
    device: str = device_setting("Speed")
    include_path: tuple[Path, ...] = include_setting("Model")


@dataclass(frozen=True)
class PlanResult(Outcome):
    """What is to be expected; `to_json` is what the command prints as JSON.

    Attributes:
        model: The teacher.
        languages: Source and target.
        task: What phase 2 is about, None without it.
        layers: The teacher's layers that the student begins with, counted from 0.
        vocabulary: Tokens of `teacher` and `student`.
        parameters: `teacher` and `student` -> `embeddings`, `rest`, `head`, `total`.
        share: The student's parameters in the teacher's.
        bytes: Weights and tokenizer of both on disk.
        presets: Preset -> `general` (phase 1), `teacher` (its tuning, None without labels) and `tuning` (phase 2, None
            without a task): `tokens`, `tokens_per_second` in both precisions, `faster` and `seconds`; and `seconds` of
            all. The time is that of training steps alone. Empty without `measure`.
        notes: What could not be told.
        seconds: That planning took.
    """

    model: str
    languages: tuple[str, str]
    task: str | None
    layers: tuple[int, ...]
    vocabulary: dict[str, int]
    parameters: dict[str, dict[str, int]]
    share: float
    bytes: dict[str, int]
    presets: dict[str, dict[str, Any]]
    notes: tuple[str, ...]
    seconds: float
    command: str = field(default="plan", init=False)


@dataclass(frozen=True)
class _Case:
    """What is planned.

    Args:
        languages: Source and target.
        task: Of phase 2.
        source: The teacher.
        layers: Those that the student gets.
        trimmed: How the vocabulary is cut.
        counts: Of the text of both languages.
        folder: Where `teacher` and `student` lie, trimmed, without weights, and `shallow`: the teacher as deep as its
            layers are looked at.
    """

    languages: tuple[Language, Language]
    task: Task | None
    source: Source
    layers: tuple[int, ...]
    trimmed: TrimPlan
    counts: TokenCounts
    folder: Path

    @property
    def pairs(self) -> LayerPairs:
        """(student's, teacher's) layers that are compared."""
        return layer_pairs(self.layers, layer_count(self.source))

    @property
    def kind(self) -> str | None:
        """The kind of the task, None without one."""
        return self.task.kind if self.task else None

    @property
    def labels(self) -> int:
        """Outputs of the head."""
        return len(self.task.scored_labels) if self.task else 0


def plan(config: PlanOptions, progress: Progress = SILENT) -> PlanResult:
    """Predicts what `polydistill bistil` would make of a model, and how long it would take here.

    Args:
        config: What is to be made.
        progress: Where to report.

    Raises:
        PolydistillError: The model or a text cannot be read, or the wishes cannot be fulfilled.
    """
    config.check()
    with using(config.device):
        return _planned(config, progress)


def _planned(config: PlanOptions, progress: Progress) -> PlanResult:
    started = time.perf_counter()
    languages = both_languages(config.source, config.target, config.include_path)
    wanted = task_of(config.task, config.include_path) if config.task else None
    if wanted is not None and wanted.own:
        wanted = settled(wanted, _training(config, wanted, languages[0], None), progress)
    rule = _rule(config)
    source = Source.open(resolve(ModelRef.parse(config.model), progress=progress.note), config.include_path)
    check_masked(source, "A student of `polydistill bistil`")
    layers = chosen_layers(layer_count(source), layers=config.layers, reduction=config.reduction, init=config.init)
    counts = count(source.vocabulary, languages, config.text, limit=config.limit, progress=progress)
    check_writable(source, counts, languages, allow_unknown=config.allow_unknown)
    (trimmed,) = plan_together([source], counts, Wishes(languages, rule))
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        case = _Case(languages, wanted, source, layers, trimmed, counts, Path(scratch))
        _write_folders(case)
        sizes, nbytes = _sizes(case)
        presets = _presets(config, case, notes, progress) if config.measure else {}
    return PlanResult(
        model=source.resolved.source,
        languages=(languages[0].code, languages[1].code),
        task=config.task or None,
        layers=layers,
        vocabulary={
            "teacher": len(set(source.vocabulary.spaces[0].ids.values())),
            "student": len(trimmed.keeps[0].tokens),
        },
        parameters={who: {**asdict(size), "total": size.total} for who, size in sizes.items()},
        share=sizes["student"].total / sizes["teacher"].total,
        bytes=nbytes,
        presets=presets,
        notes=tuple(notes),
        seconds=round(time.perf_counter() - started, 1),
    )


def _rule(config: PlanOptions) -> KeepRule:
    if config.vocab_size is not None:
        return KeepRule(vocab_size=config.vocab_size)
    return KeepRule(min_share=config.min_share)


# --- sizes


def _write_folders(case: _Case) -> None:
    """Tokenizers and configurations of the trimmed teacher and of the student."""
    for who in ("teacher", "student"):
        (case.folder / who).mkdir()
        write_vocabulary(case.trimmed, case.folder / who)
    (case.folder / "shallow").mkdir()
    deepest = range(max(layer for _, layer in case.pairs) + 1)
    for who, layers in (("student", case.layers), ("shallow", deepest)):
        config = student_config(case.source, layers, 0.0)
        write_json(case.folder / who / CONFIG, new_config(case.trimmed, config))


def _sizes(case: _Case) -> tuple[dict[str, Parameters], dict[str, int]]:
    """Parameters of teacher and student, and their bytes; with the task's head, where there is one."""
    source, own = case.source, {name: name for name in case.source.checkpoint.tensors}
    student = own_files(case.folder / "student", case.folder / "student", ())
    beside = {"teacher": source.own_files.nbytes, "student": source.own_files.module_bytes + student.nbytes}
    if case.kind in WITH_HEAD:
        found = {"teacher": _with_head(case, source.model), "student": _with_head(case, case.folder / "student")}
        return found, {who: FLOAT32 * size.total + beside[who] for who, size in found.items()}
    names = student_names(source, case.layers)
    found = {"teacher": parameters(source, own, {}), "student": parameters(source, names, case.trimmed.cuts)}
    weights = {
        "teacher": source.checkpoint.nbytes,
        "student": renamed_bytes(source.checkpoint, names, case.trimmed.cuts),
    }
    return found, {who: n + beside[who] for who, n in weights.items()}


def _with_head(case: _Case, folder: Path) -> Parameters:
    """The parameters of a model with the task's head, as transformers builds it."""
    from polydistill.distill.speed import random_network

    network = random_network(folder, case.kind, case.labels, device="meta")
    everything, inside = (sum(p.numel() for p in part.parameters()) for part in (network, network.base_model))
    embeddings = network.get_input_embeddings().weight.numel()
    return Parameters(embeddings, inside - embeddings, everything - inside)


# --- time


def _presets(config: PlanOptions, case: _Case, notes: list[str], progress: Progress) -> dict[str, dict[str, Any]]:
    found = {}
    phases = 1 if not case.task else 3 if case.kind in WITH_HEAD else 2
    with progress.bar("measuring", len(PRESETS) * phases, "phase") as done:
        for name, preset in PRESETS.items():
            general = _phase(case, preset, preset.general, None, preset.general.tokens)
            done(1)
            teacher = tuning = None
            if case.task:
                phase = preset.tuning[case.task.kind]
                an_epoch = _epoch_tokens(config, case, preset, phase, notes)
                tokens = None if an_epoch is None else round((phase.epochs + phase.sparse_epochs) * an_epoch)
                tuning = _phase(case, preset, phase, case.kind, tokens)
                done(1)
                if case.kind in WITH_HEAD:
                    tokens = None if an_epoch is None else round(phase.teacher_epochs * an_epoch)
                    alone = replace(phase, objectives=("labels=1",))
                    teacher = _phase(case, preset, alone, case.kind, tokens, who="teacher")
                    done(1)
            parts = [part["seconds"] for part in (general, teacher, tuning) if part]
            total = None if None in parts else sum(parts)
            found[name] = {"general": general, "teacher": teacher, "tuning": tuning, "seconds": total}
    return found


def _phase(
    case: _Case, preset: Preset, phase: General | Tuning, kind: str | None, tokens: int | None, who: str = "student"
) -> dict[str, Any]:
    """Speed of the steps that train a student, or the task's teacher, and the time that so many tokens take."""
    from polydistill.distill.objectives.build import build
    from polydistill.distill.signals import needs_attention
    from polydistill.distill.speed import random_network, tokens_per_second

    objectives = build(phase.asked, scale=preset.scale, pairs=case.pairs, outputs=case.labels)
    eager = needs_attention(objectives.needs.student | objectives.needs.teacher)
    folders = ("teacher" if kind else "shallow", who)
    teacher, student = (random_network(case.folder / name, kind, case.labels, eager=eager) for name in folders)
    positions = getattr(student.config.get_text_config(), "max_position_embeddings", 0) or phase.max_length + 2
    length = min(phase.max_length, max(8, positions - 2))  # RoBERTa counts from 2
    rates = tokens_per_second(teacher, student, objectives, case.source.arch, phase.batch_size, length, kind=kind)
    faster = max(rates, key=rates.__getitem__)
    seconds = None if tokens is None else tokens / rates[faster]
    return {"tokens": tokens, "tokens_per_second": rates, "faster": faster, "seconds": seconds}


def _epoch_tokens(config: PlanOptions, case: _Case, preset: Preset, phase: Tuning, notes: list[str]) -> float | None:
    """Tokens of an epoch of phase 2; None where the data cannot be had."""
    assert case.task is not None
    if case.task.kind == RETRIEVAL:
        return _text_tokens(case, preset, phase)
    try:
        return _labelled_tokens(config, case, preset, phase)
    except PolydistillError as error:
        note = f"No time for phase 2, for want of its data: {error.message}"
        notes.extend([] if note in notes else [note])
        return None


def _text_tokens(case: _Case, preset: Preset, phase: Tuning) -> float:
    """Tokens of the lines of both texts, each line with two special tokens."""
    total = 0.0
    for found in case.counts.languages.values():
        lines = sum(text.lines for text in found.texts)
        mean = float(found.spaces[case.source.vocabulary.spaces[0].name].sum()) / max(1, lines) + 2
        total += min(lines, preset.examples or lines) * min(mean, phase.max_length)
    return total


def _labelled_tokens(config: PlanOptions, case: _Case, preset: Preset, phase: Tuning) -> float:
    """Tokens of the source language's labelled data, by the length of the first examples."""
    assert case.task is not None
    splits = _training(config, case.task, case.languages[0], preset.examples)
    examples = [example for split in splits for example in split.examples]
    features = _features(case, examples[:SAMPLE], phase.max_length)
    return sum(len(f["input_ids"]) for f in features) / min(len(examples), SAMPLE) * len(examples)


def _training(config: PlanOptions, wanted: Task, language: Language, limit: int | None) -> list[LabelledSplit]:
    return [
        load_split(wanted, language, name, data_dir=config.data_dir, limit=limit)
        for name in config.train_split or ("train",)
    ]


def _features(case: _Case, examples: Sequence[Any], length: int) -> list[Feature]:
    """Labelled inputs, windowed or cut as in training; no network is needed for them."""
    from polydistill.evaluation.heads import TaskModel
    from polydistill.evaluation.kinds import trainable_kind_of
    from polydistill.models.loading import load_config, load_tokenizer, longest_input

    assert case.task is not None
    tokenizer = load_tokenizer(case.folder / "student")
    shape = load_config(case.folder / "student")
    model = TaskModel(None, tokenizer, tuple(case.task.scored_labels), longest_input(tokenizer, shape, length))
    found: list[Feature] = trainable_kind_of(case.task).training_features(model, examples)
    return found
