"""publish: what is sent and what is not, one commit or none, and what goes wrong on the way."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import tiny
from answering import answer_here
from forks import fork
from hub_repos import Fault, Repo
from hub_stub import HubStub, environment_of, refusing, run
from safetensors.numpy import load_file, save_file

from polydistill.card import is_unedited
from polydistill.errors import PolydistillError, UsageError
from polydistill.evaluation.evaluate import EvaluateOptions, evaluate
from polydistill.evaluation.heads import new_head
from polydistill.hub import publication
from polydistill.hub.leaks import _PIECE as PIECE
from polydistill.hub.leaks import FOLDERS, Leaks
from polydistill.hub.opening import check_opens
from polydistill.hub.publication import gather
from polydistill.hub.publish import PublishOptions, publish
from polydistill.hub.session import Session
from polydistill.records.record import RunRecord

TOKEN = "hf_" + "x9Yz" * 9
NAME = "acme/tiny-nli"
NLI = ("entailment", "neutral", "contradiction")
SENT = {"README.md", "config.json", "model.safetensors", "polydistill.json", "tokenizer.json", "tokenizer_config.json"}


class Said(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned model with its record, and data to score it on."""
    root = tmp_path_factory.mktemp("made")
    folder = tiny.model_folder("bert", "base", root / "model", tokenizer="xlm-roberta", seed=1)
    new_head(folder, "classification", NLI, seed=1).network.save_pretrained(folder)
    source = {"name": "org/base", "source": "org/base@1", "weights_hash": "0" * 64, "licence": "mit"}
    config = {"model": "org/base", "task": "nli", "lang": ["en"], "data_dir": str(root), "output": str(folder)}
    result = {"task": "nli", "languages": ["en"], "output": str(folder), "notes": [f"read {root}/nli/en/test.jsonl"]}
    RunRecord("finetune", config, source, [], result).save(folder)
    for code in ("en", "sw"):
        (root / "nli" / code).mkdir(parents=True)
        texts = tiny.sentences(code, count=24)
        rows = [{"premise": t, "hypothesis": texts[-i], "label": NLI[i % 3]} for i, t in enumerate(texts)]
        (root / "nli" / code / "test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return root


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "model", tmp_path / "model"))


@pytest.fixture
def hub() -> Iterator[HubStub]:
    with HubStub() as stub:
        stub.writable.allow(TOKEN, "ann", "acme")
        yield stub


MAIN = "import sys; from polydistill.cli import main; main(sys.argv[1:])"
SHORT = """
import sys
from polydistill.fetching import client
from polydistill.cli import main
from polydistill.hub import commit
client.TIMEOUT = client.STORING = 0.3
client.PATIENCE = 0.5
commit.LATE = (0.01,)
main(sys.argv[1:])
"""  # the command with little patience
BROKEN = f"""
from polydistill.hub import opening
opening.answer_of = lambda *job: {{"class": None, "problem": "it is broken"}}
{MAIN}
"""
TIMED_HERE = f"""
from polydistill.evaluation import turns
def timed(module, job, progress):
    from polydistill.exporting.timed import timed
    return [timed({{**job, "rounds": 1}})]
turns.in_processes = timed
{MAIN}
"""


def started(hub: HubStub, home: Path, *args: str, code: str = "", **more: str) -> subprocess.Popen[str]:
    """`polydistill` in a new process, or `code` in its place."""
    command = [sys.executable, *(("-c", code) if code else ("-m", "polydistill")), *args]
    pipes: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment_of(hub.endpoint, home, **more), **pipes)


def say(
    hub: HubStub, folder: Path, *args: str, token: str | None = TOKEN, verify: bool = False, code: str = "", **more: str
) -> Said:
    """Runs `polydistill publish`, where it loads the model in a new process; the token is never in what it says."""
    more = {**({"HF_TOKEN": token} if token else {}), **more}
    checks = [] if verify else ["--no-verify"]
    command = ("publish", str(folder), *(args or (NAME, "--yes")), *checks)
    home = folder.parent / "home"
    if verify and not code:
        with started(hub, home, *command, **more) as process:
            out, err = process.communicate(timeout=120)
        exit_code = process.returncode
    else:
        env = environment_of(hub.endpoint, home, **more)
        exit_code, out, err = fork(code or MAIN, command, env=env)
    for secret in (TOKEN, token or TOKEN, "s3cr3t", "Traceback"):
        assert secret not in out + err
    return Said(exit_code, out, err)


def there(hub: HubStub, name: str = NAME, branch: str = "main") -> dict[str, bytes]:
    return hub.writable.repos[name].tree(branch)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def named(fault: Fault) -> str:
    what = "lost" if fault.done else fault.status or "cut"
    return f"{fault.path.rpartition('/')[2]}-{what}".replace(" ", "-")


def gathered(folder: Path, **options: Any) -> Any:
    """A dry run in this process."""
    return publish(PublishOptions(folder, NAME, dry_run=True, **options)).publication


# --- the whole way


def test_published_downloaded_and_scored_the_same(
    made: Path, folder: Path, hub: HubStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYDISTILL_CACHE", str(tmp_path / "cache"))
    languages = ("en", "sw")
    scores = evaluate(EvaluateOptions(model=(str(folder),), task="nli", languages=languages, data_dir=made)).scores
    before = tree(folder)
    found = say(hub, folder, NAME, "--yes", "--json", verify=True).json
    assert tree(folder) == before
    assert set(found["sent"]) == set(there(hub)) and set(there(hub)) >= SENT
    assert hub.writable.repos[NAME].messages == ["Publish with polydistill"]
    assert found["commit"] == hub.writable.repos[NAME].oid(1)
    card = there(hub)["README.md"].decode()
    assert card == found["card"] and f'model="{NAME}"' in card and "license: mit" in card
    code = f"""
import json, pathlib, transformers
from polydistill.hub.session import Session
from polydistill.evaluation.evaluate import EvaluateOptions, evaluate
model = transformers.AutoModelForSequenceClassification.from_pretrained({NAME!r})
tokenizer = transformers.AutoTokenizer.from_pretrained({NAME!r})
config = EvaluateOptions(model=({NAME!r},), task="nli", languages=("en", "sw"), data_dir=pathlib.Path({str(made)!r}))
logits = model(**tokenizer("Mwalimu mzee", "Dada yangu", return_tensors="pt")).logits.tolist()
print(json.dumps([[(s.language, s.value) for s in evaluate(config).scores], logits]))
"""
    again, logits = run(code, endpoint=hub.endpoint, home=tmp_path / "fresh")
    assert again == [[s.language, s.value] for s in scores] and len(logits[0]) == 3
    assert "model.safetensors" in hub.fetched()


def test_what_is_there_already_is_not_sent(folder: Path, hub: HubStub) -> None:
    assert say(hub, folder).code == 0
    first = hub.writable.repos[NAME]
    commits, received = len(first.commits), list(hub.writable.received)
    hub.requests.clear()
    said = say(hub, folder)
    assert said.code == 0 and "nothing was sent" in said.out
    assert len(first.commits) == commits and hub.writable.received == received
    assert not [path for path in hub.requests if "commit" in path or "preupload" in path or "lfs" in path]


def test_only_what_changed_is_sent(folder: Path, hub: HubStub) -> None:
    assert say(hub, folder).code == 0
    (folder / "LICENSE").write_text("the licence")
    found = say(hub, folder, NAME, "--yes", "--json").json
    assert found["sent"] == ["LICENSE"] and len(hub.writable.received) == 1
    assert set(there(hub)) == SENT | {"LICENSE"}


def test_parts_of_an_older_model_go_in_the_same_commit(folder: Path, hub: HubStub) -> None:
    old = {
        "model-00001-of-00002.safetensors": b"a",
        "model.safetensors.index.json": b"{}",
        "merges.txt": b"b",
        "onnx/model.onnx": b"c",
        "notes.md": b"mine",
        "picture.png": b"mine",
        ".gitattributes": b"x",
        "1_Pooling/config.json": b"{}",
        "spiece.model": b"e",
    }
    hub.writable.repos[NAME] = Repo(commits=[old])
    found = say(hub, folder, NAME, "--yes", "--json").json
    gone = [
        "1_Pooling/config.json",
        "merges.txt",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "onnx/model.onnx",
        "spiece.model",
    ]
    assert found["removed"] == gone
    assert set(there(hub)) == SENT | {"notes.md", "picture.png", ".gitattributes"}
    assert len(hub.writable.repos[NAME].commits) == 2


def test_a_branch_is_made_and_main_stays(folder: Path, hub: HubStub) -> None:
    hub.writable.repos[NAME] = Repo(commits=[{"notes.md": b"mine"}])
    assert say(hub, folder, NAME, "--yes", "--revision", "v2").code == 0
    assert set(there(hub)) == {"notes.md"} and set(there(hub, branch="v2")) == SENT | {"notes.md"}
    assert "nothing was sent" in say(hub, folder, NAME, "--yes", "--revision", "v2").out


def test_private_is_private(folder: Path, hub: HubStub) -> None:
    assert say(hub, folder, NAME, "--yes", "--private").code == 0
    assert hub.writable.repos[NAME].private
    hub.writable.repos["acme/open"] = Repo()
    said = say(hub, folder, "acme/open", "--yes", "--private")
    assert said.code == 1 and "already exists and is public" in said.err and there(hub, "acme/open") == {}


def test_sub_folders_go_along(folder: Path, hub: HubStub) -> None:
    (folder / "pictures").mkdir()
    (folder / "pictures" / "a.png").write_bytes(b"a picture" * 100)
    assert say(hub, folder).code == 0
    assert there(hub)["pictures/a.png"] == b"a picture" * 100


def test_onnx_files_go_with_the_weights(folder: Path, hub: HubStub) -> None:
    said = say(hub, folder, NAME, "--yes", "--onnx", "--int8", "--json", code=TIMED_HERE).json
    assert set(there(hub)) == SENT | {"onnx/model.onnx", "onnx/model_quantized.onnx"}
    assert {"onnx/model.onnx", "onnx/model_quantized.onnx"} <= set(said["sent"])
    import onnx

    graph = onnx.load_from_string(there(hub)["onnx/model.onnx"]).graph
    assert [output.name for output in graph.output] == ["logits"]
    assert not (folder / "onnx").exists()
    assert json.loads(there(hub)["polydistill.json"])["result"]["onnx"]["difference"]["int8"] > 0
    text = there(hub)["README.md"].decode()
    assert "The same as ONNX: `onnx/model.onnx` and `onnx/model_quantized.onnx`" in text and "\n- onnx\n" in text
    refused = say(hub, folder, NAME, "--yes", "--int8")
    assert refused.code == 2 and "Add --onnx" in refused.err


def test_an_export_has_no_other_weights(folder: Path) -> None:
    record = json.loads((folder / "polydistill.json").read_text())
    record |= {"command": "export", "result": {"files": [{"path": "onnx/model.onnx"}], "languages": ["en"]}}
    (folder / "polydistill.json").write_text(json.dumps(record))
    (folder / "model.safetensors").unlink()
    with pytest.raises(PolydistillError, match=r"it lacks onnx/model\.onnx"):
        gathered(folder)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"onnx")
    found = gathered(folder)
    assert "onnx/model.onnx" in {item.path for item in found.files} and "InferenceSession" in found.card


# --- dry run


def test_a_dry_run_lists_and_needs_neither_hub_nor_token(folder: Path) -> None:
    (folder / "stages" / "general").mkdir(parents=True)
    (folder / "stages" / "general" / "model.safetensors").write_bytes(b"x")
    before = tree(folder)
    with HubStub() as stub:
        said = say(stub, folder, NAME, "--dry-run", "--json", token=None)
        assert stub.requests == []
    found = said.json
    assert (found["command"], found["repository"]) == ("publish", NAME)
    assert {f["path"] for f in found["files"]} == SENT
    sizes = {f["path"]: f["bytes"] for f in found["files"]}
    assert sizes["model.safetensors"] == (folder / "model.safetensors").stat().st_size
    assert sizes["README.md"] == len(found["card"].encode())
    assert found["left_out"] == {"stages/": "stages of the run"}
    assert tree(folder) == before


def test_a_dry_run_reads_well_and_loads_no_torch(folder: Path, tmp_path: Path) -> None:
    code = f"""
import json, sys
from polydistill.cli import main
try: main(["publish", {str(folder)!r}, {NAME!r}, "--dry-run"])
except SystemExit as stop: assert not stop.code, stop.code
print(json.dumps(sorted({{"torch", "transformers", "datasets", "sentence_transformers"}} & set(sys.modules))))
"""
    assert run(code, endpoint=refusing(), home=tmp_path / "home") == []


# --- faults


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("GET /api/whoami", 401), "does not accept the token (401); nothing was published."),
        (Fault("POST /api/repos/create", 403), f"may not write to {NAME} (403)"),
        (Fault("preupload", 404), f"no {NAME}, or hides it from this token (404)"),
        (Fault("commit", 409), "changed by somebody else meanwhile (409)"),
        (Fault("commit", 412), "changed by somebody else meanwhile (412)"),
        (Fault("PUT /lfs", 507), "no room left for these files (507)"),
        (Fault("commit", 507), "no room left for these files (507)"),
        (Fault("commit", 429, 9, {"Retry-After": "9999"}), "is limiting requests (429)"),
        (Fault("validate-yaml", 400), "refused what was sent"),
        (Fault("commit", 422, text=f"see https://u:{TOKEN}@hub/x?token={TOKEN}"), "refused what was sent"),
    ],
    ids=lambda value: named(value) if isinstance(value, Fault) else "",
)
def test_one_clear_sentence_and_nothing_half_published(folder: Path, hub: HubStub, fault: Fault, said: str) -> None:
    hub.writable.faults.append(fault)
    answer = say(hub, folder)
    assert answer.code == 1 and said in answer.err and answer.out == ""
    assert sum("Error:" in line for line in answer.err.splitlines()) == 1
    repo = hub.writable.repos.get(NAME)
    assert repo is None or repo.commits == [{}]
    hub.writable.faults.clear()
    assert say(hub, folder).code == 0 and set(there(hub)) == SENT


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET /api/whoami", 500, 2),
        Fault("POST /api/repos/create", 500),
        Fault("POST /api/repos/create", done=True),
        Fault("preupload", 500, 2),
        Fault("objects/batch", 429, 1, {"Retry-After": "0"}),
        Fault("PUT /lfs", 500, 2),
        Fault("PUT /lfs"),
        Fault("POST /lfs/verify", 503),
        Fault("commit", 500, 2),
        Fault("commit", 429, 1, {"Retry-After": "1"}),
        Fault("commit"),
        Fault("commit", done=True),
        Fault("tree", 500),
    ],
    ids=named,
)
def test_what_passes_is_tried_again_quietly(folder: Path, hub: HubStub, fault: Fault) -> None:
    hub.writable.faults.append(fault)
    if fault.path == "tree":
        hub.writable.repos[NAME] = Repo()
    answer = say(hub, folder, NAME, "--yes", "-q")
    assert (answer.code, answer.err) == (0, "") and fault.times == 0
    assert set(there(hub)) == SENT and len(hub.writable.repos[NAME].messages) == 1


def test_a_connection_cut_in_a_large_file(folder: Path, hub: HubStub) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["more"] = tiny_noise(4_000_000)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    fault = Fault("PUT /lfs", times=2)
    hub.writable.faults.append(fault)
    assert say(hub, folder).code == 0 and fault.came > 1_000_000
    assert there(hub)["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert len(hub.writable.received) == 1


def tiny_noise(n: int) -> Any:
    import numpy as np

    return np.random.default_rng(0).normal(size=n // 4).astype(np.float32)


def test_large_files_that_arrived_are_not_sent_again(folder: Path, hub: HubStub) -> None:
    shutil.copy(folder / "model.safetensors", folder / "difference.safetensors")
    weights = load_file(folder / "difference.safetensors")
    save_file({"one": next(iter(weights.values()))}, folder / "difference.safetensors")
    digest = hub_digest(folder / "difference.safetensors")
    hub.writable.faults.append(Fault(f"PUT /lfs/{digest}", 507))
    assert say(hub, folder).code == 1 and hub.writable.repos[NAME].commits == [{}]
    assert len(hub.writable.received) <= 1  # on a busy machine the other file may not have arrived by then
    assert say(hub, folder).code == 0
    assert len(hub.writable.received) == 2 == len(set(hub.writable.received)) and "difference.safetensors" in there(hub)


def hub_digest(path: Path) -> str:
    from polydistill.files.hashing import file_sha256

    return file_sha256(path)


# --- answers that are broken or do not come


@pytest.mark.parametrize(
    "fault",
    [
        Fault("commit", 504, 9, done=True),
        Fault("commit", 200, text="<html>", done=True),
        Fault("commit", share=0.9, done=True),
        Fault("commit", share=0.9, silent=True, done=True),
    ],
    ids=lambda fault: f"{fault.status}-{fault.share}-{fault.silent}",
)
def test_a_commit_whose_answer_is_lost_is_found(folder: Path, hub: HubStub, fault: Fault) -> None:
    hub.writable.faults.append(fault)
    said = say(hub, folder, code=SHORT)
    assert said.code == 0 and "asked again, it says that the commit is there" in said.err
    repo = hub.writable.repos[NAME]
    assert repo.oid(1) in said.out and set(there(hub)) == SENT and len(repo.messages) == 1


def test_a_commit_is_found_below_somebody_elses(folder: Path, hub: HubStub) -> None:
    def change() -> None:
        repo = hub.writable.repos[NAME]
        repo.commits.append({**repo.tree(), "config.json": b"{}"})
        repo.branches["main"] = len(repo.commits) - 1

    hub.writable.faults.append(Fault("commit", 502, done=True, meanwhile=change))
    said = say(hub, folder)
    assert said.code == 0 and "Somebody else has changed" in said.err
    assert hub.writable.repos[NAME].oid(1) in said.out and len(hub.writable.repos[NAME].commits) == 3


def test_a_commit_of_somebody_else_in_between_is_not_overwritten(folder: Path, hub: HubStub) -> None:
    def change() -> None:
        repo = hub.writable.repos[NAME]
        repo.commits.append({"notes.md": b"theirs"})
        repo.branches["main"] = len(repo.commits) - 1

    hub.writable.faults.append(Fault("preupload", 500, meanwhile=change))
    said = say(hub, folder)
    assert said.code == 1 and f"nothing was published, since somebody else changed {NAME} meanwhile" in said.err
    assert there(hub) == {"notes.md": b"theirs"}


@pytest.mark.parametrize("done", [True, False])
def test_what_cannot_be_found_out_is_not_claimed(folder: Path, hub: HubStub, done: bool) -> None:
    def gone() -> None:
        hub.writable.faults.append(Fault("GET", 500, 99))

    hub.writable.faults.append(Fault("commit", 502, done=done, meanwhile=gone))
    said = say(hub, folder, code=SHORT)
    assert said.code == 1 and "it is not known whether it was published" in said.err
    assert f"Look at {hub.endpoint}/{NAME}/commits/main, or run the same command again" in said.err
    hub.writable.faults.clear()
    again = say(hub, folder)
    assert again.code == 0 and ("nothing was sent" in again.out) == done
    assert set(there(hub)) == SENT and len(hub.writable.repos[NAME].messages) == 1


def test_a_commit_that_may_still_arrive_is_said_to(folder: Path, hub: HubStub) -> None:
    hub.writable.faults.append(Fault("commit", silent=True))
    said = say(hub, folder, code=SHORT)
    assert said.code == 1 and "has published nothing so far, but may still be at work on it" in said.err


@pytest.mark.parametrize(("path", "share"), [("GET", None), ("objects/batch", 0.5), ("PUT /lfs", None), ("tree", 0.5)])
def test_a_silent_hub_is_left(folder: Path, hub: HubStub, path: str, share: float | None) -> None:
    hub.writable.faults.append(Fault(path, times=99, silent=True, share=share, done=share is not None))
    said = say(hub, folder, code=SHORT)
    assert said.code == 1 and "The Hub did not answer; nothing was published" in said.err
    assert hub.writable.faults[0].times >= 99 - 4


def test_a_hub_that_asks_for_hours_is_not_waited_for(folder: Path, hub: HubStub) -> None:
    hub.writable.faults.append(Fault("objects/batch", 429, 9, {"Retry-After": "9999"}))
    assert "is limiting requests (429); nothing was published" in say(hub, folder).err


@pytest.mark.parametrize("path", ["GET /api/whoami", "PUT /lfs", "commit"])
def test_an_interrupt_does_not_wait_for_a_silent_hub(folder: Path, hub: HubStub, path: str) -> None:
    """Also not where the Hub's client sends several large files at once, in other threads."""
    weights = load_file(folder / "model.safetensors")
    save_file({"one": next(iter(weights.values()))}, folder / "difference.safetensors")
    asked = threading.Event()
    fault = Fault(path, times=9, silent=True, meanwhile=asked.set)
    hub.writable.faults.append(fault)
    command = ("publish", str(folder), NAME, "--yes", "--no-verify")
    more = {"HF_TOKEN": TOKEN, "PYTHONFAULTHANDLER": "1"}
    with started(hub, folder.parent / "home", *command, code=PATIENT, **more) as process:
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # it says where each of its threads is
            pytest.fail(process.communicate()[1])
        finally:
            process.kill()
    assert process.returncode == 130 and "Interrupted" in err and "Traceback" not in err
    assert ("arrived at" in err) == (path == "commit")


PATIENT = SHORT.replace("0.3", "1000.0").replace("0.5", "1000.0")


def test_no_connection_at_all(folder: Path, hub: HubStub) -> None:
    said = say(hub, folder, HF_ENDPOINT=refusing())
    assert said.code == 1 and "connection to the Hub broke; nothing was published" in said.err


# --- who may


def test_no_token(folder: Path, hub: HubStub) -> None:
    said = say(hub, folder, token=None)
    assert said.code == 1 and "There is no token" in said.err and hub.requests == []


def test_a_token_that_may_only_read_and_one_of_somebody_else(folder: Path, hub: HubStub) -> None:
    hub.writable.allow(TOKEN, "ann", "acme", role="read")
    assert "can only read" in say(hub, folder).err
    hub.writable.allow(TOKEN, "bob")
    said = say(hub, folder)
    assert said.code == 1 and "belongs to bob, who is not a member of acme" in said.err
    hub.writable.allow(TOKEN, "bob", role="fineGrained")
    assert "may not write to" in say(hub, folder).err
    assert hub.writable.repos == {}


def test_it_asks_and_takes_no_for_an_answer(folder: Path, hub: HubStub, tmp_path: Path) -> None:
    said = say(hub, folder, NAME)
    assert said.code == 2 and "--yes" in said.err and hub.requests == []
    code = f"""
import json
from pathlib import Path
from polydistill.errors import PolydistillError
from polydistill.hub.publish import PublishOptions, publish
asked = []
def no(plan):
    asked.append([item.path for item in plan.send] + [plan.new])
try: publish(PublishOptions(Path({str(folder)!r}), {NAME!r}, verify=False), confirm=no)
except PolydistillError as error: print(json.dumps([asked, error.message]))
"""
    asked, message = run(code, endpoint=hub.endpoint, home=tmp_path / "home", HF_TOKEN=TOKEN)
    assert message == "Nothing was sent." and asked == [[*sorted(SENT), True]] and hub.writable.repos == {}


@pytest.mark.parametrize("name", ["tiny", "acme/", "acme/a b", "acme/a--b", "a/b/c", "../x", "acme/..", "acme/x.git"])
def test_names_that_cannot_be(folder: Path, name: str) -> None:
    with pytest.raises(UsageError, match="does not allow this repository name"):
        publish(PublishOptions(folder, name, dry_run=True))


@pytest.mark.parametrize("branch", ["", "a b", "refs/pr/1", "a..b", "-x", "a/"])
def test_branches_that_cannot_be(folder: Path, branch: str) -> None:
    with pytest.raises(UsageError, match="name of a branch"):
        publish(PublishOptions(folder, NAME, revision=branch, dry_run=True))


# --- the folder


def test_a_folder_that_does_not_load_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_here(monkeypatch)
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.bias"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(PolydistillError, match=r"does not load as a user would load it: .*classifier\.bias"):
        check_opens(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(PolydistillError, match=r"does not load as a user would load it: \w*Error"):
        check_opens(folder)


def test_a_folder_that_does_not_load_is_not_sent(folder: Path, hub: HubStub) -> None:
    said = say(hub, folder, NAME, "--yes", verify=True, code=BROKEN)
    assert said.code == 1 and "does not load as a user would load it: it is broken" in said.err
    assert hub.writable.repos == {}


def test_an_incomplete_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(PolydistillError, match=r"model\.safetensors"):
        gathered(folder)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(PolydistillError, match="lacks model-00001"):
        gathered(folder)
    outside = tmp_path / "outside.safetensors"
    save_file({"a": tiny_noise(40)}, outside)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(PolydistillError, match="leads out of its folder"):
        gathered(folder)


def test_a_folder_without_a_record(folder: Path, tmp_path: Path) -> None:
    (folder / "polydistill.json").unlink()
    with pytest.raises(PolydistillError, match=r"no polydistill\.json"):
        gathered(folder)
    with pytest.raises(UsageError, match="There is no folder"):
        gathered(tmp_path / "nowhere")


def test_what_is_left_out(folder: Path) -> None:
    names = (
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
        "training_args.bin",
        "old.ckpt",
        "pytorch_model.bin",
        ".cache/x",
        ".git/config",
        "checkpoint-10/model.safetensors",
        "runs/events",
        "stages/full/stage.json",
        "__pycache__/x.pyc",
    )
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    os.mkfifo(folder / "pipe")
    found = gathered(folder)
    assert {item.path for item in found.files} == SENT
    assert found.left_out == {
        ".cache/": "hidden",
        ".git/": "hidden",
        "__pycache__/": "made by Python",
        "checkpoint-10/": "a checkpoint of the training",
        "old.ckpt": "a pickle, which can run code when it is read",
        "optimizer.pt": "state of the training",
        "pipe": "not a file",
        "pytorch_model.bin": "a pickle, which can run code when it is read",
        "rng_state.pth": "state of the training",
        "runs/": "logs of the training",
        "scheduler.pt": "state of the training",
        "stages/": "stages of the run",
        "trainer_state.json": "state of the training",
        "training_args.bin": "state of the training",
    }


def test_what_is_no_part_of_a_model_is_left_out_and_named(folder: Path, hub: HubStub) -> None:
    """Whatever it is called: logs, scripts and notebooks tell of machines, and archives cannot be looked through."""
    here = f"--data {folder.resolve().parent}/secret".encode()
    others = ("train.log", "run.sh", "model.py", "setup.ini", "try.ipynb", "Makefile", "data.csv", "x.yaml", "m.data")
    for name in others:
        (folder / name).write_bytes(here)
    packed = {"vocab.txt": gzip.compress(here), "more.json": b"PK\x03\x04" + here, "LICENSE": b"BZh9" + here}
    for name, content in packed.items():
        (folder / name).write_bytes(content)
    parts = {"NOTICE", "LICENSE.txt", "spiece.model", "a.png"}
    for name in parts:
        (folder / name).write_bytes(b"a part")
    found = gathered(folder)
    assert {item.path for item in found.files} == SENT | parts
    assert found.left_out == {**dict.fromkeys(others, "not part of a model"), **dict.fromkeys(packed, "an archive")}
    said = say(hub, folder, NAME, "--dry-run")
    assert all(f"left out: {why}" in said.out for why in ("not part of a model", "an archive"))


def test_weights_that_are_not_the_models_own_are_left_out_and_named(folder: Path, hub: HubStub) -> None:
    other = {
        "consolidated.safetensors",
        "model.fp16.safetensors",
        "onnx/model.onnx",
        "onnx/model.onnx_data",
        "m-Q8_0.gguf",
        "2_Dense/model.safetensors",
    }
    own = {"difference.safetensors", "difference.undo.safetensors", "colbert_linear.safetensors"}
    for name in other | own:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((folder / "model.safetensors").read_bytes())
    found = gathered(folder)
    assert {item.path for item in found.files} == SENT | own
    assert found.left_out == dict.fromkeys(other, "weights, but not those of this model")
    assert "m-Q8_0.gguf" in say(hub, folder, NAME, "--dry-run").out
    exported = gather(folder, NAME, beside={"onnx/model.onnx": folder / "model.safetensors"})
    assert "onnx/model.onnx" in {item.path for item in exported.files}
    assert "onnx/model.onnx" not in exported.left_out
    record = json.loads((folder / "polydistill.json").read_text())  # a folder that was published so, fetched again
    record["result"]["onnx"] = {"files": [{"path": "onnx/model.onnx"}]}
    (folder / "polydistill.json").write_text(json.dumps(record))
    again = {item.path for item in gathered(folder).files}
    assert again == SENT | own | {"onnx/model.onnx", "onnx/model.onnx_data"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate((("", "Transformer"), ("2_Dense", "Dense")))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "2_Dense/config.json").write_text('{"in_features": 8, "out_features": 4}')
    assert "2_Dense/model.safetensors" in {item.path for item in gathered(folder).files}
    import torch

    (folder / "2_Dense/model.safetensors").unlink()
    torch.save({"linear.weight": torch.zeros(4, 8)}, folder / "2_Dense/pytorch_model.bin")
    with pytest.raises(PolydistillError, match="is a pickle, which is not sent, and the model needs it"):
        gathered(folder)


def test_links_are_not_followed_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "more").mkdir()
    (folder / "inside.txt").symlink_to("config.json")
    assert "inside.txt" in {item.path for item in gathered(folder).files}
    for target in (tmp_path / "secret.txt", tmp_path / "more", tmp_path / "nothing", tmp_path / "model/notes.txt"):
        (folder / "notes.txt").symlink_to(target)
        if target.is_relative_to(folder):  # a link to itself
            assert gathered(folder).left_out["notes.txt"] == "not a file"
            break
        with pytest.raises(PolydistillError, match="leads out of"):
            gathered(folder)
        (folder / "notes.txt").unlink()


# --- what must not be told


def test_paths_of_this_machine_are_not_sent(folder: Path, hub: HubStub) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_name_or_path": str(folder)}))
    assert str(folder.parent.parent.parent) in (folder / "polydistill.json").read_text()
    before = tree(folder)
    said = say(hub, folder)
    assert said.code == 0 and "Sent without paths of this machine: config.json, polydistill.json" in said.err
    root = folder.resolve().parts[1]
    for path, content in there(hub).items():
        assert f"/{root}/".encode() not in content, path
    record = json.loads(there(hub)["polydistill.json"])
    assert record["config"]["output"] == "model" and record["result"]["notes"] == ["read test.jsonl"]
    assert json.loads(there(hub)["config.json"])["_name_or_path"] == "model"
    assert tree(folder) == before


def test_only_whole_paths_are_taken_out(folder: Path, hub: HubStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a short name may stand in the middle of other words; a card is whole whatever was taken out."""
    record = json.loads((folder / "polydistill.json").read_text())
    record["config"] |= {"data_dir": "corpora/data/sw", "teacher": "masakhane/data", "text": "/data/sw.txt"}
    (folder / "polydistill.json").write_text(json.dumps(record))
    monkeypatch.setattr(publication, "_places", lambda _: [Path("/data"), folder.resolve().parent])
    sent = gather(folder, NAME)
    config = json.loads(next(i.content for i in sent.files if i.path == "polydistill.json"))["config"]
    assert (config["data_dir"], config["teacher"], config["text"]) == ("corpora/data/sw", "masakhane/data", "sw.txt")
    assert is_unedited(sent.card)
    words = f"[the data](/datasets/acme/ner), `/usr/bin/env`, {folder.resolve()}"
    (folder / "README.md").write_text(f"---\nlicense: mit\n---\n{words}\n")
    card = gather(folder, NAME).card
    assert "[the data](/datasets/acme/ner), `/usr/bin/env`, model" in card


def test_a_text_of_ones_own_with_paths_is_refused(folder: Path) -> None:
    (folder / "run.json").write_text(json.dumps({"data": f"{folder.resolve().parent}/secret"}))
    with pytest.raises(PolydistillError, match=r"run\.json names folders of this machine"):
        gather(folder, NAME)


def test_a_snapshot_of_the_hubs_cache_can_be_published(folder: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / ("0" * 40), tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in folder.iterdir():
        shutil.move(path, blobs / f"hash of {path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/hash of {path.name}")
    assert {item.path for item in gathered(snapshot).files} == SENT
    (snapshot / "notes.txt").symlink_to("../../../outside.txt")
    with pytest.raises(PolydistillError, match="leads out of"):
        gathered(snapshot)


HERE = "/work/of/somebody"


@pytest.mark.parametrize("code", ["utf-8", "utf-16", "utf-16-be"])
@pytest.mark.parametrize(
    ("text", "found"),
    [
        (TOKEN, "your own token"),
        ("ghp_" + "a" * 36, "a GitHub token"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        (f"{HERE}/corpus.txt", FOLDERS),
        ("/home/ann/corpus.txt", FOLDERS),
        ("C:\\Users\\ann\\corpus.txt", FOLDERS),
        ("/työ/of/somebody/corpus.txt", FOLDERS),
    ],
    ids=str,
)
def test_leaks_are_found_in_any_bytes(tmp_path: Path, code: str, text: str, found: str) -> None:
    """At every place, also where a file is read in pieces, and whatever stands before and behind."""
    leaks = Leaks([TOKEN], [Path(HERE), Path("/työ/of/somebody")])
    noise = np.random.default_rng(0).normal(size=1_300_000).astype(np.float32).tobytes()
    assert leaks.find(noise) is None
    path, secret = tmp_path / "file", text.encode(code)
    for place in (0, 1, 1001, PIECE - 1, PIECE - len(secret) // 2, PIECE, len(noise)):
        path.write_bytes(noise[:place] + b"\0A" + secret + b"A\0" + noise[place:])
        assert leaks.find(path) == found, place


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f'{{"data": "{HERE}/x"}}', True),
        (f'{{"data": "{HERE}/x"}}'.replace("/", "\\/"), True),
        (f"file://{HERE}/x", True),
        (f"a longer {HERE}", True),
        (f"{HERE}else/x", False),
        (f"https://example.org{HERE}/x", False),
        (f"corpora{HERE}/x", False),
        ("see /home/ann/run.sh", True),
        ('"D:\\\\Users\\\\ann\\\\x"', True),
        ("--data /root/x", True),
        ("https://example.org/home/ann/", False),
        ("#!/usr/bin/env python", False),
        ("hf_short and a-hf_" + 40 * "-", False),
    ],
)
def test_only_whole_paths_and_tokens_are_found_in_texts(text: str, found: bool) -> None:
    assert (Leaks([TOKEN], [Path(HERE)]).find(text.encode()) is not None) == found


@pytest.mark.parametrize("name", ["onnx/model.onnx", "onnx/model.onnx_data", "difference.safetensors", "a.png"])
def test_ones_own_token_is_found_in_files_that_are_no_texts(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(bytes(1000) + b"password-of-ann" + bytes(1000))
    with pytest.raises(PolydistillError, match=f"{name} seems to hold your own token"):
        gather(folder, NAME, secrets=["password-of-ann"], beside={name: folder / name})


def test_paths_in_the_heads_of_weights_are_found(folder: Path) -> None:
    """The metadata of safetensors and ONNX files are text."""
    weights = load_file(folder / "model.safetensors")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt", "run": f"{folder.resolve()}/x"})
    with pytest.raises(PolydistillError, match=r"model\.safetensors names folders of this machine"):
        gathered(folder)


def test_every_token_that_the_user_has_is_known(folder: Path, tmp_path: Path, hub: HubStub) -> None:
    """That of the environment, those of `hf auth login`, and the password in .netrc; also in a dry run."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "stored_tokens").write_text("[one]\nhf_token = stored-token-1\n")
    (home / "token").write_text("file-token-2\n")
    (tmp_path / ".netrc").write_text("machine huggingface.co login ann password netrc-token-3\n")
    (tmp_path / ".netrc").chmod(0o600)
    more = {"HOME": str(tmp_path), "HUGGING_FACE_HUB_TOKEN": "other-token-4"}
    code = "import json; from polydistill.redaction import own_tokens; print(json.dumps(own_tokens()))"
    known = run(code, endpoint=hub.endpoint, home=home, **more)
    assert known == ["file-token-2", "netrc-token-3", "other-token-4", "stored-token-1"]
    (folder / "notes.txt").write_text("my netrc-token-3")
    said = say(hub, folder, NAME, "--dry-run", token=None, **more)
    assert said.code == 1 and "notes.txt seems to hold your own token" in said.err and "netrc" not in said.err


def test_a_token_that_cannot_be_one_is_not_repeated(folder: Path, hub: HubStub) -> None:
    said = say(hub, folder, token="hf_with a space" + "x" * 20)
    assert said.code == 1 and "has characters that a token cannot have" in said.err and hub.requests == []


def test_the_password_of_an_endpoint_is_not_repeated() -> None:
    session = Session(SimpleNamespace(endpoint=f"https://ann:{TOKEN}@hub.example:80/x?token={TOKEN}"), NAME, "main")
    assert session.address() == f"https://hub.example:80/x/{NAME}/commits/main"
    assert session.address("0" * 40) == f"https://hub.example:80/x/{NAME}/tree/{'0' * 40}"


def test_nothing_is_exported_of_what_cannot_be_published(folder: Path) -> None:
    record = json.loads((folder / "polydistill.json").read_text())
    record["source"]["licence"] = None
    (folder / "polydistill.json").write_text(json.dumps(record))
    for place, said in ((folder, "No licence is known"), (Path("org/none"), "There is no folder org/none")):
        with pytest.raises(PolydistillError, match=said):
            publish(PublishOptions(place, NAME, onnx=True, dry_run=True))


def test_no_code_of_the_folder_is_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "transformers.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")
    monkeypatch.chdir(folder)
    assert check_opens(folder) == "AutoModelForSequenceClassification"
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("secret", "kind"),
    [
        ("hf_" + "A" * 34, "a Hugging Face token"),
        ("AKIA" + "Z" * 16, "an AWS key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "a private key"),
        ("ghp_" + "a" * 36, "a GitHub token"),
    ],
)
@pytest.mark.parametrize("place", ["notes.txt", "polydistill.json", "weights"])
def test_secrets_are_not_sent(folder: Path, secret: str, kind: str, place: str) -> None:
    if place == "polydistill.json":
        text = (folder / place).read_text().replace('"lang"', f'"key": "{secret}", "lang"')
        (folder / place).write_text(text)
    elif place == "weights":
        weights = load_file(folder / "model.safetensors")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt", "key": secret})
    else:
        (folder / place).write_text(f"the key is {secret}.")
    with pytest.raises(PolydistillError, match=kind) as caught:
        gathered(folder)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("name", ["{}.txt", "{}/notes.txt"])
def test_a_name_that_is_a_token_is_not_sent(folder: Path, name: str) -> None:
    path = folder / name.format("hf_" + "aB3" * 12)
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    with pytest.raises(PolydistillError, match=r"The name of .* seems to hold a Hugging Face token") as caught:
        gathered(folder)
    assert "aB3" not in str(caught.value)


def test_ones_own_token_is_not_sent_whatever_it_looks_like(folder: Path, hub: HubStub) -> None:
    (folder / "notes.txt").write_text("password")
    hub.writable.allow("password", "ann", "acme")
    said = say(hub, folder, token="password")
    assert said.code == 1 and "notes.txt seems to hold your own token" in said.err and hub.requests == []


# --- licence and card


def without_licence(folder: Path) -> None:
    record = json.loads((folder / "polydistill.json").read_text())
    record["source"]["licence"] = None
    (folder / "polydistill.json").write_text(json.dumps(record))


def test_a_licence_is_asked_for_and_never_guessed(folder: Path) -> None:
    without_licence(folder)
    with pytest.raises(PolydistillError, match="No licence is known") as caught:
        gathered(folder)
    assert "`license=ID`" in caught.value.hint
    assert "license: cc-by-nc-4.0" in gathered(folder, license="cc-by-nc-4.0").card
    assert "license: other\nlicense_name: my-own" in gathered(folder, license="my-own").card
    for bad in ("", "a: b", "x\ny", "[mit]"):
        with pytest.raises(UsageError, match="licence"):
            gathered(folder, license=bad)


def test_a_card_edited_in_the_folder_goes_as_it_is(folder: Path, hub: HubStub) -> None:
    mine = "---\nlicense: mit\n---\n# Mine\n"
    (folder / "README.md").write_text(mine)
    said = say(hub, folder)
    assert said.code == 0 and "edited by hand, and is sent" in said.err
    assert there(hub)["README.md"].decode() == mine
    assert is_unedited(gathered(folder, card="record").card)
    with pytest.raises(UsageError, match="is sent as it is, so `license` cannot be added"):
        gathered(folder, license="mit")
    (folder / "README.md").write_text("# Mine\n")
    with pytest.raises(PolydistillError, match="states no licence"):
        gathered(folder)
    with pytest.raises(UsageError, match="unknown"):
        gathered(folder, card="new")


def test_a_card_edited_on_the_hub_is_not_replaced_unasked(folder: Path, hub: HubStub) -> None:
    theirs = b"---\nlicense: mit\n---\n# What users should know\n"
    hub.writable.repos[NAME] = Repo(commits=[{"README.md": theirs}])
    said = say(hub, folder)
    assert said.code == 1 and "--card record" in said.err and there(hub) == {"README.md": theirs}
    said = say(hub, folder, NAME, "--yes", "--card", "hub")
    assert said.code == 0 and there(hub)["README.md"] == theirs and set(there(hub)) == SENT
    assert say(hub, folder, NAME, "--yes", "--card", "record").code == 0
    assert is_unedited(there(hub)["README.md"].decode())


def test_a_card_that_nobody_edited_is_replaced(folder: Path, hub: HubStub) -> None:
    hub.writable.repos[NAME] = Repo(commits=[{"README.md": b"---\nlicense: mit\n---\n"}])
    assert say(hub, folder).code == 0 and is_unedited(there(hub)["README.md"].decode())
    record = json.loads((folder / "polydistill.json").read_text())
    record["result"]["languages"] = ["en", "sw"]
    (folder / "polydistill.json").write_text(json.dumps(record))
    found = say(hub, folder, NAME, "--yes", "--json").json
    assert found["sent"] == ["README.md", "polydistill.json"]
