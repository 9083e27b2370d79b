"""The whole journey on real weights: from a 100-language model to a small tagger for Swahili on the Hub, and back.

  python benchmarks/journey.py --data DATA --models MODELS                      # what is there stays
  python benchmarks/journey.py --data DATA --models ELSEWHERE --preset smoke    # in minutes, to try it out

trim en+sw -> finetune -> bistil -> prokd -> evaluate -> compare -> export -> publish -> load in a fresh process. DATA
is laid out as data.md says; the Hub is a stand-in on this machine (tests/hub_stub.py). Labels are English alone,
checkpoints are chosen on English dev data. MODELS/ner of teachers.py, the same tuning of a model that was not cut, is
compared with where it is there. Phase 1 of bistil is the one of bistil.py, MODELS/general-sw-6, which cuts
the vocabulary as trim does. It writes benchmarks/journey.md and benchmarks/journey.svg.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
from bistil import STUDENTS, phase_1_command, texts
from bistil_step import default_model
from bistil_tables import metric, percent
from commands import command_was, made, polydistill

ROOT = Path(__file__).resolve().parents[1]
STUDENT = "ner-sw-6"  # of bistil.py, whose phase 1 is the journey's too
TARGET, REPOSITORY, TOKEN = "sw", "acme/e5-small-en-sw-ner", "hf_" + "x" * 34
SPLITS = ("--train-split", "train_wikineural", "--dev-split", "dev_wikineural")
TESTS = {"en": "test_wikineural", TARGET: "test"}
FINETUNE = {
    "small": ("--lr", "2e-4", "--epochs", "4", "--freeze-layers", "3", "--patience", "0"),
    "smoke": ("--lr", "2e-4", "--epochs", "1", "--freeze-layers", "3", "--limit", "640"),
}
FRESH = """
import json, sys
from huggingface_hub import snapshot_download
from transformers import pipeline
import polydistill
folder = snapshot_download(sys.argv[1])
tagger = pipeline("token-classification", model=folder, aggregation_strategy="first")
found = [(e["word"], e["entity_group"]) for e in tagger(sys.argv[2])]
scored = polydistill.evaluate([folder], task="ner", languages=[sys.argv[3]], split=sys.argv[4], data_dir=sys.argv[5])
print(json.dumps({"found": found, "scores": [s.value for s in scored.scores]}))
"""
# In light and on dark pages.
COLOURS = {
    "ink": "#7a7a7a",
    "muted": "#8a8a8a",
    "line": "#b0b0b0",
    "series-0": "#3b82c4",
    "series-1": "#d9822b",
    "series-2": "#3a9d6e",
    "series-3": "#b05a9d",
}
NAMES = {"whole": "whole", "finetune": "trimmed", "bistil": "bistil", "prokd": "+ prokd"}
SENTENCE = "Wangari Maathai alizaliwa Nyeri na kufanya kazi katika Chuo Kikuu cha Nairobi."


def journey(args: argparse.Namespace) -> tuple[list[tuple[str, Path, float]], dict[str, Path]]:
    """(step, its folder, its seconds) of every step that makes a model, and the models to compare."""
    place = {name: args.models / f"journey-{name}" for name in ("trim", "finetune", "bistil", "prokd", "export")}
    general = args.models / STUDENTS[STUDENT].phase_1
    tests = [part for code, split in TESTS.items() for part in ("--test-split", f"{code}={split}")]
    data = ("--data-dir", str(args.data))
    commands = {
        "trim": ["trim", "--lang", "en", "--lang", TARGET, "--min-share", "1e-6", *texts(args, TARGET, "--text")],
        "finetune": [
            "finetune",
            "--model",
            str(place["trim"]),
            "--task",
            "ner",
            "--lang",
            "en",
            *data,
            *SPLITS,
            "--freeze-embeddings",
            "--precision",
            "bfloat16",
            *FINETUNE[args.preset],
        ],
        "bistil": [
            "bistil",
            "en",
            TARGET,
            "--model",
            str(general),
            "--preset",
            args.preset,
            "--task",
            "ner",
            "--teacher",
            str(place["finetune"]),
            *data,
            *SPLITS,
            *tests,
        ],
        "prokd": [
            "prokd",
            "en",
            TARGET,
            "--teacher",
            str(place["finetune"]),
            "--model",
            str(place["bistil"]),
            "--preset",
            args.preset,
            "--freeze-embeddings",
            "--precision",
            "bfloat16",
            *data,
            *SPLITS,
            *tests,
        ],
        "export": ["export", str(place["prokd"]), "--int8", "--task", "ner", "--lang", TARGET, *data],
    }
    lines = {name: [*command, "-o", str(place[name])] for name, command in commands.items()}
    lines = {"phase 1 of bistil": phase_1_command(args, STUDENTS[STUDENT]), **lines}
    steps = []
    for name, line in lines.items():
        folder, record = made(args, line)
        steps.append((name, folder, float(record["result"].get("seconds", 0.0))))
    whole = {"whole": args.models / "ner"} if (args.models / "ner/polydistill.json").is_file() else {}
    return steps, {**whole, **{name: place[name] for name in ("finetune", "bistil", "prokd")}}


def scored(args: argparse.Namespace, models: dict[str, Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(scores of all models in both languages, their comparison with the teacher); a page beside them."""
    runs, compared = {}, {}
    for code, split in TESTS.items():
        run = args.models / f"journey-{code}.json"
        folders = [part for folder in models.values() for part in ("--model", str(folder))]
        runs[code] = polydistill(
            args,
            "evaluate",
            *folders,
            "--task",
            "ner",
            "--lang",
            code,
            "--split",
            split,
            "--data-dir",
            str(args.data),
            "-o",
            str(run),
            "--overwrite",
        )
        page = args.models / f"journey-{code}.html"
        compared[code] = polydistill(args, "compare", run)
        shown = [sys.executable, "-m", "polydistill", "compare", str(run), "--html", str(page), "--overwrite"]
        subprocess.run(shown, check=True, stdout=subprocess.DEVNULL)
    return runs, compared


def published(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What a fresh process gets of the model from the stand-in for the Hub."""
    sys.path.insert(0, str(ROOT / "tests"))
    from hub_stub import HubStub

    with HubStub() as hub, tempfile.TemporaryDirectory() as home:
        hub.writable.allow(TOKEN, "ann", REPOSITORY.partition("/")[0])
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        # A cache of its own too: what this machine has predicted before is not what the fresh process predicts.
        settings = {
            **kept,
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": home,
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": TOKEN,
            "POLYDISTILL_CACHE": f"{home}/polydistill",
            "no_proxy": "127.0.0.1",
        }
        publish = [sys.executable, "-m", "polydistill", "publish", str(folder), REPOSITORY, "--yes", "--json"]
        sent = json.loads(subprocess.run(publish, env=settings, stdout=subprocess.PIPE, check=True).stdout)
        again = json.loads(subprocess.run(publish, env=settings, stdout=subprocess.PIPE, check=True).stdout)
        fresh = [sys.executable, "-c", FRESH, REPOSITORY, SENTENCE, TARGET, TESTS[TARGET], str(args.data)]
        got = json.loads(
            subprocess.run(fresh, env=settings, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1]
        )
    return {
        **got,
        "files": len(sent["files"]),
        "bytes": sum(f["bytes"] for f in sent["files"]),
        "again": len(again["sent"]),
    }


def picture(args: argparse.Namespace, runs: dict[str, Any], models: dict[str, Path]) -> None:
    """Size against quality in the target language, in colours for light and dark pages."""
    from polydistill.reports.figures import Point, size_against_quality

    points: list[Point] = []
    names = {str(folder): name for name, folder in models.items()}
    sizes = {m["model"]: sum(m["parameters"].values()) for m in runs[TARGET]["models"]}
    for score in runs[TARGET]["scores"]:
        if score["normalisation"] == "conlleval":
            name = names[score["model"]]
            points.append(
                Point(NAMES[name], len(points), sizes[score["model"]], score["value"], tuple(score["interval"]))
            )
    drawing = size_against_quality(points, "F1", f"Size against F1 in {TARGET}", "journey", named=True)
    for variable, colour in COLOURS.items():
        drawing = drawing.replace(f"var(--{variable})", colour)
    args.output.with_suffix(".svg").write_text(drawing, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="where models go")
    parser.add_argument("--preset", choices=list(FINETUNE), default="small")
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parent / "journey.md")
    args = parser.parse_args(namespace=argparse.Namespace(model=default_model(), minutes=None, precision=None))
    started = time.perf_counter()
    steps, models = journey(args)
    runs, compared = scored(args, models)
    got = published(args, models["prokd"])
    picture(args, runs, models)
    sizes = {m["model"]: (sum(m["parameters"].values()), m["bytes"]) for m in runs[TARGET]["models"]}
    names = {str(folder): name for name, folder in models.items()}
    rows = []
    for code in TESTS:
        labels = dict(zip([m["name"] for m in compared[code]["models"]], models, strict=True))
        for row in compared[code]["scores"]:
            name = labels[row["model"]]
            parameters, nbytes = sizes[str(models[name])]
            less = row["difference"]
            rows.append(
                [
                    code,
                    metric(row),
                    NAMES[name],
                    f"{parameters / 1e6:.1f}",
                    f"{nbytes / 1e6:.0f}",
                    percent(row["value"], row["interval"]),
                    "" if less is None else percent(less, row["difference_interval"], signed=True),
                ]
            )
    own = [s["value"] for s in runs[TARGET]["scores"] if names[s["model"]] == "prokd"]
    facts = (
        f"Published: {got['files']} files, {got['bytes'] / 1e6:.1f} MB, in one commit; the same command again sent "
        f"{got['again']}. A fresh process that fetched it scored {', '.join(f'{100 * v:.2f}' for v in got['scores'])} "
        f"(here: {', '.join(f'{100 * v:.2f}' for v in own)}) and found {got['found']} in: {SENTENCE}"
    )
    before = json.loads((args.models / "journey-trim/polydistill.json").read_text(encoding="utf-8"))["result"]
    whole = (
        f"multilingual-e5-small itself has {before['parameters']['before'] / 1e6:.1f} M parameters and "
        f"{before['bytes']['before'] / 1e6:.0f} MB; what was published has "
        f"{100 * sizes[str(models['prokd'])][0] / before['parameters']['before']:.1f}% of them."
    )
    head = ["language", "metric", "model", "M parameters", "MB", "score", f"less {NAMES[next(iter(models))]}"]
    body = "\n\n".join(
        [
            "## From a model of 100 languages to one of two",
            whole,
            measure.table(head, rows),
            facts,
            measure.table(
                ["step", "seconds (after a stop: since it went on)"],
                [[name, f"{seconds:,.0f}"] for name, _, seconds in steps],
            ),
            *(command_was(folder) for _, folder, _ in steps),
            f"All of it took {time.perf_counter() - started:,.0f} s here, without what was there already.",
        ]
    )
    used = measure.versions("polydistill", "torch", "transformers", "onnxruntime")
    measure.write_section(
        args.output,
        "journey",
        f"python benchmarks/journey.py --data DATA --models MODELS --preset {args.preset}",
        body,
        used,
    )


if __name__ == "__main__":
    main()
