"""What a teacher says of all training data, on disk before training begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polydistill.distill.cached import CachedTeacher, cached
from polydistill.distill.teachers.base import Teacher
from polydistill.errors import PolydistillError
from polydistill.processes import is_main, wait
from polydistill.progress import Progress
from polydistill.training.batching import Feature, by_length
from polydistill.training.deciding import ANEW, decided
from polydistill.training.loop import collator

FILL_BATCH = 32


def kept_on_disk(
    teacher: Teacher,
    facts: Mapping[str, Any],
    features: Sequence[Feature],
    tokenizer: Any,
    *,
    max_bytes: int,
    note: Path,
    progress: Progress,
) -> Teacher:
    """A teacher with its signals on disk, all of them written now, or the teacher itself where they take too much.

    What a batch says of an example depends on the others in it, in the last bit: written in batches that are always
    the same, a run that goes on after a kill reads what an unbroken one does. So it is decided once a run.

    Args:
        teacher: The teacher.
        facts: What its signals depend on; see `cached`.
        features: All inputs, numbered by `example_id`.
        tokenizer: What pads them.
        max_bytes: More is not kept, by a run that has not decided yet.
        note: File of the decision.
        progress: Where to report.

    Raises:
        PolydistillError: They were on disk before this run was stopped, and cannot be any more.
    """
    lengths = [len(f["input_ids"]) for f in features]

    def fill(most: int | None) -> bool:
        kept = cached(teacher, facts, lengths, max_bytes=most, progress=progress)
        return isinstance(kept, CachedTeacher) and _filled(kept, features, tokenizer, progress)

    begun = note.is_file()
    if not decided(note, lambda: fill(max_bytes)):
        return teacher
    if begun and is_main() and not fill(None):
        raise PolydistillError(
            "The run began with its teacher's signals on disk, and there is no room for them any more.",
            f"Make room in POLYDISTILL_CACHE. {ANEW}",
        )
    wait()
    return cached(teacher, facts, lengths, max_bytes=None, writes=False, progress=progress)


def _filled(kept: CachedTeacher, features: Sequence[Feature], tokenizer: Any, progress: Progress) -> bool:
    """Writes what is not there yet; whether all of it is there then."""
    collate = collator(tokenizer, about=True)
    with progress.bar("teacher", len(features), "input") as done:
        for places in by_length(features, FILL_BATCH):
            kept.signals(collate([features[i] for i in places]))
            done(len(places))
    kept.close()
    return kept.is_full
