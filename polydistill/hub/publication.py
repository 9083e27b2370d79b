"""What would be published of a model's folder: which files, with which bytes. Nothing here uses the network."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from polydistill import registry
from polydistill.card import card, is_unedited, licence_of
from polydistill.card.facts import BESIDE
from polydistill.errors import PolydistillError, UsageError
from polydistill.files.inside import leads_out
from polydistill.files.jsonfiles import read_json
from polydistill.hub.completeness import check_complete, check_exported, onnx_of
from polydistill.hub.leaks import FOLDERS, Leaks, settings_without_paths, text_without_places, without_paths
from polydistill.models.folder import card_licence
from polydistill.records.record import NAME as RECORD
from polydistill.records.record import RunRecord
from polydistill.redaction import redacted
from polydistill.vocab import OWNED_NAMES

CARD = "README.md"
FROM_RECORD, FROM_FOLDER, FROM_HUB = "record", "folder", "hub"
_TRAINING = re.compile(r"(optimizer|scheduler|rng_state|scaler|trainer_state|training_args)\b.*|optimizer.*")
_FOLDERS = {
    "stages": "stages of the run",
    "runs": "logs of the training",
    "wandb": "logs of the training",
    "__pycache__": "made by Python",
}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# The files of a model, and the pictures of its card.
_WEIGHTS = (".safetensors", ".onnx", ".onnx_data", ".onnx.data", ".gguf")
_VOCABULARIES = (".model", ".spm", ".bpe", ".codes")
_TEXTS = (".json", ".jinja", ".md", ".txt")
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")
_LEGAL = re.compile(r"(LICEN[CS]E|NOTICE|COPYING|CITATION|USE_POLICY)([._-].*)?", re.IGNORECASE)
_ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd", b"Rar!")
# Files that may name a path of this machine, besides the record and the card.
_SETTINGS = (
    "config.json",
    "tokenizer_config.json",
    "generation_config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)
Content = Path | bytes
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,59}")


@dataclass(frozen=True)
class Item:
    """A file as it would be sent.

    Attributes:
        path: In the repository, with slashes.
        content: The local file, or the bytes if they differ from it.
        bytes: Its size.
    """

    path: str
    content: Content
    bytes: int

    @classmethod
    def of(cls, path: str, content: Content) -> Item:
        """A file of that content."""
        return cls(path, content, len(content) if isinstance(content, bytes) else content.stat().st_size)


@dataclass(frozen=True)
class Publication:
    """What would be sent.

    Attributes:
        folder: The model's folder, which stays as it is.
        files: The files, by path.
        left_out: Path -> why it is not sent.
        cleaned: Paths of files that are sent without what they say of this machine.
        card: The text of README.md.
        edited: Whether it is the folder's own, edited by hand.
    """

    folder: Path
    files: tuple[Item, ...]
    left_out: dict[str, str]
    cleaned: tuple[str, ...]
    card: str
    edited: bool

    def stage(self, place: Path) -> None:
        """Lays the files out in an empty folder as they would be sent; those that do not change are links."""
        for item in self.files:
            path = place / item.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(item.content, bytes):
                path.write_bytes(item.content)
            else:
                path.symlink_to(item.content.resolve())


def gather(
    folder: Path,
    repository: str,
    *,
    licence: str | None = None,
    source: str | None = None,
    secrets: Sequence[str] = (),
    beside: Mapping[str, Path] | None = None,
    exported: Mapping[str, Any] | None = None,
) -> Publication:
    """Chooses the files, makes the card, and checks all that can be checked here.

    Args:
        folder: A model's folder with a record.
        repository: `org/name`, for the card's snippet.
        licence: Licence identifier, in place of the one that the record has.
        source: Where the card comes from: `record`, `folder`, or `hub` (then the one that is there stays); None for a
            new one, unless somebody has edited the folder's.
        secrets: Known secrets, such as the user's token, that must not stand in any file.
        beside: Path in the repository -> a file that goes with those of the folder, in place of its own of that path.
        exported: What the export reported that made them, for card and record.

    Raises:
        UsageError: `licence` or `source` cannot be one.
        PolydistillError: The folder is incomplete, has no record or no licence, links to the outside, or holds secrets.
    """
    if source not in (None, FROM_RECORD, FROM_FOLDER, FROM_HUB):
        raise UsageError(f"`card={source}` is unknown.", f"Use {FROM_RECORD}, {FROM_FOLDER} or {FROM_HUB}.")
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise UsageError(
            "`license` is not the identifier of a licence.", "Examples are apache-2.0, mit and cc-by-nc-4.0."
        )
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", "Give the folder that a command of polydistill wrote.")
    found, left_out = _own_files(folder, set(beside or ()))
    places = _places(folder)
    values = without_paths(_told(folder, exported), places)
    shown = RunRecord.from_json(values)
    text, edited = _card(folder, shown, repository, licence, source)
    own = {CARD: text_without_places(text, places).encode()}  # a new one has none; other people's words stay
    if values != read_json(folder / RECORD):
        own[RECORD] = _written(values)
    own |= {name: cleaned for name in found if (cleaned := _cleaned(folder, name)) is not None}
    contents: dict[str, Content] = {name: folder / name for name in found} | own | dict(beside or {})
    items = [Item.of(name, contents[name]) for name in sorted(contents)]
    leaks = Leaks(secrets, places)
    for item in items:
        _refuse_leaks(item, leaks)
    changed = [name for name in own if name != CARD or (edited and own[CARD] != text.encode())]
    return Publication(folder, tuple(items), left_out, tuple(sorted(changed)), own[CARD].decode(), edited)


def _own_files(folder: Path, replaced: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """(paths of the files to send, path -> why another is left out), of a whole model with a record.

    Args:
        folder: The model's.
        replaced: Paths that are sent with another content.

    Raises:
        PolydistillError: It lacks something, or a link leads out of the folder.
    """
    found, left_out = _files(folder)
    record = RunRecord.load(folder)
    told = registry.told(record.command) if record is not None else None
    if record is not None and told is not None and told.files:
        weights = check_exported(folder, record, found)
    else:
        weights = check_complete(folder, found)
    if record is None:
        raise PolydistillError(
            f"{folder} has no {RECORD}, so there is nothing to make a card from.",
            "Publish what a command of polydistill wrote, or upload it with `hf upload`.",
        )
    weights |= onnx_of(record.result.get(BESIDE), found) | set(replaced)
    others = {name for name in found if name.endswith(_WEIGHTS)} - weights
    left_out |= dict.fromkeys(others, "weights, but not those of this model")
    return [name for name in found if name not in others], dict(sorted(left_out.items()))


def _files(folder: Path) -> tuple[list[str], dict[str, str]]:
    """(paths of the files to send, path -> why another is left out).

    Raises:
        PolydistillError: A link leads out of the folder.
    """
    root, found, left_out = folder.resolve(), [], {}
    for path, name in _walk(folder, PurePosixPath()):
        why = _why_not(name) or _why_not_this(path, name, root)
        if why is not None:
            left_out[f"{name}/" if path.is_dir() else str(name)] = why
        elif path.is_file():
            found.append(str(name))
    return found, left_out


def _why_not_this(path: Path, name: PurePosixPath, root: Path) -> str | None:
    """Why a file is not sent because of its content, None if it is sent.

    Raises:
        PolydistillError: It is a link that leads out of the folder.
    """
    if path.is_symlink():
        if leads_out(path, root):
            raise PolydistillError(
                f"{name} is a symbolic link that leads out of {root}.",
                "Put the file itself there; nothing outside the folder is published.",
            )
        if path.is_dir():
            return "a link to a folder"
    if path.is_dir():
        return None
    if not path.is_file():
        return "not a file"
    if not (name.name.endswith(_WEIGHTS + _VOCABULARIES + _TEXTS + _PICTURES) or _LEGAL.fullmatch(name.name)):
        return "not part of a model"
    with path.open("rb") as file:
        return "an archive" if file.read(8).startswith(_ARCHIVES) else None


def _walk(folder: Path, inside: PurePosixPath) -> Iterator[tuple[Path, PurePosixPath]]:
    """Everything below a folder, but nothing below what is left out or a link."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = inside / entry.name
            yield Path(entry.path), name
            if entry.is_dir(follow_symlinks=False) and _why_not(name) is None:
                yield from _walk(Path(entry.path), name)


def _why_not(name: PurePosixPath) -> str | None:
    """Why a file or folder is not sent because of its name, None if it is sent."""
    if name.name.startswith("."):
        return "hidden"
    if name.name in _FOLDERS:
        return _FOLDERS[name.name]
    if name.name.startswith("checkpoint-"):
        return "a checkpoint of the training"
    if _TRAINING.fullmatch(name.name):
        return "state of the training"
    if name.suffix in _PICKLES:
        return "a pickle, which can run code when it is read"
    return None


def _card(
    folder: Path, record: RunRecord, repository: str, licence: str | None, source: str | None
) -> tuple[str, bool]:
    """(the card, whether it is the folder's, edited by hand).

    Raises:
        PolydistillError: No licence is known.
    """
    own = folder / CARD
    text = own.read_text(encoding="utf-8", errors="replace") if own.is_file() else ""
    edited = bool(text) and not is_unedited(text)
    if source == FROM_FOLDER and not text:
        raise PolydistillError(f"{folder} has no {CARD}.", "Leave `card` out to have one made from the record.")
    if (edited and source is None) or source == FROM_FOLDER:
        if licence is not None:
            raise UsageError(
                f"{own} was edited by hand and is sent as it is, so `license` cannot be added.",
                f"Write `license: {licence}` into its head, or add `card={FROM_RECORD}` for a new one.",
            )
        if card_licence(folder) is None:
            raise PolydistillError(
                f"{own} states no licence.", "Write `license: ID` between the lines `---` at its top."
            )
        return text, edited
    known = licence or licence_of(record)
    if known is None:
        raise PolydistillError(
            f"No licence is known for {folder}: none of the models that it descends from states one.",
            "Find out which licence lets you pass the original on, and give it: `license=ID`.",
        )
    return card(record, folder, repository=repository, licence=known), False


def _told(folder: Path, exported: Mapping[str, Any] | None) -> Any:
    """The record's JSON, with what an export of it reported."""
    values: Any = read_json(folder / RECORD)
    return {**values, "result": {**values["result"], BESIDE: exported}} if exported else values


def _cleaned(folder: Path, name: str) -> bytes | None:
    """A file of settings without paths of this machine, None if it has none or is another file."""
    if PurePosixPath(name).name not in _SETTINGS:
        return None
    values: Any = read_json(folder / name)
    cleaned = settings_without_paths(values)
    return None if cleaned == values else _written(cleaned)


def _written(values: Any) -> bytes:
    return json.dumps(values, indent=2, ensure_ascii=False).encode() + b"\n"


def _places(folder: Path) -> list[Path]:
    """Folders whose names must not be told, longest first, so none is left in part."""
    places = {folder.resolve().parent, Path.cwd(), Path.home()}
    return sorted(places, key=lambda place: -len(str(place)))


def _refuse_leaks(item: Item, leaks: Leaks) -> None:
    """Refuses a file that holds a secret or a path; paths in what polydistill writes have been removed before.

    Raises:
        PolydistillError: It does.
    """
    name = PurePosixPath(item.path)
    vocabulary = name.name in OWNED_NAMES or name.suffix in _VOCABULARIES
    named = leaks.find(item.path.encode(), homes=False)
    if named not in (None, FOLDERS):
        raise PolydistillError(
            f"The name of {redacted(item.path)} seems to hold {named}.", "Rename it, and revoke it if it was real."
        )
    found = leaks.find(item.content, homes=not vocabulary)
    if found == FOLDERS:
        raise PolydistillError(
            f"{item.path} names {FOLDERS}.", "Remove them from it, or move the file out of the folder."
        )
    if found:
        raise PolydistillError(f"{item.path} seems to hold {found}.", "Take it out, and revoke it if it was real.")
