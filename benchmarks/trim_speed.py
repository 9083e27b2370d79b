"""Speed and memory of polydistill's own steps: counting, cutting, and a large sharded checkpoint."""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import measure
from measure import MB, conll_sentences, lines_of, median, qa_texts, timed

MODELS = {
    "e5": "intfloat/multilingual-e5-small",
    "gemma": "google/gemma-3-270m",
    "minilm": "sentence-transformers/all-MiniLM-L6-v2",
}
BATCH = 500  # lines in a call: the `chunk` of vocabtrimmer's trim_vocab
LIMIT_RATIO, LIMIT_EXTRA = 3.0, 800 * MB
GB = 1e9


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


def counting(args: argparse.Namespace) -> None:
    """Tokens a second of counting, beside two loops that only tokenize."""
    from polydistill.catalog import language
    from polydistill.counting import count
    from polydistill.vocab import open_vocabulary
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

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
            functions: dict[str, Callable[[], float]] = {
                "ours": partial(timed, partial(count, vocabulary, languages, corpora)),
                "tokenizer(batch)": partial(timed, partial(in_batches, lines, partial(slow, verbose=False))),
                "encode_batch_fast": partial(timed, partial(in_batches, lines, fast.encode_batch_fast)),
            }
            for function in functions.values():
                function()
            found = measure.alternate(functions, args.repetitions)
            rate = {n: (ours if n == "ours" else tokens) / median(seconds) for n, seconds in found.items()}
            size = sum(len(line.encode()) + 1 for line in lines)
            rows.append(
                [model, name, f"{size / MB:.2f}", *(f"{r / 1000:,.0f}" for r in rate.values())]
                + [f"{rate['ours'] / rate[n]:.1f}" for n in functions if n != "ours"]
            )
    head = ["model", "text", "MB", "ours, k tokens/s", "tokenizer(batch)", "encode_batch_fast", "ratio", "ratio"]
    body = [
        "## Counting",
        f"Thousands of tokens a second, medians of {args.repetitions} alternating rounds with tokenizers already loaded "
        f"and used once. `ours` is all of counting: it reads the file and sums up the counts. `tokenizer(batch)` of "
        f"transformers (batches of {BATCH}, as vocabtrimmer does) and `encode_batch_fast` of tokenizers only tokenize "
        "lines that are in memory; what a counter would do with the ids is not in their time.",
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
        config = TrimConfig(
            model=str(folder), lang=("ro",), counts=(counts,), verify=False, output=out, overwrite=True
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


# --- a large checkpoint


@dataclass(frozen=True)
class Llama:
    """Sizes of a generated model, bfloat16: Gemma's vocabulary, an untied head, few wide layers."""

    rows: int
    layers: int
    hidden: int = 512
    wide: int = 8192

    @property
    def embedding(self) -> dict[str, tuple[int, ...]]:
        return {"model.embed_tokens.weight": (self.rows, self.hidden)}

    @property
    def head(self) -> dict[str, tuple[int, ...]]:
        return {"model.norm.weight": (self.hidden,), "lm_head.weight": (self.rows, self.hidden)}

    def layer(self, i: int) -> dict[str, tuple[int, ...]]:
        hidden, wide = self.hidden, self.wide
        shapes: dict[str, tuple[int, ...]] = {f"self_attn.{x}_proj.weight": (hidden, hidden) for x in "qkvo"}
        shapes |= {"mlp.gate_proj.weight": (wide, hidden), "mlp.up_proj.weight": (wide, hidden)}
        shapes |= {"mlp.down_proj.weight": (hidden, wide)}
        shapes |= {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}
        return {f"model.layers.{i}.{name}": shape for name, shape in shapes.items()}

    def shards(self, count: int) -> Iterator[dict[str, tuple[int, ...]]]:
        """The vocabulary tensors in the first and last shard, the layers in those between."""
        yield self.embedding
        for part in range(count - 2):
            own = range(part * self.layers // (count - 2), (part + 1) * self.layers // (count - 2))
            yield {name: shape for i in own for name, shape in self.layer(i).items()}
        yield self.head


def generate(folder: Path, tokenizer: Path, size: int, shards: int = 8) -> None:
    """Writes a sharded checkpoint of about `size` bytes; its weights are one random block (seed 0) again and again."""
    import numpy as np

    rows = len(json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"])
    model = Llama(rows, 1)
    layer = nbytes(model.layer(0))
    model = Llama(rows, max(shards, (size - nbytes({**model.embedding, **model.head})) // layer))
    folder.mkdir(parents=True)
    block = np.random.default_rng(0).bytes(64 << 20)
    weight_map = {}
    for number, shapes in enumerate(model.shards(shards), 1):
        name = f"model-{number:05}-of-{shards:05}.safetensors"
        write_shard(folder / name, shapes, block)
        weight_map.update(dict.fromkeys(shapes, name))
    total = sum(nbytes(shapes) for shapes in model.shards(shards))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": rows, "dtype": "bfloat16",
              "hidden_size": model.hidden, "intermediate_size": model.wide, "num_hidden_layers": model.layers,
              "num_attention_heads": 8, "num_key_value_heads": 8, "tie_word_embeddings": False,
              "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / file, folder / file)


def nbytes(shapes: dict[str, tuple[int, ...]]) -> int:
    """Bytes of bfloat16 tensors."""
    total = 0
    for shape in shapes.values():
        elements = 1
        for n in shape:
            elements *= n
        total += 2 * elements
    return total


def write_shard(file: Path, shapes: dict[str, tuple[int, ...]], block: bytes) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + nbytes({name: shape})
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for start in range(0, end, len(block)):
            out.write(block[: end - start])


def large(args: argparse.Namespace) -> None:
    """A generated sharded checkpoint, beside `cp -r`, and what its rates mean for 70B parameters."""
    args.models = ["gemma"]
    (gemma,) = prepared(args).values()
    source, out = args.scratch / "large", args.scratch / "large-out"
    try:
        generate(source, gemma, args.bytes)
        counts = count_ro(source, args.data, args.scratch / "large.json")

        def one(command: list[str | Path]) -> measure.Run:
            shutil.rmtree(out, ignore_errors=True)
            return measure.run(command)

        functions: dict[str, Callable[[], measure.Run]] = {
            "polydistill": partial(one, trim_command(source, counts, out)),
            "cp -r": partial(one, ["cp", "-r", source, out]),
        }
        for function in functions.values():
            function()
        runs = measure.alternate(functions, args.repetitions)
        functions["polydistill"]()
        facts = large_facts(source, out, counts, args.data)
    finally:
        shutil.rmtree(source, ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
    seconds = {name: median(r.seconds for r in found) for name, found in runs.items()}
    peak = {name: median(r.peak_bytes for r in found) for name, found in runs.items()}
    rows = [
        [name, f"{seconds[name]:.2f}", f"{seconds[name] / seconds['cp -r']:.2f}", f"{peak[name] / MB:,.0f}"]
        for name in runs
    ]
    body = [
        "## A large checkpoint",
        f"{facts['before'] / GB:.2f} GB of random bfloat16 in 8 shards (Llama's layout, Gemma's {facts['rows']:,} tokens, "
        "untied head; the vocabulary tensors are all of the first and nearly all of the last shard), cut to "
        f"{facts['kept']:,} tokens of Romanian with counts given and `--no-verify`: {facts['after'] / GB:.2f} GB. "
        f"Whole processes, medians of {args.repetitions} alternating rounds, warm page cache.",
        measure.table(["", "wall, s", "ratio to cp", "peak, MB"], rows),
        on_paper(facts, seconds["polydistill"]),
    ]
    command = f"python benchmarks/trim.py large --data DATA --repetitions {args.repetitions}"
    used = measure.versions("polydistill", "numpy", "tokenizers")
    measure.write_section(args.output, "large", command, "\n\n".join(body), used)


def large_facts(source: Path, out: Path, counts: Path, data: Path) -> dict[str, float]:
    """Sizes, and the rates that the estimate needs."""
    from polydistill.catalog import language
    from polydistill.checkpoint import Checkpoint
    from polydistill.counting import count
    from polydistill.vocab import open_vocabulary
    from polydistill.vocab.counts import TokenCounts

    def add() -> None:
        TokenCounts.load(counts) + TokenCounts.load(counts)

    before, after = Checkpoint.open(source), Checkpoint.open(out)
    vocabulary, text = open_vocabulary(source), data / "text" / "ro.txt"
    counted = partial(count, vocabulary, [language("ro")], [str(text)])
    counted()
    return {
        "before": measure.folder_bytes(source),
        "after": measure.folder_bytes(out),
        "rows": before.tensors["lm_head.weight"].shape[0],
        "kept": after.tensors["lm_head.weight"].shape[0],
        "largest": before.tensors["lm_head.weight"].nbytes,
        "written": after.nbytes,
        "count_rate": text.stat().st_size / median(timed(counted) for _ in range(5)),
        "counts_bytes": counts.stat().st_size,
        "add": median(timed(add) for _ in range(5)),
    }


def on_paper(facts: dict[str, float], seconds: float) -> str:
    """The rates above for 70B parameters and a terabyte of text."""
    rate = facts["written"] / seconds
    parameters, hidden, jobs = 70e9, 8192, 64
    vocabulary = 2 * 2 * facts["rows"] * hidden
    left = 2 * parameters - vocabulary * (1 - facts["kept"] / facts["rows"])
    hours = 1e12 / facts["count_rate"] / 3600
    return (
        f"On paper. 70B parameters in bfloat16 are {2 * parameters / GB:.0f} GB, two vocabulary tensors of "
        f"{facts['rows']:,} x {hidden:,} are {vocabulary / GB:.1f} GB of it. What is written ({left / GB:.0f} GB) at the "
        f"{rate / MB:,.0f} MB/s measured above takes {left / rate / 60:.1f} minutes, or as long as the disk needs for so "
        "many bytes; shards without a vocabulary tensor are copied as files and could be linked. Memory does not grow "
        "with the model: rows pass through a buffer of 16 MiB. A terabyte of text at the measured "
        f"{facts['count_rate'] / MB:.1f} MB/s of a process (2 MB of Romanian, most words new; longer text repeats more "
        f"of its words and counts faster) is {hours:,.0f} hours of `polydistill count`, {hours / jobs:.1f} hours in "
        f"{jobs} parallel jobs. Each leaves one file of counts ({facts['counts_bytes'] / MB:.1f} MB here; at most the "
        f"vocabulary and 100,000 words), and adding one takes {facts['add'] / 2:.2f} s: "
        f"{jobs * facts['add'] / 2:.0f} s for all, given to `trim --counts`."
    )
