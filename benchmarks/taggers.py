"""Taggers without target labels, 3 seeds each: every way from the same teachers, against direct transfer.

  python benchmarks/taggers.py --data DATA --models MODELS                       # all targets; what is there stays
  python benchmarks/taggers.py --data DATA --models MODELS --only sw --ways tsl  # one target, one way beside transfer
  python benchmarks/taggers.py --data DATA --models MODELS --commands            # what would run, a line each

DATA is laid out as data.md says. A seed has a teacher of its own (MODELS/ner-0, ...), which stays as it is; students
learn on all of text/LANG.txt and on the words of the target's training split. Hard or soft labels are the same for all
ways that have some. Target labels are read by nothing but the test; checkpoints are chosen on English dev data, which
share nothing with the text (overlap.py).
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

import measure
import overlap
from bistil_tables import metric
from commands import made, polydistill
from seeded import SEEDS, SPLITS, differences, items_of, shown, teacher_command

from polydistill.evaluation.cache import Items
from polydistill.metrics.items import Measured
from polydistill.metrics.seeds import mean_score

TARGETS = ("sw", "ro", "de", "es")
COMPUTING = ("--freeze-embeddings", "--freeze-layers", "3", "--precision", "bfloat16", "--lr", "2e-4")
SOFT = ("--objective", "probabilities=1")
TRANSFER = "transfer"
# Way -> (what it is, options of `prokd`).
WAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "tsl": ("the teacher's probabilities; the student begins with the pretrained encoder", ("--method", "tsl")),
    "tsl-copy": (
        "the same from a copy of the teacher (self-distillation)",
        ("--method", "tsl", "--student-from", "teacher", "--lr", "5e-5"),
    ),
    "tsl-teachers": ("the mean probabilities of the teachers of all three seeds", ("--method", "tsl")),
    "selftrain": ("and the teacher's own labels, soft", ("--method", "selftrain")),
    "selftrain-keep": (
        "of them the surest 80 % of each tag",
        ("--method", "selftrain", *SOFT, "--objective", "pseudo-labels=1:keep=0.8"),
    ),
    "prokd": ("labels rectified by prototypes of the teacher's features, soft", ("--method", "prokd")),
    "prokd-student": (
        "prototypes of the student's features, renewed every epoch",
        ("--method", "prokd", *SOFT, "--objective", "pseudo-labels=1:features=student:refresh=epoch"),
    ),
    "project": ("labels that translations carry over, and the teacher's probabilities", ()),
    "tsl-rounds": ("`tsl`, and a second student that learns from the first", ("--method", "tsl", "--rounds", "2")),
}
LEFT_OUT = {"sw": ("xnli-test",)}  # origins of translations that stand in another test set
THREE = ("tsl-teachers",)  # ways with the teachers of all seeds


def student_of(args: argparse.Namespace, target: str, way: str, seed: int) -> Path:
    """The folder of a student; with direct transfer the teacher's."""
    return args.models / (f"ner-{seed}" if way == TRANSFER else f"tagger-{target}-{way}-{seed}")


def commands(args: argparse.Namespace, target: str, way: str, seed: int) -> list[list[str]]:
    """The commands of a student, those that it needs first."""
    seeds = sorted(SEEDS, key=lambda other: other != seed) if way in THREE else [seed]
    found = [teacher_command(args.data, args.models, other) for other in seeds]
    if way == TRANSFER:
        return found
    text = ["--text", str(args.data / f"text/{target}.txt")]
    teachers = [part for other in seeds for part in ("--teacher", str(args.models / f"ner-{other}"))]
    where = ["--data-dir", str(args.data), *text]
    tail = ["--seed", str(seed), "-o", str(student_of(args, target, way, seed))]
    if way == "project":
        pairs = ["--parallel", str(args.data / f"parallel/en-{target}.tsv")]
        pairs += [part for origin in LEFT_OUT.get(target, ()) for part in ("--leave-out", origin)]
        return [*found, ["project", "en", target, *pairs, *teachers, *where, *SPLITS[2:], *COMPUTING, *tail]]
    split = ["--unlabelled-split", "train"]
    return [*found, ["prokd", "en", target, *teachers, *where, *split, *SPLITS, *COMPUTING, *WAYS[way][1], *tail]]


def there(args: argparse.Namespace, target: str, way: str) -> bool:
    """Whether a way has what it needs: translations, for one."""
    return way != "project" or (args.data / f"parallel/en-{target}.tsv").is_file()


def evaluated(args: argparse.Namespace, folder: Path, target: str) -> list[dict[str, Any]]:
    """The scores of a tagger in the target; predictions that are there are read."""
    what = ("--task", "ner", "--lang", target, "--split", "test", "--data-dir", args.data)
    found: list[dict[str, Any]] = polydistill(args, "evaluate", "--model", folder, *what)["scores"]
    return found


def table(args: argparse.Namespace, target: str, ways: list[str]) -> str:
    """Every way against direct transfer."""
    items, rows = Items(), []
    runs = {way: [evaluated(args, student_of(args, target, way, seed), target) for seed in SEEDS] for way in ways}
    for place in (0, 1):  # of the metrics
        scores: dict[str, list[Measured]] = {
            way: [items_of(items, found[place]) for found in of_seeds] for way, of_seeds in runs.items()
        }
        differ = differences(scores)
        label = metric(runs[TRANSFER][0][place])
        rows += [[way, label, shown(mean_score(own)), *differ.get(way, ("", ""))] for way, own in scores.items()]
    return measure.table(["way", "metric", "mean of 3 seeds", f"less `{TRANSFER}`", "by seed"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="where teachers and students are, or go")
    parser.add_argument("--only", nargs="*", choices=TARGETS, help="only these targets")
    parser.add_argument("--ways", nargs="*", choices=WAYS, help="only these ways, beside direct transfer")
    parser.add_argument("--commands", action="store_true", help="print the commands and run nothing")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    overlap.check(args.data)
    targets = args.only or list(TARGETS)
    asked = {target: [TRANSFER, *(way for way in args.ways or WAYS if there(args, target, way))] for target in targets}
    wanted = [command for s in SEEDS for t in targets for way in asked[t] for command in commands(args, t, way, s)]
    if args.commands:
        print("\n".join(dict.fromkeys(shlex.join(["polydistill", *command]) for command in wanted)))
        return
    for command in wanted:
        made(args, command)
    for target, ways in asked.items():
        about = "\n".join(f"- `{way}`: {WAYS[way][0]}." for way in ways[1:])
        command = (
            f"python benchmarks/taggers.py --data DATA --models MODELS --only {target} --ways {' '.join(ways[1:])}"
        )
        body = f"## {target}\n\n{about}\n\n{table(args, target, ways)}"
        used = measure.versions("polydistill", "torch", "transformers", "tokenizers")
        measure.write_section(args.output, target, command, body, used)


if __name__ == "__main__":
    main()
