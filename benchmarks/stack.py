"""Stacks of a multilingual encoder on an English LLM, against simpler ways from the one space to the other.

  python benchmarks/teachers.py --data DATA --models MODELS --only nli   # first, for the part `nli`
  python benchmarks/stack.py --data DATA --models MODELS                 # everything; what is there stays
  python benchmarks/stack.py --data DATA --models MODELS --only vectors  # one part

DATA is laid out as data.md says. All training text and labels are English; checkpoints are chosen by held-out English
text in stage 1 and by English dev data in stage 2. Each part writes its own section of benchmarks/stack.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np
from bistil_tables import metric, percent
from commands import command_was, made, polydistill

ENCODER = "intfloat/multilingual-e5-small"
LLM = "sentence-transformers/all-MiniLM-L6-v2"
GEMMA = "google/gemma-3-270m"
PAIRS = 1_000
LANGUAGES = ("en", "sw", "ur", "ko")
RATES = ("1e-4", "2e-4", "3e-4", "5e-4")
SHORT = ("--preset", "small", "--steps", "300")
WAYS = {
    "least-squares": (),
    "random": ("--init", "random"),
    "first": ("--pooling", "first"),
    "r4": ("--lora-r", "4", "--lora-alpha", "8"),
}


# --- runs


def text(args: argparse.Namespace) -> list[str]:
    train = args.data / "nli/en/train.jsonl"
    places = (args.data / "text/en.txt", f"{train}#premise", f"{train}#hypothesis")
    return [part for place in places for part in ("--text", str(place))]


def stacked(args: argparse.Namespace, name: str, *options: str, llm: str = LLM) -> tuple[Path, dict[str, Any]]:
    preset = () if "--preset" in options else ("--preset", args.preset)
    return made(
        args, ["stack", ENCODER, llm, *preset, "--precision", "bfloat16", *options, "-o", str(args.models / name)]
    )


def stage_1(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    return stacked(args, "stack", *text(args))


def linear(args: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    return stacked(args, "stack-linear", *text(args), "--baseline", "linear")


# --- vectors


def sentences(args: argparse.Namespace, language: str) -> list[tuple[str, str]]:
    """(English, translation): the first different premises of XNLI's test, or English sides of RO-STS."""
    if language == "ro":
        rows = [line.split("\t") for line in (args.data / "parallel/en-ro.tsv").read_text("utf-8").splitlines()]
        found = [(row[0], row[1]) for row in rows if "sts" in row[2].casefold()]
    else:
        sides = [
            [json.loads(line)["premise"] for line in (args.data / f"nli/{code}/test.jsonl").open(encoding="utf-8")]
            for code in ("en", language)
        ]
        found = list(zip(*sides, strict=True))
    first: dict[str, str] = {}
    for english, other in found:
        first.setdefault(english, other)
    return list(first.items())[:PAIRS]


def vectors_of(model: str, texts: Sequence[str]) -> np.ndarray:
    """(n, d) from a model of sentence vectors as it is."""
    from polydistill.catalog.task import RETRIEVAL
    from polydistill.evaluation.heads import open_model
    from polydistill.evaluation.retrieval import vectors
    from polydistill.models.refs import ModelRef, resolve

    return vectors(open_model(resolve(ModelRef.parse(model)).folder, RETRIEVAL, ()), texts, 32)


def found(queries: np.ndarray, english: np.ndarray, pairs: Sequence[tuple[str, str]]) -> Any:
    """Accuracy at 1 from the translation to its English sentence."""
    from polydistill.metrics.similarity import nearest, translations_found

    forth, back = nearest(queries, english)
    return translations_found(forth, back, [(other, own) for own, other in pairs])[0]


def vectors_part(args: argparse.Namespace) -> str:
    """Retrieval between the stack's vectors of a translation and the LLM's of the English sentence."""
    import polydistill as library
    from polydistill.metrics.paired import interval, paired_difference

    folder, record = stage_1(args)
    baseline, before = linear(args)
    stack, line = library.load_stack(folder), library.load_stack(baseline)
    rows = []
    for language in ("sw", "ur", "ro"):
        pairs = sentences(args, language)
        english, others = ([pair[i] for pair in pairs] for i in (0, 1))
        space = vectors_of(LLM, english)
        ways = {
            "MiniLM alone": found(vectors_of(LLM, others), space, pairs),
            "e5, in its own space": found(vectors_of(ENCODER, others), vectors_of(ENCODER, english), pairs),
            "linear map": found(line.encode(others), space, pairs),
            "stack": found(stack.encode(others), space, pairs),
        }
        for name, own in ways.items():
            difference = paired_difference(own, ways["linear map"])
            less = "" if name == "linear map" else percent(difference.value, difference.interval, signed=True)
            rows.append([language, len(pairs), name, percent(own.value, interval(own)), less])
    results = {"stack": record["result"], "linear map": before["result"]}
    head = ["", "English texts", "unexplained variance, held-out English", "M trained", "seconds", "GB"]
    about = [
        [
            name,
            f"{result['stages'][-1]['facts']['texts']:,}",
            f"{result['unexplained_variance']['last']:.3f}",
            f"{result['parameters']['trained'] / 1e6:.2f}",
            f"{result['seconds']:,.0f}",
            f"{result['peak_memory_bytes'] / 1e9:.1f}",
        ]
        for name, result in results.items()
    ]
    curve = ", ".join(
        f"{left:.3f} at {step:,}" for step, left in record["result"]["stages"][-1]["facts"]["unexplained"]
    )
    return "\n\n".join(
        [
            "## Vectors",
            measure.table(["language", "n", "vectors of the translations", "accuracy at 1", "less linear map"], rows),
            measure.table(head, about),
            f"Unexplained variance of the stack by step: {curve}.",
            command_was(folder),
            command_was(baseline),
        ]
    )


# --- ways


def ways(args: argparse.Namespace) -> str:
    """The same short stage 1 with one thing changed."""
    rows = []
    for name, options in WAYS.items():
        folder, record = stacked(args, f"stack-{name}", *text(args), *SHORT, *options)
        result = record["result"]
        rows.append(
            [
                name,
                *(f"{left:.3f}" for _, left in result["stages"][-1]["facts"]["unexplained"]),
                f"{result['parameters']['trained'] / 1e6:.2f}",
                f"{result['seconds']:,.0f}",
            ]
        )
    steps = [f"after {step}" for step, _ in result["stages"][-1]["facts"]["unexplained"]]
    text_ = (
        "300 steps of stage 1; unexplained variance on held-out English text. Its own LLM vectors differ for `first`."
    )
    return "\n\n".join(
        ["## Ways", text_, measure.table(["", *steps, "M trained", "seconds"], rows), command_was(folder)]
    )


# --- a task


def task_data(args: argparse.Namespace, *languages: str) -> list[str]:
    return ["--task", "nli", "--data-dir", str(args.data), *(part for code in languages for part in ("--lang", code))]


def linear_on_task(args: argparse.Namespace) -> tuple[Path, Path]:
    """(the linear map with the head, the LLM tuned on the task, which is everyone's teacher)."""
    data = task_data(args, *LANGUAGES)
    folder, _ = stacked(args, "stack-nli-linear", "--baseline", "linear", "--phase", "2", *data)
    return folder, folder / "stages/teacher"


def on_task(args: argparse.Namespace, name: str, *options: str) -> tuple[Path, dict[str, Any]]:
    """Stage 2 after stage 1."""
    begin, _ = stage_1(args)
    _, teacher = linear_on_task(args)
    return stacked(args, name, "--stack", str(begin), "--teacher", str(teacher), *options)


def rates(args: argparse.Namespace) -> str:
    """Half a pass of stage 2 at several learning rates, scored on English dev data."""
    rows = []
    for rate in RATES:
        options = ("--task-lr", rate, "--task-epochs", "0.5", *task_data(args, "en"), "--test-split", "dev")
        folder, record = on_task(args, f"stack-rate-{rate}", *options)
        result = record["result"]
        (score,) = (s for s in result["scores"] if s["model"] == result["output"])
        last, spread = result["stages"][-1], (score["value"], score["interval"])
        rows.append(
            [
                rate,
                f"{last['loss']['last']['vectors']:.3f}",
                f"{result['unexplained_variance']['last']:.3f}",
                percent(*spread),
                str(score["n"]),
                f"{last['seconds']:,.0f}",
            ]
        )
    head = ["rate", "loss, last 20 steps", "unexplained variance, English dev", "English dev accuracy", "n", "seconds"]
    text_ = "Half a pass of stage 2, at whose end the rate is 0; everything else as under NLI."
    return "\n\n".join(["## Rates", text_, measure.table(head, rows), command_was(folder)])


def training(folder: Path, stage: str) -> list[str]:
    """[steps, seconds, English dev accuracy, examples it is on] of a stage, or of a run that has none."""
    record = json.loads((folder / "polydistill.json").read_text(encoding="utf-8"))
    result, (dev,) = record["result"], [text["examples"] for text in record["texts"] if text["split"] == "dev"]
    found = {one["name"]: one for one in result.get("stages", ())}.get(stage, result)
    best = found["facts"]["best"] if "facts" in found else found["selection"]["value"]
    return [f"{found['steps']:,}", f"{found['seconds']:,.0f}", f"{best:.3f}", f"{dev:,}"]


def nli(args: argparse.Namespace) -> str:
    """Stage 2: the stack, the LLM alone, the linear map with the head, the encoder tuned directly."""
    data = task_data(args, *LANGUAGES)
    map_folder, teacher = linear_on_task(args)
    folder, _ = on_task(args, "stack-nli", *data)
    folders = {
        "stack": folder,
        "MiniLM alone": teacher,
        "linear map and head": map_folder,
        "e5 tuned directly": args.models / "nli",
    }
    there = {name: place for name, place in folders.items() if (place / "config.json").is_file()}
    run_file = args.models / "stack-nli.json"
    polydistill(
        args,
        "evaluate",
        *(part for place in there.values() for part in ("--model", str(place))),
        *data,
        "-o",
        str(run_file),
        "--overwrite",
    )
    compared = polydistill(args, "compare", run_file)
    names = dict(zip([m["name"] for m in compared["models"]], there, strict=True))
    rows = []
    for row in compared["scores"]:
        less = row["difference"]
        shown = "" if less is None else percent(less, row["difference_interval"], signed=True)
        rows.append([row["language"], metric(row), names[row["model"]], percent(row["value"], row["interval"]), shown])
    runs = {
        "stack": (folder, "task"),
        "MiniLM alone": (map_folder, "teacher"),
        "linear map and head": (map_folder, "task"),
        "e5 tuned directly": (args.models / "nli", ""),
    }
    trained = [[name, *training(*runs[name])] for name in there]
    return "\n\n".join(
        [
            "## NLI",
            measure.table(["language", "metric", "model", "score", "less stack"], rows),
            measure.table(["", "steps", "seconds", "English dev accuracy", "n"], trained),
            command_was(folder),
            command_was(map_folder),
        ]
    )


# --- a decoder, and sizes


def gemma(args: argparse.Namespace) -> str:
    """Stage 1 on a decoder-only LLM, at `smoke`."""
    folder, record = stacked(args, "stack-gemma", *text(args), "--preset", args.gemma_preset, llm=GEMMA)
    result = record["result"]
    curve = ", ".join(f"{left:.3f} at {step:,}" for step, left in result["stages"][-1]["facts"]["unexplained"])
    cost = f"{result['seconds']:,.0f} s, peak memory {result['peak_memory_bytes'] / 1e9:.1f} GB"
    facts = f"Unexplained variance by step: {curve}. {cost}."
    return "\n\n".join(["## On a decoder", facts, command_was(folder)])


def size(args: argparse.Namespace) -> str:
    """What leaving out the LLM's embedding matrix saves, and what frozen weights in bfloat16 and checkpointing do."""
    import tempfile

    import polydistill as library
    from polydistill.stacks.folder import save_stack

    rows = []
    for name in ("stack", "stack-gemma"):
        folder = args.models / name
        if not (folder / "config.json").is_file():
            continue
        with tempfile.TemporaryDirectory() as place:
            loaded = library.load_stack(folder)
            llm = loaded.description.llm
            assert llm is not None
            save_stack(loaded, Path(place), whole=True)
            left = measure.folder_bytes(Path(place) / "llm")
            whole = sum(measure.folder_bytes(Path(place) / part) for part in ("llm", "encoder"))
        own = (folder / "model.safetensors").stat().st_size
        rows.append(
            [
                name,
                f"{own / 1e6:.1f}",
                f"{llm.bytes / 1e6:.1f}",
                f"{left / 1e6:.1f}",
                f"{100 * (1 - left / llm.bytes):.0f}",
                f"{whole / 1e6:.1f}",
            ]
        )
    head = [
        "",
        "MB of its own (references)",
        "MB of the LLM",
        "MB without its embedding matrix",
        "saved, %",
        "MB, whole",
    ]
    half, again = ("--frozen", "bfloat16"), ("--checkpointing",)
    ways_ = {"float32": (), "bfloat16": half, "float32, checkpointing": again, "bfloat16, checkpointing": half + again}
    memory = []
    short = ("--preset", "smoke", "--steps", "30", "--max-length", "128")
    for name, options in ways_.items():
        place = f"stack-memory-{name.replace(', ', '-')}"
        _, record = stacked(args, place, *text(args), *short, *options, llm=GEMMA)
        result = record["result"]
        memory.append([name, f"{result['peak_memory_bytes'] / 1e9:.2f}", f"{result['stages'][-1]['seconds']:,.0f}"])
    return "\n\n".join(
        [
            "## Size and memory",
            measure.table(head, rows),
            "30 steps of stage 1 on gemma-3-270m, 16 texts a step:",
            measure.table(["frozen weights", "peak GB", "seconds of stage 1"], memory),
        ]
    )


PARTS = {"vectors": vectors_part, "ways": ways, "rates": rates, "nli": nli, "gemma": gemma, "size": size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="where teachers are and stacks go")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--preset", default="small", help="to try the script out: smoke")
    parser.add_argument("--gemma-preset", default="smoke", help="small where there is a GPU")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "stack.md")
    args = parser.parse_args()
    used = measure.versions("polydistill", "torch", "transformers", "peft", "sentence-transformers")
    for name in args.only or PARTS:
        command = f"python benchmarks/stack.py --data DATA --models MODELS --only {name}"
        measure.write_section(args.output, name, command, PARTS[name](args), used)
        print(f"{name}: written to {args.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
