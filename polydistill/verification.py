"""Proof that a trimmed model is the original: same tokens, same outputs. Models are built only here."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from polydistill.errors import PolydistillError
from polydistill.loading import load_tokenizer, loading_failed, quiet_transformers
from polydistill.progress import SILENT, Progress
from polydistill.trimming import TrimPlan
from polydistill.vocab.counts import Fertility, fertility
from polydistill.vocab.keep import KeepSet

MAX_TOKENS = 128
MODEL_SENTENCES = 32
TOLERANCE = 1e-4  # between float32 outputs; only the order of additions may differ
COMPARED = ("last_hidden_state", "encoder_last_hidden_state", "logits", "start_logits", "end_logits")

HINT = "Check the folder with that library, or trim with --no-verify."


@dataclass(frozen=True)
class Verification:
    """What was compared.

    Args:
        sentences: Number of sentences.
        identical: How many tokenize to the mapped ids.
        covered: How many had only kept tokens (all of these must be identical).
        max_abs_difference: Largest absolute difference between outputs of the two models on such sentences, for the
            kept tokens; None where no model was built.
        before: Fertility and unknown rate of the original tokenizer.
        after: And of the trimmed one.
        held_out: Whether the sentences were left out of the counts.
    """

    sentences: int
    identical: int
    covered: int
    max_abs_difference: float | None
    before: Fertility
    after: Fertility
    held_out: bool

    def to_json(self) -> dict[str, Any]:
        """The object of `--json`."""
        return {
            "sentences": self.sentences,
            "identical": self.identical,
            "covered": self.covered,
            "max_abs_difference": self.max_abs_difference,
            "fertility": {"before": self.before.fertility, "after": self.after.fertility},
            "unknown_rate": {"before": self.before.unknown_rate, "after": self.after.unknown_rate},
            "held_out": self.held_out,
        }


def encode(tokenizer: Any, texts: list[str], **options: Any) -> list[list[int]]:
    """Texts -> ids without special tokens."""
    return tokenizer(texts, add_special_tokens=False, verbose=False, **options)["input_ids"] if texts else []


def verify(
    plan: TrimPlan,
    folder: Path,
    lines: Sequence[str],
    *,
    held_out: bool,
    exact: bool = True,
    progress: Progress = SILENT,
) -> Verification:
    """Loads the original and the trimmed model and compares them.

    Args:
        plan: What was cut.
        folder: The trimmed model's folder.
        lines: Text to compare on.
        held_out: Whether it was left out of the counts (for the report).
        exact: Whether outputs must be equal (not after `--dtype`).
        progress: Where to report.

    Raises:
        PolydistillError: They differ where they must not.
    """
    source = plan.source
    new_folder = source.place_in(folder)
    old, new = (load_tokenizer(folder, HINT) for folder in (source.model, new_folder))
    if getattr(new, "src_lang", None) and new.src_lang != old.src_lang:
        old.src_lang = new.src_lang  # the code of the original's own default language was dropped
    _check_rows(new, plan)
    covered, identical = _compare_tokens(plan.keeps[0], lines, old, new, "text")
    usable = identical
    if len(plan.keeps) > 1:  # what the decoder reads has a vocabulary of its own
        targets = _compare_tokens(plan.keeps[1], lines, old, new, "text_target")[1]
        usable = [same and target for same, target in zip(identical, targets, strict=True)]
    texts = [line for line, same in zip(lines, usable, strict=True) if same and any(map(str.isalnum, line))]
    difference = None
    if texts := texts[:MODEL_SENTENCES]:
        difference = _compare_models(plan, new_folder, texts, old, new, progress)
        if exact and not difference <= TOLERANCE:
            raise PolydistillError(
                f"Verification failed: outputs differ by up to {difference:.3g}.",
                "Please report this with the model's name; nothing was written.",
            )
    unknown = source.vocabulary.unknown()
    measured = [
        fertility(partial(encode, tokenizer), list(lines), frozenset(ids[t] for t in unknown if t in ids))
        for tokenizer, ids in ((old, old.get_vocab()), (new, new.get_vocab()))
    ]
    return Verification(
        len(lines),
        int(sum(identical)),
        int(sum(covered)),
        difference,
        measured[0],
        measured[1],
        held_out,
    )


def _compare_tokens(
    keep: KeepSet, lines: Sequence[str], old: Any, new: Any, argument: str
) -> tuple[list[bool], list[bool]]:
    """For each line, whether all of its tokens were kept, and whether it tokenizes to the mapped ids.

    Raises:
        PolydistillError: A line has only kept tokens and tokenizes differently.
    """
    before, after = (t(**{argument: list(lines)}, verbose=False)["input_ids"] if lines else [] for t in (old, new))
    mapped = [keep.table[np.array(ids, np.int64)] for ids in before]
    covered = [bool((ids >= 0).all()) for ids in mapped]
    identical = [np.array_equal(ids, found) for ids, found in zip(mapped, after, strict=True)]
    for line, is_covered, same in zip(lines, covered, identical, strict=True):
        if is_covered and not same:
            raise PolydistillError(
                f"Verification failed: all tokens of {line[:80]!r} were kept, but it tokenizes differently.",
                "Please report this with the model's name; nothing was written.",
            )
    return covered, identical


def _check_rows(tokenizer: Any, plan: TrimPlan) -> None:
    if len(tokenizer) > plan.rows[0]:
        raise PolydistillError(
            f"Verification failed: the trimmed tokenizer has {len(tokenizer):,} tokens for {plan.rows[0]:,} rows.",
            "Its class adds tokens that were dropped; leave them out of --drop-added.",
        )


def _compare_models(
    plan: TrimPlan, new_folder: Path, texts: list[str], old: Any, new: Any, progress: Progress
) -> float:
    """The largest absolute difference, the models being built one after the other."""
    with progress.bar("verifying", 2, "model") as done:
        outputs = []
        first = int(plan.keeps[0].ids[0])  # pads where there is no token for it: the same one in both
        for folder, tokenizer, pad in ((plan.source.model, old, first), (new_folder, new, 0)):
            outputs.append(_outputs(folder, tokenizer, texts, plan.source.config, pad))
            done(1)
    largest = 0.0
    before, after = outputs
    for name, old_values in before.items():
        new_values = after[name]
        vocabulary = old_values.shape[-1] in {t.shape[c.spec.axis] for t, c in _cut_tensors(plan)}
        if name == "logits" and vocabulary and old_values.shape[-1] != new_values.shape[-1]:
            keep = plan.keeps[-1]
            old_values, new_values = old_values[..., keep.ids], new_values[..., : len(keep)]
        largest = max(largest, float(np.abs(old_values - new_values).max()))
    return largest


def _cut_tensors(plan: TrimPlan) -> list[tuple[Any, Any]]:
    return [(plan.source.checkpoint.tensors[name], cut) for name, cut in plan.cuts.items()]


def _outputs(folder: Path, tokenizer: Any, texts: list[str], config: dict[str, Any], pad: int) -> dict[str, np.ndarray]:
    import torch

    model = load_model(folder, config)
    batch = _pad(tokenizer, texts, config, pad, "text")
    if config.get("is_encoder_decoder"):
        # Only Marian's target may have a vocabulary of its own; M2M-100 writes none before it knows the language.
        argument = "text_target" if getattr(tokenizer, "separate_vocabs", False) else "text"
        batch["decoder_input_ids"] = _pad(tokenizer, texts, config, pad, argument)["input_ids"]
    try:
        with torch.no_grad():
            output = model(**{key: torch.tensor(rows) for key, rows in batch.items()})
    except Exception as error:
        raise loading_failed(f"transformers cannot run the model of {folder}", error, HINT) from error
    found = {name: value.float().numpy() for name in COMPARED if (value := output.get(name)) is not None}
    del model, output
    gc.collect()
    return found


def _pad(
    tokenizer: Any, texts: list[str], config: dict[str, Any], pad: int, argument: str
) -> dict[str, list[list[int]]]:
    """Ids and mask, of at most 128 tokens; a longer row keeps its end, where some models look for a token."""
    positions = config.get("max_position_embeddings") or config.get("n_positions") or MAX_TOKENS + 2
    longest = min(MAX_TOKENS, positions - 2)  # RoBERTa counts from 2
    rows = tokenizer(**{argument: texts}, verbose=False)["input_ids"]
    ids = [row if len(row) <= longest else row[: longest - 2] + row[-2:] for row in rows]
    width = max(map(len, ids))
    pad = pad if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return {
        "input_ids": [row + [pad] * (width - len(row)) for row in ids],
        "attention_mask": [[1] * len(row) + [0] * (width - len(row)) for row in ids],
    }


def load_model(folder: Path, config: dict[str, Any]) -> Any:
    """The model of a folder in float32, built by the class that its configuration names.

    Raises:
        PolydistillError: transformers cannot load it.
    """
    import torch
    import transformers

    names = [n for n in config.get("architectures") or [] if hasattr(transformers, n)]
    loader = getattr(transformers, names[0]) if names else transformers.AutoModel
    try:
        with quiet_transformers():
            model = loader.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, dtype=torch.float32
            )
    except Exception as error:
        raise loading_failed(f"transformers cannot load the model of {folder}", error, HINT) from error
    return model.eval()
