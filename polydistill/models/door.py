"""What a model's folder is asked before anything in it is used: is it whole, and is nothing in it code.

Weights are safetensors (those of a module of sentence-transformers may be a pickle of nothing but tensors), what
computes with them is a class of transformers or sentence-transformers, and no file names or links to another outside.
Every command comes through here, by `refs.resolve`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from polydistill.errors import PolydistillError
from polydistill.files.inside import inside, leads_out
from polydistill.files.jsonfiles import read_json
from polydistill.models.configuration import SMALL, check_config
from polydistill.models.files import pickled
from polydistill.models.folder import (
    INDEX,
    MODULES,
    MODULES_WITH_WEIGHTS,
    PICKLE,
    TOKENIZER_FILES,
    TOKENIZER_NAMES,
    TOKENIZER_SUFFIXES,
    WEIGHTS,
    Module,
    model_folder,
    modules_of,
)
from polydistill.models.pickles import check_pickle

ADAPTER = "adapter_config.json"
# Of config.json: a file that transformers reads instead, also an index of pickles.
OTHER_WEIGHTS = "transformers_weights"
ATTENTION = ("attn_implementation", "_attn_implementation")
TEMPLATES = "additional_chat_templates"
NEEDED_SUFFIXES = (".json", ".safetensors", ".jinja", ".tiktoken", ".bpe", ".codes", TEMPLATES, *TOKENIZER_SUFFIXES)
# Modules of sentence-transformers that compute what their configuration says; others load classes that it names.
PLAIN_MODULES = ("Transformer", "Pooling", "Normalize", "Dropout")
MODULES_WITH_MATRICES = ("Dense", "CNN", "LSTM")
# What sentence_bert_config.json may hand on to transformers; among the rest are other places, and kernels of the Hub.
LOADING_PARTS = ("model_args", "tokenizer_args", "config_args", "model_kwargs", "processor_kwargs", "config_kwargs")
LOADING = (
    "add_bos_token",
    "add_eos_token",
    "add_pooling_layer",
    "attn_implementation",
    "do_lower_case",
    "dtype",
    "is_causal",
    "is_decoder",
    "max_length",
    "max_position_embeddings",
    "model_max_length",
    "output_hidden_states",
    "padding_side",
    "torch_dtype",
    "trust_remote_code",
    "truncation_side",
    "use_cache",
    "use_fast",
)
# Files that transformers looks for under their own names, whatever tokenizer_config.json says; old ones do say it.
UNREAD_NAMES = ("special_tokens_map_file", "tokenizer_config_file", "added_tokens_file", "chat_template_file")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_FOREIGN = {".h5": "TensorFlow", ".msgpack": "Flax", ".gguf": "GGUF", ".onnx": "ONNX"}
_NOT_WEIGHTS = {"training_args.bin", "optimizer.pt", "scheduler.pt", "optimizer.bin", "scheduler.bin"}
_RUNS_CODE = "which can run any code when they are read"


def check_folder(folder: Path, *, tokenizer: bool = True) -> None:
    """Check that a folder has a config, a tokenizer and safetensors, and that nothing in it would run or lead outside.

    Args:
        folder: A model's.
        tokenizer: Whether it has to have one; a part of a stack has none.

    Raises:
        PolydistillError: Something is missing, the weights come in another format, or code would have to be run.
    """
    _refuse_no_files(folder, folder)
    modules = modules_of(folder) if (folder / MODULES).is_file() else []
    for module in modules:
        _check_module(folder, module)
    for file in pickled(folder):
        _refuse_no_file(file, folder)
        check_pickle(file)
    inner = model_folder(folder)
    models = dict.fromkeys([inner, *(m.place for m in modules if m.name == "Transformer")])
    for place in dict.fromkeys([*models, *(module.place for module in modules)]):
        _refuse_no_files(place, folder)
        _refuse_no_files(place / TEMPLATES, folder)
    if tokenizer:
        _check_tokenizer(folder, inner)
    for place in models:
        _check_model(folder, place)


def _check_model(folder: Path, place: Path) -> None:
    """A folder that transformers loads."""
    if (place / ADAPTER).is_file():  # which transformers would load too, with whatever it names
        raise PolydistillError(
            f"{place} has an adapter beside its model ({ADAPTER}).",
            "Merge it into the model (peft: merge_and_unload, then save_pretrained), or take the adapter's files out.",
        )
    config = check_config(place)
    _refuse_code(folder, config)
    if config.get(OTHER_WEIGHTS) not in (None, WEIGHTS):
        raise PolydistillError(
            f"{place / 'config.json'} names weights other than {WEIGHTS} ({OTHER_WEIGHTS}), which are not read.",
            f"Take {OTHER_WEIGHTS} out of it if {WEIGHTS} is the model.",
        )
    for file in sorted(place.glob("sentence_*_config.json")):
        _check_loading(file, read_json(file))
    if (place / INDEX).is_file():
        _check_shards(folder, place / INDEX)
    elif not (place / WEIGHTS).is_file():
        names = sorted({path.name for part in (folder, place) for path in part.iterdir()})
        refuse_weights(str(folder), names, next(iter(_classes(config)), ""), on_hub=False)


def _check_shards(folder: Path, index: Path) -> None:
    """The files that an index names: safetensors, beside it, all there."""
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise PolydistillError(f"{index} names no weights.", "Fetch the model again.")
    for name in shards.values():
        if not isinstance(name, str):
            inside(index.parent, name, index)
    files = {name: inside(index.parent, name, index) for name in sorted(set(shards.values()))}
    if others := [name for name in files if not name.endswith(".safetensors")]:
        raise PolydistillError(
            f"{index} names weights that are not safetensors ({ascii(others[0])[:80]}).",
            "Such weights can run any code when they are read: save the model again with save_pretrained, where you "
            "trust it.",
        )
    if missing := [name for name, path in files.items() if not path.is_file()]:
        raise PolydistillError(
            f"{folder} is incomplete: it lacks {', '.join(missing[:3])}.", "Fetch or copy the model again."
        )


def _check_tokenizer(folder: Path, inner: Path) -> None:
    """There is one, and the files that its configuration names lie in the folder."""
    names = {path.name for place in (folder, inner) for path in place.iterdir()}
    if not any(name in TOKENIZER_FILES or name.endswith(TOKENIZER_SUFFIXES) for name in names):
        raise PolydistillError(
            f"{folder} has no tokenizer.",
            "Save it there too: AutoTokenizer.from_pretrained(...).save_pretrained(folder).",
        )
    for place in dict.fromkeys((folder, inner)):
        file = place / "tokenizer_config.json"
        values = read_json(file) if file.is_file() else {}
        for key, value in values.items():
            if key not in UNREAD_NAMES and key.endswith(("_file", "_files", "_spm", "init_inputs")):
                for name in value if isinstance(value, list) else [value]:
                    _check_name(place, name, file)


def _check_name(place: Path, name: object, file: Path) -> None:
    """A name in tokenizer_config.json; old ones have paths of the machine where they were written, which do no harm."""
    if name is not None and not (isinstance(name, str) and not any(map(_exists, (Path(name), place / name)))):
        inside(place, name, file)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # the name is too long
        return False


def _check_module(folder: Path, module: Module) -> None:
    """A module of sentence-transformers itself, with weights that are safetensors."""
    ours = module.type.startswith("sentence_transformers.") and all(map(str.isidentifier, module.type.split(".")))
    if not ours or module.name not in (*PLAIN_MODULES, *MODULES_WITH_WEIGHTS):
        raise PolydistillError(
            f"{folder / MODULES} names the module {ascii(module.type)[:80]}, whose code is not run.",
            f"Those of sentence-transformers that are run: {', '.join((*PLAIN_MODULES, *MODULES_WITH_WEIGHTS))}.",
        )
    if module.name not in MODULES_WITH_WEIGHTS:
        return
    for weights in (module.place / WEIGHTS, module.place / PICKLE):
        if weights.is_file():
            _check_sizes(module, weights)
            return
    if pickles := sorted(path.name for path in module.place.glob("*") if path.suffix in _PICKLES):
        raise PolydistillError(
            f"{module.place} only has pickled weights, under a name other than {PICKLE} ({pickles[0]}).",
            "Convert it once, if you trust where it came from: load the folder with sentence-transformers "
            "(SentenceTransformer) and write it with save_pretrained(ANOTHER_FOLDER).",
        )
    raise PolydistillError(
        f"{folder} is incomplete: it lacks {module.place.name}/{WEIGHTS}.", "Fetch or copy the model again."
    )


def _check_sizes(module: Module, weights: Path) -> None:
    """Refuses a module whose configuration describes a matrix that its weights cannot hold."""
    if module.name not in MODULES_WITH_MATRICES:
        return
    file, stored = module.place / "config.json", weights.stat().st_size
    sizes = sorted(value for value in read_json(file, optional=True).values() if type(value) is int)[-2:]
    if math.prod(sizes) > max(stored, SMALL):
        shape = " x ".join(f"{size:,}" for size in sizes)
        raise PolydistillError(
            f"{file} describes {shape} values, far more than the {stored:,} bytes of its weights can hold.",
            "Fetch or save the model again.",
        )


def _check_loading(file: Path, values: Mapping[str, Any]) -> None:
    """What sentence-transformers would hand on to transformers."""
    parts = [values[part] for part in LOADING_PARTS if isinstance(values.get(part), dict)]
    keys = [key for part in parts for key in part if key not in LOADING]
    other = ["tokenizer_name_or_path"] if values.get("tokenizer_name_or_path") else []
    if found := [*other, *keys, *_kernels(parts)]:
        raise PolydistillError(
            f"{file} sets {ascii(found[0])[:80]}, which could load something other than this folder.",
            "Take it out of the file if the model does not need it.",
        )


def _refuse_code(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuses a model that only code from its folder can build.

    Raises:
        PolydistillError: transformers does not have its class, or is to fetch a kernel.
    """
    if kernels := _kernels([config, *config.values()]):
        raise PolydistillError(
            f"{folder} asks for attention code from the Hub ({ascii(kernels[0])[:80]}), which is not run.",
            "Take attn_implementation out of its config.json.",
        )
    if not config.get("auto_map"):
        return
    import transformers

    classes = _classes(config)
    if not classes or not set(classes) <= set(transformers.__all__):  # type: ignore[attr-defined]
        raise PolydistillError(
            f"{folder} is built by code of its own (auto_map in config.json), which is not run.",
            "Choose a model of an architecture that transformers has: `polydistill ls architectures`.",
        )


def _classes(config: Mapping[str, Any]) -> list[str]:
    """The names of a model's classes, as far as its configuration says them."""
    found = config.get("architectures")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _kernels(parts: Iterable[object]) -> list[str]:
    """The repositories whose kernels parts of a configuration ask attention to be computed with."""
    asked = [part.get(key) for part in parts if isinstance(part, Mapping) for key in ATTENTION]
    names = [name for value in asked for name in (value.values() if isinstance(value, Mapping) else [value])]
    return [name for name in names if isinstance(name, str) and "/" in name]


def _refuse_no_files(place: Path, folder: Path) -> None:
    """Refuses what is no file in the place of what a model is made of: links out of the folder or to nothing, pipes.

    Raises:
        PolydistillError: There is one.
    """
    for path in sorted(place.iterdir()) if place.is_dir() else ():
        if path.name in TOKENIZER_NAMES or path.name.endswith(NEEDED_SUFFIXES):
            _refuse_no_file(path, folder)


def _refuse_no_file(path: Path, folder: Path) -> None:
    if path.is_symlink() and leads_out(path, folder):
        raise PolydistillError(
            f"{path} is a link that leads out of {folder}, where nothing is read.", "Put the file itself there."
        )
    if not _exists(path):
        raise PolydistillError(f"{path} is a link to nothing.", "Put the file itself there.")
    if not path.is_file() and not path.is_dir():  # whoever reads a pipe may wait for ever
        raise PolydistillError(f"{path} is neither a file nor a folder.", "Put the file itself there.")


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
            f"{model} only has pickled weights ({pickles[0]}), {_RUNS_CODE}.",
            f"Convert it once to safetensors,{revision} if you trust where it came from: {convert}.",
        )
    if foreign:
        kind = _FOREIGN[PurePosixPath(foreign[0]).suffix]
        raise PolydistillError(
            f"{model} only has weights for {kind} ({foreign[0]}), not safetensors.", f"Convert it once: {convert}."
        )
    raise PolydistillError(
        f"{model} has no weights (model.safetensors).", "Give a model that has them, or fetch it again."
    )
