"""README.md of a model folder, made from its record; of the folder only the class of the model is read."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from polydistill.card.text import human_bytes
from polydistill.errors import PolydistillError
from polydistill.records.record import NAME as RECORD
from polydistill.records.record import RunRecord

__all__ = ["card", "folder_card", "human_bytes", "is_unedited", "licence_of", "write_card"]

_MARK = re.compile(r"\n<!-- made by polydistill, sha256 ([0-9a-f]{64}) -->\s*\Z")


def write_card(record: RunRecord, folder: Path) -> None:
    """Writes the folder's README.md; a link of that name is replaced, not followed."""
    path = folder / "README.md"
    if path.is_symlink():
        path.unlink()
    path.write_text(card(record, folder), encoding="utf-8")


def folder_card(folder: Path) -> str:
    """The model card of a folder.

    Raises:
        PolydistillError: There is no such folder, or it has no record.
    """
    record = RunRecord.load(folder) if folder.is_dir() else None
    if record is None:
        lacks = f"has no {RECORD}, from which a card is made" if folder.is_dir() else "does not exist"
        raise PolydistillError(f"{folder} {lacks}.", "Give a folder that a command of polydistill wrote.")
    return card(record, folder)


def card(
    record: RunRecord, folder: Path | None = None, *, repository: str | None = None, licence: str | None = None
) -> str:
    """The model card of whatever made the record.

    Args:
        record: What was run on what with what result.
        folder: The model's folder, whose config.json says which class loads it.
        repository: What the snippet loads; the folder's name if nothing is given.
        licence: In place of the one that the record has from the base model.

    Returns:
        Markdown with YAML at its head. Its last line is a comment with the hash of the rest: see `is_unedited`.
    """
    from polydistill.card import citations, metadata, quality, steps, story, usage
    from polydistill.card.facts import Facts

    facts = Facts.of(record, folder)
    size, entries = story.size_table(facts), citations.citations(facts)
    papers = steps.data_citations(facts)
    parts = [
        metadata.metadata(facts, licence or facts.licence),
        f"# {story.title(facts)}",
        story.introduction(facts),
        "## Use",
        f"```python\n{usage.snippet(facts, repository or facts.name)}\n```",
        *(["## Size", size] if size else []),
        *quality.sections(facts),
        *story.costs(facts),
        *story.kept(facts),
        *story.lost(facts),
        *story.limitations(facts),
        *story.method(facts),
        "## How it was made",
        steps.made(facts),
        *(["## Citation"] if entries or papers else []),
        *([f"```bibtex\n{chr(10).join(entries)}\n```"] if entries else []),
        *(["Data:\n\n" + "\n".join(papers)] if papers else []),
    ]
    text = "\n\n".join(parts) + "\n"
    return f"{text}\n<!-- made by polydistill, sha256 {_hash(text)} -->\n"


def is_unedited(text: str) -> bool:
    """Whether a card is as `card` made it, down to the last letter; line ends do not count."""
    text = text.replace("\r\n", "\n")
    found = _MARK.search(text)
    return found is not None and found[1] == _hash(text[: found.start()])


def licence_of(record: RunRecord) -> str | None:
    """The licence that the record has from its base models, None if none states one."""
    from polydistill.card.facts import Facts

    return Facts.of(record, None).licence


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
