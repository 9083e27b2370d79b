"""Model folders that would run code or reach outside themselves, and every command that opens a model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

MARKER = "executed"  # what the code of a folder writes beside it
CODE = f"""
from pathlib import Path
import transformers

Path(__file__).resolve().parents[0].joinpath("{MARKER}").write_text("x")
Path("MARKER").write_text("x")


class EvilConfig(transformers.BertConfig):
    model_type = "evil"


class EvilModel(transformers.BertModel):
    config_class = EvilConfig

    @classmethod
    def load(cls, *args, **options):
        return cls(EvilConfig())
"""
Change = Callable[[Path], None]


def change_json(path: Path, **values: Any) -> None:
    """Sets values in a JSON file, which is made if it is not there."""
    found = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**found, **values}))


def with_code(folder: Path) -> None:
    """Python files that write `MARKER` when they are imported."""
    for name in ("configuration_evil.py", "modeling_evil.py", "evil.py"):
        (folder / name).write_text(CODE.replace('"MARKER"', repr(str(folder.parent / MARKER))))


def own_architecture(folder: Path) -> None:
    with_code(folder)
    auto = {"AutoConfig": "configuration_evil.EvilConfig"}
    heads = ("Model", "ModelForTokenClassification", "ModelForMaskedLM", "ModelForSequenceClassification")
    auto |= {f"Auto{head}": "modeling_evil.EvilModel" for head in heads}
    change_json(folder / "config.json", model_type="evil", architectures=["EvilModel"], auto_map=auto)


def own_class_of_a_known_architecture(folder: Path) -> None:
    own_architecture(folder)
    change_json(folder / "config.json", model_type="bert")


def modules(folder: Path, *more: dict[str, Any], path: object = "", kind: object = None) -> None:
    """A modules.json with the model at `path`."""
    first = {"path": path, "type": "sentence_transformers.models.Transformer" if kind is None else kind}
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", **first}, *more]))


def module(kind: object, path: object = "1_More") -> Change:
    """A second module."""

    def change(folder: Path) -> None:
        with_code(folder)
        (folder / "1_More").mkdir()
        modules(folder, {"idx": 1, "name": "1", "path": path, "type": kind})

    return change


def model_at(path: object) -> Change:
    """A sentence-transformers folder without a model of its own, which lies at `path`."""

    def change(folder: Path) -> None:
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()
        modules(folder, path=str(folder.parent / "victim") if path == "absolute" else path)

    return change


def model_behind_a_link(folder: Path) -> None:
    model_at("0_Transformer")(folder)
    (folder / "0_Transformer").symlink_to(folder.parent / "victim")


def pickled_dense(folder: Path) -> None:
    module("sentence_transformers.models.Dense")(folder)
    (folder / "1_More/config.json").write_text('{"in_features": 32, "out_features": 8}')
    touch = b"cos\nsystem\n(S'touch " + str(folder / MARKER).encode() + b"'\ntR."
    (folder / "1_More/pytorch_model.bin").write_bytes(touch * 5)


def huge_dense(folder: Path) -> None:
    module("sentence_transformers.models.Dense")(folder)
    (folder / "1_More/config.json").write_text('{"in_features": 100000, "out_features": 100000}')
    (folder / "1_More/model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def index(*names: object) -> Change:
    """Weights in the files that an index names."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        weight_map = {f"t{i}": name for i, name in enumerate(names)}
        change_json(folder / "model.safetensors.index.json", metadata={}, weight_map=weight_map)

    return change


def link(name: str, target: str) -> Change:
    """A file of the folder is a link."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(folder.parent / target)

    return change


def values(file: str, **set_to: Any) -> Change:
    """Other values in a JSON file."""
    return lambda folder: change_json(folder / file, **set_to)


def pipe(name: str) -> Change:
    """A file of the folder is a pipe."""

    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


def pipe_in_a_module(folder: Path) -> None:
    module("sentence_transformers.models.Pooling")(folder)
    os.mkfifo(folder / "1_More/config.json")


def adapter(folder: Path) -> None:
    change_json(folder / "adapter_config.json", peft_type="LORA", base_model_name_or_path=str(folder.parent / "victim"))
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04.")


FOLDERS: dict[str, tuple[Change, str]] = {
    "code for its architecture": (own_architecture, "code of its own"),
    "code for a known architecture": (own_class_of_a_known_architecture, "code of its own"),
    "code as a module": (module("evil.EvilModel"), "whose code is not run"),
    "code of another package as a module": (module("os.path.join"), "whose code is not run"),
    "a module that loads others": (module("sentence_transformers.models.Router"), "whose code is not run"),
    "a module that is no name": (module("sentence_transformers.../../evil"), "whose code is not run"),
    "a module without a name": (module(3), "must be a text"),
    "a module upwards": (module("sentence_transformers.models.Pooling", "../victim"), "leads out"),
    "a model upwards": (model_at("../victim"), "leads out"),
    "a model far upwards": (model_at("../" * 20), "leads out"),
    "an absolute model": (model_at("absolute"), "leads out"),
    "a model at a number": (model_at(3), "is not a valid path"),
    "a model at a list": (model_at(["../victim"]), "is not a valid path"),
    "a model at NUL": (model_at("\0"), "is not a valid path"),
    "a model behind a link": (model_behind_a_link, "leads out"),
    "pickled weights": (pickled, "pickled weights"),
    "a pickled module that is code": (pickled_dense, "a pickle that calls 'os.system'"),
    "a module of 40 GB": (huge_dense, "100,000 x 100,000 values"),
    "a pickled shard": (index("pytorch_model.bin"), "not safetensors"),
    "a shard upwards": (index("../victim/model.safetensors"), "leads out"),
    "a shard at a number": (index(7), "is not a valid path"),
    "weights behind a link": (link("model.safetensors", "victim/model.safetensors"), "leads out"),
    "a configuration behind a link": (link("config.json", "victim/config.json"), "leads out"),
    "a tokenizer behind a link": (link("tokenizer.json", "victim/tokenizer.json"), "leads out"),
    "a vocabulary behind a link": (link("vocab.txt", "secret.txt"), "leads out"),
    "a record behind a link": (link("polydistill.json", "victim/polydistill.json"), "leads out"),
    "a vocabulary behind a broken link": (link("spiece.model", "evil/nothing"), "a link to nothing"),
    "a template behind a link": (link("additional_chat_templates/x.jinja", "secret.txt"), "leads out"),
    "a tokenizer named upwards": (
        values("tokenizer_config.json", fast_tokenizer_files=["../victim/tokenizer.json"]),
        "leads out",
    ),
    "a vocabulary named elsewhere": (values("tokenizer_config.json", vocab_file="/etc/passwd"), "leads out"),
    "a pipe": (pipe("chat_template.jinja"), "neither a file nor a folder"),
    "a pipe in a module": (pipe_in_a_module, "neither a file nor a folder"),
    "an index of pickles under another name": (
        values("config.json", transformers_weights="x.safetensors.index.json"),
        "names weights other",
    ),
    "an adapter": (adapter, "has an adapter"),
    "an attention kernel": (values("config.json", attn_implementation="evil/kernel"), "code from the Hub"),
    "an attention kernel of a part": (
        values("config.json", text_config={"attn_implementation": {"": "evil/kernel"}}),
        "code from the Hub",
    ),
    "a tokenizer of another model": (
        values("sentence_bert_config.json", tokenizer_name_or_path="../victim"),
        "tokenizer_name_or_path",
    ),
    "options of the loading": (
        values("sentence_bert_config.json", model_args={"allow_all_kernels": True}),
        "allow_all_kernels",
    ),
}
"""What is wrong with a folder -> how it is made so, and what is said of it."""

COMMANDS: dict[str, str] = {
    "trim": "trim --model EVIL --lang en --text TEXT -o out",
    "trim, dry": "trim --model EVIL --lang en --text TEXT --dry-run",
    "count": "count --model EVIL --lang en --text TEXT -o out",
    "finetune": "finetune --model EVIL --task ner --lang en --data-dir DATA -o out",
    "evaluate": "evaluate --model EVIL --task ner --lang en --data-dir DATA",
    "evaluate, teacher": "evaluate --model GOOD --teacher EVIL --task ner --lang en --data-dir DATA",
    "evaluate, vectors": "evaluate --model EVIL --task sts --lang en --data-dir DATA",
    "bistil": "bistil en ro --model EVIL --text en=TEXT --text ro=TEXT --phase 1 -o out",
    "bistil, teacher": "bistil en ro --model GOOD --text en=TEXT --text ro=TEXT --task ner --data-dir DATA "
    "--test-split en=none --test-split ro=none --teacher EVIL -o out",
    "plan": "plan en ro --model EVIL --text en=TEXT --text ro=TEXT --no-measure",
    "prokd": "prokd en ro --model EVIL --data-dir DATA --text TEXT --test-split en=none --test-split ro=none -o out",
    "prokd, teacher": "prokd en ro --teacher EVIL --data-dir DATA --text TEXT --test-split en=none "
    "--test-split ro=none -o out",
    "project": "project en ro --model GOOD --teacher EVIL --parallel TEXT --data-dir DATA -o out",
    "stack, encoder": "stack EVIL GOOD --text TEXT -o out",
    "stack, LLM": "stack GOOD EVIL --text TEXT -o out",
    "embed": "embed EVIL",
    "export": "export EVIL -o out",
    "sparse train": "sparse train --model EVIL --lang en --text TEXT -o out",
    "sparse apply": "sparse apply EVIL DIFFERENCE -o out",
    "sparse remove": "sparse remove EVIL -o out",
    "info": "info EVIL",
    "diff, before": "diff EVIL GOOD --text TEXT",
    "diff, after": "diff GOOD EVIL --text TEXT",
    "publish": "publish EVIL acme/model --dry-run",
}
"""Every command that opens a model; in capitals what stands for a path."""


def hashes(folder: Path) -> dict[str, str]:
    """Path below a folder -> hash of the file, links not followed."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
