"""Real teachers: multilingual-e5-small tuned on English for NER, NLI and QA, scored in every language of DATA.

  python benchmarks/teachers.py --data DATA --models MODELS              # everything; what is there is not made again
  python benchmarks/teachers.py --data DATA --models MODELS --only ner   # one teacher

DATA is laid out as data.md says. The teachers go to MODELS/ner, MODELS/nli and so on. Each part writes its own
table into benchmarks/teachers.md. Settings were chosen on English dev data (see there), never on a test set.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import measure

WIKINEURAL, WIKIANN = ["--train-split", "train_wikineural"], ["--train-split", "train"]
NER = ["--dev-split", "dev_wikineural", "--lr", "2e-4"]
# Teacher -> its task and settings; the one after `qa` is an alternative, compared on English dev data.
TEACHERS: dict[str, tuple[str, list[str]]] = {
    "ner": ("ner", [*WIKINEURAL, *NER, "--epochs", "4", "--freeze-layers", "3", "--precision", "bfloat16"]),
    "nli": (
        "nli",
        ["--epochs", "2", "--batch-size", "16", "--lr", "5e-5", "--warmup", "0.1", "--precision", "bfloat16"],
    ),
    "qa": ("qa", ["--epochs", "1", "--lr", "1e-4", "--warmup", "0.1", "--precision", "bfloat16"]),
    "ner-wikiann": ("ner", [*WIKIANN, *NER, "--epochs", "1"]),
}
# Split -> languages.
NER_TESTS = {"test_wikineural": ["en"], "test": ["en", "de", "es", "ro", "sw", "ha", "yo"], "test_ronec": ["ro"]}
NER_FEW = {"test_wikineural": ["en"], "test": ["ro", "sw"]}
TESTS = {
    "ner": NER_TESTS,
    "nli": {"test": ["en", "sw", "ur", "ko", "gn", "qu"]},
    "qa": {"test": ["en", "ar", "de", "es", "hi", "ro", "ru", "th", "tr", "zh"]},
    "ner-wikiann": NER_FEW,
}
CHECKED = 200  # sentences for which the batch size is varied


def polydistill(*args: object) -> dict[str, Any]:
    """What a command prints with --json; it stops the benchmark where it fails."""
    command = [sys.executable, "-m", "polydistill", *map(str, args), "--json"]
    print("$ polydistill", " ".join(map(str, args)), file=sys.stderr)
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def train(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """The record of a teacher, which is tuned unless it is there."""
    folder, (task, settings) = args.models / name, TEACHERS[name]
    if not (folder / "polydistill.json").is_file():
        resume = ["--resume"] if list(args.models.glob(f".{name}.training/checkpoint-*")) else []
        polydistill(
            "finetune",
            "--task",
            task,
            "--lang",
            "en",
            "--data-dir",
            args.data,
            "--freeze-embeddings",
            *settings,
            "-o",
            folder,
            *resume,
        )
    return json.loads((folder / "polydistill.json").read_text(encoding="utf-8"))


def trained_table(records: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, record in records.items():
        result, settings = record["result"], record["result"]["settings"]
        chosen = result["selection"]
        rows.append(
            [
                name,
                f"{result['examples']['train']:,}",
                f"{settings['epochs']:g}",
                settings["batch_size"],
                f"{settings['lr']:g}",
                settings["max_length"],
                settings["precision"],
                f"{result['steps']:,}",
                f"{100 * chosen['value']:.1f} ({chosen['metric']}, {chosen['split']}, step {chosen['step']:,})",
                f"{result['seconds']:,.0f}",
                f"{result['peak_memory_bytes'] / 1e9:.1f} GB",
            ]
        )
    head = [
        "teacher",
        "examples",
        "epochs",
        "batch",
        "lr",
        "tokens",
        "precision",
        "steps",
        "English dev",
        "seconds",
        "peak memory",
    ]
    return measure.table(head, rows)


def score(args: argparse.Namespace, name: str) -> list[dict[str, Any]]:
    """The scores of a teacher in every language; predictions that are there are read."""
    scores = []
    for split, languages in TESTS[name].items():
        started = time.perf_counter()
        codes = [part for code in languages for part in ("--lang", code)]
        what = ["--task", TEACHERS[name][0], "--split", split, *codes, "--data-dir", args.data]
        run = polydistill("evaluate", "--model", args.models / name, *what)
        print(f"{name} {split}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
        scores += run["scores"]
    return scores


def score_table(name: str, scores: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys((s["metric"], s["normalisation"]) for s in scores))
    cells: dict[tuple[str, str], dict[Any, dict[str, Any]]] = {}
    for found in scores:
        cells.setdefault((found["language"], found["split"]), {})[found["metric"], found["normalisation"]] = found
    rows = []
    for (language, split), values in cells.items():
        shown = [f"{100 * found['value']:.1f} [{_span(found['interval'])}]" for found in (values[c] for c in columns)]
        rows.append([language, split, f"{next(iter(values.values()))['n']:,}", *shown])
    names = [f"{metric} ({rule})" if rule else metric for metric, rule in columns]
    return f"### {name}\n\n" + measure.table(["language", "split", "n", *names], rows)


def _span(interval: list[float]) -> str:
    return ", ".join(f"{100 * bound:.1f}" for bound in interval)


def batches(args: argparse.Namespace, names: list[str]) -> str:
    """Predictions at batch 1 and batch 32, and the speed of bfloat16, on real test data."""
    from polydistill.catalog import language, task
    from polydistill.evaluation.heads import open_model
    from polydistill.evaluation.kinds import kind_of
    from polydistill.labelled.sources import load_split

    rows = []
    for name in names:
        wanted = task(TEACHERS[name][0])
        kind = kind_of(wanted)
        model = open_model(
            args.models / name, wanted.kind, wanted.labels, not_scored=wanted.not_scored, max_length=kind.MAX_LENGTH
        )
        examples = load_split(wanted, language("en"), "test", data_dir=args.data, limit=CHECKED).examples
        found, seconds = {}, {}
        for label, size, bf16 in (("1", 1, False), ("32", 32, False), ("bf16", 32, True)):
            started = time.perf_counter()
            found[label] = kind.predict(model, examples, batch_size=size, bf16=bf16)
            seconds[label] = time.perf_counter() - started
        same = [sum(map(_same, found["32"], found[other])) for other in ("1", "bf16")]
        furthest = max(_furthest(a, b) for a, b in zip(found["1"], found["32"], strict=True))
        rows.append(
            [
                name,
                len(examples),
                f"{same[0]} of {len(examples)}",
                f"{furthest:.1e}",
                *(f"{len(examples) / seconds[label]:.1f}" for label in ("1", "32", "bf16")),
                f"{same[1]} of {len(examples)}",
            ]
        )
    head = [
        "task",
        "n",
        "same predictions at batch 1 and 32",
        "furthest numbers",
        "inputs/s, batch 1",
        "inputs/s, batch 32",
        "inputs/s, batch 32, bf16",
        "same predictions in bf16",
    ]
    return measure.table(head, rows)


def trimmed(args: argparse.Namespace) -> str:
    """The NER teacher beside itself with its vocabulary cut down to English and Swahili."""
    teacher, student = args.models / "ner", args.models / "ner-en-sw"
    if not student.is_dir():
        text = [part for code in ("en", "sw") for part in ("--text", f"{code}={args.data / 'text' / code}.txt")]
        polydistill("trim", "--model", teacher, "--lang", "en", "--lang", "sw", *text, "-o", student)
    rows = []
    for split, language in (("test_wikineural", "en"), ("test", "sw")):
        run = polydistill(
            "evaluate",
            "--model",
            student,
            "--teacher",
            teacher,
            "--task",
            "ner",
            "--lang",
            language,
            "--split",
            split,
            "--data-dir",
            args.data,
            "--latency",
        )
        loyal = {row["metric"]: row for row in run["loyalty"]["scores"]}
        for name, cost in zip(("teacher", "trimmed"), run["latency"]["models"], strict=True):
            own = [s for s in run["scores"] if s["model"] == cost["model"]]
            ratios = [
                f"{ratio['value']:.2f} [{ratio['interval'][0]:.2f}, {ratio['interval'][1]:.2f}]" if ratio else ""
                for ratio in (cost["latency_ratio"], cost["throughput_ratio"])
            ]
            model = next(m for m in run["models"] if m["model"] == cost["model"])
            rows.append(
                [
                    f"{language} {split}",
                    name,
                    *(f"{100 * s['value']:.1f} [{_span(s['interval'])}]" for s in own),
                    f"{100 * loyal['label_loyalty']['value']:.2f}" if name == "trimmed" else "",
                    f"{model['parameters']['embedding'] / 1e6:.1f} + {model['parameters']['rest'] / 1e6:.1f}",
                    f"{model['bytes'] / 1e6:.0f}",
                    f"{cost['latency_ms']:.1f}",
                    ratios[0],
                    f"{cost['throughput']:.1f}",
                    ratios[1],
                    f"{cost['peak_memory_bytes'] / 1e6:.0f}",
                ]
            )
    head = [
        "data",
        "model",
        "f1 (conlleval)",
        "f1 (strict-iob2)",
        "label loyalty",
        "M parameters, embeddings + rest",
        "MB on disk",
        "ms, batch 1",
        "ratio",
        "inputs/s, batch 32",
        "ratio",
        "peak MB",
    ]
    return measure.table(head, rows)


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(a.get(key) == b.get(key) for key in ("label", "tags", "text", "start"))


def _furthest(a: Any, b: Any) -> float:
    """The largest difference of two predictions' numbers (probabilities, or the sum of two logits)."""
    if isinstance(a, dict):
        return max((_furthest(a[key], b[key]) for key in a), default=0.0)
    if isinstance(a, list):
        return max((_furthest(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    return abs(a - b) if isinstance(a, float) else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="where the teachers are, or go")
    parser.add_argument("--only", nargs="*", choices=TEACHERS, help="only these")
    parser.add_argument("--skip-batches", action="store_true", help="leave out the check of batch sizes and bfloat16")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "teachers.md")
    args = parser.parse_args()
    names = args.only or list(TEACHERS)
    used = measure.versions("polydistill", "torch", "transformers", "tokenizers")
    only = f" --only {' '.join(args.only)}" if args.only else ""
    command = f"python benchmarks/teachers.py --data DATA --models MODELS{only}"
    for name in names:
        train(args, name)
    records = {name: train(args, name) for name in TEACHERS if (args.models / name / "polydistill.json").is_file()}
    source = next(iter(records.values()))["source"]["source"]
    body = f"## Training\n\n{source}, word embeddings frozen, seed 0.\n\n{trained_table(records)}"
    measure.write_section(args.output, "training", command, body, used)
    for name in names:
        measure.write_section(args.output, name, command, score_table(name, score(args, name)), used)
    if not args.skip_batches:
        body = f"## Batches and bfloat16\n\n{batches(args, [name for name in names if name in ('ner', 'nli', 'qa')])}"
        measure.write_section(args.output, "batches", command, body, used)
    if "ner" in names:
        body = f"## The NER teacher and its trimmed self\n\n{trimmed(args)}"
        measure.write_section(args.output, "trimmed", command, body, used)


if __name__ == "__main__":
    main()
