"""Damaged and hostile files of a model folder end in one clear sentence, or in a right result.

Each case runs in a process of its own kind, which may take 1 GiB more memory and 10 seconds.
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tiny
from amount import cases
from mutate import mutate_bytes, mutate_json, mutate_safetensors, mutate_sentencepiece

from polydistill.card import folder_card
from polydistill.catalog import language
from polydistill.errors import PolydistillError
from polydistill.models.checkpoint import NewTensor, write_safetensors
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.records.record import RunRecord
from polydistill.reports.inspection import info
from polydistill.trimming.plan import Wishes, apply, plan
from polydistill.vocab import open_vocabulary
from polydistill.vocab.counts import TextCounter, TokenCounts
from polydistill.vocab.keep import KeepRule

pytestmark = pytest.mark.faults

MEMORY, SECONDS = 1 << 30, 10
LINES = tiny.sentences("ro", count=12)


class Kind(NamedTuple):
    """What is damaged: one of some files of a model folder."""

    model: str
    files: tuple[str, ...]


BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
KINDS = {
    "unigram": Kind("xlm-roberta", ("tokenizer.json",)),
    "wordpiece": Kind("bert", ("tokenizer.json",)),
    "byte-bpe": Kind("qwen2", ("tokenizer.json",)),
    "sentencepiece-bpe": Kind("gemma", ("tokenizer.json",)),
    "beside": Kind("gemma", BESIDE),
    "older": Kind("gpt2", ("vocab.json", "merges.txt")),
    "converted": Kind("t5", ("spiece.model",)),
    "config": Kind("bert", ("config.json", "generation_config.json")),
    "modules": Kind("sentences", ("modules.json",)),
    "sentencepiece": Kind("marian", ("source.spm", "target.spm")),
    "tables": Kind("marian", ("vocab.json", *BESIDE[:2])),
    "header": Kind("bert", ("model.safetensors",)),
    "index": Kind("sharded", ("model.safetensors.index.json",)),
    "record": Kind("bert", ("polydistill.json",)),
}
# Suffix -> how such a file is damaged.
MUTATE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": mutate_json,
    ".txt": mutate_bytes,
    ".model": mutate_sentencepiece,
    ".spm": mutate_sentencepiece,
    ".safetensors": mutate_safetensors,
}
# Folder -> the model type of the rest, where it is another one.
TYPES = {"gemma": "gemma3_text", "sentences": "bert", "sharded": "bert"}
EMBEDDINGS = {
    "gemma3_text": "model.embed_tokens",
    "qwen2": "model.embed_tokens",
    "marian": "model.shared",
    "t5": "shared",
    "gpt2": "wte",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole folder of each model: a real tokenizer, and an embedding with two layers' worth of names."""
    from transformers import AutoTokenizer  # before the processes are made, each of which would take seconds to do so

    assert AutoTokenizer
    place = tmp_path_factory.mktemp("models")
    for name in {kind.model for kind in KINDS.values()}:
        model_type = TYPES.get(name, name)
        family = "bert" if model_type == "bert" else name
        inner = place / name / ("0_Transformer" if name == "sentences" else "")
        tiny.tokenizer_files(family, inner, size=220, legacy=name == "gemma", beside=name in ("t5", "gpt2"))
        _write_model(inner, model_type, shards=2 if name == "sharded" else 1)
        if name in ("t5", "gpt2"):
            (inner / "tokenizer.json").unlink()
    module = {"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}
    pooling = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
    _dump(place / "sentences/modules.json", [module, pooling])
    _dump(place / "bert/generation_config.json", {"eos_token_id": [3], "suppress_tokens": [1, 2], "max_length": 20})
    _dump(place / "gemma/added_tokens.json", {"<mask>": 4})
    texts = [{"language": "ro", "where": "ro.txt", "lines": 12, "bytes": 400, "sha256": "0"}]
    parent = RunRecord("trim", {"lang": ["ro"]}, {"source": "org/name@1"}, texts, {"languages": ["ro"]})
    RunRecord("finetune", {"task": "nli"}, {"source": "org/it"}, [], {}, parent=asdict(parent)).save(place / "bert")
    return place


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _write_model(folder: Path, model_type: str, shards: int) -> None:
    rows = max(max(space.ids.values()) for space in open_vocabulary(folder).spaces) + 3
    rng = np.random.default_rng(0)
    arrays = {f"{EMBEDDINGS.get(model_type, 'embeddings.word_embeddings')}.weight": rng.standard_normal((rows, 8))}
    arrays |= {f"layers.{i}.weight": rng.standard_normal((8, 8)) for i in range(2)}
    files: dict[str, str] = {}
    for i in range(shards):
        file = "model.safetensors" if shards == 1 else f"model-0000{i + 1}-of-0000{shards}.safetensors"
        part = dict(list(arrays.items())[i::shards])
        new = [NewTensor(n, "F32", a.shape, lambda out, a=a: out.write(a.astype("f4"))) for n, a in part.items()]
        write_safetensors(folder / file, new, {"format": "pt"})
        files |= dict.fromkeys(part, file)
    if shards > 1:
        _dump(folder / "model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": files})
    config = {
        "model_type": model_type,
        "architectures": ["BertModel"],
        "vocab_size": rows,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "eos_token_id": [1, 2],
        "id2label": {"0": "A", "1": "B"},
        "label2id": {"A": 0, "B": 1},
        "bad_words_ids": [[1]],
        "forced_decoder_ids": [[1, 2]],
        "text_config": {"vocab_size": rows, "bos_token_id": 2},
    }
    _dump(folder / "config.json", config)


# ---- one case ----


def attempt(folder: Path, out: Path) -> str:
    """Looks at a folder and trims it: `refused`, `right`, or what went wrong."""
    try:
        info(str(folder))
        source = Source.open(resolve(ModelRef.parse(str(folder))))
        counts, template = {}, ()
        counter = TextCounter(source.vocabulary.spaces)
        counter.add(LINES)
        counts["ro"] = counter.result([])
        trimmed = plan(source, TokenCounts("", counts, template), Wishes((language("ro"),), KeepRule(min_count=1)))
        apply(trimmed, out)
        if (folder / "polydistill.json").is_file():
            folder_card(folder)
    except PolydistillError as error:
        told = error.message.endswith((".", ")")) and error.hint and "\n" not in str(error) and len(str(error)) < 2_000
        return "refused" if told else f"unclear: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error!s:.200} at {_where(error)}"
    try:
        return _wrong(source, trimmed.keeps, out) or "right"
    except BaseException as error:  # ours too: what was written must be whole
        return f"not right: {type(error).__name__}: {error!s:.200} at {_where(error)}"


def _where(error: BaseException) -> str:
    trace, found = error.__traceback__, ""
    while trace:
        found = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _wrong(source: Source, keeps: Any, out: Path) -> str | None:
    """What is not right in a trimmed folder: ids of the text, rows, files that their own libraries cannot read."""
    from safetensors import safe_open

    new = open_vocabulary(out / source.model.relative_to(source.folder))
    lines = LINES if keeps[0].size else []
    for before, after, keep in zip(_encoders(source.vocabulary), _encoders(new), keeps, strict=True):
        for old, ids in zip(before(lines), after(lines), strict=True):
            if any(i not in keep for i in old) or [keep.new(i) for i in old] != ids:
                return f"wrong ids: {ids} for {old}"
    for file in source.checkpoint.files:
        with safe_open(file, "np") as old, safe_open(out / file.relative_to(source.folder), "np") as cut:
            for name in old.keys():  # noqa: SIM118
                rows = keeps[0].ids if source.arch.vocabulary_tensor(name) else slice(None)
                if old.get_tensor(name)[rows].tobytes() != cut.get_tensor(name).tobytes():
                    return f"wrong rows of {name}"
    return None


def _encoders(vocabulary: Any) -> list[Callable[[list[str]], list[list[int]]]]:
    """By the library alone where there is a tokenizer.json, with what the post-processor inserts."""
    if not hasattr(vocabulary, "data"):
        return [encoder for space in vocabulary.spaces for encoder in space.encoders[:1]]
    from tokenizers import Tokenizer

    file = vocabulary.folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file)) if file.is_file() else Tokenizer.from_buffer(vocabulary._raw)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return [lambda lines: [tokenizer.encode(line).ids for line in lines]]


# ---- many cases, in processes with limits ----


def _work(models: Path, kind: Kind, seeds: range, place: Path, say: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries in Rust print what they gave up on
    faulthandler.disable()  # pytest's has a descriptor of its own
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for seed in seeds:
        spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + SECONDS, resource.RLIM_INFINITY))
        say.send((seed, None))
        folder, out = place / "model", place / "out"
        for old in (folder, out):
            shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(models / kind.model, folder, copy_function=os.link)
        out.mkdir()
        rng = random.Random(seed)
        file = folder / rng.choice([name for name in kind.files if (folder / name).is_file()])
        damaged = MUTATE[file.suffix](file.read_bytes(), rng)
        file.unlink()  # it is a link
        file.write_bytes(damaged)
        say.send((seed, attempt(folder, out)))
    say.send(None)


def _run(models: Path, kind: Kind, count: int, place: Path) -> dict[int, str]:
    """Seed -> outcome of `count` cases; a process that dies is followed by another one."""
    found: dict[int, str] = {}
    first = 0
    while first < count:
        hear, say = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(
            target=_work, args=(models, kind, range(first, count), place, say)
        )
        process.start()
        say.close()
        try:
            while (message := hear.recv()) is not None:
                found[message[0]] = message[1] or "died"
        except EOFError:
            pass
        process.join()
        if message is None:
            break
        found[message[0]] = f"died with {process.exitcode}"
        first = message[0] + 1
    return found


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_refused_or_read_right(name: str, models: Path, tmp_path: Path) -> None:
    count = cases(200)
    found = _run(models, KINDS[name], count, tmp_path)
    assert len(found) == count
    print(f"\n{name}: {dict(Counter(outcome for outcome in found.values() if outcome in ('refused', 'right')))}")
    bad = {seed: outcome for seed, outcome in found.items() if outcome not in ("refused", "right")}
    assert not bad, "\n".join(f"{seed}: {outcome}" for seed, outcome in bad.items())


@pytest.mark.parametrize("name", sorted({kind.model for kind in KINDS.values()}))
def test_the_whole_files_are_read_right(name: str, models: Path, tmp_path: Path) -> None:
    assert attempt(models / name, tmp_path) == "right"


def test_what_takes_memory_or_time_or_kills_its_process_is_noticed(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def harm(folder: Path, out: Path) -> str:
        for deed in deeds:
            deeds.remove(deed)
            return deed()
        return "right"

    def loop() -> str:
        while True:
            pass

    def fill() -> str:
        try:
            return str(len(bytes(2 * MEMORY)))
        except MemoryError:
            return "MemoryError"

    deeds = [fill]
    monkeypatch.setattr(f"{__name__}.attempt", harm)
    monkeypatch.setattr(f"{__name__}.SECONDS", 1)
    assert _run(models, KINDS["config"], 2, tmp_path) == {0: "MemoryError", 1: "right"}
    deeds[:] = [loop]
    assert _run(models, KINDS["config"], 1, tmp_path) == {0: f"died with -{signal.SIGXCPU}"}
    deeds[:] = [lambda: os.kill(os.getpid(), signal.SIGSEGV) or ""]
    assert _run(models, KINDS["config"], 1, tmp_path) == {0: f"died with -{signal.SIGSEGV}"}
