"""What one commit would change: the files that the Hub does not have yet, and those of an older model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from polydistill.fetching.reach import hub_hash
from polydistill.hub.publication import CARD, Item, Publication
from polydistill.hub.session import There

# What a loader reads: what the folder no longer has would be mixed with what is sent.
_STALE = re.compile(
    r"model.*\.safetensors(\.index\.json)?|tokenizer.*|vocab\.(json|txt)|merges\.txt|added_tokens\.json|.*\.spm"
    r"|special_tokens_map\.json|sentencepiece.*\.model|spiece\.model|generation_config\.json|chat_template\.jinja"
    r"|modules\.json|sentence_bert_config\.json|config_sentence_transformers\.json|difference.*\.safetensors"
)
_STALE_FOLDERS = re.compile(r"onnx|\d+_[A-Za-z]+")


@dataclass(frozen=True)
class Plan:
    """What one commit would change.

    Attributes:
        repository: `org/name`.
        new: Whether the repository has to be made first.
        send: Files that differ from what is there.
        remove: Paths of an older model's parts.
    """

    repository: str
    new: bool
    send: tuple[Item, ...]
    remove: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Size of what is sent, at most."""
        return sum(item.bytes for item in self.send)

    @property
    def is_empty(self) -> bool:
        """Whether everything is there already."""
        return not self.send and not self.remove


def plan_for(repository: str, publication: Publication, there: There) -> Plan:
    """Which files differ, and which of an older model's would be mixed with them."""
    ours = {item.path for item in publication.files} | {CARD}
    changed = tuple(item for item in publication.files if _differs(item, there.files.get(item.path)))
    stale = tuple(sorted(path for path in there.files if path not in ours and _is_stale(path)))
    return Plan(repository, not there.exists, changed, stale)


def _differs(item: Item, there: tuple[str, bool] | None) -> bool:
    if there is None:
        return True
    known, large = there
    if not large and item.bytes > 100_000_000:  # as a small file it would have another hash
        return True
    return hub_hash(item.content, git=not large) != known


def _is_stale(path: str) -> bool:
    parts = PurePosixPath(path).parts
    if any(_STALE_FOLDERS.fullmatch(part) for part in parts[:-1]):
        return True
    return len(parts) == 1 and _STALE.fullmatch(path) is not None
