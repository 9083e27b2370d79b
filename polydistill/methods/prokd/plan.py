"""What a distillation without target labels is to do, with everything that can be checked before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from polydistill.catalog import Language, Task, language, task
from polydistill.catalog.task import TAGGING
from polydistill.distill.matched import plan_like, same_vocabulary
from polydistill.distill.student import hidden_layers
from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation.heads import output_labels
from polydistill.labelled.examples import LabelledSplit
from polydistill.labelled.plain import PlainSentences, load_plain, read_plain
from polydistill.labelled.sources import load_split
from polydistill.models.folder import is_tagger
from polydistill.models.refs import DEFAULT_MODEL, ModelRef, resolve
from polydistill.models.source import Source
from polydistill.progress import Progress
from polydistill.records.record import RunRecord
from polydistill.trimming.plan import TrimPlan

if TYPE_CHECKING:
    from polydistill.methods.prokd.method import ProkdConfig

PROKD, TSL, SELFTRAIN, TRANSFER = "prokd", "tsl", "selftrain", "transfer"
METHODS = (PROKD, TSL, SELFTRAIN, TRANSFER)
NO_SCORE = "none"
OUTPUTS = Path("polydistill-out")


@dataclass(frozen=True)
class Preset:
    """How long and how fast teacher and student are trained.

    Attributes:
        teacher_epochs: Passes over the source's labelled sentences.
        epochs: Passes over the target's sentences.
        batch_size: Sentences a step; of each language where prototypes are aligned.
        length: Most tokens of an input.
        teacher_lr: Highest learning rate of the teacher.
        lr: Highest learning rate of the student.
        warmup: Share of the steps in which it rises.
        freeze_layers: Lowest layers that are not trained, word embeddings with them.
        limit: Most labelled sentences and most sentences without labels; None for all.
        dev_limit: Most dev sentences; None for all.
    """

    teacher_epochs: float
    epochs: float
    batch_size: int
    length: int
    teacher_lr: float
    lr: float
    warmup: float
    freeze_layers: int = 0
    limit: int | None = None
    dev_limit: int | None = None


PRESETS = {
    "smoke": Preset(1, 1, 16, 128, 2e-4, 1e-4, 0.1, limit=640, dev_limit=200),
    "small": Preset(2, 3, 16, 128, 2e-4, 5e-5, 0.1, dev_limit=1_000),
    # Wu et al. 2020, arXiv 2004.12440, section 4.2.
    "paper": Preset(3, 3, 32, 128, 5e-5, 1e-4, 0.1, freeze_layers=3),
}


def by_preset(name: str) -> str:
    """What a help text says of a default that presets differ in."""
    first, *others = dict.fromkeys(("small", *PRESETS))
    usual = getattr(PRESETS[first], name)
    different = [
        f"{other} {getattr(PRESETS[other], name):g}" for other in others if getattr(PRESETS[other], name) != usual
    ]
    return f"[default: {'; '.join([f'{usual:g}', *different])}]"


@dataclass(frozen=True)
class GivenTeacher:
    """A tuned model that the user has.

    Attributes:
        source: Its folder.
        cut: How it gets the student's vocabulary, where that was cut from its own.
    """

    source: Source
    cut: TrimPlan | None


@dataclass(frozen=True)
class Prepared:
    """A run that can begin.

    Attributes:
        sources: Languages with labels, the first one's teacher first.
        target: The language without.
        task: What is tagged.
        training: Code of a source -> its labelled splits.
        dev: Splits of the sources that choose checkpoints.
        plain: The target's sentences; None where nothing is taught with them.
        tests: (language, split) to score.
        model: What the student begins with, and the teacher where none is given; None for the teacher itself.
        teachers: Those given, one a source; none if they are to be made.
        preset: With what the command line says of it.
        teacher_epochs: Passes of each teacher; 0 for teachers that stay as they are given.
        layer: Of the teacher, whose hidden states are the features, counted from 1.
        output: Where the result goes.
    """

    sources: tuple[Language, ...]
    target: Language
    task: Task
    training: Mapping[str, tuple[LabelledSplit, ...]]
    dev: tuple[LabelledSplit, ...]
    plain: PlainSentences | None
    tests: tuple[tuple[Language, str], ...]
    model: Source | None
    teachers: tuple[GivenTeacher, ...]
    preset: Preset
    teacher_epochs: float
    layer: int
    output: Path

    @property
    def begins(self) -> Source:
        """What the teachers are tuned from, or the first that is given."""
        if self.teachers:
            return self.teachers[0].source
        assert self.model is not None
        return self.model


def prepare(config: ProkdConfig, progress: Progress) -> Prepared:
    """Looks at every option, file and folder that a run will need.

    Raises:
        PolydistillError: Something is missing or does not fit.
    """
    _check(config)
    chosen = _preset(config)
    sources, target = _languages(config)
    wanted = task(config.task, config.include_path)
    if wanted.kind != TAGGING or wanted.own:
        raise UsageError(
            f"Prototypes are of the classes of tags, and {wanted.name} has none.", "Choose a task such as --task ner."
        )
    model, teachers = _models(config, wanted, sources, target, progress)
    opened = [source for source in (*(t.source for t in teachers), model) if source]
    layers = hidden_layers(opened[0])
    if config.layer is not None and config.layer > layers:
        raise UsageError(f"--layer {config.layer} is too high.", f"The teacher has layers 1 to {layers}.")

    def load(lang: Language, split: str, limit: int | None) -> LabelledSplit:
        return load_split(wanted, lang, split, data_dir=config.data_dir, limit=limit, progress=progress)

    fewest = min(map(hidden_layers, opened))
    if chosen.freeze_layers > fewest:
        raise UsageError(f"--freeze-layers {chosen.freeze_layers} is too many.", f"A model here has {fewest} layers.")
    limit, splits = config.limit or chosen.limit, _splits(config, "train_split", "train", sources)
    training = {lang.code: tuple(load(lang, split, limit) for split in splits[lang.code]) for lang in sources}
    chosen_by, dev_limit = _splits(config, "dev_split", "dev", sources), config.limit or chosen.dev_limit
    tests = _tests(config, sources[0], target)
    for lang, split in tests:  # what is missing is said before anything is trained
        try:
            load_split(wanted, lang, split, data_dir=config.data_dir, limit=1)
        except UsageError as error:
            way_out = f"Without a test set: --test-split {lang.code}={NO_SCORE}."
            raise UsageError(str(error.message), f"{error.hint or ''} {way_out}".strip()) from error
    return Prepared(
        sources=sources,
        target=target,
        task=wanted,
        training=training,
        dev=tuple(load(lang, split, dev_limit) for lang in sources for split in chosen_by[lang.code][:1]),
        plain=None if config.method == TRANSFER else _plain(config, wanted, target, limit, progress),
        tests=tests,
        model=model,
        teachers=teachers,
        preset=chosen,
        teacher_epochs=0 if teachers and config.teacher_epochs is None else chosen.teacher_epochs,
        layer=config.layer or layers,
        output=(config.output or _default_output(config, sources, target)).expanduser(),
    )


def _check(config: ProkdConfig) -> None:
    config.check()
    if config.method == TRANSFER and config.sources:
        raise UsageError("Direct transfer has one teacher.", "Leave --sources out.")
    if config.teacher_epochs == 0 and not config.teacher:
        raise UsageError("A teacher that is made here needs --teacher-epochs above 0.", "Give it, or --teacher.")
    if config.method == TRANSFER and config.teacher and config.model:
        raise UsageError("Direct transfer keeps the teacher as it is.", "Leave --model out.")
    if config.features == "student" and config.layer and config.teacher and config.model:
        raise UsageError("--layer is the teacher's, and the student is another model.", "Leave --layer out.")
    if config.text and config.unlabelled_split:
        raise UsageError("--text and --unlabelled-split both say what the target's text is.", "Give one of them.")


def unused(config: ProkdConfig, todo: Prepared) -> dict[str, str]:
    """Name of an option that changes nothing in this run -> why."""
    trains, transfers = todo.teacher_epochs > 0, config.method == TRANSFER
    aligns = config.method == PROKD and trains and config.align_weight > 0
    labels = config.method in (PROKD, SELFTRAIN) and config.self_weight > 0
    rectifies = config.method == PROKD and config.rectify and labels
    groups = {
        "no teacher is aligned here": (
            ""
            if aligns
            else "align_symmetric align_confidence align_warmup"
            + ("" if config.method == PROKD and trains else " align_weight")  # 0 is what switches it off
        ),
        "neither labels nor weights go by a temperature of the alignment here": (
            "" if aligns or config.weigh == "similarity" else "align_temperature"
        ),
        "no prototype is a moving average here": (
            "" if aligns or (rectifies and config.features == "student") else "momentum"
        ),
        "no label is rectified here": ("" if rectifies else "rectify_temperature distance features"),
        "there are no pseudo-labels here": (
            ""
            if labels
            else "self_ramp pseudo_labels rectify" + ("" if config.method in (PROKD, SELFTRAIN) else " self_weight")
        ),
        "prototypes are not used here": ("rectify" if config.method == SELFTRAIN else ""),
        "there are no prototypes here": ("classes layer tokens" if transfers else ""),
        "no teacher is trained here": ("" if trains else "teacher_lr"),
        "there is one source": ("" if config.sources else "weigh"),
        "no student is trained here": ("epochs lr loss temperature dev_tolerance cache_gb" if transfers else ""),
        "no sentence of the target is read here": ("text unlabelled_split" if transfers else ""),
        "nothing is trained here": (
            "freeze_embeddings freeze_layers batch_size bf16 train_split dev_split" if transfers and not trains else ""
        ),
    }
    return {name: why for why, names in groups.items() for name in names.split()}


def idle_options(config: ProkdConfig, todo: Prepared) -> list[str]:
    """One sentence for each reason why options that were given change nothing in this run."""
    found = config.in_vain(unused(config, todo))
    if config.method == PROKD and config.teacher and not todo.teacher_epochs:
        found.append("The teacher stays as it is given, so its prototypes are not aligned; --teacher-epochs trains it.")
    return found


def _preset(config: ProkdConfig) -> Preset:
    names = ("teacher_epochs", "epochs", "batch_size", "length", "teacher_lr", "lr", "freeze_layers")
    given = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    return replace(PRESETS[config.preset], **given)


def _languages(config: ProkdConfig) -> tuple[tuple[Language, ...], Language]:
    sources = tuple(language(name, config.include_path) for name in (config.source, *config.sources))
    target = language(config.target, config.include_path)
    codes = [lang.code for lang in (*sources, target)]
    twice = next((lang for lang in (*sources, target) if codes.count(lang.code) > 1), None)
    if twice is not None:
        raise UsageError(
            f"{twice.name} is named twice among the sources and the target.",
            "Name each language once: labels are taken from the sources alone.",
        )
    return sources, target


def _models(
    config: ProkdConfig, wanted: Task, sources: Sequence[Language], target: Language, progress: Progress
) -> tuple[Source | None, tuple[GivenTeacher, ...]]:
    """(what the student begins with, teachers that are given)."""

    def open_source(name: str) -> Source:
        return Source.open(resolve(ModelRef.parse(name), progress=progress.note), config.include_path)

    if config.teacher and len(config.teacher) != len(sources):
        raise UsageError(
            f"There are {len(sources)} source languages and {len(config.teacher)} teachers.",
            "Give --teacher once for each source, in their order, or not at all.",
        )
    given = [open_source(name) for name in config.teacher]
    for teacher in given:
        _check_teacher(config, wanted, teacher, given[0])
    model = open_source(config.model or DEFAULT_MODEL) if config.model or not given else None
    for source in (*given, *([model] if model else [])):
        _check_unlabelled(source, target)
    like = model or given[0]
    found = []
    for teacher in given:
        alike = same_vocabulary(teacher.folder, like.folder)
        cut = None if alike else plan_like(teacher, like, (*sources, target))
        if not alike and cut is None:
            raise PolydistillError(
                f"The vocabularies of {like.resolved.ref} and the teacher {teacher.resolved.ref} differ, so that their "
                "outputs cannot be compared.",
                "Give a teacher that was tuned from the same model, with the same vocabulary or a larger one.",
            )
        found.append(GivenTeacher(teacher, cut))
    return model, tuple(found)


def _check_unlabelled(source: Source, target: Language) -> None:
    """Refuses a model in whose making labels of the target were read.

    Raises:
        PolydistillError: It is such a one.
    """
    record = RunRecord.load(source.folder)
    for step in record.lineage() if record else ():
        result = step.get("result") or {}
        read = result.get("sources" if step.get("command") == "prokd" else "languages") or ()
        if step.get("command") in ("finetune", "prokd") and target.code in read:
            raise PolydistillError(
                f"{source.resolved.ref} was tuned on labels of {target.name}, which is to have none here.",
                "Give one that knows labels of the sources alone; `polydistill finetune` learns from the target's.",
            )


def _check_teacher(config: ProkdConfig, wanted: Task, teacher: Source, first: Source) -> None:
    """Refuses a teacher that knows no tags, or other ones, or is not built as the first one is.

    Raises:
        PolydistillError: It is such a one.
    """
    name = teacher.resolved.ref
    if is_tagger(teacher.folder):
        labels = teacher.config.get("id2label") or {}
        output_labels([labels[i] for i in sorted(labels, key=int)], TAGGING, wanted.labels, wanted.not_scored, name)
    elif not config.teacher_epochs:
        raise PolydistillError(
            f"{name} has no head for tags, so it is no teacher yet.",
            "Give --model in place of --teacher, or --teacher-epochs to train it here.",
        )
    if (teacher.arch.model_type, hidden_layers(teacher)) != (first.arch.model_type, hidden_layers(first)):
        raise PolydistillError(
            f"The teachers {first.resolved.ref} and {name} are not built alike.",
            "Give teachers that were tuned from one model.",
        )


def _plain(
    config: ProkdConfig, wanted: Task, target: Language, limit: int | None, progress: Progress
) -> PlainSentences:
    if config.text:
        return read_plain(target, config.text, limit=limit)
    split = config.unlabelled_split or "train"
    return load_plain(wanted, target, split, data_dir=config.data_dir, limit=limit, progress=progress)


def _splits(config: ProkdConfig, option: str, usual: str, sources: Sequence[Language]) -> dict[str, tuple[str, ...]]:
    """Code of a source -> the splits that are named for it, else those named for all of them.

    Raises:
        UsageError: A split is for a language that is no source, or there are several to choose by.
    """
    found: dict[str, list[str]] = {lang.code: [] for lang in sources}
    everywhere = [given for given in getattr(config, option) if "=" not in given]
    for given in getattr(config, option):
        code, equals, split = given.partition("=")
        if equals:
            code = language(code, config.include_path).code
            if code not in found or not split:
                raise UsageError(
                    f"--{option.replace('_', '-')} {given} is for none of the sources.",
                    f"Write {sources[0].code}=NAME, or NAME alone for all of them.",
                )
            found[code].append(split)
    chosen = {code: tuple(splits or everywhere or [usual]) for code, splits in found.items()}
    if option == "dev_split" and any(len(splits) > 1 for splits in chosen.values()):
        raise UsageError("Checkpoints are chosen by one dev split of each source.", "Give --dev-split once for each.")
    return chosen


def _tests(config: ProkdConfig, source: Language, target: Language) -> tuple[tuple[Language, str], ...]:
    names = {source.code: "test", target.code: "test"}
    for given in config.test_split:
        code, equals, split = given.partition("=")
        code = language(code, config.include_path).code if equals and split else ""
        if code not in names:
            raise UsageError(
                f"--test-split {given} is for neither {source.code} nor {target.code}.",
                f"Write --test-split {target.code}=test.",
            )
        names[code] = split
    return tuple((lang, names[lang.code]) for lang in (source, target) if names[lang.code] != NO_SCORE)


def _default_output(config: ProkdConfig, sources: Sequence[Language], target: Language) -> Path:
    name = Path((config.model or (config.teacher or (DEFAULT_MODEL,))[0]).partition("@")[0]).name
    return OUTPUTS / "-".join([name, *(lang.code for lang in sources), target.code, config.task, config.method])
