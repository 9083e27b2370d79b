"""Proof that a trimmed model is the original: same tokens, same outputs. Models are built only here."""

from __future__ import annotations

import gc
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from polydistill.errors import PolydistillError
from polydistill.models.checkpoint import Checkpoint
from polydistill.models.folder import MODULES
from polydistill.models.loading import load_tokenizer, loading_failed, quiet_transformers
from polydistill.progress import SILENT, Progress
from polydistill.trimming import sentence_vectors
from polydistill.trimming.comparing import HINT, MAX_TOKENS, NOT_VERIFIED, check_difference, check_numbers
from polydistill.trimming.plan import TrimPlan
from polydistill.vocab import TokenizerJson, open_vocabulary
from polydistill.vocab.agreement import compare_sentencepiece, disagreements
from polydistill.vocab.counts import Fertility, at_once, fertility
from polydistill.vocab.keep import KeepSet

MODEL_SENTENCES = 32
LOGITS_BYTES = 64 << 20  # at once; one text has more where it has 128 tokens of more than 131,072
CONTEXTS = 200  # words between which added tokens are put
COMPARED = ("last_hidden_state", "encoder_last_hidden_state", "logits", "start_logits", "end_logits")


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
        vectors: What was compared of sentence-transformers' whole model, from `sentence_vectors.compare`; None for
            other folders.
    """

    sentences: int
    identical: int
    covered: int
    max_abs_difference: float | None
    before: Fertility
    after: Fertility
    held_out: bool
    vectors: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """What a trim reports of its check, as JSON."""
        return {
            "sentences": self.sentences,
            "identical": self.identical,
            "covered": self.covered,
            "max_abs_difference": self.max_abs_difference,
            "fertility": {"before": self.before.fertility, "after": self.after.fertility},
            "unknown_rate": {"before": self.before.unknown_rate, "after": self.after.unknown_rate},
            "held_out": self.held_out,
            "vectors": self.vectors,
        }


def encode(tokenizer: Any, texts: list[str], **options: Any) -> list[list[int]]:
    """Texts -> ids without special tokens."""
    options |= {"add_special_tokens": False, "verbose": False}
    return [row for part in at_once(texts) for row in tokenizer(texts[part], **options)["input_ids"]]


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
        exact: Whether outputs must be equal (not with another `dtype`).
        progress: Where to report.

    Raises:
        PolydistillError: They differ where they must not.
    """
    source = plan.source
    new_folder = source.place_in(folder)
    old, new = _tokenizers(plan, new_folder)
    _check_rows(old, new, plan)
    _check_files(plan, new_folder, lines)
    covered, identical = _compare_tokens(plan.keeps[0], lines, old, new, "text")
    _compare_added(plan, [line for line, kept in zip(lines, covered, strict=True) if kept], old, new)
    usable = identical
    if len(plan.keeps) > 1:  # what the decoder reads has a vocabulary of its own
        targets = _compare_tokens(plan.keeps[1], lines, old, new, "text_target")[1]
        usable = [same and target for same, target in zip(identical, targets, strict=True)]
    texts = [line for line, same in zip(lines, usable, strict=True) if same and any(map(str.isalnum, line))]
    difference, vectors = None, None
    if texts := texts[:MODEL_SENTENCES]:
        difference = _compare_models(plan, new_folder, texts, old, new, progress)
        check_difference("outputs differ", difference, exact=exact)
    if (source.folder / MODULES).is_file():
        vectors = sentence_vectors.compare(plan, folder, texts, (old, new), exact=exact, progress=progress)
    unknown = source.vocabulary.unknown()
    before, after = (
        fertility(partial(encode, tokenizer), list(lines), frozenset(ids[t] for t in unknown if t in ids))
        for tokenizer, ids in ((old, old.get_vocab()), (new, new.get_vocab()))
    )
    return Verification(
        len(lines), int(sum(identical)), int(sum(covered)), difference, before, after, held_out, vectors
    )


def _tokenizers(plan: TrimPlan, new_folder: Path) -> tuple[Any, Any]:
    """The original's tokenizer and the trimmed one, as transformers loads them."""
    old, new = (load_tokenizer(folder, HINT) for folder in (plan.source.model, new_folder))
    if (old.pad_token_id or 0) >= plan.source.rows:
        old.pad_token = new.pad_token = None  # it has no row, and the trimmed tokenizer may have another
    if getattr(new, "src_lang", None) and new.src_lang != old.src_lang:
        old.src_lang = new.src_lang  # the code of the original's own default language was dropped
    return old, new


def _compare_tokens(
    keep: KeepSet, lines: Sequence[str], old: Any, new: Any, argument: str
) -> tuple[list[bool], list[bool]]:
    """For each line, whether all of its tokens were kept, and whether it tokenizes to the mapped ids.

    Raises:
        PolydistillError: A line has only kept tokens and tokenizes differently.
    """
    parts = [lines[part] for part in at_once(lines)]
    before, after = (
        [ids for part in parts for ids in t(**{argument: list(part)}, verbose=False)["input_ids"]] for t in (old, new)
    )
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


def _check_rows(old: Any, new: Any, plan: TrimPlan) -> None:
    """Every token has a row, but for those that the tokenizer's class adds to the original too, without one.

    Raises:
        PolydistillError: The tokenizer's class adds tokens that were not kept.
    """
    before, known = plan.source.vocabulary.spaces[0].ids, old.get_vocab()
    beyond = [t for t, i in new.get_vocab().items() if i >= plan.rows[0]]
    beyond = [t for t in beyond if t in before or known.get(t, 0) < plan.source.rows]
    if not beyond:
        return
    hint = "Please report this with the model's name; nothing was written."
    if plan.dropped.intersection(beyond):
        hint = "Drop fewer added tokens: these must stay."
    elif all(token in before for token in beyond):
        hint = _keep(beyond)
    raise PolydistillError(
        f"Verification failed: transformers adds tokens to the trimmed tokenizer for which the {plan.rows[0]:,} rows "
        f"are too few, {', '.join(map(repr, beyond[:5]))}.",
        hint,
    )


def _keep(tokens: Sequence[str]) -> str:
    return f"Ask for it: {' '.join(f'`keep_token={token!r}`' for token in tokens[:5])}."


def _check_files(plan: TrimPlan, folder: Path, lines: Sequence[str]) -> None:
    """All files from which a reader may take the vocabulary say the same.

    Raises:
        PolydistillError: One of them says something else.
    """
    before, after = plan.source.vocabulary, open_vocabulary(folder)
    if not isinstance(before, TokenizerJson) or not isinstance(after, TokenizerJson):
        return  # the files are the tokenizer, which is compared as transformers loads it
    if found := disagreements(after):
        raise PolydistillError(
            f"Verification failed: the tokenizer's files differ: {found[0]}.",
            "Please report this with the model's name; nothing was written.",
        )
    compare_sentencepiece(before, after, plan.keeps[0], lines)


def _compare_added(plan: TrimPlan, covered: Sequence[str], old: Any, new: Any) -> None:
    """Every added token that stays is one token as before, alone and between words of lines that are covered.

    Raises:
        PolydistillError: One is not, or its flags (special, lstrip, ...) are others, or one was lost.
    """
    keep = plan.keeps[0]
    before, after = old.added_tokens_decoder, new.added_tokens_decoder
    stay = {keep.new(i): token for i, token in before.items() if i in keep}
    lost = [str(t) for i, t in before.items() if i not in keep and i < plan.source.rows and str(t) not in plan.dropped]
    if lost:
        raise PolydistillError(f"Verification failed: the added token {lost[0]!r} was lost.", _keep(lost))
    for i, token in stay.items():
        if i not in after or _flags(after[i]) != _flags(token):
            raise PolydistillError(
                f"Verification failed: {str(token)!r} is {after.get(i)!r} after the trim, and was {token!r}.",
                "Please report this with the model's name; nothing was written.",
            )
    words = [word for line in covered[:CONTEXTS] for word in line.split()[:1]] or [""]
    texts = [form for n, t in enumerate(map(str, stay.values())) for form in _forms(t, words[n % len(words)])]
    _compare_tokens(keep, texts, old, new, "text")


def _forms(token: str, word: str) -> tuple[str, ...]:
    """A token alone and inside text."""
    return token, f"{word}{token}{word}", f"{word} {token} {word}"


def _flags(token: Any) -> tuple[Any, ...]:
    """What decides how an added token is matched, and whether decoding may skip it."""
    return str(token), token.special, token.lstrip, token.rstrip, token.single_word, token.normalized


def _compare_models(
    plan: TrimPlan, new_folder: Path, texts: list[str], old: Any, new: Any, progress: Progress
) -> float:
    """The largest absolute difference, the models being built one after the other."""
    first = int(plan.keeps[0].ids[0])  # pads where there is no token for it: the same one in both
    largest, keep = 0.0, plan.keeps[-1]
    # Logits of a large vocabulary do not fit in memory: those of kept tokens wait on the disk, in a file without name.
    with progress.bar("verifying", 2, "model") as done, tempfile.TemporaryFile(dir=new_folder) as waiting:
        shapes = []
        for name, values in _outputs(plan, plan.source.model, old, texts, first):
            check_numbers(plan.source.model, name, values)
            cut = name == "logits" and values.shape[-1] in {t.shape[c.spec.axis] for t, c in _cut_tensors(plan)}
            cut = cut and len(keep) < values.shape[-1]
            kept = np.ascontiguousarray(values[..., keep.ids] if cut else values)
            waiting.write(kept.data)
            shapes.append(kept.shape)
        done(1)
        waiting.seek(0)
        found = _outputs(plan, new_folder, new, texts, 0)
        for shape, (_, values) in zip(shapes, found, strict=True):
            before = np.frombuffer(waiting.read(4 * math.prod(shape)), np.float32).reshape(shape)
            largest = float(np.maximum(largest, _difference(before, values[..., : shape[-1]])))  # also if it is none
        done(1)
    return largest


def _difference(before: np.ndarray, after: np.ndarray) -> float:
    """The largest absolute difference; NaN if there is one anywhere, which nothing is equal to."""
    same = before == after  # also where both are minus infinity
    return 0.0 if same.all() else float(np.abs(before[~same] - after[~same]).max())


def _check_weights(model: Any, folder: Path) -> None:
    """Refuses a trimmed model with weights that are no numbers, those too that its class does not load.

    Raises:
        PolydistillError: It has some.
    """
    from safetensors import safe_open

    for name, weight in model.named_parameters():
        if weight.numel() and not all(math.isfinite(float(end)) for end in weight.detach().aminmax()):
            raise _no_numbers(name)
    for file in Checkpoint.open(folder).files:
        with safe_open(file, "pt") as tensors:
            names = tensors.keys()
            for name in names:
                if tensors.get_tensor(name).isnan().any():
                    raise _no_numbers(name)


def _no_numbers(name: str) -> PolydistillError:
    return PolydistillError(
        f"The weights {name} hold NaN or infinite values, in the original as in the trimmed model.",
        f"Fetch or save the model again, {NOT_VERIFIED}",
    )


def _cut_tensors(plan: TrimPlan) -> list[tuple[Any, Any]]:
    return [(plan.source.checkpoint.tensors[name], cut) for name, cut in plan.cuts.items()]


def _outputs(
    plan: TrimPlan, folder: Path, tokenizer: Any, texts: list[str], pad: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields a model's outputs with their names, of as many texts at once as have 64 MiB of logits in the original."""
    import torch

    config = plan.source.config
    model = load_model(folder, config)
    if folder != plan.source.model:
        _check_weights(model, folder)
    batch = _pad(tokenizer, texts, config, pad, "text")
    if config.get("is_encoder_decoder"):
        # Only Marian's target may have a vocabulary of its own; M2M-100 writes none before it knows the language.
        argument = "text_target" if getattr(tokenizer, "separate_vocabs", False) else "text"
        batch["decoder_input_ids"] = _pad(tokenizer, texts, config, pad, argument)["input_ids"]
    together = len(texts)
    if model.get_output_embeddings() is not None:
        together = max(1, LOGITS_BYTES // (4 * plan.source.rows * max(len(rows[0]) for rows in batch.values())))
    for start in range(0, len(texts), together):
        part = {key: torch.tensor(rows[start : start + together]) for key, rows in batch.items()}
        try:
            with torch.no_grad():
                output = model(**part)
        except Exception as error:
            raise loading_failed(f"transformers cannot run the model of {folder}", error, HINT) from error
        for name in COMPARED:
            if (value := output.get(name)) is not None:
                yield name, value.float().numpy()
        del output
    del model
    gc.collect()


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
