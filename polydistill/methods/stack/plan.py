"""What a stacking is to do, with everything that can be checked before it begins."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from polydistill.catalog import Language, Task, arch, language, resolve_languages, task
from polydistill.catalog.task import CLASSIFICATION
from polydistill.errors import PolydistillError, UsageError
from polydistill.labelled.custom import settled
from polydistill.labelled.examples import LabelledSplit
from polydistill.labelled.sources import load_split
from polydistill.models.folder import is_stack, model_folder, model_type
from polydistill.models.refs import ModelRef, ResolvedModel, resolve
from polydistill.progress import Progress
from polydistill.records.record import text_hash
from polydistill.stacks.description import Description, Parent, check_parent
from polydistill.stacks.reading import Reader, find_code
from polydistill.texts.sources import TextSource, read_texts, text_sources

if TYPE_CHECKING:
    from polydistill.methods.stack.method import StackConfig

ENGLISH = "en"
LEAST_SQUARES, RANDOM, LINEAR = "least-squares", "random", "linear"
OUTPUTS = Path("polydistill-out")
FEWEST = 20  # examples that a linear map is fitted on; some are held out
MOST_LINES = 5_000_000  # of a text that are looked at
LEAST_WARMUP = 45  # steps in which stage 1's rate rises: where it rises faster, all vectors may become the same
MOST_WARMUP = 0.25  # of the steps of a short run


@dataclass(frozen=True)
class Preset:
    """How long and how fast a stack is trained.

    Attributes:
        steps: Of stage 1.
        batch_size: Texts a step of stage 1.
        length: Most tokens of a text.
        lr: Highest learning rate of stage 1.
        warmup: Share of its steps in which it rises; more where that is less than `LEAST_WARMUP` steps.
        checks: Looks at held-out text in stage 1.
        dev_lines: Texts held out.
        fit_lines: Texts that the projection is fitted on before stage 1.
        teacher_epochs: Passes over the task's examples in which the LLM learns it.
        task_epochs: Passes over them in stage 2.
        task_batch: Examples a step of both.
        task_length: Most tokens of a pair of texts.
        teacher_lr: Highest learning rate of the LLM on the task.
        task_lr: Highest learning rate of stage 2.
        task_warmup: Share of the steps of both in which it rises.
        examples: Most labelled examples; None for all.
        dev_examples: Most dev examples; None for all.
    """

    steps: int
    batch_size: int
    length: int
    lr: float
    warmup: float
    checks: int
    dev_lines: int
    fit_lines: int
    teacher_epochs: float
    task_epochs: float
    task_batch: int
    task_length: int
    teacher_lr: float
    task_lr: float
    task_warmup: float = 0.1
    examples: int | None = None
    dev_examples: int | None = None


PRESETS = {
    "smoke": Preset(60, 16, 64, 1e-3, 0.03, 2, 200, 1_000, 1, 1, 16, 64, 5e-4, 1e-3, examples=640, dev_examples=200),
    "small": Preset(1_500, 32, 64, 2e-3, 0.03, 4, 1_000, 12_000, 2, 2, 16, 128, 5e-4, 3e-4, dev_examples=1_000),
    # Schmidt et al. 2024, arXiv 2406.12739; the projection is not fitted there.
    "paper": Preset(10_000, 256, 512, 2e-4, 0.01, 10, 2_000, 20_000, 3, 3, 32, 256, 1e-4, 2e-4),
}
PRESET_OPTIONS = (
    "steps",
    "batch_size",
    "length",
    "lr",
    "fit_lines",
    "teacher_epochs",
    "task_epochs",
    "task_batch",
    "task_length",
    "teacher_lr",
    "task_lr",
)


@dataclass(frozen=True)
class Prepared:
    """A run that can begin.

    Attributes:
        encoder: What reads.
        llm: What is stacked on.
        begin: Stack of stage 1 to go on from; None to make it here.
        teacher: The LLM alone, tuned for the task, where one is given.
        stages: Those that are run, 1 or 2 or both.
        english: The language of all training.
        texts: Where the text of stage 1 is; empty where there is no stage 1.
        task: What stage 2 learns; None for vectors alone.
        training: Its labelled splits.
        dev: The split that chooses checkpoints.
        tests: Languages to score in.
        preset: With what the command line says of it.
        output: Where the result goes.
    """

    encoder: ResolvedModel
    llm: ResolvedModel
    begin: Path | None
    teacher: Path | None
    stages: tuple[int, ...]
    english: Language
    texts: tuple[TextSource, ...]
    task: Task | None
    training: tuple[LabelledSplit, ...]
    dev: LabelledSplit | None
    tests: tuple[Language, ...]
    preset: Preset
    output: Path

    def parents(self, config: StackConfig) -> tuple[Parent, Parent]:
        """Encoder and LLM as a stack's folder names them."""
        return Parent.of(self.encoder, config.frozen), Parent.of(self.llm, config.frozen)


def prepare(config: StackConfig, progress: Progress) -> Prepared:
    """Looks at every option, file and folder that a run will need.

    Raises:
        PolydistillError: Something is missing or does not fit.
    """
    _check(config)
    chosen = _preset(config)
    stages = {"1": (1,), "2": (2,), "all": (1, 2)}[config.stage]
    if not config.task and config.stage == "all":
        stages = (1,)
    if config.stack or (config.baseline == LINEAR and config.task):  # one map, to the vectors that are asked for
        stages = (2,)
    english = language(ENGLISH, config.include_path)
    encoder, llm = (resolve(ModelRef.parse(name), progress=progress.note) for name in (config.encoder, config.llm))
    for role, found in (("encoder", encoder), ("LLM", llm)):
        _check_part(role, found, config)
    wanted, training, dev, tests = _labelled(config, chosen, english, progress) if 2 in stages else (None, (), None, ())
    if wanted and config.baseline == LINEAR and (count := sum(len(s.examples) for s in training)) < FEWEST:
        raise UsageError(
            f"{count} labelled examples are too few to fit a map on.", f"Give {FEWEST} or more with --limit."
        )
    begin, teacher = _given(config, encoder, llm, wanted)
    codes = Reader.open(model_folder(encoder.folder), None).codes
    for lang in (english, *tests) if codes else ():
        find_code(codes, lang, config.include_path)
    needs_text = 1 in stages or (config.init == LEAST_SQUARES and begin is None and config.baseline != LINEAR)
    texts = tuple(text_sources(english, config.text, option="text")) if needs_text else ()
    if any(text.kind == "wordlist" for text in texts):
        raise UsageError("There is no English text to learn from.", "Give some: --text english.txt")
    return Prepared(
        encoder,
        llm,
        begin,
        teacher,
        stages,
        english,
        texts,
        wanted,
        training,
        dev,
        tests,
        chosen,
        (config.output or _default_output(config, encoder, llm)).expanduser(),
    )


def _check(config: StackConfig) -> None:
    config.check()
    if config.stage != "1" and not config.task and (config.stage == "2" or config.stack or config.teacher):
        raise UsageError("Stage 2 learns a task.", "Add --task, such as --task nli.")
    if config.stage == "1" and (config.stack or config.teacher):
        raise UsageError("--stack and --teacher are for stage 2.", "Leave them out, or --stage 1.")
    if config.stage == "1" and config.task:
        raise UsageError("Stage 1 learns no task.", "Leave --task out, or --stage 1.")
    if config.baseline == LINEAR and config.stack:
        raise UsageError("A linear map has no stage 1 to go on from.", "Leave --stack out.")


def idle_options(config: StackConfig, todo: Prepared) -> list[str]:
    """One sentence for each group of options that were given and change nothing in this run."""
    linear = config.baseline == LINEAR
    lora = "lora_r lora_alpha lora_dropout" if todo.teacher or 2 not in todo.stages else ""  # else the teacher's
    groups = {
        "nothing is trained in stage 1 here": ("steps batch_size lr" if 1 not in todo.stages else ""),
        "no text is read here": ("" if todo.texts else "text length fit_lines"),
        "there is no stage 2 here": (
            ""
            if 2 in todo.stages
            else "task_epochs task_batch task_length task_lr teacher_epochs teacher_lr lang limit train_split "
            "dev_split test_split data_dir"
        ),
        "the teacher is given": ("teacher_epochs teacher_lr" if todo.teacher else ""),
        "the stack has a projection and LoRA of its own": (f"init {lora}" if todo.begin else ""),
        "a linear map has neither LoRA nor steps": (f"init lr task_lr task_epochs fit_lines {lora}" if linear else ""),
        "nothing is trained here": ("task_batch checkpointing max_minutes" if linear and lora else ""),
        "a random projection is not fitted": ("fit_lines" if config.init == RANDOM and todo.texts else ""),
    }
    return config.in_vain({name: why for why, names in groups.items() for name in names.split()})


def _preset(config: StackConfig) -> Preset:
    given = {name: getattr(config, name) for name in PRESET_OPTIONS if getattr(config, name) is not None}
    chosen = replace(PRESETS[config.preset], **given)
    return replace(chosen, warmup=max(chosen.warmup, min(LEAST_WARMUP / chosen.steps, MOST_WARMUP)))


def _check_part(role: str, found: ResolvedModel, config: StackConfig) -> None:
    """Refuses what cannot be part of a stack by its kind alone; the rest is seen when it is loaded.

    Raises:
        PolydistillError: It is a stack, or of an architecture that the catalogue does not allow there.
    """
    if is_stack(found.folder):
        raise UsageError(
            f"{found.ref} is a stack, and an {role} was expected.", "Give its own models; --stack goes on from a stack."
        )
    name = model_type(found.folder)
    if "stack" not in arch(name, config.include_path).supports:
        raise PolydistillError(
            f"{found.ref} is a {name} model, which cannot be stacked.", "See `polydistill ls architectures`."
        )


def _given(
    config: StackConfig, encoder: ResolvedModel, llm: ResolvedModel, wanted: Task | None
) -> tuple[Path | None, Path | None]:
    """(stack to go on from, tuned LLM), after a look at whether they are of these models and this task.

    Raises:
        PolydistillError: One is no stack, stands on other models, or was made for something else.
    """
    found: list[Path | None] = []
    for option, roles in (("stack", {"encoder", "llm"}), ("teacher", {"llm"})):
        name = getattr(config, option)
        if name is None:
            found.append(None)
            continue
        place = Path(name).expanduser()
        description = Description.read(place)
        if set(description.parts) != roles or description.whole:
            what = (
                "an LLM alone that was tuned here" if option == "teacher" else "a stack with references to both models"
            )
            raise UsageError(f"--{option} {name} is not {what}.", "Give a folder below stages/ of an earlier run.")
        for role, model in (("encoder", encoder), ("llm", llm)):
            if role in roles:
                kind = "LLM" if role == "llm" else role
                other = f"the {kind} that --{option} {name} was made with"
                check_parent(model.folder, description.parts[role], f"The {kind} {model.ref}", other)
        if description.pooling != config.pooling:
            raise UsageError(
                f"--{option} {name} was made with --pooling {description.pooling}.", "Say so too, or make another."
            )
        if option == "teacher":
            _check_taught(name, description, wanted)
        found.append(place)
    return found[0], found[1]


def _check_taught(name: str, description: Description, wanted: Task | None) -> None:
    """Refuses an LLM that has learnt nothing, or another task.

    Raises:
        UsageError: It has.
    """
    assert wanted is not None
    if not description.labels:
        raise UsageError(f"--teacher {name} has learnt no task.", "Leave it out: the LLM is tuned here.")
    if (description.task, sorted(description.labels)) != (wanted.name, sorted(wanted.scored_labels)):
        raise UsageError(
            f"--teacher {name} has learnt {description.task} ({', '.join(description.labels)}), not {wanted.name} "
            f"({', '.join(wanted.scored_labels)}).",
            "Leave it out: the LLM is tuned here.",
        )


def _labelled(
    config: StackConfig, chosen: Preset, english: Language, progress: Progress
) -> tuple[Task, tuple[LabelledSplit, ...], LabelledSplit, tuple[Language, ...]]:
    """(task, training splits, dev split, languages to score in)."""
    wanted = task(config.task, config.include_path)
    if wanted.kind != CLASSIFICATION:
        raise UsageError(
            f"A stack gives one vector a text, and {wanted.name} needs more.",
            "Choose a task that classifies texts: nli, sib200.",
        )

    def load(wanted: Task, split: str, limit: int | None) -> LabelledSplit:
        return load_split(wanted, english, split, data_dir=config.data_dir, limit=limit, progress=progress)

    limit = config.limit or chosen.examples
    training = tuple(load(wanted, split, limit) for split in config.train_split or ("train",))
    wanted = settled(wanted, training, progress) if wanted.own else wanted
    dev = load(wanted, config.dev_split, config.limit or chosen.dev_examples)
    tests = tuple(resolve_languages(config.lang or (ENGLISH,), config.include_path))
    for lang in tests:  # what is missing is said before anything is trained
        load_split(wanted, lang, config.test_split, data_dir=config.data_dir, limit=1)
    return wanted, training, dev, tests


def _default_output(config: StackConfig, encoder: ResolvedModel, llm: ResolvedModel) -> Path:
    names = [Path(found.ref.name if found.ref.path is None else found.ref.path).name for found in (encoder, llm)]
    parts = [*names, *([config.task] if config.task else []), *([config.baseline] if config.baseline else [])]
    return OUTPUTS / "-".join(map(str, parts))


@dataclass(frozen=True)
class Lines:
    """The text of stage 1.

    Attributes:
        training: Different lines, in an order that follows from the seed.
        dev: Lines that were held out.
        sha256: Of both.
    """

    training: tuple[str, ...]
    dev: tuple[str, ...]
    sha256: str


def read_lines(texts: Sequence[TextSource], wanted: int, dev: int, seed: int) -> Lines:
    """Lines of some texts, each once.

    Args:
        texts: Where they are.
        wanted: Lines to train on; fewer if there are no more.
        dev: Lines to hold out.
        seed: Of their order.

    Raises:
        UsageError: There are too few.
    """
    seen: dict[str, None] = {}
    for source in texts:
        for line in islice(read_texts(source), MOST_LINES):
            if text := line.strip():
                seen[text] = None
    lines = list(seen)
    held = min(dev, len(lines) // 10)
    if held < 2:
        raise UsageError(
            f"The text has {len(lines)} different lines, which are too few to learn from.", "Give more with --text."
        )
    random.Random(seed).shuffle(lines)
    training, apart = tuple(lines[held : held + wanted]), tuple(lines[:held])
    return Lines(training, apart, text_hash([*training, *apart]))
