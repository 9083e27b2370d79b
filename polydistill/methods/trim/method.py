"""`polydistill trim`: text -> counts -> tokens kept -> tokenizer and weights cut -> verified -> record and card."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Thread
from typing import Any

from polydistill.card import write_card
from polydistill.catalog import Language, language, resolve_languages, user_files
from polydistill.catalog import languages as every_language
from polydistill.errors import PolydistillError, UsageError
from polydistill.files.outputs import check_file, check_output, check_outside, new_folder
from polydistill.methods.trim.options import TrimOptions
from polydistill.models.files import own_files
from polydistill.models.refs import ModelRef, resolve
from polydistill.models.source import Source
from polydistill.options.settings import MOST, Outcome
from polydistill.progress import SILENT, Progress
from polydistill.records.record import RunRecord, parent_of, peak_memory_bytes, source_facts
from polydistill.texts.sources import TextSource, parse_corpus, read_texts
from polydistill.trimming import surgery
from polydistill.trimming.counting import count, count_word_lists, load_counts, save_counts
from polydistill.trimming.newtext import estimate
from polydistill.trimming.plan import TrimPlan, Wishes, apply, plan, write_rest
from polydistill.vocab import collector_paused, open_vocabulary
from polydistill.vocab.counts import LanguageCounts, TokenCounts
from polydistill.vocab.letters import unwritten

OUTPUTS = Path("polydistill-out")
VERIFY_LINES = 500


@dataclass(frozen=True)
class TrimResult(Outcome):
    """What a trim did; `to_json` is what the command prints as JSON."""

    model: str
    output: Path | None
    languages: tuple[str, ...]
    vocabulary: dict[str, int]
    rows: dict[str, int]
    parameters: dict[str, int]
    bytes: dict[str, int]
    coverage: dict[str, float]
    expected_coverage: dict[str, float | None]
    kept: dict[str, int]
    verification: dict[str, Any] | None
    seconds: float
    peak_memory_bytes: int
    notes: tuple[str, ...] = ()
    command: str = field(default="trim", init=False)


@collector_paused()
def trim(config: TrimOptions, progress: Progress = SILENT) -> TrimResult:
    """Trims a model to one or more languages.

    Args:
        config: What to do.
        progress: Where to report.

    Returns:
        Sizes, coverage and verification; the same facts stand in the output's polydistill.json and README.md.

    Raises:
        PolydistillError: Something is missing, broken or impossible; nothing was written.
    """
    started = time.perf_counter()
    languages = resolve_languages(config.languages, config.include_path)
    wishes = _wishes(config, languages)
    output = (config.output or default_output(config.model, languages)).expanduser()
    if not config.dry_run:
        check_output(output, overwrite=config.overwrite, reads=config.reads())
    source = Source.open(resolve(ModelRef.parse(config.model), progress=progress.note), config.include_path)
    _check_place(config, output, source.folder)
    verify_text = parse_corpus(languages[0], config.verify_text) if config.verify_text else None
    hashing = None if config.dry_run else _hash_beside(source)
    counts = _counts(config, source, languages, progress)
    listed = _word_lists(config, source, counts, languages, progress)
    trimmed = plan(source, counts, wishes, listed)
    result = _sizes(config, trimmed)
    if config.dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            notes = write_rest(trimmed, Path(scratch))
            result = replace(result, notes=tuple(notes), bytes=_bytes(config, trimmed, Path(scratch)))
        return _timed(result, started)
    with new_folder(output, overwrite=config.overwrite) as folder:
        notes = apply(trimmed, folder, dtype=config.dtype, progress=progress)
        result = replace(result, output=output, notes=tuple(notes), bytes=_bytes(config, trimmed, folder))
        if config.verify:
            checked = _verify(config, trimmed, counts, verify_text, folder, progress)
            new_text = None if verify_text else estimate(source, counts, wishes, listed, VERIFY_LINES)
            result = replace(result, verification={**checked, **({"new_text": new_text} if new_text else {})})
        if hashing:
            hashing.join()
        result = _timed(result, started)
        record = _record(config, source, counts, listed, languages, result)
        record.save(folder)
        write_card(record, folder)
    return result


def _check_place(config: TrimOptions, output: Path, model: Path) -> None:
    """Refuses an output that lies in the model, or that holds the counts.

    Raises:
        UsageError: It does.
    """
    saved = config.save_counts
    if saved is not None and output.resolve() in (saved.resolve(), *saved.resolve().parents):
        raise UsageError(f"`save_counts={saved}` lies in the output folder.", "Save it beside that folder.")
    if not config.dry_run:
        check_outside(output, model, "the model that is trimmed")


def _hash_beside(source: Source) -> Thread:
    """Hashes the weights while text is counted; nothing waits for it but the record."""

    def run() -> None:
        with suppress(Exception):  # the record asks again, where it can be told
            _ = source.checkpoint.file_hashes

    thread = Thread(target=run, daemon=True)
    thread.start()
    return thread


def default_output(model: str, languages: Sequence[Language]) -> Path:
    """polydistill-out/<model>-<langs>."""
    name = Path(model.partition("@")[0]).resolve().name if Path(model).is_dir() else model.partition("@")[0]
    return OUTPUTS / f"{name.rpartition('/')[2]}-{'-'.join(lang.code for lang in languages)}"


def parse_weights(weights: Sequence[str], languages: Sequence[Language], include: Sequence[Path]) -> dict[str, float]:
    """`ro=2` -> {"ro": 2.0}.

    Raises:
        UsageError: It is not LANG=NUMBER, or the language is not one of `languages`.
    """
    found: dict[str, float] = {}
    for text in weights:
        name, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if not 0 < value <= MOST:
            raise UsageError(
                f"`weight={text!r}` is not LANG=NUMBER with a number above 0 and at most {MOST:,}.",
                "Write `weight=ro=2`.",
            )
        code = language(name, include).code
        if code not in {lang.code for lang in languages}:
            raise UsageError(f"`weight={text!r}` is for a language that is not kept.", f"Add `languages={code}`.")
        found[code] = value
    return found


def _wishes(config: TrimOptions, languages: tuple[Language, ...]) -> Wishes:
    config.check()
    if config.save_counts is not None:
        _check_save_counts(config.save_counts, config)
    tokens = config.keep_token
    if config.keep_file is not None:
        try:
            lines = config.keep_file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"`keep_file={config.keep_file}` cannot be read.", "Give a UTF-8 file with one token a line."
            ) from error
        tokens = (*tokens, *(line for line in lines if line.strip()))
    return Wishes(
        languages,
        config.rule(),
        parse_weights(config.weight, languages, config.include_path),
        tokens,
        config.drop_added,
        config.pad_to_multiple,
        config.seed,
    )


def _check_save_counts(path: Path, config: TrimOptions) -> None:
    if config.dry_run:
        raise UsageError(
            "`save_counts` and `dry_run` exclude each other: a dry run writes nothing.",
            "Count with `polydistill count`, then use `counts`.",
        )
    own = replace(config, include_path=user_files(config.include_path))
    check_file(path, overwrite=config.overwrite, option="save_counts", reads=own.reads())


def _counts(config: TrimOptions, source: Source, languages: Sequence[Language], progress: Progress) -> TokenCounts:
    if config.counts:
        if config.text:
            raise UsageError("`counts` and `text` exclude each other.", "Count the text into a shard of its own.")
        counts = load_counts(config.counts, source.vocabulary, languages)
    else:
        counts = count(
            source.vocabulary, languages, config.text, limit=config.limit, seed=config.seed, progress=progress
        )
    if config.save_counts is not None:
        save_counts(counts, config.save_counts, overwrite=config.overwrite, option="save_counts")
    return counts


def _word_lists(
    config: TrimOptions, source: Source, counts: TokenCounts, languages: Sequence[Language], progress: Progress
) -> dict[str, LanguageCounts]:
    """The word lists of the languages that have text; where there is none, the list is the text already."""
    with_text = [lang for lang in languages if not counts.languages[lang.code].wordlist]
    return count_word_lists(source.vocabulary, with_text, progress) if config.word_list else {}


def _sizes(config: TrimOptions, trimmed: TrimPlan) -> TrimResult:
    source = trimmed.source
    parameters, _ = surgery.sizes(source.checkpoint, trimmed.cuts, config.dtype)
    return TrimResult(
        model=source.resolved.source,
        output=None,
        languages=tuple(lang.code for lang in trimmed.languages),
        vocabulary={
            "before": sum(len(set(s.ids.values())) for s in source.vocabulary.spaces),
            "after": sum(len(keep.tokens) for keep in trimmed.keeps),
        },
        rows={"before": source.rows, "after": trimmed.rows[0]},
        parameters={"before": source.checkpoint.parameters, "after": parameters},
        bytes={"before": source.nbytes, "after": 0},
        coverage=trimmed.coverage,
        expected_coverage=trimmed.expected_coverage,
        kept=trimmed.kept,
        verification=None,
        seconds=0.0,
        peak_memory_bytes=0,
    )


def _bytes(config: TrimOptions, trimmed: TrimPlan, folder: Path) -> dict[str, int]:
    """See `Source.nbytes`; the weights' size is known before they are written, so a dry run says the same."""
    source = trimmed.source
    weights = surgery.file_bytes(source.checkpoint, trimmed.cuts, config.dtype)
    return {"before": source.nbytes, "after": weights + own_files(folder, source.place_in(folder), ()).nbytes}


def _timed(result: TrimResult, started: float) -> TrimResult:
    return replace(result, seconds=round(time.perf_counter() - started, 3), peak_memory_bytes=peak_memory_bytes())


def _verify(
    config: TrimOptions,
    trimmed: TrimPlan,
    counts: TokenCounts,
    text: TextSource | None,
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    from polydistill.trimming.verification import verify

    if text is not None:
        lines = list(read_texts(text, limit=VERIFY_LINES))
    else:
        share = max(1, VERIFY_LINES // len(trimmed.languages))
        lines = [line for lang in trimmed.languages for line in counts.languages[lang.code].held_out[:share]]
        lines = lines or [line for lang in trimmed.languages for line in _word_lines(counts, lang.code)]
    exact = config.dtype == "keep"
    found = verify(trimmed, folder, lines, held_out=text is not None, exact=exact, progress=progress).to_json()
    known = every_language(config.include_path)
    after = open_vocabulary(trimmed.source.place_in(folder))
    lost = unwritten(trimmed.source.vocabulary, after, known)
    return {**found, "letters": {"languages": len(known), "lost": lost}}


def _word_lines(counts: TokenCounts, code: str) -> list[str]:
    """Counted words in lines of ten, where no line was held out."""
    words = list(counts.languages[code].words)[:2000]
    return [" ".join(words[i : i + 10]) for i in range(0, len(words), 10)]


def _record(
    config: TrimOptions,
    source: Source,
    counts: TokenCounts,
    listed: dict[str, LanguageCounts],
    languages: Sequence[Language],
    result: TrimResult,
) -> RunRecord:
    read = [
        (lang.code, found[lang.code])
        for lang in languages
        for found in (counts.languages, listed)
        if lang.code in found
    ]
    texts = [{"language": code, **asdict(text)} for code, found in read for text in found.texts]
    return RunRecord(
        command="trim",
        config=config.to_json(),
        source=source_facts(source.resolved, source.checkpoint),
        texts=texts,
        result=result.to_json(),
        parent=parent_of(source.resolved.folder),
    )


def trim_objects(model: Any, tokenizer: Any, languages: Sequence[str], **options: Any) -> tuple[Any, Any, TrimResult]:
    """Trims a loaded model and tokenizer: the twin of `polydistill.trim` for objects.

    Args:
        model: A transformers model.
        tokenizer: Its tokenizer.
        languages: Codes of the languages that stay.
        **options: Other fields of `TrimOptions`, except `model` and `output`.

    Returns:
        (model, tokenizer, result): new objects of the same classes; the given ones are not changed.

    Raises:
        PolydistillError: As `trim`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        before, after = Path(scratch) / "before", Path(scratch) / "after"
        model.save_pretrained(before, safe_serialization=True)
        tokenizer.save_pretrained(before)
        result = trim(TrimOptions(model=str(before), languages=tuple(languages), output=after, **options))
        if result.output is None:
            raise PolydistillError("A dry run has no objects to return.", "Use polydistill.trim(..., dry_run=True).")
        new_model = _again(model, after, dtype=model.dtype).to(model.device)
        new_model.train(model.training)
        return (new_model, _again(tokenizer, after), replace(result, output=None, model=type(model).__name__))


def _again(thing: Any, folder: Path, **options: Any) -> Any:
    """A model or tokenizer of the same class, from a folder."""
    return type(thing).from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
