"""A Hugging Face model's folder: where its parts lie, and what it says of itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from polydistill.errors import PolydistillError
from polydistill.inside import inside, leads_out
from polydistill.jsonfiles import Part, read_json

MODULES = "modules.json"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt")
TOKENIZER_SUFFIXES = (".model", ".spm")
TOKENIZER_NAMES = (
    *TOKENIZER_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
)
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
    return sorted(p for p in folder.iterdir() if p.name in TOKENIZER_NAMES or p.name.endswith(TOKENIZER_SUFFIXES))


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
