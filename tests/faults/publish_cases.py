"""Publishing to a Hub that answers badly, many times in one process: `python publish_cases.py FOLDER SEED CASES`.

It prints one JSON object: how often each end was seen, and every case in which what was said is not true.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from hub_repos import Fault, Repo
from hub_stub import HubStub

TOKEN = "hf_" + "x9Yz" * 9
NAME = "acme/model"
OTHERS = b"of somebody else"
STEPS = (
    "GET /api/whoami",
    "POST /api/repos/create",
    "GET /api/models/[^/]*/[^/]*$",
    "GET .*/tree/",
    "POST .*preupload",
    "POST .*objects/batch",
    "PUT /lfs",
    "POST /lfs/verify",
    "POST /api/validate-yaml",
    "POST .*/commit/",
)
LOOKS = ("GET /api/models/", "GET .*/tree/", "GET .*/commits/")
GARBAGE = ("", "{", "[]", "null", "<html>", "0", '{"commitOid": 5, "commitUrl": 1}', '{"objects": 3}', "[" * 5000)


def bad_answer(choose: random.Random, path: str, times: int, *, ends: bool) -> Fault:
    """A fault at one request; `ends` allows those after which the Hub is silent."""
    kind = choose.choice(("status", "garbage", "share", "cut", *(("silent", "stalled") if ends else ())))
    done = choose.random() < 0.5
    if kind == "status":
        return Fault(path, choose.choice((400, 403, 408, 409, 412, 429, 500, 502, 503, 504)), times, done=done)
    if kind == "garbage":
        return Fault(path, 200, times, text=choose.choice(GARBAGE), done=True)
    if kind == "share":
        return Fault(path, times=times, done=True, share=choose.random())
    if kind == "stalled":
        return Fault(path, times=times, done=True, share=choose.random(), silent=True)
    return Fault(path, times=times, silent=kind == "silent", done=kind == "silent" and done)


def ordered(choose: random.Random, hub: HubStub) -> list[Fault]:
    """The faults of one case, and what somebody else does meanwhile."""
    silences = choose.random() < 0.1  # they take time
    path = choose.choice((*STEPS, *(STEPS[-1:] * 6)))
    faults = [bad_answer(choose, path, choose.choice((1, 1, 2, 99)), ends=silences)]
    if path == STEPS[-1]:
        repo = hub.writable.repos

        def others() -> None:
            mine = repo.get(NAME)
            if mine is not None:
                tree = {**mine.tree(), "notes.md": OTHERS}
                if choose.random() < 0.5:
                    tree["config.json"] = OTHERS
                mine.commits.append(tree)
                mine.branches["main"] = len(mine.commits) - 1

        if choose.random() < 0.3:
            faults[0].meanwhile = others
        if choose.random() < 0.3:
            look = bad_answer(choose, choose.choice(LOOKS), choose.choice((1, 99)), ends=silences)
            before = faults[0].meanwhile
            faults[0].meanwhile = lambda: (before(), hub.writable.faults.append(look))  # only once the commit was asked
    return faults


def main(folder: Path, seed: int, count: int) -> None:
    """Tries the cases."""
    with HubStub() as hub:
        os.environ |= {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(folder.parent / "home"),
            "no_proxy": "127.0.0.1",
        }
        from polydistill.errors import PolydistillError
        from polydistill.fetching import client as hub_client
        from polydistill.hub.publish import PublishOptions, publish
        from polydistill.progress import Progress

        hub_client.TIMEOUT = hub_client.STORING = 0.1
        hub_client.PATIENCE = 0.15
        sleep = time.sleep
        time.sleep = lambda seconds: sleep(min(seconds, 0.001))
        said: list[str] = []

        class Heard(Progress):
            def note(self, text: str) -> None:
                said.append(text)

            warn = note

        ends: Counter[str] = Counter()
        wrong: list[Any] = []
        for case in range(count):
            choose = random.Random(f"{seed} {case}")
            hub.writable.repos.clear()
            hub.writable.large.clear()
            hub.writable.allow(TOKEN, "ann", "acme")
            if choose.random() < 0.7:
                hub.writable.repos[NAME] = Repo(commits=[{"notes.md": b"mine", "config.json": b"{}"}])
            hub.writable.faults[:] = ordered(choose, hub)
            faults = list(hub.writable.faults)
            said.clear()
            try:
                done = publish(PublishOptions(folder, NAME, verify=False), Heard())
                end = "published"
            except PolydistillError as error:
                done, text = None, error.message
                said.extend([text, error.hint])
                endings = {"nothing was published": "nothing", "not known": "unknown", "so far": "not yet"}
                end = next((name for words, name in endings.items() if words in text), "")
            except Exception as error:
                done, end = None, f"{type(error).__name__}: {error}"
            repo = hub.writable.repos.get(NAME)
            whole = [i for i, tree in enumerate(repo.commits) if "model.safetensors" in tree] if repo else []
            made = len(repo.messages) if repo else 0
            ends[end] += 1
            ends["found out"] += any("asked again" in text for text in said)
            ends["changed since"] += any("changed" in text and "since" in text for text in said)
            true = {
                "published": bool(done and repo and repo.index(str(done.commit)) in whole),
                "nothing": not whole,
                "unknown": len(hub.writable.faults) > 1,
                "not yet": not whole or len(hub.writable.faults) > 1,
            }.get(end, False)
            if os.environ.get("SHOW"):
                sys.stderr.write(f"{case} {end} {said[-2:]} {[str(f)[:200] for f in faults]}\n")
            if not true or made > 1 or TOKEN in " ".join(said):
                wrong.append([case, end, made, len(whole), said[-2:], [str(fault)[:300] for fault in faults]])
        sys.stdout.write(json.dumps({"ends": ends, "wrong": wrong, "requests": len(hub.requests)}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
