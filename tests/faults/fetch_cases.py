"""Fetching from a Hub that answers badly, many times in one process: `python fetch_cases.py FOLDER SEED CASES`.

FOLDER has `model`, and `texts` with a data set. Prints one JSON object: how often each end was seen, and every case
that ended otherwise than with what the Hub has or with one sentence.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from hub_repos import Fault
from hub_stub import COMMIT, HubStub
from publish_cases import bad_answer

MODEL = ("GET /api/models/", "HEAD .*/resolve/", "GET .*/resolve/.*config", "GET .*/resolve/.*safetensors")
TEXTS = ("GET /api/datasets/[^/]*/[^/]*$", "GET /api/datasets/", "POST .*paths-info", "(GET|HEAD) .*/resolve/.*jsonl")


def other_bytes(choose: random.Random, path: Path) -> Fault:
    """Another content under the same hash, of the same length or not."""
    size = path.stat().st_size + choose.choice((0, 0, -1, 1, 1000))
    headers = {"ETag": f'"{digest(path)}"', "X-Repo-Commit": COMMIT}
    return Fault(f"GET .*/resolve/.*{path.name}", 200, choose.choice((1, 99)), headers, "x" * size, done=True)


def digest(path: Path) -> str:
    from polydistill.fetching.reach import hub_hash

    return hub_hash(path, git=False)


def fetch_model(root: Path, case: int) -> bool:
    """Whether what was fetched is what the Hub has."""
    from huggingface_hub import constants

    from polydistill.models.refs import ModelRef, resolve

    constants.HF_HUB_CACHE = str(root / "cache" / str(case))
    folder = resolve(ModelRef("org/model"), offline_ok=False).folder
    names = [path.name for path in (root / "model").iterdir()]
    return all((folder / name).read_bytes() == (root / "model" / name).read_bytes() for name in names)


def fetch_texts(root: Path, case: int) -> bool:
    """Whether what was read is what the Hub has."""
    from polydistill.catalog import language
    from polydistill.texts.sources import parse_corpus, read_texts

    lines = (root / "texts" / "train.jsonl").read_text().splitlines()
    return list(read_texts(parse_corpus(language("en"), "org/texts"))) == [json.loads(line)["text"] for line in lines]


def main(root: Path, seed: int, count: int) -> None:
    """Tries the cases."""
    with HubStub(models={"org/model": root / "model"}, datasets={"org/texts": root / "texts"}) as hub:
        os.environ |= {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(root / "home"),
            "no_proxy": "127.0.0.1",
        }
        import datasets
        import huggingface_hub

        from polydistill.errors import PolydistillError
        from polydistill.fetching import client as hub_client

        datasets.disable_progress_bars()
        huggingface_hub.utils.disable_progress_bars()
        hub_client.TIMEOUT = hub_client.STORING = 0.1
        hub_client.PATIENCE = 0.15
        sleep = time.sleep
        time.sleep = lambda seconds: sleep(min(seconds, 0.001))
        ends: Counter[str] = Counter()
        wrong: list[Any] = []
        kinds: tuple[tuple[Callable[[Path, int], bool], tuple[str, ...]], ...] = (
            (fetch_model, MODEL),
            (fetch_model, MODEL),
            (fetch_texts, TEXTS),
        )
        for case in range(count):
            choose = random.Random(f"{seed} {case}")
            fetch, steps = choose.choice(kinds)
            fault = bad_answer(choose, choose.choice(steps), choose.choice((1, 2, 99)), ends=choose.random() < 0.2)
            if fetch is fetch_model and choose.random() < 0.3:
                fault = other_bytes(choose, root / "model" / choose.choice(("config.json", "model.safetensors")))
            if fault.text == "null":  # as a whole JSON file it makes pyarrow 25 crash
                fault.text = "[]"
            text = str(fault)[:300]
            hub.writable.faults[:] = [fault]
            if os.environ.get("SHOW"):
                sys.stderr.write(f"{case} {text}\n")
            try:
                end = "the same" if fetch(root, case) else "ANOTHER"
            except PolydistillError as error:
                end = f"refused {fetch.__name__}"
                if os.environ.get("SHOW"):
                    sys.stderr.write(f"{case} {error.message} | {error.hint} {text}\n")
            except Exception as error:
                end = f"{type(error).__name__}: {error}"[:300]
            hub.writable.faults.clear()
            again = fetch(root, case)
            ends[end] += 1
            if not (end == "the same" or end.startswith("refused")) or not again:
                wrong.append([case, end, again, text])
        sys.stdout.write(json.dumps({"ends": ends, "wrong": wrong, "requests": len(hub.requests)}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
