"""A Hugging Face model's folder: where its parts lie, and what it says of itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from polydistill.errors import PolydistillError
from polydistill.files.inside import inside, leads_out
from polydistill.files.jsonfiles import Part, read_json

MODULES, SENTENCE_SETTINGS = "modules.json", "config_sentence_transformers.json"
WEIGHTS, INDEX, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
MODULES_WITH_WEIGHTS = ("Dense", "LayerNorm", "WeightedLayerPooling", "CNN", "LSTM")  # of sentence-transformers
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt")
TOKENIZER_SUFFIXES = (".model", ".spm")
TOKENIZER_NAMES = (
    *TOKENIZER_FILES,
    "target_vocab.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
)
# Those that only other libraries read: Mistral's, Qwen's first, fairseq's.
OTHER_TOKENIZERS = re.compile(r"tekken\.json|tokenizer\.model\.v\d\w*|.+\.(tiktoken|bpe|codes)")
STACK = "polydistill-stack"  # model type of a stack of two models
LONGEST_FRONT = 1 << 20  # characters of a card among which its front matter must be


@dataclass(frozen=True)
class Module:
    """A module of a sentence-transformers folder.

    Attributes:
        type: Its class, with the package.
        place: Where its files lie.
    """

    type: str
    place: Path

    @property
    def name(self) -> str:
        """Its class, without the package."""
        return self.type.rpartition(".")[2]


def model_folder(folder: Path) -> Path:
    """The folder with `config.json`: the given one, or that of a sentence-transformers folder's Transformer.

    Raises:
        PolydistillError: There is none.
    """
    if (folder / "config.json").is_file():
        return folder
    if (folder / MODULES).is_file():
        for module in modules_of(folder):
            if module.name == "Transformer" and (module.place / "config.json").is_file():
                return module.place
    if (folder / "adapter_config.json").is_file():
        raise PolydistillError(
            f"{folder} is an adapter, not a whole model.",
            "Merge it into its base model first (peft: merge_and_unload, then save_pretrained).",
        )
    raise PolydistillError(
        f"{folder} has no config.json, so it is not a model's folder.",
        "Give a folder that transformers' save_pretrained wrote.",
    )


def modules_of(folder: Path) -> list[Module]:
    """What the modules.json of a sentence-transformers folder lists.

    Raises:
        PolydistillError: It is broken, or names a place outside the folder.
    """
    file = folder / MODULES
    found = []
    for module in Part(file, read_json(file, list)).items():
        module.of(dict)
        found.append(Module(module["type"].of(str), inside(folder, module.value.get("path", ""), file)))
    return found


def prompts_of(folder: Path) -> tuple[dict[str, str], str | None]:
    """What sentence-transformers may put before a text, by name, and the name of what it puts there unless told.

    Raises:
        PolydistillError: The settings are broken.
    """
    file = folder / SENTENCE_SETTINGS
    settings = Part(file, read_json(file, optional=True))
    prompts = {} if settings["prompts"].value is None else settings["prompts"].of(dict)
    found = {name: settings["prompts"][name].optional(str) or "" for name in prompts}
    return found, settings["default_prompt_name"].optional(str)


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


def is_tokenizer_file(name: str) -> bool:
    """Whether a file of that name is a part of a tokenizer, of whichever library."""
    known = name in TOKENIZER_NAMES or name.endswith(TOKENIZER_SUFFIXES)
    return known or OTHER_TOKENIZERS.fullmatch(name) is not None


def tokenizer_files(folder: Path) -> list[Path]:
    """The files that make up a folder's tokenizer."""
    return sorted(path for path in folder.iterdir() if is_tokenizer_file(path.name))


def card_licence(folder: Path) -> str | None:
    """The licence that the model card's front matter states, such as `mit`, or None."""
    card = folder / "README.md"
    try:
        if leads_out(card, folder) or not card.is_file():  # a pipe would be waited for
            return None
        with card.open(encoding="utf-8-sig", errors="replace") as file:
            text = file.read(LONGEST_FRONT)
    except OSError:
        return None
    front = re.match(r"---[ \t]*\n(.*?)\n---", text, re.DOTALL)
    if front is None:
        return None
    found = dict(re.findall(r"^(license|license_name):[ \t]*['\"]?([^\s'\"#]+)", front[1], re.MULTILINE))
    if found.get("license") == "other":
        return found.get("license_name", "other")
    return found.get("license")


def is_stack(folder: Path) -> bool:
    """Whether a folder is that of a stack of two models."""
    path = folder / "config.json"
    return path.is_file() and read_json(path).get("model_type") == STACK
