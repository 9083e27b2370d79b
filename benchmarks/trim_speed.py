"""Speed and memory of polydistill's own steps: counting and cutting."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import measure
from measure import MB, lines_of, median, qa_texts, timed

MODELS = {
    "e5": "intfloat/multilingual-e5-small",
    "gemma": "google/gemma-3-270m",
    "minilm": "sentence-transformers/all-MiniLM-L6-v2",
}
BATCH = 500  # lines in a call: the `chunk` of vocabtrimmer's trim_vocab
LIMIT_RATIO, LIMIT_EXTRA = 3.0, 800 * MB


def prepared(args: argparse.Namespace, default: Sequence[str] = tuple(MODELS)) -> dict[str, Path]:
    """Short name -> folder of a model, from its package."""
    from polydistill.models.offline import prepare

    chosen = args.models or default
    return {name: prepare(MODELS[name], log=lambda line: print(line, file=sys.stderr)) for name in chosen}


# --- counting


def texts(data: Path) -> dict[str, dict[str, list[str]]]:
    """Name of a text -> language -> lines, with spaces between words and without."""
    udhr = data / "parallel" / "udhr"
    unsegmented = {
        "zh": qa_texts(data / "qa" / "zh" / "test.json") + lines_of(udhr / "zh.txt"),
        "th": qa_texts(data / "qa" / "th" / "test.json") + lines_of(udhr / "th.txt"),
        "ja": lines_of(udhr / "ja.txt"),
    }
    spaced = {code: lines_of(data / "text" / f"{code}.txt") for code in ("ro", "sw")}
    return {"Romanian and Swahili": spaced, "Chinese, Thai, Japanese": unsegmented}


def batches(lines: list[str]) -> Iterator[list[str]]:
    return (lines[i : i + BATCH] for i in range(0, len(lines), BATCH))


def counters(
    folder: Path, by_language: dict[str, list[str]], scratch: Path
) -> dict[str, Callable[[], tuple[int, float]]]:
    """Functions that load a tokenizer, which is not timed, and give the tokens that they then made and the seconds.

    A tokenizer that was used before remembers words: counting happens once, so each round gets a new one.
    """
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    from polydistill.catalog import language
    from polydistill.trimming.counting import count
    from polydistill.vocab import open_vocabulary
    from polydistill.vocab.counts import TextCounter

    lines = [line for found in by_language.values() for line in found]
    languages, corpora = [language(code) for code in by_language], []
    for code, found in by_language.items():
        (scratch / f"{code}.txt").write_text("".join(line + "\n" for line in found), encoding="utf-8")
        corpora.append(f"{code}={scratch / code}.txt")

    def opened() -> Any:
        vocabulary = open_vocabulary(folder)
        _ = vocabulary.spaces[0].counting_encoders, vocabulary.spaces[0].ids
        return vocabulary

    def whole() -> tuple[int, float]:
        vocabulary = opened()
        counts, seconds = result_and_seconds(lambda: count(vocabulary, languages, corpora))
        return total(counts.languages.values()), seconds

    def in_memory() -> tuple[int, float]:
        vocabulary = opened()

        def run() -> list[Any]:
            made = []
            for found in by_language.values():
                counter = TextCounter(vocabulary.spaces)
                counter.add(found)
                made.append(counter.result([]))
            return made

        counts, seconds = result_and_seconds(run)
        return total(counts), seconds

    def transformers() -> tuple[int, float]:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids, seconds = result_and_seconds(
            lambda: [tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"] for batch in batches(lines)]
        )
        return sum(len(line) for batch in ids for line in batch), seconds

    def tokenizers() -> tuple[int, float]:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        found, seconds = result_and_seconds(
            lambda: [tokenizer.encode_batch_fast(batch, add_special_tokens=False) for batch in batches(lines)]
        )
        return sum(len(encoding.ids) for batch in found for encoding in batch), seconds

    return {"count": whole, "TextCounter": in_memory, "tokenizer(batch)": transformers, "encode_batch_fast": tokenizers}


def total(counts: Iterable[Any]) -> int:
    """Tokens in the counts of some languages."""
    return sum(int(space.sum()) for language in counts for space in language.spaces.values())


def result_and_seconds(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and how long it takes."""
    started = time.perf_counter()
    return function(), time.perf_counter() - started


def counting(args: argparse.Namespace) -> None:
    """Tokens a second of counting, beside two loops that only tokenize."""
    rows = []
    for model, folder in prepared(args).items():
        for name, by_language in texts(args.data).items():
            functions = counters(folder, by_language, args.scratch)
            found = measure.alternate(functions, args.repetitions)
            rate = {key: median(tokens / seconds for tokens, seconds in pairs) for key, pairs in found.items()}
            size = sum(len(line.encode()) + 1 for lines in by_language.values() for line in lines)
            ratios = [rate["count"] / rate[key] for key in ("tokenizer(batch)", "encode_batch_fast")]
            speeds = [f"{rate[key] / 1000:,.0f}" for key in functions]
            rows.append([model, name, f"{size / MB:.2f}", *speeds, *(f"{r:.1f}" for r in ratios)])
    head = ["model", "text", "MB", "count", "TextCounter", "tokenizer(batch)", "encode_batch_fast", "ratio", "ratio"]
    body = [
        "## Counting",
        f"Thousands of tokens a second, medians of {args.repetitions} alternating rounds, each with tokenizers that "
        "were just loaded (not timed). `count` is all of it: it reads the file, counts, and looks for a wrong "
        "language; `TextCounter` counts lines that are in memory, as the other two get them. `tokenizer(batch)` of "
        f"transformers (batches of {BATCH}, as vocabtrimmer's) and `encode_batch_fast` of tokenizers only tokenize; "
        "what a counter does with the ids is not in their time. Ratios are of `count`.",
        measure.table(head, rows),
    ]
    command = f"python benchmarks/trim.py counting --data DATA --repetitions {args.repetitions}"
    used = measure.versions("polydistill", "tokenizers", "transformers")
    measure.write_section(args.output, "counting", command, "\n\n".join(body), used)


# --- cutting


def count_ro(folder: Path, data: Path, file: Path) -> Path:
    """Counts the Romanian text and saves the counts."""
    from polydistill.catalog import language
    from polydistill.trimming.counting import count
    from polydistill.vocab import open_vocabulary

    count(open_vocabulary(folder), [language("ro")], [str(data / "text" / "ro.txt")]).save(file)
    return file


def copy_bytes(source: Path, target: Path) -> None:
    """Reads and writes every file of a folder, in pieces of 16 MiB."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in (f for f in source.rglob("*") if f.is_file()):
        with file.open("rb") as old, (target / file.name).open("wb") as new:
            while piece := old.read(16 << 20):
                new.write(piece)


def rewrite_json(source: Path, new: Any, target: Path) -> None:
    """Parses the tokenizer's JSON and writes the trimmed one."""
    import orjson

    orjson.loads(source.read_bytes())
    target.write_bytes(orjson.dumps(new))


def trim_command(folder: Path, counts: Path, out: Path) -> list[str | Path]:
    command = [sys.executable, "-m", "polydistill", "trim", "--model", folder, "--lang", "ro", "--counts", counts]
    return [*command, "--no-verify", "-o", out, "--overwrite", "-q"]


def cutting(args: argparse.Namespace) -> None:
    """Time and memory of cutting with counts given, beside their limits."""
    import orjson

    from polydistill.methods.trim.method import trim
    from polydistill.methods.trim.options import TrimOptions
    from polydistill.models.checkpoint import Checkpoint

    rows = []
    for model, folder in prepared(args, ("e5", "gemma")).items():
        counts, out = count_ro(folder, args.data, args.scratch / f"{model}.json"), args.scratch / f"{model}-out"
        config = TrimOptions(
            model=str(folder), languages=("ro",), counts=(counts,), verify=False, output=out, overwrite=True
        )
        trim(config)  # the page cache, and modules that are imported late
        new = orjson.loads((out / "tokenizer.json").read_bytes())
        functions: dict[str, Callable[[], float]] = {
            "trim": partial(timed, partial(trim, config)),
            "bytes": partial(timed, partial(copy_bytes, out, args.scratch / "copy")),
            "json": partial(
                timed, partial(rewrite_json, folder / "tokenizer.json", new, args.scratch / "tokenizer.json")
            ),
        }
        seconds = {n: median(found) for n, found in measure.alternate(functions, args.repetitions).items()}
        floor = seconds["bytes"] + seconds["json"]
        command = trim_command(folder, counts, out)
        peak = median(measure.run(command).peak_bytes for _ in range(args.repetitions))
        largest = max(tensor.nbytes for tensor in Checkpoint.open(folder).tensors.values())
        rows.append(
            [
                model,
                f"{measure.folder_bytes(out) / MB:.1f}",
                f"{seconds['trim']:.3f}",
                f"{seconds['bytes']:.3f} + {seconds['json']:.3f}",
                f"{seconds['trim'] / floor:.2f} (limit {LIMIT_RATIO:.0f})",
                f"{peak / MB:,.0f}",
                f"{(largest + LIMIT_EXTRA) / MB:,.0f}",
                "yes" if seconds["trim"] < LIMIT_RATIO * floor and peak < largest + LIMIT_EXTRA else "NO",
            ]
        )
    head = ["model", "output, MB", "trim, s", "bytes + JSON, s", "ratio", "peak, MB", "limit, MB", "within"]
    body = [
        "## Cutting",
        "Romanian, counts given, `--no-verify`, default coverage. Time in process after imports, warm page cache, "
        f"medians of {args.repetitions} alternating rounds; it is compared with reading and writing the output's bytes "
        "plus parsing the model's tokenizer.json and writing the trimmed one (orjson). Peak memory of a fresh process; "
        "its limit is the largest vocabulary tensor plus 800 MB.",
        measure.table(head, rows),
    ]
    command = f"python benchmarks/trim.py cutting --data DATA --repetitions {args.repetitions}"
    used = measure.versions("polydistill", "numpy", "orjson", "tokenizers")
    measure.write_section(args.output, "cutting", command, "\n\n".join(body), used)
