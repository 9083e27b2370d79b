"""The whole model that sentence-transformers would load, original against trimmed: modules, prompts and settings."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polydistill.errors import PolydistillError, library_errors
from polydistill.files.jsonfiles import short
from polydistill.models.folder import prompts_of
from polydistill.models.loading import open_sentence_model, takes_only_conversations
from polydistill.progress import SILENT, Progress
from polydistill.trimming.comparing import HINT, MAX_TOKENS, check_difference, check_numbers
from polydistill.trimming.plan import TrimPlan

OF_EACH_PROMPT = 8  # texts; without a prompt, all that were given


@dataclass(frozen=True)
class _Sample:
    """Texts, and what is put before them: `name` is a prompt's, None where none is asked for."""

    name: str | None
    before: str
    texts: tuple[str, ...]


def compare(
    plan: TrimPlan,
    folder: Path,
    texts: Sequence[str],
    tokenizers: tuple[Any, Any],
    *,
    exact: bool = True,
    progress: Progress = SILENT,
) -> dict[str, Any] | None:
    """Compares vectors of texts, as they are and with each prompt of the original before them.

    Args:
        plan: What was cut, of a sentence-transformers folder.
        folder: The trimmed folder.
        texts: Texts that both tokenize alike.
        tokenizers: The original's and the trimmed one's.
        exact: Whether vectors must be equal (not after a change of the type of the weights).
        progress: Where to report.

    Returns:
        Number of `vectors`, the names of the `prompts` that were compared, and `max_abs_difference`, None without
        texts; None for a model that puts texts into its chat template, which is said.

    Raises:
        PolydistillError: sentence-transformers cannot load one of the two, or they differ.
    """
    original = plan.source.folder
    samples = _samples(plan, texts, tokenizers, progress)
    room = MAX_TOKENS + max((len(tokenizers[0](s.before, verbose=False)["input_ids"]) for s in samples), default=0)
    with progress.bar("comparing vectors", 2, "model") as done:
        before = _embedded(original, samples, room)
        done(1)
        after = _embedded(folder, samples, room) if before else None
        done(1)
    if before is None or after is None:
        progress.warn("Sentence vectors were not compared: the model puts texts into its chat template.")
        return None
    for what, value in before[0].items():
        if after[0][what] != value:
            raise PolydistillError(
                f"Verification failed: {what}: {short(repr(after[0][what]))}, in the original {short(repr(value))}.",
                "Please report this with the model's name; nothing was written.",
            )
    check_numbers(original, "sentence vectors", before[1])
    largest = float(np.abs(before[1] - after[1]).max()) if len(before[1]) else None
    if largest is not None:
        check_difference("sentence vectors differ", largest, exact=exact)
    names = [sample.name for sample in samples if sample.name is not None]
    return {"vectors": len(before[1]), "prompts": names, "max_abs_difference": largest}


def _samples(plan: TrimPlan, texts: Sequence[str], tokenizers: tuple[Any, Any], progress: Progress) -> list[_Sample]:
    """Texts that both tokenize alike, also with the prompt before them."""
    prompts, default = prompts_of(plan.source.folder)
    wanted: list[tuple[str | None, str, int]] = [(None, prompts.get(default or "", ""), len(texts))]
    wanted += [(name, prompt, OF_EACH_PROMPT) for name, prompt in prompts.items() if prompt]
    found = []
    for name, prompt, most in wanted if texts else ():
        before, after = (t([prompt + text for text in texts], verbose=False)["input_ids"] for t in tokenizers)
        mapped = [plan.keeps[0].table[np.array(ids, np.int64)] for ids in before]
        same = [text for text, a, b in zip(texts, mapped, after, strict=True) if np.array_equal(a, b)]
        if same:
            found.append(_Sample(name, prompt, tuple(same[:most])))
        elif name is not None:
            progress.warn(f"Vectors with the prompt {name!a} were not compared: no text has only kept tokens after it.")
    return found


def _embedded(folder: Path, samples: Sequence[_Sample], room: int) -> tuple[dict[str, Any], np.ndarray] | None:
    """(what sentence-transformers read of a folder, (n, d) vectors), None if it takes nothing but conversations.

    Args:
        folder: The original or the trimmed one.
        samples: What is embedded.
        room: Most tokens of a text.
    """
    model = open_sentence_model(folder, HINT).to("cpu").eval()
    if takes_only_conversations(model):
        return None
    settings = {
        "list of modules": [type(module).__name__ for module in model],
        "length of inputs": model.max_seq_length,
        "prompts": model.prompts,
        "default prompt": model.default_prompt_name,
        "similarity": model.similarity_fn_name,
        "number of dimensions": model.get_embedding_dimension(),
    }
    model.max_seq_length = min(model.max_seq_length or room, room)
    with library_errors(f"sentence-transformers cannot run the model of {folder}", HINT):
        parts = [
            model.encode(list(s.texts), prompt_name=s.name, batch_size=OF_EACH_PROMPT, show_progress_bar=False)
            for s in samples
        ]
    del model
    gc.collect()
    return settings, np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
