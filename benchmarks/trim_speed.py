"""Speed and memory of polydistill's own steps: counting and cutting."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
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
    from polydistill.offline import prepare

    chosen = args.models or default
    return {name: prepare(MODELS[name], log=lambda line: print(line, file=sys.stderr)) for name in chosen}


# --- counting


def texts(data: Path) -> dict[str, dict[str, list[str]]]:
    """Name of a text -> language -> lines: two that are written with spaces, three that are not."""
    udhr = data / "parallel" / "udhr"
    unsegmented = {
        "zh": qa_texts(data / "qa" / "zh" / "test.json") + lines_of(udhr / "zh.txt"),
        "th": qa_texts(data / "qa" / "th" / "test.json") + lines_of(udhr / "th.txt"),
        "ja": lines_of(udhr / "ja.txt"),
    }
    spaced = {"Romanian": {"ro": lines_of(data / "text/ro.txt")}, "Swahili": {"sw": lines_of(data / "text/sw.txt")}}
    both = {"Romanian and Swahili": {**spaced["Romanian"], **spaced["Swahili"]}}
    return {**both, "Chinese, Thai, Japanese": unsegmented}


def in_batches(lines: list[str], encode: Callable[[list[str]], Any]) -> None:
    for i in range(0, len(lines), BATCH):
        encode(lines[i : i + BATCH])


def count_lines(vocabulary: Any, by_language: dict[str, list[str]]) -> None:
    """Counts lines that are in memory."""
    from polydistill.vocab.counts import TextCounter

    for lines in by_language.values():
        counter = TextCounter(vocabulary.spaces)
        counter.add(lines)
        counter.result([])


def counting(args: argparse.Namespace) -> None:
    """Tokens a second of counting, beside two loops that only tokenize."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    from polydistill.catalog import language
    from polydistill.counting import count
    from polydistill.vocab import open_vocabulary

    rows = []
    for model, folder in prepared(args).items():
        vocabulary = open_vocabulary(folder)
        slow, fast = AutoTokenizer.from_pretrained(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
        fast.no_truncation()
        fast.no_padding()
        for name, by_language in texts(args.data).items():
            corpora, languages = [], [language(code) for code in by_language]
            for code, lines in by_language.items():
                file = args.scratch / f"{code}.txt"
                file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
                corpora.append(f"{code}={file}")
            lines = [line for found in by_language.values() for line in found]
            tokens = sum(len(e.ids) for e in fast.encode_batch_fast(lines, add_special_tokens=False))
            counted = count(vocabulary, languages, corpora)  # also loads the tokenizer
            ours = sum(int(n.sum()) for c in counted.languages.values() for n in c.spaces.values())
            ours_of = {"count": ours, "TextCounter": ours}  # less than `tokens`: some lines are held out
            functions: dict[str, Callable[[], float]] = {
                "count": partial(timed, partial(count, vocabulary, languages, corpora)),
                "TextCounter": partial(timed, partial(count_lines, vocabulary, by_language)),
                "tokenizer(batch)": partial(timed, partial(in_batches, lines, partial(slow, verbose=False))),
                "encode_batch_fast": partial(timed, partial(in_batches, lines, fast.encode_batch_fast)),
            }
            for function in functions.values():
                function()
            found = measure.alternate(functions, args.repetitions)
            rate = {n: ours_of.get(n, tokens) / median(seconds) for n, seconds in found.items()}
            size = sum(len(line.encode()) + 1 for line in lines)
            rows.append(
                [model, name, f"{size / MB:.2f}", *(f"{r / 1000:,.0f}" for r in rate.values())]
                + [f"{rate['count'] / rate[n]:.1f}" for n in functions if n not in ours_of]
            )
    head = ["model", "text", "MB", "count", "TextCounter", "tokenizer(batch)", "encode_batch_fast", "ratio", "ratio"]
    body = [
        "## Counting",
        f"Thousands of tokens a second, medians of {args.repetitions} alternating rounds, tokenizers already loaded "
        "and used once. `count` is all of it: it reads the file, counts, and looks for a wrong language; `TextCounter` "
        "counts lines that are in memory, as the other two get them. `tokenizer(batch)` of transformers (batches of "
        f"{BATCH}, as vocabtrimmer's) and `encode_batch_fast` of tokenizers only tokenize; what a counter does with "
        "the ids is not in their time. Ratios are of `count`.",
        measure.table(head, rows),
    ]
    command = f"python benchmarks/trim.py counting --data DATA --repetitions {args.repetitions}"
    used = measure.versions("polydistill", "tokenizers", "transformers")
    measure.write_section(args.output, "counting", command, "\n\n".join(body), used)


# --- cutting


def count_ro(folder: Path, data: Path, file: Path) -> Path:
    """Counts the Romanian text and saves the counts."""
    from polydistill.catalog import language
    from polydistill.counting import count
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

    from polydistill.checkpoint import Checkpoint
    from polydistill.methods.trim import TrimConfig, trim

    rows = []
    for model, folder in prepared(args, ("e5", "gemma")).items():
        counts, out = count_ro(folder, args.data, args.scratch / f"{model}.json"), args.scratch / f"{model}-out"
        config = TrimConfig(model=str(folder), lang=("ro",), counts=(counts,), verify=False, output=out, overwrite=True)
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
