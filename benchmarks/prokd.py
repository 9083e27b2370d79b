"""Taggers without target labels: transfer, TSL, self-training and ProKD from the same teachers, on real data.

  python benchmarks/teachers.py --data DATA --models MODELS --only ner   # first: the teacher of seed 0
  python benchmarks/prokd.py --data DATA --models MODELS                 # everything; what is there stays
  python benchmarks/prokd.py --data DATA --models MODELS --only sw-0     # one target and seed
  python benchmarks/prokd.py --data DATA --models MODELS --only ablation bistil

DATA is laid out as data.md says. The teacher of seed 0 is MODELS/ner, those of other seeds are made like it. Each is
cut to the pair, then trained a little further: plainly for the baselines, with aligned prototypes for ProKD, as many
steps of the same source sentences. Each part writes benchmarks/prokd.md anew from all runs that are there. Target
labels are read by nothing but the test; checkpoints are chosen on English dev data. The part `bistil` needs
MODELS/ner-sw-3-half, which bistil.py makes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure
import overlap
from bistil_tables import percent
from commands import command_was, made
from prokd_labels import alignment, rectification
from teachers import TEACHERS

SEEDS = {"sw": (0, 1, 2), "ro": (0, 1, 2), "de": (0,), "es": (0,)}
SCORINGS = ("conlleval", "strict-iob2")
METHODS = ("transfer", "tsl", "selftrain", "prokd")
DATA_OPTIONS = (
    "--train-split",
    "train_wikineural",
    "--dev-split",
    "dev_wikineural",
    "--test-split",
    "en=test_wikineural",
)
TRAINING = ("--freeze-embeddings", "--precision", "bfloat16", "--teacher-lr", "5e-5", "--lr", "5e-5")
FROZEN = ("--freeze-layers", "3")  # as in the teacher that all begin with; not in a student of 6 layers
TEACHER_EPOCHS = "0.5"
PROBABILITIES = ("--objective", "probabilities=1")
HARD = (*PROBABILITIES, "--objective", "pseudo-labels=1:form=hard")
ABLATED = "sw-0"
ABLATIONS = {
    "no-alignment": "the plain teacher, its labels rectified by prototypes",
    "no-rectification": "the aligned teacher, its labels as they are",
    "hard": "hard labels in place of soft ones",
    "selftrain-soft": "the plain teacher's own labels, soft: no prototypes at all",
    "best-on-dev": "the student that is best on English dev data, in place of the last one that is hardly worse",
    "align-0.1": "a teacher aligned with weight 0.1",
    "align-tau-1": "a teacher aligned at temperature 1",
    "tag": "a prototype for each BIO tag",
}
ALIGNED = {  # what else a teacher is trained with
    "align-0.1": ("--objective", "alignment=0.1"),
    "align-tau-1": ("--objective", "alignment=1:temperature=1"),
    "tag": ("--classes", "tag"),
}
BISTIL = "ner-sw-3-half"
CELLS = [f"{target}-{seed}" for target, seeds in SEEDS.items() for seed in seeds]
PARTS = ["rectification", *CELLS, "alignment", "ablation", "bistil"]


# --- runs


def teacher(args: argparse.Namespace, seed: int) -> Path:
    """The English tagger of a seed."""
    if seed == 0:
        return args.models / "ner"
    settings = TEACHERS["ner"][1]
    return made(
        args,
        [
            "finetune",
            "--task",
            "ner",
            "--lang",
            "en",
            "--data-dir",
            str(args.data),
            "--freeze-embeddings",
            *settings,
            "--seed",
            str(seed),
            "-o",
            str(args.models / f"ner-seed-{seed}"),
        ],
    )[0]


def cut_teacher(args: argparse.Namespace, target: str, seed: int) -> Path:
    """The same with the vocabulary of the pair."""
    text = [part for code in ("en", target) for part in ("--text", f"{code}={args.data / 'text' / code}.txt")]
    return made(
        args,
        [
            "trim",
            "--model",
            str(teacher(args, seed)),
            "--lang",
            "en",
            "--lang",
            target,
            *text,
            "--min-share",
            "1e-6",
            "-o",
            str(args.models / f"ner-{target}-{seed}"),
        ],
    )[0]


def run(args: argparse.Namespace, part: str, name: str, *options: str) -> tuple[Path, dict[str, Any]]:
    """A run of `prokd` for a target and seed."""
    target, _, seed = part.partition("-")
    frozen = () if "--model" in options else (*FROZEN, "--student-from", "teacher")
    return made(
        args,
        [
            "prokd",
            "en",
            target,
            "--data-dir",
            str(args.data),
            *DATA_OPTIONS,
            *TRAINING,
            *frozen,
            "--seed",
            seed,
            *options,
            "-o",
            str(args.models / f"prokd-{part}-{name}"),
        ],
    )


def method(args: argparse.Namespace, part: str, name: str) -> tuple[Path, dict[str, Any]]:
    """A method for a target and seed; baselines share one teacher."""
    target, _, seed = part.partition("-")
    if name in ("tsl", "prokd"):
        begins = str(cut_teacher(args, target, int(seed)))
        return run(args, part, name, "--method", name, "--teacher", begins, "--teacher-epochs", TEACHER_EPOCHS)
    plain = method(args, part, "tsl")[0] / "stages/teacher"
    labels = HARD if name == "selftrain" else ()  # soft ones would say what the probabilities do
    return run(args, part, name, "--method", name, "--teacher", str(plain), *labels)


def ablation(args: argparse.Namespace, name: str) -> tuple[Path, dict[str, Any]]:
    """ProKD with one thing changed."""
    plain, aligned = (str(method(args, ABLATED, of)[0] / "stages/teacher") for of in ("tsl", "prokd"))
    if name in ALIGNED:
        target, _, seed = ABLATED.partition("-")
        begins = str(cut_teacher(args, target, int(seed)))
        return run(args, ABLATED, name, "--teacher", begins, "--teacher-epochs", TEACHER_EPOCHS, *ALIGNED[name])
    changed = {
        "no-alignment": ("--teacher", plain),
        "no-rectification": ("--teacher", aligned, *PROBABILITIES, "--objective", "pseudo-labels=1:rectify=no"),
        "hard": ("--teacher", aligned, *HARD),
        "selftrain-soft": ("--teacher", plain, "--method", "selftrain"),
        "best-on-dev": ("--teacher", aligned, "--dev-tolerance", "0"),
    }[name]
    return run(args, ABLATED, name, *changed)


def small(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """What `bistil` made of the task, taught by the aligned teacher on Swahili sentences."""
    aligned = str(method(args, ABLATED, "prokd")[0] / "stages/teacher")
    return run(args, ABLATED, "bistil", "--teacher", aligned, "--model", str(args.models / BISTIL))


# --- tables


def own_score(record: dict[str, Any], folder: Path, language: str, scoring: str) -> dict[str, Any]:
    return next(
        s
        for s in record["scores"]
        if (s["model"], s["language"], s["normalisation"]) == (str(folder), language, scoring)
    )


def resampled(scores: Sequence[dict[str, Any]], seed: int = 0) -> Any:
    """(runs, resamples) scores of the same draws of the test sentences; another seed gives others."""
    from polydistill.evaluation.cache import Items
    from polydistill.metrics.paired import resampled as draw
    from polydistill.records.record import Score

    known = Items()
    items = [known.of(Score.from_json(score)) for score in scores]
    if None in items:
        sys.exit("prokd.py: predictions of an earlier run are no longer in the cache; evaluate its folder again.")
    return draw([found for found in items if found is not None], seed=seed)


def cells(records: dict[str, tuple[Path, dict[str, Any]]], language: str, first: str) -> list[list[str]]:
    """Rows of runs on one target and seed: scores in both scorings, and the difference to the first."""
    import numpy as np

    rows: list[list[str]] = []
    scores = {
        scoring: {name: own_score(record, folder, language, scoring) for name, (folder, record) in records.items()}
        for scoring in SCORINGS
    }
    draws = {s: dict(zip(scores[s], resampled(list(scores[s].values())), strict=True)) for s in SCORINGS}
    for name, (_, record) in records.items():
        shown = []
        for s in SCORINGS:
            found = scores[s][name]
            shown.append(percent(found["value"], found["interval"]))
            if name == first:
                shown.append("")
                continue
            between = np.quantile(draws[s][name] - draws[s][first], [0.025, 0.975])
            shown.append(percent(found["value"] - scores[s][first]["value"], tuple(between), signed=True))
        rows.append([name, *shown, *told(record["result"])])
    return rows


def told(result: dict[str, Any]) -> list[str]:
    """What the run says of its prototypes and the teacher's tags, its dev score and the minutes of its stages."""
    found, labels, chosen = result["prototypes"], result["pseudo_labels"], result["selection"]
    changed = labels["changed"] if labels else None
    dev = f"{100 * chosen['value']:.1f}" if chosen and chosen["metric"] == "f1" else ""
    teachers = (f"{100 * stage['facts']['best']:.1f}" for stage in result["stages"] if stage["name"] == "teacher")
    return [
        f"{found[0]['similarity']:.3f}" if found else "",
        f"{100 * labels['share_entity']:.1f}" if labels else "",
        "" if changed is None else f"{100 * changed:.2f}",
        next(teachers, ""),
        dev,
        ", ".join(f"{stage['name']} {stage['seconds'] / 60:.0f}" for stage in result["stages"]),
    ]


HEAD = [
    "",
    "f1 (conlleval)",
    "less the first",
    "f1 (strict-iob2)",
    "less the first",
    "cosine of prototypes",
    "words in entities, %",
    "tags changed, %",
    "English dev f1 of a teacher made here",
    "English dev f1",
    "minutes",
]


def averages(there: dict[str, dict[str, tuple[Path, dict[str, Any]]]]) -> str:
    """Means over seeds, and over targets; differences with intervals from the same draws of sentences."""
    import numpy as np

    by_target: dict[str, list[dict[str, tuple[Path, dict[str, Any]]]]] = {}
    for part, runs in there.items():
        by_target.setdefault(part.partition("-")[0], []).append(runs)
    cells: dict[tuple[str, str], list[tuple[float, Any]]] = {}  # (method, scoring) -> each target's value and draws
    lines: dict[tuple[str, str], list[tuple[float, Any, list[float]]]] = {}
    for number, (target, several) in enumerate(by_target.items()):
        for scoring in SCORINGS:
            scores = [[own_score(runs[of][1], runs[of][0], target, scoring) for of in METHODS] for runs in several]
            draws = np.mean([resampled(found, number) for found in scores], 0)  # (methods, resamples)
            for name, of_name, own in zip(METHODS, zip(*scores, strict=True), draws, strict=True):
                values = [score["value"] for score in of_name]
                lines.setdefault((target, name), []).append((float(np.mean(values)), own, values))
                cells.setdefault((name, scoring), []).append((float(np.mean(values)), own))
    for name in METHODS:
        for scoring in SCORINGS:
            values, own = zip(*cells[name, scoring], strict=True)
            lines.setdefault(("mean", name), []).append((float(np.mean(values)), np.mean(own, 0), []))

    def less(target: str, name: str, i: int, other: str) -> str:
        (value, own, _), (base, others, _) = lines[target, name][i], lines[target, other][i]
        if METHODS.index(name) <= METHODS.index(other):
            return ""
        return percent(value - base, tuple(np.quantile(own - others, [0.025, 0.975])), signed=True)

    rows = []
    for (target, name), scored in lines.items():
        seeds = ", ".join(f"{100 * value:.1f}" for value in scored[0][2])
        row = [target, name, seeds]
        for i, (value, _, _) in enumerate(scored):
            row += [percent(value, None), less(target, name, i, "transfer"), less(target, name, i, "tsl")]
        rows.append(row)
    head = ["target", "method", "conlleval by seed"]
    head += [
        f"{what}{scoring}{end}"
        for scoring in SCORINGS
        for what, end in (("f1 (", ")"), ("less transfer (", ")"), ("less tsl (", ")"))
    ]
    text = (
        "Means over seeds, and over targets (`mean`, each counting alike). Intervals are of the sentences of the test "
        "sets, the same draws for all methods and seeds; targets, whose sentences have nothing in common, are drawn "
        "apart. How far seeds differ is not in them, but stands beside."
    )
    return "\n\n".join([text, measure.table(head, rows)])


def written(args: argparse.Namespace, parts: Sequence[str]) -> None:
    """Makes what is asked for and writes every section whose runs are there."""
    used = measure.versions("polydistill", "torch", "transformers", "tokenizers")

    def write(section: str, body: str) -> None:
        command = f"python benchmarks/prokd.py --data DATA --models MODELS --only {' '.join(parts)}"
        measure.write_section(args.output, section, command, body, used)

    for part in parts:
        started = time.perf_counter()
        if part == "rectification":
            write(part, rectification(teacher(args, 0), args.data))
        elif part == "alignment":
            runs = {"tsl": method(args, ABLATED, "tsl"), "prokd": method(args, ABLATED, "prokd")}
            runs |= {name: ablation(args, name) for name in ALIGNED if name.startswith("align")}
            write(part, f"## Alignment ({ABLATED})\n\n{alignment(runs)}")
        elif part in ("ablation", "bistil"):
            reference = {"prokd": method(args, ABLATED, "prokd"), "transfer": method(args, ABLATED, "transfer")}
            if part == "ablation":
                runs = {**reference, **{name: ablation(args, name) for name in ABLATIONS}}
                what = "\n".join(f"- `{name}`: {text}." for name, text in ABLATIONS.items())
            else:
                runs = {BISTIL: bistil_alone(args), "bistil then prokd": small(args), **reference}
                what = (
                    f"`{BISTIL}`, a student of [bistil.md](bistil.md) with 3 layers and a short training, alone and "
                    "then taught on Swahili sentences by the aligned teacher."
                )
            commands = [command_was(folder) for folder, _ in runs.values()]
            table = measure.table(HEAD, cells(runs, ABLATED.partition("-")[0], next(iter(runs))))
            write(part, "\n\n".join([f"## {part.capitalize()} ({ABLATED})", what, table, *commands]))
        else:
            for name in METHODS:
                method(args, part, name)
        print(f"{part}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    there = finished(args)
    if there:
        write("averages", "## Averages\n\n" + averages(there))
    for part, runs in there.items():
        if part not in parts:
            continue
        table = measure.table(HEAD, cells(runs, part.partition("-")[0], "transfer"))
        commands = [command_was(folder) for folder, _ in runs.values()]
        write(part, "\n\n".join([f"### {part}", table, *commands]))


def bistil_alone(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    folder = args.models / BISTIL
    record = json.loads((folder / "polydistill.json").read_text(encoding="utf-8"))
    result = {**record["result"], "prototypes": [], "pseudo_labels": None}
    return folder, {**record, "result": result}


def finished(args: argparse.Namespace) -> dict[str, dict[str, tuple[Path, dict[str, Any]]]]:
    """Target and seed -> its runs, where all of them are there."""
    found = {}
    for part in CELLS:
        folders = {name: args.models / f"prokd-{part}-{name}" for name in METHODS}
        if all((folder / "polydistill.json").is_file() for folder in folders.values()):
            found[part] = {
                name: (folder, json.loads((folder / "polydistill.json").read_text(encoding="utf-8")))
                for name, folder in folders.items()
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="where teachers are and students go")
    parser.add_argument("--only", nargs="*", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "prokd.md")
    args = parser.parse_args()
    overlap.check(args.data)
    written(args, args.only or PARTS)


if __name__ == "__main__":
    main()
