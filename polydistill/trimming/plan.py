"""Trimming a model's vocabulary: plan it, apply it. What every method calls when it needs a smaller vocabulary."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from polydistill.catalog import Language
from polydistill.errors import PolydistillError, UsageError
from polydistill.models.copying import copy_rest, said_of_foreign
from polydistill.models.files import GENERATION
from polydistill.models.folder import prompts_of
from polydistill.models.source import CONFIG, Source
from polydistill.progress import SILENT, Progress
from polydistill.trimming import config_ids, surgery
from polydistill.vocab import Vocabulary
from polydistill.vocab.checks import quoted
from polydistill.vocab.counts import LanguageCounts, TokenCounts
from polydistill.vocab.keep import Evidence, IdSpace, KeepRule, KeepSet, select
from polydistill.vocab.letters import required_letters
from polydistill.vocab.smoothing import expected_counts, surfaces_of, unseen_share
from polydistill.vocab.tokenizer_config import language_code, matching, write_json

GENERATING_SUFFIXES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "MTModel")
# A family of added tokens is worth a note from this many on, and from this share of the rows.
MANY, MANY_SHARE = 100, 0.01
DIGITS = re.compile(r"\d+")
GENERATION_IDS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
)


@dataclass(frozen=True)
class Wishes:
    """What the user wants kept and dropped.

    Args:
        languages: The languages that stay.
        rule: How many tokens the text may add.
        weights: Language code -> weight; 1 where it is not given.
        keep_tokens: Tokens that stay in any case.
        drop_added: Patterns of added tokens that go; see `tokenizer_config.matching`.
        pad_to_multiple: The number of rows is rounded up to a multiple of this.
        seed: Of the smoothing's sample.
    """

    languages: tuple[Language, ...]
    rule: KeepRule
    weights: dict[str, float] = field(default_factory=dict, hash=False)
    keep_tokens: tuple[str, ...] = ()
    drop_added: tuple[str, ...] = ()
    pad_to_multiple: int = 1
    seed: int = 0


@dataclass(frozen=True)
class TrimPlan:
    """Everything that is decided before a byte is written.

    Args:
        source: The model.
        languages: The languages that stay.
        keeps: One KeepSet for each id space.
        rows: The number of rows of each afterwards.
        dropped: Added tokens that go.
        coverage: Language -> share of its counted token occurrences that is kept.
        expected_coverage: Language -> share to be expected of new text of the same kind (Good-Turing); None where
            there was no text but a list of words.
        notes: What the user should know of the choice.
    """

    source: Source
    languages: tuple[Language, ...]
    keeps: tuple[KeepSet, ...]
    rows: tuple[int, ...]
    dropped: frozenset[str]
    coverage: dict[str, float] = field(hash=False)
    expected_coverage: dict[str, float | None] = field(hash=False)
    notes: tuple[str, ...] = ()

    @cached_property
    def cuts(self) -> dict[str, surgery.Cut]:
        """Tensor name -> its cut."""
        return surgery.plan_cuts(self.source.checkpoint, self.source.arch, self.keeps, self.rows)

    @property
    def rows_before(self) -> list[int]:
        """For each id space, how many of its ids have a row in the model."""
        return _heights((self.source,), len(self.keeps))

    @property
    def kept(self) -> dict[str, int]:
        """Reason -> number of tokens."""
        total: dict[str, int] = {}
        for keep in self.keeps:
            for reason, n in keep.count_reasons().items():
                total[reason] = total.get(reason, 0) + n
        return total


def plan(
    source: Source,
    counts: TokenCounts,
    wishes: Wishes,
    listed: Mapping[str, LanguageCounts] | None = None,
    others: Sequence[Source] = (),
) -> TrimPlan:
    """Chooses what stays.

    Args:
        source: The model.
        counts: Of every language in `wishes`.
        wishes: What the user wants.
        listed: Language -> counts of its word list, as further evidence of what its text would show.
        others: Models of the same vocabulary that will be cut alike.

    Raises:
        PolydistillError: The tokenizer needs a token that the model has no row for.
        UsageError: The wishes cannot be fulfilled.
    """
    vocabulary, rule = source.vocabulary, wishes.rule
    spaces: Sequence[IdSpace] = vocabulary.spaces
    heights = _heights((source, *others), len(spaces))
    rowless = vocabulary.beyond(heights[0]) if all(heights) else frozenset()
    bare = ids_without_token((source, *others), min(heights))
    dropped = _dropped(vocabulary, wishes) | rowless
    requests = _requested(vocabulary, wishes.keep_tokens) if wishes.keep_tokens else {}
    evidence = [_evidence(space, counts, wishes, listed or {}) for space in spaces]
    required = [_required(source, i, counts, wishes, requests if i == 0 else {}) for i in range(len(spaces))]
    unwanted = [frozenset(space.ids[t] for t in dropped if t in space.ids) for space in spaces]

    def choose(rule: KeepRule) -> tuple[KeepSet, ...]:
        parts = zip(spaces, required, evidence, unwanted, strict=True)
        return tuple(select(space, needs, texts, rule, gone) for space, needs, texts, gone in parts)

    keeps = choose(rule)
    if len(keeps) > 1:
        # One pad id serves both vocabularies of a Marian model: they get one length, with it at the end of each.
        if len({len(k) for k in keeps}) > 1:
            keeps = choose(KeepRule(vocab_size=max(map(len, keeps))))
        keeps = _pad_last(vocabulary, keeps)
    keeps = tuple(keep.with_rows(bare, height) if bare else keep for keep, height in zip(keeps, heights, strict=True))
    rows = tuple(-(-len(keep) // wishes.pad_to_multiple) * wishes.pad_to_multiple for keep in keeps)
    coverage = {e.language: _share(e.counts[keeps[0].tokens], e) for e in evidence[0]}
    expected = {
        e.language: None if counts.languages[e.language].wordlist else _share(e.expected[keeps[0].tokens], e)
        for e in evidence[0]
    }
    notes = tuple(_said_of_rowless(vocabulary, rowless, heights[0]) + costs(source, keeps[0], wishes.languages))
    return TrimPlan(source, wishes.languages, keeps, rows, dropped, coverage, expected, notes)


def _heights(sources: Sequence[Source], spaces: int) -> list[int]:
    """For each id space, how many of its ids have a row in every tensor of every model."""
    of_each = [surgery.vocabulary_rows(s.checkpoint, s.arch, spaces) for s in sources]
    return [min(rows) for rows in zip(*of_each, strict=True)]


def _pad_last(vocabulary: Vocabulary, keeps: Sequence[KeepSet]) -> tuple[KeepSet, ...]:
    """Two vocabularies, with the padding token at the end of both.

    Raises:
        PolydistillError: Another special token does not have one id in both.
    """
    spaces: Sequence[IdSpace] = vocabulary.spaces
    named = {t: role for t, role in vocabulary.config.named().items() if all(t in space.ids for space in spaces)}
    for token in (t for t, role in named.items() if role == "pad_token"):
        keeps = [keep.with_last(space.ids[token]) for space, keep in zip(spaces, keeps, strict=True)]
    for token in named:
        if len({keep.new(space.ids[token]) for space, keep in zip(spaces, keeps, strict=True)}) > 1:
            raise PolydistillError(
                f"{token} would not have the same id in the source's and the target's vocabulary.",
                "Please report this with the model's name; nothing was written.",
            )
    return tuple(keeps)


def ids_without_token(sources: Sequence[Source], rows: int) -> list[int]:
    """The ids that a configuration needs and that have a row, but no token: a pad token in spare rows, for example.

    Args:
        sources: Models of one vocabulary.
        rows: How many rows each has at least.
    """
    known = {i for space in sources[0].vocabulary.spaces for i in space.ids.values()}
    needed = {i for s in sources for part in (s.config, s.generation) for i, _ in config_ids.needed_ids(part)}
    return sorted(i for i in needed - known if i < rows)


def _said_of_rowless(vocabulary: Vocabulary, rowless: frozenset[str], rows: int) -> list[str]:
    if not rowless:
        return []
    named = sorted(rowless, key=vocabulary.added.__getitem__)
    shown = ", ".join(map(quoted, named[:3])) + (f" and {len(named) - 3:,} more" if len(named) > 3 else "")
    return [f"The model has {rows:,} rows and none for {shown}, so the tokenizer loses {_them(len(named))}."]


def _them(n: int) -> str:
    return "this token" if n == 1 else f"these {n:,} tokens"


def costs(source: Source, keep: KeepSet, languages: Sequence[Language]) -> list[str]:
    """What large families of added tokens cost that nothing needs, such as Gemma's <unused0>, and how they can go.

    Args:
        source: The model.
        keep: The ids that stay.
        languages: The languages that stay.
    """
    vocabulary = source.vocabulary
    if not vocabulary.may_drop:
        return []
    configured = {i for part in (source.config, source.generation) for i, _ in config_ids.needed_ids(part)}
    fixed = (
        vocabulary.needed().keys() | vocabulary.unknown() | {t for t, i in vocabulary.added.items() if i in configured}
    )
    stay = {t: i for t, i in vocabulary.added.items() if i in keep}
    families = Counter("lang:*" if language_code(t) else DIGITS.sub("*", t) for t in stay)
    notes = []
    for pattern, n in families.items():
        if n < MANY or n < MANY_SHARE * len(keep) or "*" not in pattern:
            continue
        members = matching([pattern], stay, languages)
        if members.keys() & fixed or len(members) < MANY:
            continue
        notes.append(
            f"{len(members):,} added tokens such as {quoted(next(iter(members)))} take {len(members):,} of "
            f"{len(keep):,} rows; `polydistill trim drop_added={pattern!r}` leaves them out."
        )
    return notes


def _share(kept: np.ndarray, evidence: Evidence) -> float:
    return float(kept.sum() / evidence.total) if evidence.total else 0.0


def _dropped(vocabulary: Vocabulary, wishes: Wishes) -> frozenset[str]:
    matched = matching(wishes.drop_added, vocabulary.added, wishes.languages)
    needed = vocabulary.needed()
    for token, pattern in matched.items():
        if token in needed:
            raise UsageError(
                f"`drop_added={pattern!r}` would drop {token}, which must stay: {needed[token]}.",
                "Leave the pattern out, or use one that spares it.",
            )
    return frozenset(matched)


def _requested(vocabulary: Vocabulary, tokens: Sequence[str]) -> dict[int, str]:
    space = vocabulary.spaces[0]
    unknown = {space.ids[t] for t in vocabulary.unknown() if t in space.ids}
    found: dict[int, str] = {}
    for token in tokens:
        forms = dict.fromkeys((token, *space.forms(token))) if token.strip() else ()
        ids = [space.ids[form] for form in forms if form in space.ids]
        if not ids:
            ids = [i for line in space.encoders[0]([token, " " + token]) for i in line]
            if not token.strip() or unknown & set(ids):
                raise UsageError(f"The model has no tokens for `keep_token={token!r}`.", "Leave it out.")
        found.update(dict.fromkeys(ids, "requested"))
    return found


def _evidence(
    space: IdSpace, counts: TokenCounts, wishes: Wishes, listed: Mapping[str, LanguageCounts]
) -> list[Evidence]:
    surfaces: list[str] = []
    found = []
    for language in wishes.languages:
        text = counts.languages[language.code]
        seen = text.spaces[space.name]
        words = listed[language.code].spaces[space.name] if language.code in listed else None
        if wishes.rule.vocab_size is None and words is None:
            # Tokens seen keep their order and come before the others, and these rules end with one that was seen.
            expected = seen * (1 - unseen_share(seen))
        else:
            surfaces = surfaces or surfaces_of(space.tokens)
            expected = expected_counts(surfaces, text.words, seen, evidence=words, seed=wishes.seed)
        found.append(Evidence(language.code, seen, expected, wishes.weights.get(language.code, 1.0)))
    return found


def _required(
    source: Source, index: int, counts: TokenCounts, wishes: Wishes, requests: dict[int, str]
) -> dict[int, str]:
    """Old id -> reason for what stays whatever the text says; the strongest reason is written last."""
    space = source.vocabulary.spaces[index]
    required = required_letters(space, wishes.languages)
    required.update(requests)
    required.update(dict.fromkeys(counts.template, "special") if index == 0 else {})
    required.update(dict.fromkeys(_prompt_ids(source), "special") if index == 0 else {})
    required.update(space.required())
    known = set(space.ids.values())
    for part in (source.config, source.generation):
        required.update({i: "special" for i, _ in config_ids.needed_ids(part) if i in known})
    return required


def apply(plan: TrimPlan, out: Path, *, dtype: str = "keep", progress: Progress = SILENT) -> list[str]:
    """Writes the trimmed model.

    Args:
        plan: What stays.
        out: An existing, empty folder.
        dtype: See `surgery.write_checkpoint`.
        progress: Where to report.

    Returns:
        What the user should know.
    """
    source, cuts = plan.source, plan.cuts
    notes = write_rest(plan, out)
    with progress.bar("cutting", surgery.sizes(source.checkpoint, cuts, dtype)[1], "B") as done:
        surgery.write_checkpoint(source.checkpoint, cuts, source.place_in(out), dtype=dtype, progress=done)
    return notes


def _prompt_ids(source: Source) -> set[int]:
    """The tokens of what sentence-transformers puts before a text, without which every vector would be another."""
    texts = {text for prompt in prompts_of(source.folder)[0].values() for text in (prompt, prompt.rstrip())}
    lines = source.vocabulary.spaces[0].encoders[0](sorted(texts)) if texts else []
    return {i for line in lines for i in line}


def write_rest(plan: TrimPlan, out: Path) -> list[str]:
    """Writes all of the trimmed model but its weights into an existing, empty folder; see `apply`."""
    source = plan.source
    notes = copy_rest(source, out)
    notes += write_vocabulary(plan, source.place_in(out))
    files = [path.relative_to(source.folder) for path in source.own_files.vocabulary if path.name != GENERATION]
    told = "\n".join(notes)
    gone = [path.as_posix() for path in files if not (out / path).exists() and path.name not in told]
    return [*notes, *said_of_foreign(gone)]


def write_vocabulary(plan: TrimPlan, target: Path) -> list[str]:
    """Writes tokenizer and configuration of the trimmed model, without its weights."""
    source = plan.source
    notes = [*plan.notes]
    notes += source.vocabulary.write(target, plan.keeps, plan.dropped, plan.languages)
    config = new_config(plan, source.config)
    write_json(target / CONFIG, config)
    keep = plan.keeps[-1]
    generation = config_ids.remap(source.generation, keep, rows=plan.rows_before[-1])
    if plan.rows[-1] > len(keep) and _generates(config):
        generation = generation or {k: config[k] for k in GENERATION_IDS if config.get(k) is not None}
        padding = range(len(keep), plan.rows[-1])
        generation["suppress_tokens"] = [*(generation.get("suppress_tokens") or []), *padding]
    if generation:
        write_json(target / GENERATION, generation)
    return notes


def new_config(plan: TrimPlan, config: dict[str, Any]) -> dict[str, Any]:
    """A configuration of the model with the ids and the number of rows that it has after the trim."""
    # With two vocabularies the ids of a configuration are the decoder's; those that both share agree.
    new = config_ids.remap(config, plan.keeps[-1], rows=plan.rows_before[-1])
    config_ids.set_rows(new, plan.source.arch.rows_keys, plan.rows)
    return new


def _generates(config: dict[str, Any]) -> bool:
    return any(name.endswith(GENERATING_SUFFIXES) for name in config.get("architectures") or [])
