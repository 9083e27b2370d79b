"""One vocabulary for several models: teacher and student are cut alike, so that their tokens have the same ids."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from polydistill.catalog import Language
from polydistill.errors import PolydistillError
from polydistill.models.folder import model_folder
from polydistill.models.source import Source
from polydistill.progress import SILENT, Progress
from polydistill.trimming import config_ids
from polydistill.trimming.plan import TrimPlan, Wishes, apply, ids_without_token, plan, write_vocabulary
from polydistill.vocab import Vocabulary, open_vocabulary
from polydistill.vocab.counts import TokenCounts
from polydistill.vocab.keep import KeepSet
from polydistill.vocab.tokenizer_json import TokenizerJson

MIN_SHARE = 1e-6  # Ansell et al. 2023, arXiv 2306.01709: of one language's tokens
UNKNOWN_ALLOWED = 0.05
NOT_VOCABULARY = ("truncation", "padding")  # parts of tokenizer.json that a save may change


def same_vocabulary(first: Path, second: Path) -> bool:
    """Whether the tokenizers of two model folders give every text the same ids.

    Raises:
        PolydistillError: One of them has no tokenizer, or one that is not known.
    """
    return _alike(open_vocabulary(model_folder(first)), open_vocabulary(model_folder(second)))


def _alike(first: Vocabulary, second: Vocabulary) -> bool:
    if first.fingerprint == second.fingerprint:
        return True
    if not isinstance(first, TokenizerJson) or not isinstance(second, TokenizerJson):
        return False
    parts = [{k: v for k, v in v.data.items() if k not in NOT_VOCABULARY} for v in (first, second)]
    return parts[0] == parts[1] and first.added == second.added


def plan_together(sources: Sequence[Source], counts: TokenCounts, wishes: Wishes) -> list[TrimPlan]:
    """Chooses what stays, once for several models.

    Args:
        sources: Models with the same vocabulary.
        counts: Of every language in `wishes`, made with that vocabulary.
        wishes: What is wanted.

    Returns:
        A plan for each model, all with the same tokens and ids.

    Raises:
        PolydistillError: Their vocabularies differ.
        UsageError: The wishes cannot be fulfilled.
    """
    first, *others = sources
    for other in others:
        if not _alike(first.vocabulary, other.vocabulary):
            raise PolydistillError(
                f"The vocabularies of {first.resolved.ref} and {other.resolved.ref} differ, so that their tokens "
                "cannot be compared.",
                f"Use models that were tuned or trimmed from {first.resolved.ref} with the same tokenizer.",
            )
    if counts.tokenizer not in {source.vocabulary.fingerprint for source in sources}:
        raise PolydistillError("The counts were made with another tokenizer.", "Count again with this model.")
    needed = [{i for part in (s.config, s.generation) for i, _ in config_ids.needed_ids(part)} for s in sources]
    space = first.vocabulary.spaces[0]
    extra = sorted(i for i in set().union(*needed) - needed[0] if i < space.size)
    tokens = (*wishes.keep_tokens, *(space.tokens[i] for i in extra if space.tokens[i]))
    chosen = plan(first, counts, replace(wishes, keep_tokens=tokens), others=others)
    return [chosen, *(replace(chosen, source=other, notes=()) for other in others)]


def trim_together(
    sources: Sequence[Source], counts: TokenCounts, wishes: Wishes, outs: Sequence[Path], *, progress: Progress = SILENT
) -> list[TrimPlan]:
    """Cuts several models to the same tokens; see `plan_together`.

    Args:
        sources: Models with the same vocabulary.
        counts: Made with that vocabulary.
        wishes: What is wanted.
        outs: An existing, empty folder for each model.
        progress: Where to report.
    """
    plans = plan_together(sources, counts, wishes)
    for chosen, out in zip(plans, outs, strict=True):
        for note in apply(chosen, out, progress=progress):
            progress.note(note)
    return plans


def plan_like(source: Source, cut: Source, languages: Sequence[Language]) -> TrimPlan | None:
    """The plan that gives a model the vocabulary of another one that was cut from the same tokens.

    Args:
        source: A model with the whole vocabulary.
        cut: The other one.
        languages: Its languages.

    Returns:
        What `trimming.apply` takes; None if no cut of the one makes the other.
    """
    if len(source.vocabulary.spaces) != 1 or len(cut.vocabulary.spaces) != 1:
        return None
    ours, theirs = source.vocabulary.spaces[0], cut.vocabulary.spaces[0]
    if not theirs.ids.keys() <= ours.ids.keys():
        return None
    keep = KeepSet.of({ours.ids[token]: "requested" for token in theirs.ids}, ours.size)
    if bare := ids_without_token([source], source.rows):
        keep = keep.with_rows(bare, source.rows)
    dropped = frozenset(source.vocabulary.added) - frozenset(cut.vocabulary.added)
    found = TrimPlan(source, tuple(languages), (keep,), (cut.rows,), dropped, {}, {})
    with tempfile.TemporaryDirectory() as scratch:
        write_vocabulary(found, Path(scratch))
        return found if _alike(open_vocabulary(Path(scratch)), cut.vocabulary) else None


def unknown_shares(vocabulary: Vocabulary, counts: TokenCounts) -> dict[str, float]:
    """Language -> share of its text's tokens that are unknown, or single bytes where a tokenizer falls back to them."""
    space = vocabulary.spaces[0]
    unknown = [space.ids[token] for token in vocabulary.unknown() if token in space.ids]
    seen = {code: found.spaces[space.name] for code, found in counts.languages.items()}
    return {code: float(found[unknown].sum() / max(found.sum(), 1)) for code, found in seen.items()}


def check_writable(
    source: Source, counts: TokenCounts, languages: Sequence[Language], *, allow_unknown: bool = False
) -> None:
    """Refuses a language that the model's tokenizer cannot write.

    Args:
        source: The model.
        counts: Of the languages' texts, by its vocabulary.
        languages: The languages.
        allow_unknown: Whether to continue anyway (`allow_unknown`).

    Raises:
        PolydistillError: More than 5% of the tokens of a text are unknown.
    """
    shares = unknown_shares(source.vocabulary, counts)
    for language in languages:
        share = shares[language.code]
        if share > UNKNOWN_ALLOWED and not allow_unknown:
            raise PolydistillError(
                f"The tokenizer of {source.resolved.ref} cannot write {language.name}: {share:.0%} of the tokens of "
                "its text are unknown.",
                "Choose a model that was trained on this language's script, check that the text is the right one, or "
                "continue with `allow_unknown`.",
            )
