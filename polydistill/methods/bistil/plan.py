"""What a bilingual distillation is to do, with everything that can be checked before it begins."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydistill.catalog import Language, Task, language, task
from polydistill.catalog.task import CLASSIFICATION, RETRIEVAL, SPAN_EXTRACTION, TAGGING, WORD_TAGGING
from polydistill.distill.listing import parse_weights
from polydistill.distill.matched import plan_like, same_vocabulary
from polydistill.distill.student import check_masked, chosen_layers, hidden_layers, layer_count, layer_pairs
from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation.heads import AUTO_CLASSES, output_labels
from polydistill.files.inside import inside
from polydistill.methods.bistil.data import Labelled, labelled_data, per_language
from polydistill.methods.bistil.presets import PRESETS, General, Preset, Tuning
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.folder import is_stack
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.options.settings import MOST
from polydistill.processes import several
from polydistill.progress import Progress
from polydistill.records.record import NAME as RECORD
from polydistill.records.record import RunRecord
from polydistill.texts.sources import TextSource, assign_corpora, text_sources
from polydistill.training.batching import check_parts
from polydistill.trimming.plan import TrimPlan

if TYPE_CHECKING:
    from polydistill.distill.objectives.base import LayerPairs
    from polydistill.methods.bistil.method import BistilConfig

WITH_HEAD = (CLASSIFICATION, TAGGING, WORD_TAGGING, SPAN_EXTRACTION)
EMBEDDING, BITEXT = "embedding", "bitext"
OUTPUTS = Path("polydistill-out")
LINES = 20_000
SELECT = LOYALTY, SCORE = "loyalty", "score"  # what can choose a checkpoint of phase 2
HEAD_OBJECTIVES = {"logits", "labels"}  # what a teacher with another vocabulary can be asked for, or none


@dataclass(frozen=True)
class GivenTeacher:
    """A tuned model that the user has.

    Attributes:
        source: Its folder.
        weight: Of its logits among those of several.
        aligned: Whether its vocabulary is another one, so that its logits are compared word by word, or
            example by example.
        cut: How it gets the vocabulary of a student that was given, where that was cut from its own.
    """

    source: Source
    weight: float
    aligned: bool
    cut: TrimPlan | None


@dataclass(frozen=True)
class Prepared:
    """Everything that is decided before a stage begins.

    Attributes:
        languages: Source and target.
        source: The multilingual model, or the student that is gone on with.
        student_given: Whether it is such a student, whose vocabulary and layers stay.
        layers: The teacher's layers that the student begins with, or began with.
        pairs: (student's, teacher's) layers that are compared.
        general: Phase 1, None if it is left out.
        tuning: Phase 2, None if it is left out.
        density: Share of the base model that the sparse stage trains.
        scale: See `distill.objectives.build.Options`.
        relation_layers: (student's, teacher's) layer of `relations`, None for the last ones.
        by_loyalty: Whether loyalty to the first teacher chooses phase 2's checkpoints, in place of the task's metric.
        task: What phase 2 is about; for vectors of sentences, the retrieval that scores them.
        teachers: Tuned models; empty to make one.
        texts: Language -> its text; empty where no phase reads any.
        labelled: None without labels.
        limit: Most labelled examples of a split, None for all.
        dev_limit: Of the dev split.
        lines: Most lines of each text, for vectors.
        language_sft: Language -> folder of a sparse fine-tuning.
        output: The folder to write.
    """

    languages: tuple[Language, Language]
    source: Source
    student_given: bool
    layers: tuple[int, ...]
    pairs: LayerPairs
    general: General | None
    tuning: Tuning | None
    density: float
    scale: str
    relation_layers: tuple[int, int] | None
    by_loyalty: bool
    task: Task | None
    teachers: tuple[GivenTeacher, ...]
    texts: Mapping[str, Sequence[TextSource]]
    labelled: Labelled | None
    limit: int | None
    dev_limit: int | None
    lines: int
    language_sft: Mapping[str, Path]
    output: Path

    @property
    def vectors(self) -> bool:
        """Whether phase 2 is about vectors of sentences."""
        return self.task is not None and self.task.kind == RETRIEVAL

    @property
    def codes(self) -> tuple[str, str]:
        """Codes of both languages."""
        return self.languages[0].code, self.languages[1].code


def prepare(config: BistilConfig, progress: Progress) -> Prepared:
    """Looks at every option, file and folder that a run will need.

    Raises:
        PolydistillError: Something is missing or does not fit.
    """
    languages = both_languages(config.source, config.target, config.include_path)
    config.check()
    defaults = PRESETS[config.preset]
    wanted = _task(config)
    source = Source.open(resolve(ModelRef.parse(config.model), progress=progress.note), config.include_path)
    check_masked(source, "A student of `polydistill bistil`")
    given = _is_student(source)
    general, tuning = _phases(config, defaults, wanted)
    dev_limit = config.dev_limit or config.limit or defaults.dev_examples
    labelled = None
    if tuning and wanted:
        wanted, labelled = labelled_data(
            config, wanted, languages, examples=defaults.examples, dev_limit=dev_limit, progress=progress
        )
    if given and tuning is None:
        raise UsageError(
            f"{config.model} is a student that phase 1 has made already.",
            "Add --task for phase 2, or give the model that it was made of.",
        )
    general = None if given else general
    teachers = _teachers(config, source, given, wanted, languages, progress)
    if tuning and teachers and all(t.aligned for t in teachers) and set(tuning.objectives) - HEAD_OBJECTIVES:
        raise PolydistillError(
            "No teacher has the student's vocabulary, so that only logits of words or examples can be compared.",
            "Ask for these alone: --objective 2:logits=1.",
        )
    layers = _layers(config, source, given)
    alike = [teacher.source for teacher in teachers if not teacher.aligned]
    depth = _depth(source, given, layers, alike, config.include_path)
    if general:
        _check_length(source, general.length)
    return Prepared(
        languages=languages,
        source=source,
        student_given=given,
        layers=layers,
        pairs=layer_pairs(layers, depth),
        general=general,
        tuning=tuning,
        density=config.density if config.density is not None else defaults.density,
        scale=config.scale or defaults.scale,
        relation_layers=_relation_layers(config, len(layers), depth),
        by_loyalty=_by_loyalty(config, wanted, tuning),
        task=wanted if tuning else None,
        teachers=teachers,
        texts=_texts(config, languages, general, tuning, wanted, given, progress),
        labelled=labelled,
        limit=config.limit or defaults.examples,
        dev_limit=dev_limit,
        lines=config.limit or defaults.examples or LINES,
        language_sft=per_language(config.language_sft, languages, "--language-sft", config),
        output=(config.output or _default_output(config, source, languages)).expanduser(),
    )


def idle_options(config: BistilConfig, todo: Prepared) -> list[str]:
    """One sentence for each reason why options that were given change nothing in this run."""
    tuning, labels = todo.tuning, todo.tuning is not None and not todo.vectors
    asked = {*(todo.general.objectives if todo.general else ()), *(tuning.objectives if tuning else ())}
    groups = {
        "the model is a student already": (
            "init vocab_size min_share allow_unknown" + ("" if todo.texts else " text") if todo.student_given else ""
        ),
        "there is no phase 1 here": ("" if todo.general else "steps batch_size length lr warmup language_sft"),
        "there is no phase 2 here": (
            ""
            if tuning
            else "task_epochs task_sparse_epochs task_batch_size task_length task_lr task_warmup density "
            "teacher_epochs teacher_lr train_split dev_split test_split dev_limit limit data_dir cache_gb "
            "data dev_data test_data"
        ),
        "vectors of sentences are learnt from text alone": ("train_split dev_split dev_limit" if todo.vectors else ""),
        "the teacher is not made here": ("" if labels and not todo.teachers else "teacher_epochs teacher_lr"),
        "there is no sparse stage here": ("density" if tuning and not tuning.sparse_epochs else ""),
        "logits are not an objective here": ("" if "logits" in asked else "temperature squared_temperature logit_form"),
        "relations are not an objective here": ("" if "relations" in asked else "relation_heads relation_layers"),
        "--vocab-size says how many tokens are kept": ("min_share" if config.vocab_size else ""),
    }
    why_not: dict[str, str] = {}
    for why, names in groups.items():
        for name in names.split():
            why_not.setdefault(name, why)
    found = config.in_vain(why_not)
    for number, phase in ((1, todo.general), (2, tuning)):
        if phase is None and any(given.replace(" ", "").startswith(f"{number}:") for given in config.objective):
            found.append(f"--objective {number}:... changes nothing: there is no phase {number} here.")
    return found


def both_languages(source: str, target: str, include: Sequence[Path]) -> tuple[Language, Language]:
    """Source and target.

    Raises:
        UsageError: One is unknown, or they are the same.
    """
    found = language(source, include), language(target, include)
    if found[0].code == found[1].code:
        raise UsageError(
            f"Source and target are the same language, {found[0].name}.",
            f"Name two languages, or trim the model to one: `polydistill trim --lang {found[0].code}`.",
        )
    return found


def _task(config: BistilConfig) -> Task | None:
    if config.task:
        return task_of(config.task, config.include_path)
    if config.phase == "2" or config.teacher:
        raise UsageError("Phase 2 needs a task.", "Add --task, for instance --task ner.")
    return None


def task_of(name: str, include: Sequence[Path]) -> Task:
    """What `--task` asks for; for vectors of sentences, the retrieval that scores them.

    Raises:
        UsageError: It is unknown, or has no labels to distil.
    """
    wanted = task(BITEXT if name == EMBEDDING else name, include)
    if wanted.kind not in WITH_HEAD and name != EMBEDDING:
        raise UsageError(
            f"Tasks of the kind {wanted.kind}, such as {wanted.name}, have no labels to distil.",
            "Choose ner, nli, qa, or `--task embedding` for vectors of sentences.",
        )
    return wanted


def _is_student(source: Source) -> bool:
    """Whether a model was made by phase 1."""
    record = RunRecord.load(source.folder)
    return record is not None and record.command == "bistil" and not record.result.get("task")


def own_teacher(source: Source) -> Path:
    """What teaches where no teacher is given: the model itself, or that which a student was made of."""
    if not _is_student(source):
        return source.folder
    return inside(source.folder, "stages/vocabulary/teacher", source.folder / RECORD)


def _depth(
    source: Source, given: bool, layers: Sequence[int], teachers: Sequence[Source], include: Sequence[Path]
) -> int:
    """The layers of the teachers whose hidden states are compared with the student's.

    Raises:
        PolydistillError: They have different numbers of them, or fewer than the student was made of.
    """
    if given:
        own = own_teacher(source)
        whole = [Source.open(resolve(ModelRef.parse(str(own))), include)] if own.is_dir() else []
        depth = hidden_layers([*whole, *teachers][0]) if whole or teachers else max(layers) + 1
    else:
        depth = layer_count(source)
    for teacher in teachers:
        if hidden_layers(teacher) != depth or depth <= max(layers):
            raise PolydistillError(
                f"The teacher {teacher.resolved.ref} has {hidden_layers(teacher)} layers, and the model that the "
                f"student was made of has {max(depth, max(layers) + 1)}.",
                "Give a teacher that was tuned from that model.",
            )
    return depth


def _check_length(source: Source, length: int) -> None:
    """Refuses blocks that are longer than the model's inputs.

    Raises:
        UsageError: They are.
    """
    from polydistill.models.loading import load_config, positions_of

    longest = positions_of(load_config(source.model))
    if length > longest:
        raise UsageError(f"The model takes {longest} tokens at most.", f"Give --length {longest} or less.")


def _phases(config: BistilConfig, defaults: Preset, wanted: Task | None) -> tuple[General | None, Tuning | None]:
    """Both phases with what the command line says of them."""
    general = tuning = None
    if config.phase != "2":
        weights = parse_weights(config.objective, 1) or dict(defaults.general.objectives)
        general = _given(
            defaults.general,
            weights,
            {
                "steps": config.steps,
                "batch_size": config.batch_size,
                "length": config.length,
                "lr": config.lr,
                "warmup": config.warmup,
            },
        )
    if wanted and config.phase != "1":
        chosen = defaults.tuning[wanted.kind]
        weights = parse_weights(config.objective, 2) or dict(chosen.objectives)
        tuning = _given(
            chosen,
            weights,
            {
                "epochs": config.task_epochs,
                "sparse_epochs": config.task_sparse_epochs,
                "length": config.task_length,
                "batch_size": config.task_batch_size,
                "lr": config.task_lr,
                "warmup": config.task_warmup,
                "teacher_epochs": config.teacher_epochs,
                "teacher_lr": config.teacher_lr,
            },
        )
        headless = sorted(HEAD_OBJECTIVES & set(weights))
        if wanted.kind == RETRIEVAL and headless:
            raise UsageError(
                f"The objective {headless[0]} needs a head, and vectors of sentences have none.",
                "Choose others, such as --objective 2:pooled=1.",
            )
    for phase in (general, tuning):
        if phase:
            check_parts(phase.batch_size, config.accumulate * int(os.environ.get("WORLD_SIZE", "1")))
    return general, tuning


def _by_loyalty(config: BistilConfig, wanted: Task | None, tuning: Tuning | None) -> bool:
    if tuning and wanted and wanted.kind != RETRIEVAL:
        return config.select == LOYALTY if config.select else "logits" in tuning.objectives
    if config.select:
        raise UsageError("--select is about the dev data of phase 2, and there is none here.", "Leave it out.")
    return False


def _given(phase: Any, weights: Mapping[str, float], values: Mapping[str, float | None]) -> Any:
    """A preset's phase with the values that were given."""
    return replace(phase, objectives=weights, **{k: v for k, v in values.items() if v is not None})


def _layers(config: BistilConfig, source: Source, given: bool) -> tuple[int, ...]:
    total = layer_count(source)
    if not given:
        return chosen_layers(total, layers=config.layers, reduction=config.reduction, init=config.init)
    if config.layers not in (None, total) or config.reduction is not None:
        raise UsageError(
            f"{config.model} is a student with {total} layers already.", "Leave --layers and --reduction out."
        )
    record = RunRecord.load(source.folder)
    assert record is not None
    return tuple(record.result["layers"])


def _relation_layers(config: BistilConfig, student: int, teacher: int) -> tuple[int, int] | None:
    if config.relation_layers is None:
        return None
    found = re.fullmatch(r"(\d{1,9}),(\d{1,9})", config.relation_layers.replace(" ", ""))
    if not found or int(found[1]) >= student or int(found[2]) >= teacher:
        raise UsageError(
            f"--relation-layers {config.relation_layers} does not name two layers.",
            f"Write the student's (0 to {student - 1}) and the teacher's (0 to {teacher - 1}), such as "
            f"{student - 1},{teacher - 1}.",
        )
    return int(found[1]), int(found[2])


def _teachers(
    config: BistilConfig,
    source: Source,
    student_given: bool,
    wanted: Task | None,
    languages: Sequence[Language],
    progress: Progress,
) -> tuple[GivenTeacher, ...]:
    vectors = wanted is not None and wanted.kind == RETRIEVAL
    if student_given and wanted and not config.teacher and not own_teacher(source).is_dir():
        raise UsageError(
            f"{config.model} is a student already, and what it was made of does not lie in its stages.",
            "Give a teacher that was tuned from the same model with --teacher.",
        )
    if vectors and len(config.teacher) > 1:
        raise UsageError("Vectors of sentences have one teacher.", "Give --teacher once.")
    if several() and wanted and not vectors and config.phase != "1" and not config.teacher:
        raise UsageError(
            "With several processes the task's teacher has to be there already.",
            "Make it with `polydistill finetune`, then give it with --teacher.",
        )
    found = []
    for given in config.teacher:
        name, weight = _weighted(given)
        resolved = resolve(ModelRef.parse(name), progress=progress.note)
        stacked = is_stack(resolved.folder)
        if stacked:  # what it says of a text is read; nothing else of it is looked at
            teacher = Source(resolved, resolved.folder, resolved.folder, source.arch, Checkpoint.open(resolved.folder))
            alike = False
        else:
            teacher = Source.open(resolved, config.include_path)
            alike = same_vocabulary(source.folder, teacher.folder)
            if wanted is not None and not vectors:
                check_head(teacher, wanted)
        cut = plan_like(teacher, source, languages) if student_given and not alike and not stacked else None
        aligned = not alike and cut is None
        if aligned and (wanted is None or wanted.kind not in (TAGGING, WORD_TAGGING, CLASSIFICATION)):
            raise PolydistillError(
                f"The vocabularies of {config.model} and the teacher {name} differ, so that their outputs cannot be "
                "compared.",
                "Give a teacher that was tuned from the same model; for tags and classes another one will do.",
            )
        found.append(GivenTeacher(teacher, weight, aligned, cut))
    return tuple(found)


def check_head(teacher: Source, wanted: Task) -> None:
    """Refuses a teacher without the task's head, or whose labels are not the task's.

    Raises:
        PolydistillError: It is such a one.
    """
    name, labels = teacher.resolved.ref, teacher.config.get("id2label") or {}
    classes = teacher.config.get("architectures") or []
    if not any(found.endswith(AUTO_CLASSES[wanted.kind].removeprefix("AutoModel")) for found in classes):
        raise PolydistillError(
            f"{name} has no head for {wanted.name}, so it is no teacher.",
            f"Tune it with `polydistill finetune --task {wanted.name}`, or leave --teacher out.",
        )
    if wanted.labels:
        output_labels([labels[i] for i in sorted(labels, key=int)], wanted.kind, wanted.labels, wanted.not_scored, name)


def _weighted(given: str) -> tuple[str, float]:
    """FOLDER=WEIGHT, or FOLDER alone."""
    name, equals, number = given.rpartition("=")
    try:
        weight = float(number) if equals else 1.0
    except ValueError:  # a folder with an equals sign in its name
        return given, 1.0
    if not 0 < weight <= MOST:
        raise UsageError(f"--teacher {given} has a weight that makes no sense.", "Write FOLDER=2.")
    return (name if equals else given), weight


def _texts(
    config: BistilConfig,
    languages: Sequence[Language],
    general: General | None,
    tuning: Tuning | None,
    wanted: Task | None,
    given: bool,
    progress: Progress,
) -> dict[str, list[TextSource]]:
    """The text of both languages, where a phase or the vocabulary needs it."""
    vectors = tuning is not None and wanted is not None and wanted.kind == RETRIEVAL
    if given and general is None and not vectors:
        return {}
    assigned = assign_corpora(languages, config.text, "text")
    texts = {lang.code: text_sources(lang, assigned[lang.code], option="text") for lang in languages}
    for lang in languages:
        if any(text.kind == "wordlist" for text in texts[lang.code]):
            raise PolydistillError(
                f"There is no running text for {lang.name}, and a word list is none.",
                f"Give some with --text {lang.code}=PATH.",
            )
    return texts


def _default_output(config: BistilConfig, source: Source, languages: Sequence[Language]) -> Path:
    codes = [] if _is_student(source) else [lang.code for lang in languages]  # its name has them
    parts = [Path(config.model.partition("@")[0]).name, *codes, *filter(None, [config.task])]
    return OUTPUTS / "-".join(parts)
