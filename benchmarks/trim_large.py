"""A generated checkpoint in shards, cut beside `cp -r`; and its rates for 70B parameters and a terabyte of text."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import measure
from measure import MB, median, timed
from trim_speed import count_ro, prepared, trim_command

GB = 1e9
JOBS = 64  # of the estimate


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
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": rows,
        "dtype": "bfloat16",
        "hidden_size": model.hidden,
        "intermediate_size": model.wide,
        "num_hidden_layers": model.layers,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / file, folder / file)


def nbytes(shapes: dict[str, tuple[int, ...]]) -> int:
    """Bytes of bfloat16 tensors."""
    return sum(2 * math.prod(shape) for shape in shapes.values())


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
        f"{facts['before'] / GB:.2f} GB of random bfloat16 in 8 shards (Llama's layout, Gemma's {facts['rows']:,} "
        "tokens, untied head; the vocabulary tensors are all of the first and nearly all of the last shard), cut to "
        f"{facts['kept']:,} tokens of Romanian with counts given and `--no-verify`: {facts['after'] / GB:.2f} GB. "
        f"Whole processes, medians of {args.repetitions} alternating rounds, warm page cache.",
        measure.table(["", "wall, s", "ratio to cp", "peak, MB"], rows),
        on_paper(facts),
    ]
    command = f"python benchmarks/trim.py large --data DATA --repetitions {args.repetitions}"
    used = measure.versions("polydistill", "numpy", "tokenizers")
    measure.write_section(args.output, "large", command, "\n\n".join(body), used)


def large_facts(source: Path, out: Path, counts: Path, data: Path) -> dict[str, float]:
    """Sizes, and the rates that the estimate needs: of writing, of hashing the source for the record, of counting."""
    from polydistill.catalog import language
    from polydistill.models.checkpoint import Checkpoint
    from polydistill.models.refs import ModelRef, resolve
    from polydistill.models.source import Source
    from polydistill.trimming.counting import count
    from polydistill.trimming.plan import Wishes, plan
    from polydistill.trimming.surgery import write_checkpoint
    from polydistill.vocab.counts import TokenCounts
    from polydistill.vocab.keep import KeepRule

    def add() -> None:
        TokenCounts.load(counts) + TokenCounts.load(counts)

    languages, text = (language("ro"),), data / "text" / "ro.txt"
    opened, after = Source.open(resolve(ModelRef.parse(str(source)))), Checkpoint.open(out)
    made = plan(opened, TokenCounts.load(counts), Wishes(languages, KeepRule(coverage=0.9999)))
    head = opened.checkpoint.tensors["lm_head.weight"]
    seconds = {
        "write": lambda: write_checkpoint(opened.checkpoint, made.cuts, out),
        "hash": lambda: Checkpoint.open(source).weights_hash,
        "count": lambda: count(opened.vocabulary, languages, [str(text)]),
        "add": add,
    }
    took = {name: median(timed(function) for _ in range(5)) for name, function in seconds.items()}
    return {
        "before": measure.folder_bytes(source),
        "after": measure.folder_bytes(out),
        "rows": head.shape[0],
        "kept": after.tensors["lm_head.weight"].shape[0],
        "write_rate": after.nbytes / took["write"],
        "hash_rate": opened.checkpoint.nbytes / took["hash"],
        "count_rate": text.stat().st_size / took["count"],
        "counts_bytes": counts.stat().st_size,
        "add": took["add"] / 2,
    }


def on_paper(facts: dict[str, float]) -> str:
    """The measured rates for 70B parameters and a terabyte of text."""
    parameters, hidden = 70e9, 8192
    vocabulary = 2 * 2 * facts["rows"] * hidden
    left = 2 * parameters - vocabulary * (1 - facts["kept"] / facts["rows"])
    write, digest = left / facts["write_rate"] / 60, 2 * parameters / facts["hash_rate"] / 60
    hours = 1e12 / facts["count_rate"] / 3600
    return (
        f"On paper. 70B parameters in bfloat16 are {2 * parameters / GB:.0f} GB; two vocabulary tensors of "
        f"{facts['rows']:,} x {hidden:,} are {vocabulary / GB:.1f} GB of it. Writing the {left / GB:.0f} GB that stay "
        f"takes {write:.1f} minutes at the {facts['write_rate'] / MB:,.0f} MB/s measured here (page cache; a disk that "
        f"is slower decides), hashing the source for the record {digest:.1f} minutes at "
        f"{facts['hash_rate'] / MB:,.0f} MB/s. Memory does not grow with the model: rows pass through a buffer of "
        "16 MiB, shards without a vocabulary tensor are copied as files. A terabyte of text at the "
        f"{facts['count_rate'] / MB:.1f} MB/s of one process (measured on 2 MB of Romanian, where many words are new; "
        f"longer text repeats its words) is {hours:,.0f} hours of `polydistill count`, {hours / JOBS:.1f} hours in "
        f"{JOBS} parallel jobs. Each leaves one file of counts ({facts['counts_bytes'] / MB:.1f} MB here, at most the "
        f"vocabulary and 100,000 words); reading and adding one takes {facts['add']:.2f} s, "
        f"{JOBS * facts['add']:.0f} s for all of them in `trim --counts`."
    )
