"""Students of 3 seeds each, held against their own teachers and, variant by variant, against the default.

  python benchmarks/students.py --data DATA --models MODELS                          # all variants; what is there stays
  python benchmarks/students.py --data DATA --models MODELS --only default text      # some of them
  python benchmarks/students.py --data DATA --models MODELS --commands               # what would run, a line each

DATA is laid out as data.md says. A seed has a teacher of its own (MODELS/ner-0, ner-1, ner-2), a phase 1 of its own
(MODELS/general-sw-3-0, ...) from that teacher, and of each variant a student. All variants of a seed share phase 1, so
that they differ by phase 2 alone, and take as many steps of it. Settings and checkpoints are chosen on English dev
data; the script stops where dev or test data stand in the text (overlap.py).
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

import measure
import numpy as np
import overlap
from bistil_tables import metric, pairs_of, parameters
from commands import made, polydistill
from seeded import SEEDS, SPLITS, differences, items_of, shown, teacher_command

from polydistill.evaluation.cache import Items
from polydistill.metrics.items import Measured
from polydistill.metrics.seeds import mean_retained, mean_score

LAYERS = 3
TESTS = {"en": "test_wikineural", "sw": "test"}
COMPUTING = ("--precision", "bfloat16")
HALF = ("--task-epochs", "1", "--task-sparse-epochs", "2")  # half of the labelled batches, the other half being text
TEXT = ("--task-text", "0.5", *HALF)
SOFT = ("--objective", "2:hidden=1")  # beside it goes what is varied


def also(*objectives: str) -> tuple[str, ...]:
    """Hidden states as in the preset, and other objectives in place of its logits."""
    return (*SOFT, *(part for given in objectives for part in ("--objective", f"2:{given}")))


# Variant -> (what is different, options). All take as many steps as the default, or their epochs make up for it.
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "default": ("preset `small` from the task's teacher: hidden states and logits on English labels", ()),
    "text": ("half of phase 2's batches are English and Swahili text, half of the epochs", TEXT),
    "teachers": ("the teachers of all three seeds, their probabilities averaged; hidden states of its own", ()),
    "balance": ("the same, balanced", ("--combine", "balance")),
    "partition": ("the same, each word from the teacher that knows it best", ("--combine", "partition")),
    "past": ("the student's own past beside the teacher", ("--teacher", "past=0.5")),
    "logits-alone": ("logits without hidden states", ("--objective", "2:logits=1")),
    "labels": ("gold labels beside both", also("logits=1", "labels=0.5")),
    "ps-kd": ("gold labels and the student's own past beside both", also("logits=1", "ps-kd=0.5")),
    "relations": ("MiniLMv2's relations beside both", also("logits=1", "relations=1")),
    "mi-alpha": ("mutual information beside both", also("logits=1", "mi-alpha=0.1")),
    "taid": ("TAID in place of logits", also("taid=1")),
    "reverse-kl": ("reverse KL", also("logits=1:form=reverse-kl")),
    "jsd": ("Jensen-Shannon divergence", also("logits=1:form=jsd")),
    "variation": ("total variation", also("logits=1:form=total-variation")),
    "skew-kl": ("skew KL", also("logits=1:form=skew-kl")),
    "rs2": (
        "a random third of the examples each epoch, three times the epochs",
        ("--task-sampler", "rs2:share=0.3333"),
    ),
    "difference": ("the half on which the student is furthest behind", ("--task-sampler", "difference:share=0.5")),
    "active": ("a third that the student is unsure of", ("--task-sampler", "active:share=0.3333")),
    "words": ("half of the batches with words left out or swapped", ("--task-augment", "words")),
    "new-head": ("a new head, as in BiStil", ("--task-head", "new")),
    "dense": ("no sparse stage, all epochs in the first", ("--task-epochs", "6", "--task-sparse-epochs", "0")),
}
THREE = ("teachers", "balance", "partition")  # variants with the teachers of all seeds
LONGER = {"rs2": 3, "difference": 2, "active": 3}  # variants whose epochs are shorter


# --- commands


def texts(args: argparse.Namespace) -> list[str]:
    return [part for code in ("en", "sw") for part in ("--text", f"{code}={args.data / 'text' / code}.txt")]


def general_command(args: argparse.Namespace, seed: int) -> list[str]:
    """The command of a seed's phase 1."""
    return [
        "bistil",
        "en",
        "sw",
        "--model",
        str(args.models / f"ner-{seed}"),
        *texts(args),
        "--layers",
        str(LAYERS),
        "--preset",
        "small",
        *COMPUTING,
        "--seed",
        str(seed),
        "-o",
        str(args.models / f"general-sw-{LAYERS}-{seed}"),
    ]


def student_command(args: argparse.Namespace, name: str, seed: int) -> list[str]:
    """The command of a variant's phase 2."""
    options = VARIANTS[name][1]
    seeds = sorted(SEEDS, key=lambda other: other != seed) if name in THREE else [seed]  # its own teacher first
    teachers = [part for other in seeds for part in ("--teacher", str(args.models / f"ner-{other}"))]
    return [
        "bistil",
        "en",
        "sw",
        "--model",
        str(args.models / f"general-sw-{LAYERS}-{seed}"),
        "--task",
        "ner",
        *teachers,
        "--data-dir",
        str(args.data),
        *SPLITS,
        "--preset",
        "small",
        *COMPUTING,
        "--cache-gb",
        "14",
        "--seed",
        str(seed),
        *(texts(args) if "--task-text" in options else []),
        *options,
        *epochs(LONGER.get(name, 1)),
        "-o",
        str(student_of(args, name, seed)),
    ]


def epochs(times: int) -> list[str]:
    """As many more epochs as are shorter."""
    if times == 1:
        return []
    return ["--task-epochs", str(2 * times), "--task-sparse-epochs", str(4 * times)]


def student_of(args: argparse.Namespace, name: str, seed: int) -> Path:
    """The folder of a student."""
    variant = "" if name == "default" else f"-{name}"
    return args.models / f"ner-sw-{LAYERS}{variant}-{seed}"


def commands(args: argparse.Namespace, name: str, seed: int) -> list[list[str]]:
    """The commands of a student, those that it needs first."""
    needed = SEEDS if name in THREE else (seed,)
    return [
        *(teacher_command(args.data, args.models, other) for other in needed),
        general_command(args, seed),
        student_command(args, name, seed),
    ]


# --- scores


def evaluated(args: argparse.Namespace, name: str, seed: int, language: str) -> dict[str, Any]:
    """Teacher and student side by side in a language; predictions that are there are read."""
    return polydistill(
        args,
        "evaluate",
        "--model",
        student_of(args, name, seed),
        "--teacher",
        args.models / f"ner-{seed}",
        "--task",
        "ner",
        "--lang",
        language,
        "--split",
        TESTS[language],
        "--data-dir",
        args.data,
    )


def tables(args: argparse.Namespace, names: list[str]) -> tuple[str, str]:
    """(what each variant keeps of its teachers, how it differs from the first)."""
    items, kept, rows = Items(), [], []
    for language in TESTS:
        runs = {name: [evaluated(args, name, seed, language) for seed in args.seeds] for name in names}
        for place in (0, 1):  # of the metrics
            students: dict[str, list[Measured]] = {}
            for name, evaluations in runs.items():
                of_seeds = list(zip(evaluations, args.seeds, strict=True))
                pairs = [pairs_of(found, student_of(args, name, seed))[place] for found, seed in of_seeds]
                students[name], teachers = ([items_of(items, pair[side]) for pair in pairs] for side in (0, 1))
                own, whole = parameters(evaluations[0], student_of(args, name, args.seeds[0]))
                loyal = [100 * _loyalty(found) for found in evaluations]
                kept.append(
                    [
                        name,
                        language,
                        label := metric(pairs[0][0]),
                        f"{100 * sum(own.values()) / whole:.1f}",
                        shown(mean_score(teachers)),
                        shown(mean_score(students[name])),
                        shown(mean_retained(students[name], teachers)),
                        f"{np.mean(loyal):.2f} ({np.std(loyal, ddof=1):.2f})",
                    ]
                )
            rows += [[name, language, label, *found] for name, found in differences(students).items()]
    head = ["variant", "language", "metric", "% of the parameters", "teacher", "student", "kept, %", "loyalty (s.d.)"]
    differ = ["variant", "language", "metric", f"less `{names[0]}`", "by seed"]
    return measure.table(head, kept), measure.table(differ, rows)


def _loyalty(evaluation: dict[str, Any]) -> float:
    """Of probabilities to the student's own teacher."""
    found = {row["metric"]: row["value"] for row in evaluation["loyalty"]["scores"]}
    return float(found["probability_loyalty"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="where teachers and students are, or go")
    parser.add_argument("--only", nargs="*", choices=VARIANTS, help="only these; the first is what others differ from")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS), help="fewer than three decide nothing")
    parser.add_argument("--commands", action="store_true", help="print the commands and run nothing")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    overlap.check(args.data)
    names = args.only or list(VARIANTS)
    every = [command for seed in args.seeds for name in names for command in commands(args, name, seed)]
    if args.commands:
        print("\n".join(dict.fromkeys(shlex.join(["polydistill", *command]) for command in every)))
        return
    for command in every:
        made(args, command)
    kept, differ = tables(args, names)
    about = "\n".join(f"- `{name}`: {VARIANTS[name][0]}." for name in names)
    seeds = " ".join(map(str, args.seeds))
    command = f"python benchmarks/students.py --data DATA --models MODELS --only {' '.join(names)} --seeds {seeds}"
    few = "" if len(args.seeds) >= len(SEEDS) else f"**{len(args.seeds)} seeds: nothing is decided yet.** "
    title = (
        f"## NER, English and Swahili, {LAYERS} layers\n\n{few}Seeds {seeds}; intervals of items and seeds together."
    )
    body = f"{title}\n\n{about}\n\n{kept}\n\n{differ}"
    used = measure.versions("polydistill", "torch", "transformers", "tokenizers")
    measure.write_section(args.output, "ner-sw-3", command, body, used)


if __name__ == "__main__":
    main()
