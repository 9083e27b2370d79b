"""Bilingual students, made by `polydistill bistil` and held against their teachers and against simpler ways.

  python benchmarks/teachers.py --data DATA --models MODELS                    # first: the task teachers
  python benchmarks/bistil.py --data DATA --models MODELS                      # everything; what is there stays
  python benchmarks/bistil.py --data DATA --models MODELS --only ner-sw-6      # one part, and what it stands on
  python benchmarks/bistil.py --data DATA --models MODELS --only ner-sw-3-half-relations ner-sw-3-half-plain
  python benchmarks/bistil.py --data DATA --models MODELS --only cost scaling speed

DATA is laid out as data.md says. Teachers are read from MODELS/ner, MODELS/nli and MODELS/qa, students go to
MODELS/ner-sw-6 and so on; a run that was stopped goes on. Each part writes its own section of benchmarks/bistil.md.
Students of one pair and depth share one phase 1, such as MODELS/general-sw-6, which the first of them makes.
Settings are chosen on English dev data, never on a test set.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import bistil_step
import measure
import overlap
from bistil_tables import (
    COST,
    against,
    cost_cells,
    metric,
    pairs_of,
    parameters,
    percent,
    retained,
    rows_of,
    score_table,
    stage_table,
)
from commands import command_was, made, polydistill

LEFT_OUT = "xnli-test"  # origin of rows of parallel text that are left out, as XNLI's test set is reported here too
EMBEDDING = "embedding"
NER = ("--train-split", "train_wikineural", "--dev-split", "dev_wikineural", "--test-split", "en=test_wikineural")
LONG = ("--task-epochs", "3", "--task-sparse-epochs", "6")
HALF = ("--task-epochs", "1", "--task-sparse-epochs", "2")
NO_ENGLISH = ("--test-split", "en=none")
NER_TESTS = {"en": "test_wikineural", "": "test"}
TESTS = {"en": "test", "": "test"}


@dataclass(frozen=True)
class Student:
    """A student to make.

    Attributes:
        target: Language; the source is English.
        layers: Of the teacher's twelve.
        task: As `bistil --task` has it; "" for phase 1 alone.
        settings: Options of the command beside the preset.
        preset: Of phase 2; that of phase 1 is `small`, as several share it.
        steps: Of phase 1, in place of the preset's.
        tuned: Whether phase 1 is about the task's teacher too, in place of the model that all tasks share.
        tests: Language -> split to score; "" stands for the target.
        most: Bar: the share of the teacher's parameters that it may have.
        least: Bar: the share of the teacher's score that it should keep.
    """

    target: str
    layers: int
    task: str = ""
    settings: tuple[str, ...] = ()
    tests: Mapping[str, str] = field(default_factory=lambda: TESTS)
    most: float | None = None
    least: float | None = None
    preset: str = "small"
    steps: int | None = None
    tuned: bool = False

    @property
    def phase_1(self) -> str:
        """The run of phase 1 that it goes on from."""
        what = f"{self.task}-" if self.tuned else ""
        return f"general-{what}{self.target}-{self.layers}" + (f"-{self.steps}" if self.steps else "")


STUDENTS = {
    "ner-sw-6": Student("sw", 6, "ner", NER, NER_TESTS, 0.18, 0.99),
    "ner-sw-6-long": Student("sw", 6, "ner", (*NER, *LONG), NER_TESTS, 0.18, 0.99, steps=3000),
    "ner-sw-3": Student("sw", 3, "ner", NER, NER_TESTS, 0.14, 0.93),
    "ner-ro-6": Student("ro", 6, "ner", NER, NER_TESTS, 0.20, 0.99),
    "ner-sw-6-tuned": Student("sw", 6, "ner", NER, NER_TESTS, 0.18, 0.99, tuned=True),
    "ner-sw-3-tuned": Student("sw", 3, "ner", NER, NER_TESTS, 0.14, 0.93, tuned=True),
    "ner-ro-3-tuned": Student("ro", 3, "ner", NER, NER_TESTS, 0.16, 0.93, tuned=True),
    "ner-sw-3-half": Student("sw", 3, "ner", (*NER, *HALF), NER_TESTS, steps=750),
    "nli-sw-6": Student("sw", 6, "nli"),
    "qa-ro-6": Student("ro", 6, "qa", preset="smoke"),
    "embedding-sw": Student("sw", 6, EMBEDDING, NO_ENGLISH, {"": "test"}),
    "embedding-ro": Student("ro", 6, EMBEDDING, NO_ENGLISH, {"": "test"}),
}
REFERENCE = "ner-sw-3-half"  # the quickest of those for names
# Same data, settings and time as the reference but for this.
BASELINES = {
    "no-phase-1": "no phase 1: the cut model goes straight to phase 2, whose first stage gets its time as epochs",
    "plain": "no distillation: the cut model, a new head, `finetune` for phase 2's epochs, with phase 1's time as more",
    "random": "a random encoder in place of the teacher's layers, then both phases",
    "relations": "MiniLMv2 relations of the last layer in phase 1",
    "trimmed": "the teacher with its vocabulary cut, and no student",
}
PARTS = [*STUDENTS, *(f"{REFERENCE}-{name}" for name in BASELINES), "cost", "scaling", "speed"]
SCALING = [
    (objectives, scale) for objectives in ("hidden", "attention+hidden") for scale in ("none", "first", "teacher")
]
SCALING_STEPS = 30
EVALUATED: dict[tuple[str, ...], dict[str, Any]] = {}  # command -> what it printed


# --- commands


def texts(args: argparse.Namespace, target: str, option: str = "--text") -> list[str]:
    return [part for code in ("en", target) for part in (option, f"{code}={args.data / 'text' / code}.txt")]


def data_of(args: argparse.Namespace, task: str) -> Path:
    """The data folder; for parallel text one of its own, without the rows that are left out."""
    if task != EMBEDDING:
        return args.data
    folder = args.models / "data-parallel"
    if not folder.is_dir():
        (folder / "parallel").mkdir(parents=True)
        for target in ("ro", "sw"):
            source = args.data / f"parallel/en-{target}.tsv"
            lines = source.read_text(encoding="utf-8").splitlines() if source.is_file() else []
            kept = [f"{line}\n" for line in lines if line.split("\t")[-1] != LEFT_OUT]
            (folder / f"parallel/en-{target}.tsv").write_text("".join(kept), encoding="utf-8")
    return folder


def teacher_of(args: argparse.Namespace, task: str) -> str:
    """The tuned model of the task; for vectors the model that students are cut from."""
    return args.model if task == EMBEDDING else str(args.models / task)


def phase_1_command(args: argparse.Namespace, student: Student) -> list[str]:
    """The command line of the phase 1 that a student goes on from."""
    model = ["--model", teacher_of(args, student.task)] if student.tuned else model_of(args)
    return [
        "bistil",
        "en",
        student.target,
        *model,
        *texts(args, student.target),
        "--layers",
        str(student.layers),
        *chosen(args, "small"),
        *steps_of(student),
        "-o",
        str(args.models / student.phase_1),
    ]


def phase_2_command(args: argparse.Namespace, student: Student, output: Path) -> list[str]:
    """The command line that teaches a student its task."""
    text = texts(args, student.target) if student.task == EMBEDDING else []
    return [
        "bistil",
        "en",
        student.target,
        "--model",
        str(args.models / student.phase_1),
        "--task",
        student.task,
        "--teacher",
        teacher_of(args, student.task),
        "--data-dir",
        str(data_of(args, student.task)),
        *text,
        *chosen(args, student.preset),
        *student.settings,
        "-o",
        str(output),
    ]


def whole_command(args: argparse.Namespace, student: Student, output: Path, changed: Sequence[str]) -> list[str]:
    """The command line of both phases at once, with something changed."""
    return [
        "bistil",
        "en",
        student.target,
        *model_of(args),
        *texts(args, student.target),
        "--layers",
        str(student.layers),
        "--task",
        student.task,
        "--teacher",
        teacher_of(args, student.task),
        "--data-dir",
        str(data_of(args, student.task)),
        *chosen(args, student.preset),
        *student.settings,
        *changed,
        "-o",
        str(output),
    ]


def steps_of(student: Student) -> list[str]:
    return ["--steps", str(student.steps)] if student.steps else []


def model_of(args: argparse.Namespace) -> list[str]:
    return ["--model", args.model] if args.model != bistil_step.default_model() else []


def chosen(args: argparse.Namespace, preset: str) -> list[str]:
    """A student's preset, and what this script's own options say."""
    time_limit = ["--max-minutes", f"{args.minutes:g}"] if args.minutes else []
    precision = ["--precision", args.precision] if args.precision else []
    return ["--preset", args.preset or preset, *time_limit, *precision]


def phase_1_made(args: argparse.Namespace, student: Student) -> tuple[Path, dict[str, Any]]:
    return made(args, phase_1_command(args, student))


def student_made(args: argparse.Namespace, name: str) -> tuple[Path, dict[str, Any]]:
    phase_1_made(args, STUDENTS[name])
    return made(args, phase_2_command(args, STUDENTS[name], args.models / name))


# --- scores


def scores(args: argparse.Namespace, student: Student, folder: Path, *more: str) -> list[dict[str, Any]]:
    """One evaluation a language, teacher and student side by side; predictions that are there are read."""
    task, found = "bitext" if student.task == EMBEDDING else student.task, []
    for language, split in student.tests.items():
        command = (
            "evaluate",
            "--model",
            str(folder),
            "--teacher",
            teacher_of(args, student.task),
            "--task",
            task,
            "--lang",
            language or student.target,
            "--split",
            split,
            "--data-dir",
            str(data_of(args, student.task)),
            *more,
        )
        if command not in EVALUATED:
            EVALUATED[command] = polydistill(args, *command)
        found.append(EVALUATED[command])
    return found


def student_section(args: argparse.Namespace, name: str) -> str:
    """What a student is, what it scores and how it was made."""
    student = STUDENTS[name]
    general, before = phase_1_made(args, student)
    folder, record = student_made(args, name)
    evaluations, results = scores(args, student, folder), [before["result"], record["result"]]
    own, whole = parameters(evaluations[0], folder)
    layers = ", ".join(map(str, results[1]["layers"]))
    minutes = [result["seconds"] / 60 for result in results]
    facts = (
        f"The teacher's layers {layers} (from 0); {own['embedding'] / 1e6:.2f} + {own['rest'] / 1e6:.2f} M parameters "
        f"(embeddings + rest), {percent(sum(own.values()) / whole, None)}% of the teacher's {whole / 1e6:.1f} M. "
        f"{minutes[0]:.0f} minutes of phase 1 (`{student.phase_1}`) and {minutes[1]:.0f} of phase 2, evaluation "
        "included (after a stop: since it went on); peak memory "
        f"{max(result['peak_memory_bytes'] for result in results) / 1e9:.1f} GB."
    )
    stages = stage_table([stage for result in results for stage in result["stages"]])
    commands = [command_was(place) for place in (general, folder)]
    return "\n\n".join([f"### {name}", facts, score_table(evaluations, folder), stages, *commands])


def summary(args: argparse.Namespace) -> str:
    """All students that are there, beside their bars; the rows of others stay."""
    rows = []
    for name, student in STUDENTS.items():
        folder = args.models / name
        if not (folder / "polydistill.json").is_file():
            rows += rows_of(args.output, "summary", name)
            continue
        for evaluation in scores(args, student, folder):
            own, teacher = pairs_of(evaluation, folder)[0]
            mine, whole = parameters(evaluation, folder)
            share, (kept, interval) = sum(mine.values()) / whole, retained(own, teacher)
            rows.append(
                [
                    name,
                    f"{percent(share, None)}" + against(student.most, share, "at most"),
                    own["language"],
                    metric(own),
                    percent(teacher["value"], None),
                    percent(own["value"], None),
                    percent(kept, interval) + against(student.least, kept, "at least"),
                ]
            )
    return measure.table(
        ["student", "% of the parameters", "language", "metric", "teacher", "student", "retained, %"], rows
    )


# --- baselines


def baseline_command(args: argparse.Namespace, name: str) -> list[str]:
    """The command line of a baseline of the reference, which is made first."""
    student, output = STUDENTS[REFERENCE], args.models / f"{REFERENCE}-{name}"
    if name == "trimmed":
        return [
            "trim",
            "--model",
            teacher_of(args, student.task),
            "--lang",
            "en",
            "--lang",
            student.target,
            *texts(args, student.target, "--text"),
            "--min-share",
            "1e-6",
            "-o",
            str(output),
        ]
    general, before = phase_1_made(args, student)
    record = student_made(args, REFERENCE)[1]
    phase = record["result"]["settings"]["phase_2"]
    stages = {stage["name"]: stage for result in (before, record) for stage in result["result"]["stages"]}
    an_epoch = stages["sparse"]["seconds"] / phase["sparse_epochs"]  # without the teacher, whose signals are kept
    more = round(stages["general"]["seconds"] / an_epoch)
    if name == "plain":
        return [
            "finetune",
            "--model",
            str(general / "stages/vocabulary/student"),
            "--task",
            student.task,
            "--lang",
            "en",
            "--data-dir",
            str(args.data),
            *NER[:4],
            "--epochs",
            f"{phase['epochs'] + phase['sparse_epochs'] + more:g}",
            "--lr",
            f"{phase['lr']:g}",
            "--batch-size",
            str(phase["batch_size"]),
            "--max-length",
            str(phase["max_length"]),
            "--warmup",
            f"{phase['warmup']:g}",
            "--patience",
            "0",
            *(["--precision", "bfloat16"] if stages["full"]["facts"]["precision"] == "bfloat16" else []),
            "-o",
            str(output),
        ]
    changed = {
        "no-phase-1": ["--phase", "2", "--task-epochs", f"{phase['epochs'] + more:g}"],
        "random": [*steps_of(student), "--init", "random"],
        "relations": [*steps_of(student), "--objective", "1:relations=1"],
    }[name]
    return whole_command(args, student, output, changed)


def minutes(record: dict[str, Any]) -> float:
    """Of a run, and of the phase 1 that it went on from."""
    parent = record["parent"]
    before = parent["result"]["seconds"] if parent and parent["command"] == "bistil" else 0
    return (record["result"]["seconds"] + before) / 60


def baselines(args: argparse.Namespace) -> str:
    """The baselines that are there, each against the reference on the same test sentences."""
    student = STUDENTS[REFERENCE]
    there = [REFERENCE, *(f"{REFERENCE}-{name}" for name in BASELINES)]
    folders = [args.models / name for name in there if (args.models / name / "polydistill.json").is_file()]
    facts = {str(folder): parameters(scores(args, student, folder)[0], folder)[0] for folder in folders}
    compared = polydistill(args, "compare", *folders)
    tests = {(language or student.target, split) for language, split in student.tests.items()}
    names = dict(zip([m["name"] for m in compared["models"]], map(str, folders), strict=True))
    rows = []
    for row in compared["scores"]:
        if (row["language"], row["split"]) not in tests:
            continue
        folder = names[row["model"]]
        record = json.loads((Path(folder) / "polydistill.json").read_text(encoding="utf-8"))
        difference = row["difference"]
        rows.append(
            [
                row["language"],
                metric(row),
                Path(folder).name,
                f"{sum(facts[folder].values()) / 1e6:.1f}",
                percent(row["value"], row["interval"]),
                "" if difference is None else percent(difference, row["difference_interval"], signed=True),
                f"{minutes(record):.0f}",
            ]
        )
    head = ["language", "metric", "model", "M parameters", "score", f"less {REFERENCE}", "minutes"]
    what = [
        f"- `{REFERENCE}-{name}`: {text}."
        for name, text in BASELINES.items()
        if str(args.models / f"{REFERENCE}-{name}") in facts
    ]
    return "\n\n".join(
        [f"## Baselines of {REFERENCE}", "\n".join(what), measure.table(head, rows), *map(command_was, folders[1:])]
    )


# --- cost


def cost(args: argparse.Namespace) -> str:
    """Size, time and memory of students as ratios to their teachers, on the target language's test data."""
    rows = []
    for name, student in STUDENTS.items():
        folder = args.models / name
        if not (folder / "polydistill.json").is_file() or student.task == EMBEDDING:
            rows += rows_of(args.output, "cost", name)
            continue
        only = replace(student, tests={"": student.tests[""]})
        run = scores(args, only, folder, "--latency")[0]
        rows.append([name, *cost_cells(run, folder)])
    return "## Cost\n\n" + measure.table(COST, rows)


# --- scaling


def scaling_command(args: argparse.Namespace, objectives: str, scale: str) -> list[str]:
    weights = [part for name in objectives.split("+") for part in ("--objective", f"1:{name}=1")]
    return [
        "bistil",
        "en",
        "sw",
        *model_of(args),
        *texts(args, "sw"),
        "--preset",
        args.preset or "small",
        "--layers",
        "6",
        "--steps",
        str(args.scaling_steps),
        "--precision",
        "float32",
        "--scale",
        scale,
        *weights,
        "-o",
        str(args.models / f"scaling-{objectives}-{scale}"),
    ]


def scaling(args: argparse.Namespace) -> str:
    """What each way of scaling teaches in the same few steps, by the same yardsticks."""
    sources, rows, before = texts(args, "sw")[1::2], [], []
    for objectives, scale in SCALING:
        folder, record = made(args, scaling_command(args, objectives, scale))
        stage = record["result"]["stages"][-1]
        first, last, seen = stage["loss"]["first"], stage["loss"]["last"], stage["facts"]["validation"]
        if not before:
            found = bistil_step.yardsticks(folder / "stages/vocabulary/student", folder, sources)
            before = ["before", "", "", "", "", *(f"{found[key]:.4g}" for key in bistil_step.YARDSTICKS), ""]
        found = bistil_step.yardsticks(folder, folder, sources)
        terms = [f"{first[t]:.4g} to {last[t]:.4g}" if t in first else "" for t in ("hidden", "attention")]
        rows.append(
            [
                objectives,
                scale,
                *terms,
                f"{seen[0][1]:.4g} to {seen[-1][1]:.4g}",
                *(f"{found[key]:.4g}" for key in bistil_step.YARDSTICKS),
                f"{stage['seconds']:,.0f}",
            ]
        )
    head = [
        "objectives",
        "scale",
        "term hidden, first to last 20 steps",
        "term attention",
        "own validation loss, first to last check",
        *bistil_step.YARDSTICKS.values(),
        "seconds",
    ]
    text = (
        f"Phase 1 alone, {args.scaling_steps} steps each, the same blocks in the same order, float32. Terms are as "
        "they are logged: `first` before its division, `teacher` after. Validation losses are in each run's own units "
        "and do not compare; the yardsticks do. They are means over the held-out blocks of both languages; relative "
        "is each layer's squared error divided by the teacher's mean square."
    )
    return "\n\n".join(["## Scaling", text, measure.table(head, [before, *rows]), f"{command_was(folder)} and so on"])


# --- all


def speed(args: argparse.Namespace) -> str:
    folder, _ = made(args, scaling_command(args, "hidden", "teacher"))
    reference = args.models / REFERENCE
    there = reference if (reference / "polydistill.json").is_file() else None
    return bistil_step.speed(
        folder,
        texts(args, "sw")[1::2],
        preset=args.preset or "small",
        rounds=args.rounds,
        steps=args.steps_a_round,
        tuned=there,
        data=args.data,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="where teachers are and students go")
    parser.add_argument("--model", default=bistil_step.default_model(), help="what students are cut from")
    parser.add_argument("--only", nargs="*", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--minutes", type=float, help="cap on the training of each student")
    parser.add_argument("--preset", help="in place of each student's own, to try the script out")
    parser.add_argument("--precision", help="in place of what is measured to be faster")
    parser.add_argument("--scaling-steps", type=int, default=SCALING_STEPS)
    parser.add_argument("--rounds", type=int, default=3, help="of the speed part")
    parser.add_argument("--steps-a-round", type=int, default=12)
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "bistil.md")
    args = parser.parse_args()
    overlap.check(args.data)
    parts = args.only or PARTS
    used = measure.versions("polydistill", "torch", "transformers", "tokenizers")
    tables = {"cost": cost, "scaling": scaling, "speed": speed}

    def write(name: str, body: str, only: list[str]) -> None:
        command = f"python benchmarks/bistil.py --data DATA --models MODELS --only {' '.join(only)}"
        measure.write_section(args.output, name, command, body, used)

    for part in parts:
        started = time.perf_counter()
        if part in STUDENTS:
            write(part, student_section(args, part), [part])
            write("summary", "## Summary\n\n" + summary(args), list(STUDENTS))
        elif part in tables:
            write(part, tables[part](args), [part])
        else:
            student_made(args, REFERENCE)
            made(args, baseline_command(args, part.removeprefix(f"{REFERENCE}-")))
            write("baselines", baselines(args), [f"{REFERENCE}-{name}" for name in BASELINES])
        print(f"{part}: {time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
