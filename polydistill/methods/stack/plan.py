"""What a stacking is to do, with everything that can be checked before it begins."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from polydistill.catalog import Language, Task, arch, language, resolve_languages, task
from polydistill.catalog.task import CLASSIFICATION
from polydistill.errors import PolydistillError, UsageError
from polydistill.labelled.custom import settled
from polydistill.labelled.examples import LabelledSplit
from polydistill.labelled.sources import load_split
from polydistill.methods.stack.job import Job
from polydistill.methods.stack.material import Material
from polydistill.methods.stack.options import StackOptions
from polydistill.methods.stack.presets import LEAST_SQUARES, LINEAR, PRESET_OPTIONS, PRESETS, RANDOM, Preset
from polydistill.methods.stack.report import inputs, placed, report, scoring, settings, texts_read
from polydistill.methods.stack.stages import stages_of
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.folder import is_stack, model_folder, model_type
from polydistill.models.refs import ModelRef, ResolvedModel, resolve
from polydistill.progress import Progress
from polydistill.runs.plan import OUTPUTS, Origin, Plan
from polydistill.stacks.description import Description, check_parent
from polydistill.stacks.reading import Reader, find_code
from polydistill.texts.sources import text_sources

ENGLISH = "en"
FEWEST = 20  # examples that a linear map is fitted on; some are held out
LEAST_WARMUP = 45  # steps in which phase 1's rate rises: where it rises faster, all vectors may become the same
MOST_WARMUP = 0.25  # of the steps of a short run


def prepare(options: StackOptions, progress: Progress) -> Plan:
    """Looks at every option, file and folder that a run will need, and says which stages it has.

    Raises:
        PolydistillError: Something is missing or does not fit.
    """
    job = job_of(options, progress)
    material = Material(options, job)
    encoder, llm = (Checkpoint.open(model_folder(part.folder)) for part in (job.encoder, job.llm))
    output = (options.place.output or _default_output(options, job.encoder, job.llm)).expanduser()
    return Plan(
        output=output,
        origin=Origin(job.encoder, encoder),
        stages=stages_of(material),
        report=partial(report, material),
        languages=(job.english.code,),
        task=job.task.name if job.task else None,
        settings=settings(material),
        inputs=inputs(material),
        texts=partial(texts_read, material),
        others=(Origin(job.llm, llm, "llm"),),
        parent=job.begin,
        idle=idle_options(options, job),
        scoring=scoring(material, output),
        place=partial(placed, material),
    )


def job_of(options: StackOptions, progress: Progress) -> Job:
    """Looks at every option, file and folder that a run will need.

    Raises:
        PolydistillError: Something is missing or does not fit.
    """
    _check(options)
    chosen = _preset(options)
    phases = {"1": (1,), "2": (2,), "all": (1, 2)}[options.phase]
    if not options.task and options.phase == "all":
        phases = (1,)
    if options.stack or (options.baseline == LINEAR and options.task):  # one map, to the vectors that are asked for
        phases = (2,)
    english = language(ENGLISH, options.include_path)
    encoder, llm = (resolve(ModelRef.parse(name), progress=progress.note) for name in (options.encoder, options.llm))
    for role, found in (("encoder", encoder), ("LLM", llm)):
        _check_part(role, found, options)
    wanted, training, dev, tests = (
        _labelled(options, chosen, english, progress) if 2 in phases else (None, (), None, ())
    )
    if wanted and options.baseline == LINEAR and (count := sum(len(s.examples) for s in training)) < FEWEST:
        raise UsageError(
            f"{count} labelled examples are too few to fit a map on.", f"Give {FEWEST} or more with `limit`."
        )
    begin, teacher = _given(options, encoder, llm, wanted)
    codes = Reader.open(model_folder(encoder.folder), None).codes
    for lang in (english, *tests) if codes else ():
        find_code(codes, lang, options.include_path)
    needs_text = 1 in phases or (options.init == LEAST_SQUARES and begin is None and options.baseline != LINEAR)
    texts = tuple(text_sources(english, options.text)) if needs_text else ()
    if any(text.kind == "wordlist" for text in texts):
        raise UsageError("There is no English text to learn from.", "Give some: `text` english.txt")
    return Job(
        encoder, llm, begin, teacher, phases, english, texts, wanted, training, dev, tests, chosen, options.frozen
    )


def _check(options: StackOptions) -> None:
    if options.phase != "1" and not options.task and (options.phase == "2" or options.stack or options.teacher):
        raise UsageError("Phase 2 learns a task.", "Add `task`, such as `task=nli`.")
    if options.phase == "1" and (options.stack or options.teacher):
        raise UsageError("`stack` and `teacher` are for phase 2.", "Leave them out, or `phase=1`.")
    if options.phase == "1" and options.task:
        raise UsageError("Phase 1 learns no task.", "Leave `task` out, or `phase=1`.")
    if options.baseline == LINEAR and options.stack:
        raise UsageError("A linear map has no phase 1 to go on from.", "Leave `stack` out.")


def idle_options(options: StackOptions, todo: Job) -> dict[str, str]:
    """Option -> why it changes nothing in this run."""
    linear = options.baseline == LINEAR
    lora = "lora_r lora_alpha lora_dropout" if todo.teacher or 2 not in todo.phases else ""  # else the teacher's
    groups = {
        "nothing is trained in phase 1 here": ("steps batch_size lr" if 1 not in todo.phases else ""),
        "no text is read here": ("" if todo.texts else "text max_length fit_lines"),
        "there is no phase 2 here": (
            ""
            if 2 in todo.phases
            else "task_epochs task_batch_size task_max_length task_lr teacher_epochs teacher_lr languages limit "
            "train_split dev_split test_split data_dir"
        ),
        "the teacher is given": ("teacher_epochs teacher_lr" if todo.teacher else ""),
        "the stack has a projection and LoRA of its own": (f"init {lora}" if todo.begin else ""),
        "a linear map has neither LoRA nor steps": (f"init lr task_lr task_epochs fit_lines {lora}" if linear else ""),
        "nothing is trained here": ("task_batch_size checkpointing max_minutes" if linear and lora else ""),
        "a random projection is not fitted": ("fit_lines" if options.init == RANDOM and todo.texts else ""),
    }
    return {name: why for why, names in groups.items() for name in names.split()}


def _preset(options: StackOptions) -> Preset:
    values = options.values()
    given = {name: values[name] for name in PRESET_OPTIONS if values[name] is not None}
    chosen = replace(PRESETS[options.preset], **given)
    return replace(chosen, warmup=max(chosen.warmup, min(LEAST_WARMUP / chosen.steps, MOST_WARMUP)))


def _check_part(role: str, found: ResolvedModel, options: StackOptions) -> None:
    """Refuses what cannot be part of a stack by its kind alone; the rest is seen when it is loaded.

    Raises:
        PolydistillError: It is a stack, or of an architecture that the catalogue does not allow there.
    """
    if is_stack(found.folder):
        raise UsageError(
            f"{found.ref} is a stack, and an {role} was expected.", "Give its own models; `stack` goes on from a stack."
        )
    name = model_type(found.folder)
    if "stack" not in arch(name, options.include_path).supports:
        raise PolydistillError(
            f"{found.ref} is a {name} model, which cannot be stacked.", "See `polydistill ls architectures`."
        )


def _given(
    options: StackOptions, encoder: ResolvedModel, llm: ResolvedModel, wanted: Task | None
) -> tuple[Path | None, Path | None]:
    """(stack to go on from, tuned LLM), after a look at whether they are of these models and this task.

    Raises:
        PolydistillError: One is not a stack, stands on other models, or was made for something else.
    """
    found: list[Path | None] = []
    for option, roles in (("stack", {"encoder", "llm"}), ("teacher", {"llm"})):
        name = getattr(options, option)
        if name is None:
            found.append(None)
            continue
        place = Path(name).expanduser()
        description = Description.read(place)
        if set(description.parts) != roles or description.whole:
            what = (
                "an LLM alone that was tuned here" if option == "teacher" else "a stack with references to both models"
            )
            raise UsageError(f"`{option}={name}` is not {what}.", "Give a folder below stages/ of an earlier run.")
        for role, model in (("encoder", encoder), ("llm", llm)):
            if role in roles:
                kind = "LLM" if role == "llm" else role
                other = f"the {kind} that `{option}={name}` was made with"
                check_parent(model.folder, description.parts[role], f"The {kind} {model.ref}", other)
        if description.pooling != options.pooling:
            raise UsageError(
                f"`{option}={name}` was made with `pooling={description.pooling}`.", "Say so too, or make another."
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
        raise UsageError(f"`teacher={name}` has learnt no task.", "Leave it out: the LLM is tuned here.")
    if (description.task, sorted(description.labels)) != (wanted.name, sorted(wanted.scored_labels)):
        raise UsageError(
            f"`teacher={name}` has learnt {description.task} ({', '.join(description.labels)}), not {wanted.name} "
            f"({', '.join(wanted.scored_labels)}).",
            "Leave it out: the LLM is tuned here.",
        )


def _labelled(
    options: StackOptions, chosen: Preset, english: Language, progress: Progress
) -> tuple[Task, tuple[LabelledSplit, ...], LabelledSplit, tuple[Language, ...]]:
    """(task, training splits, dev split, languages to score in)."""
    wanted = task(options.task, options.include_path)
    if wanted.kind != CLASSIFICATION:
        raise UsageError(
            f"A stack gives one vector a text, and {wanted.name} needs more.",
            "Choose a task that classifies texts: nli, sib200.",
        )

    def load(wanted: Task, split: str, limit: int | None) -> LabelledSplit:
        return load_split(wanted, english, split, data_dir=options.labelled.data_dir, limit=limit, progress=progress)

    limit = options.labelled.limit or chosen.examples
    training = tuple(load(wanted, split, limit) for split in options.labelled.train_split or ("train",))
    wanted = settled(wanted, training, progress) if wanted.own else wanted
    dev = load(wanted, options.labelled.dev_split, options.labelled.limit or chosen.dev_examples)
    tests = tuple(resolve_languages(options.labelled.languages or (ENGLISH,), options.include_path))
    for lang in tests:  # what is missing is said before anything is trained
        load_split(wanted, lang, options.labelled.test_split, data_dir=options.labelled.data_dir, limit=1)
    return wanted, training, dev, tests


def _default_output(options: StackOptions, encoder: ResolvedModel, llm: ResolvedModel) -> Path:
    names = [Path(found.ref.name if found.ref.path is None else found.ref.path).name for found in (encoder, llm)]
    parts = [*names, *([options.task] if options.task else []), *([options.baseline] if options.baseline else [])]
    return OUTPUTS / "-".join(map(str, parts))
