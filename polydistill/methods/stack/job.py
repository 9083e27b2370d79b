"""What a stacking works with, once everything is decided."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from polydistill.catalog import Language, Task
from polydistill.errors import UsageError
from polydistill.labelled.examples import LabelledSplit
from polydistill.methods.stack.presets import Preset
from polydistill.models.refs import ResolvedModel
from polydistill.records.record import text_hash
from polydistill.stacks.description import Parent
from polydistill.texts.sources import TextSource, read_texts

MOST_LINES = 5_000_000  # of a text that are looked at


@dataclass(frozen=True)
class Job:
    """A run that can begin.

    Attributes:
        encoder: What reads.
        llm: What is stacked on.
        begin: Stack of phase 1 to go on from; None to make it here.
        teacher: The LLM alone, tuned for the task, where one is given.
        phases: Those that are run, 1 or 2 or both.
        english: The language of all training.
        texts: Where the text of phase 1 is; empty where there is no phase 1.
        task: What phase 2 learns; None for vectors alone.
        training: Its labelled splits.
        dev: The split that chooses checkpoints.
        tests: Languages to score in.
        preset: With what the command line says of it.
        frozen: Precision of the weights that are not trained.
    """

    encoder: ResolvedModel
    llm: ResolvedModel
    begin: Path | None
    teacher: Path | None
    phases: tuple[int, ...]
    english: Language
    texts: tuple[TextSource, ...]
    task: Task | None
    training: tuple[LabelledSplit, ...]
    dev: LabelledSplit | None
    tests: tuple[Language, ...]
    preset: Preset
    frozen: str

    def parents(self) -> tuple[Parent, Parent]:
        """Encoder and LLM as a stack's folder names them."""
        return Parent.of(self.encoder, self.frozen), Parent.of(self.llm, self.frozen)


@dataclass(frozen=True)
class Lines:
    """The text of phase 1.

    Attributes:
        training: Different lines, in an order that follows from the seed.
        dev: Lines that were held out.
        sha256: Of both.
    """

    training: tuple[str, ...]
    dev: tuple[str, ...]
    sha256: str


def read_lines(texts: Sequence[TextSource], wanted: int, dev: int, seed: int) -> Lines:
    """Lines of some texts, each once.

    Args:
        texts: Where they are.
        wanted: Lines to train on; fewer if there are no more.
        dev: Lines to hold out.
        seed: Of their order.

    Raises:
        UsageError: There are too few.
    """
    seen: dict[str, None] = {}
    for source in texts:
        for line in islice(read_texts(source), MOST_LINES):
            if text := line.strip():
                seen[text] = None
    lines = list(seen)
    held = min(dev, len(lines) // 10)
    if held < 2:
        raise UsageError(
            f"The text has {len(lines)} different lines, which are too few to learn from.", "Give more `text`."
        )
    random.Random(seed).shuffle(lines)
    training, apart = tuple(lines[held : held + wanted]), tuple(lines[:held])
    return Lines(training, apart, text_hash([*training, *apart]))
