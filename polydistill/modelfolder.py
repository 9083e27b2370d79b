"""A Hugging Face model's folder: whether it is whole, and what its card says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NoReturn

from polydistill.configuration import check_config
from polydistill.errors import PolydistillError
from polydistill.jsonfiles import Part, read_json

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt")
_TOKENIZER_SUFFIXES = (".model", ".spm")
_TOKENIZER_PARTS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_FOREIGN = {".h5": "TensorFlow", ".msgpack": "Flax", ".gguf": "GGUF", ".onnx": "ONNX"}
_NOT_WEIGHTS = {"training_args.bin", "optimizer.pt", "scheduler.pt", "optimizer.bin", "scheduler.bin"}


def model_folder(folder: Path) -> Path:
    """The folder with `config.json`: the given one, or that of a sentence-transformers folder's Transformer.

    Raises:
        PolydistillError: There is none.
    """
    if (folder / "config.json").is_file():
        return folder
    if (folder / "modules.json").is_file():
        for module in Part(folder / "modules.json", read_json(folder / "modules.json", list)).items():
            module.of(dict)
            path = module["path"].optional(str) or ""
            if len(path.encode()) > 255 or "\0" in path:
                raise module["path"].wrong("the name of a folder")
            inner = folder / path
            if "Transformer" in module["type"].of(str) and (inner / "config.json").is_file():
                return inner
    if (folder / "adapter_config.json").is_file():
        raise PolydistillError(
            f"{folder} is an adapter, not a whole model.",
            "Merge it into its base model first (peft: merge_and_unload, then save_pretrained).",
        )
    raise PolydistillError(
        f"{folder} has no config.json, so it is not a model's folder.",
        "Give a folder that transformers' save_pretrained wrote.",
    )


def check_folder(folder: Path) -> None:
    """Check that a folder has a config, a tokenizer and safetensors, all of them whole as far as names tell.

    Raises:
        PolydistillError: Something is missing, or the weights come in another format.
    """
    inner = model_folder(folder)
    config = check_config(inner)
    names = sorted({path.name for place in (folder, inner) for path in place.iterdir()})
    if not any(name in _TOKENIZER_FILES or name.endswith(_TOKENIZER_SUFFIXES) for name in names):
        raise PolydistillError(
            f"{folder} has no tokenizer.",
            "Save it there too: AutoTokenizer.from_pretrained(...).save_pretrained(folder).",
        )
    if (inner / "model.safetensors.index.json").is_file():
        shards = read_json(inner / "model.safetensors.index.json").get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise PolydistillError(
                f"{inner / 'model.safetensors.index.json'} names no weights.", "Fetch the model again."
            )
        if not all(isinstance(shard, str) and len(shard.encode()) < 256 for shard in shards.values()):
            raise PolydistillError(
                f"{inner / 'model.safetensors.index.json'} names something that is no file.", "Fetch the model again."
            )
        missing = sorted({str(shard) for shard in shards.values() if not (inner / str(shard)).is_file()})
        if missing:
            raise PolydistillError(
                f"{folder} is incomplete, it lacks {', '.join(missing[:3])}.",
                "Fetch or copy the model again.",
            )
    elif not (inner / "model.safetensors").is_file():
        classes = config.get("architectures") or [""]
        refuse_weights(str(folder), names, str(classes[0]), on_hub=False)


def model_type(folder: Path) -> str:
    """The name of the architecture of the model in a folder.

    Raises:
        PolydistillError: There is no model, or its configuration does not say.
    """
    config = model_folder(folder) / "config.json"
    found = read_json(config).get("model_type")
    if not isinstance(found, str) or not re.fullmatch(r"[\w.-]{1,100}", found):
        raise PolydistillError(f"{config} does not say its model_type.", "Give the folder of a transformers model.")
    return found


def is_tagger(folder: Path) -> bool:
    """Whether a model folder has a head for tags."""
    classes = read_json(model_folder(folder) / "config.json").get("architectures") or []
    return any(name.endswith("ForTokenClassification") for name in classes)


def tokenizer_files(folder: Path) -> list[Path]:
    """The files that make up a folder's tokenizer."""
    names = {*_TOKENIZER_FILES, *_TOKENIZER_PARTS}
    return sorted(p for p in folder.iterdir() if p.name in names or p.name.endswith(_TOKENIZER_SUFFIXES))


def refuse_weights(model: str, names: Sequence[str], class_name: str, *, on_hub: bool) -> NoReturn:
    """Say which weights there are instead of safetensors, and the way out."""
    weights = [name for name in names if PurePosixPath(name).name not in _NOT_WEIGHTS]
    pickles = [name for name in weights if name.endswith(_PICKLES)]
    foreign = [name for name in weights if PurePosixPath(name).suffix in _FOREIGN]
    loader = class_name or "its class"
    convert = f"load it with transformers ({loader}.from_pretrained) and write it with save_pretrained(FOLDER)"
    if pickles:
        revision = " or give a revision that has safetensors (org/name@refs/pr/N)," if on_hub else ""
        raise PolydistillError(
            f"{model} only has pickled weights ({pickles[0]}), which can run any code when they are read.",
            f"Convert it once to safetensors,{revision} if you trust where it came from: {convert}.",
        )
    if foreign:
        kind = _FOREIGN[PurePosixPath(foreign[0]).suffix]
        raise PolydistillError(
            f"{model} only has weights for {kind} ({foreign[0]}), not safetensors.",
            f"Convert it once: {convert}.",
        )
    raise PolydistillError(
        f"{model} has no weights (model.safetensors).", "Give a model that has them, or fetch it again."
    )


def card_licence(folder: Path) -> str | None:
    """The licence that the model card's front matter states, such as `mit`, or None."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    front = re.match(r"\ufeff?---\s*\n(.*?)\n---", text, re.DOTALL)
    if front is None:
        return None
    found = dict(re.findall(r"^(license|license_name):[ \t]*['\"]?([^\s'\"#]+)", front[1], re.MULTILINE))
    if found.get("license") == "other":
        return found.get("license_name", "other")
    return found.get("license")
