"""Models side by side: scores on the same data, each against the first model's.

A comparison is a list of rows, one for each model, task, language and metric. Scores meet only where task, split,
languages, metric, normalisation and the data's hash agree; what does not meet is said in a note.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from polydistill.errors import PolydistillError
from polydistill.evaluation.cache import Items
from polydistill.metrics.loyalty import retention
from polydistill.metrics.paired import FEW, FEW_UNITS
from polydistill.progress import SILENT, Progress
from polydistill.records.record import Score
from polydistill.reports.averages import with_averages
from polydistill.reports.pairs import pair
from polydistill.reports.rows import Cell, Comparison, Row, Section
from polydistill.reports.runs import ModelFacts, Run, read_run

_HASH_SHOWN = 8
_FOLDERS = re.compile(r"(?<!\S)/(?:[^\s/]+/)*(?=[^\s/])")  # of an absolute path within a text


def compare(paths: Sequence[Path], progress: Progress = SILENT) -> Comparison:
    """Compares the models of some runs with the first run's first model.

    Args:
        paths: Files that `evaluate` wrote, or model folders with scores.
        progress: Where to report.

    Raises:
        PolydistillError: A run cannot be read, there is only one model, one name stands for two models, or no
            two scores can be compared.
    """
    runs = [read_run(path) for path in paths]
    known = _models(runs)
    if len(known) < 2:
        raise PolydistillError(
            f"There is only one model to compare, {next(iter(known))}.", "Give a run of another model too."
        )
    short = short_names(list(known))
    models = {short[name]: _without_folders(replace(facts, name=short[name])) for name, facts in known.items()}
    scores = [replace(score, model=short[score.model]) for run in runs for score in run.scores]
    notes = _Notes()
    _note_copies(list(models.values()), notes)
    cells = _meet(scores, list(models), notes)
    if not any(len(met) > 1 for met in cells.values()):
        raise _nothing_in_common(scores, list(models), notes)
    items = Items()
    rows = _compare_cells(cells, items, notes, progress)
    known_items = {(cell, name): items.of(score) for cell, met in cells.items() for name, score in met.items()}
    shown = dict.fromkeys(row.model for row in rows)
    for name in [name for name in models if name not in shown]:
        notes.add(f"{name} is left out, as none of its scores can be compared")
    for cell in {cell: None for (cell, _), known in known_items.items() if known and known.drawn < FEW_UNITS}:
        if len(cells[cell]) > 1:
            notes.add(FEW, cell)
    return Comparison(
        tuple(f for name, f in models.items() if name in shown), with_averages(rows, known_items), notes.lines()
    )


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Name -> name; of a folder's full path only as much of the end as tells it from the others."""

    def short(name: str) -> str:
        others = [other for other in names if other != name]
        parts = Path(name).parts[1:] if Path(name).is_absolute() else ()
        for count in range(1, len(parts)):
            end = "/".join(parts[-count:])
            if not any(other == end or other.endswith(f"/{end}") for other in others):
                return end
        return name

    return {name: short(name) for name in names}


def _note_copies(models: Sequence[ModelFacts], notes: _Notes) -> None:
    first: dict[str, str] = {}
    for facts in models:
        if facts.weights_hash and first.setdefault(facts.weights_hash, facts.name) != facts.name:
            notes.add(f"{facts.name} has the same weights as {first[facts.weights_hash]}")


def _without_folders(facts: ModelFacts) -> ModelFacts:
    """A model without the places of this machine, which a report is not to tell."""
    source = Path(facts.source).name if facts.source and Path(facts.source).is_absolute() else facts.source
    lineage = tuple(re.sub(_FOLDERS, "", step) for step in facts.lineage)
    # A folder's source is the folder, which its name says already.
    return replace(facts, source=source if source != Path(facts.name).name else None, lineage=lineage)


class _Notes:
    """Sentences that are said once, with the cells that each is about."""

    def __init__(self) -> None:
        self._cells: dict[str, dict[Section, list[str]]] = {}

    def add(self, sentence: str, cell: Cell | None = None) -> None:
        """Remembers a sentence, and one more cell for it."""
        sections = self._cells.setdefault(sentence, {})
        if cell is not None:
            sections.setdefault(cell.section, []).append(cell.label)

    def lines(self) -> tuple[str, ...]:
        """One line for each sentence."""
        return tuple(f"{said}: {_places(cells)}." if cells else f"{said}." for said, cells in self._cells.items())


def _places(sections: Mapping[Section, Sequence[str]]) -> str:
    """`ner, test, f1 (conlleval) (en, sw); ...`."""
    return "; ".join(f"{section} ({', '.join(dict.fromkeys(labels))})" for section, labels in sections.items())


def _models(runs: Sequence[Run]) -> dict[str, ModelFacts]:
    """Every model by name, the reference first.

    Raises:
        PolydistillError: One name stands for two models.
    """
    found: dict[str, tuple[Run, ModelFacts]] = {}
    for run in runs:
        described = {facts.name: facts for facts in run.models}
        for score in run.scores:
            facts = described[score.model]
            facts = replace(facts, weights_hash=score.weights_hash or facts.weights_hash)
            earlier, known = found.setdefault(facts.name, (run, facts))
            if _are_different(known, facts):
                raise PolydistillError(
                    f"{facts.name} is {_described(known)} in {earlier.where} but {_described(facts)} in {run.where}: "
                    "these are different models under one name.",
                    "Evaluate both from the same source, or each from a folder of its own name.",
                )
            if known.parameters is None:
                found[facts.name] = (earlier, facts)
    return {name: facts for name, (_, facts) in found.items()}


def _are_different(a: ModelFacts, b: ModelFacts) -> bool:
    if a.weights_hash and b.weights_hash:
        return a.weights_hash != b.weights_hash
    return bool(a.source and b.source and a.source != b.source)


def _described(facts: ModelFacts) -> str:
    weights = f"weights {facts.weights_hash[:_HASH_SHOWN]}" if facts.weights_hash else ""
    return " with ".join(part for part in (facts.source, weights) if part) or "of unknown source"


def _cell(score: Score) -> Cell:
    section = Section(score.task, score.split, score.metric, score.normalisation)
    return Cell(section, score.language, score.question_language)


def _meet(scores: Iterable[Score], models: Sequence[str], notes: _Notes) -> dict[Cell, dict[str, Score]]:
    """For each cell that the reference has, one score of each model, all on the same data; the reference first."""
    reference, *others = models
    found: dict[Cell, dict[str, list[Score]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        found[_cell(score)][score.model].append(score)
    met: dict[Cell, dict[str, Score]] = {}
    for cell, by_model in found.items():
        if reference not in by_model:
            for name in by_model:
                notes.add(f"{name} has scores that {reference} lacks", cell)
            continue
        chosen = _on_the_same_data(by_model, reference)
        met[cell] = {name: chosen[name] for name in models if name in chosen}
        for name in others:
            if name not in by_model:
                notes.add(f"{name} lacks scores that {reference} has", cell)
            elif name not in chosen:
                told = all(score.data_hash for model in (reference, name) for score in by_model[model])
                how = "was measured on other data than" if told else "may have been measured on other data than"
                notes.add(f"{name} {how} {reference}, so they are not compared", cell)
    return met


def _on_the_same_data(by_model: Mapping[str, Sequence[Score]], reference: str) -> dict[str, Score]:
    """The scores on that data of the reference's which most models share; of several on it, the last."""

    def on(data: str | None) -> dict[str, Score]:
        return {name: s for name, scores in by_model.items() for s in scores if s.data_hash == data}

    mine = by_model[reference]
    hashes = [s.data_hash for s in mine if s.data_hash]
    # Of equally shared data the larger; scores that do not say what they are of meet no other.
    best = max(hashes, key=lambda h: (len(on(h)), on(h)[reference].n), default=None)
    return on(best) if best else {reference: mine[-1]}


def _nothing_in_common(scores: Iterable[Score], models: Sequence[str], notes: _Notes) -> PolydistillError:
    has: dict[str, dict[Section, list[str]]] = {name: {} for name in models}
    who: dict[Cell, set[str]] = defaultdict(set)
    for score in scores:
        cell = _cell(score)
        has[score.model].setdefault(cell.section, []).append(cell.label)
        who[cell].add(score.model)
    if any({models[0]} < names for names in who.values()):
        return PolydistillError(
            "The models were measured on different data: " + " ".join(notes.lines()),
            "Evaluate them on the same files and split, with the same `limit`.",
        )
    told = ". ".join(f"{name} has {_places(sections)}" for name, sections in has.items())
    return PolydistillError(
        f"The models have no task and language in common with {models[0]}. {told}.",
        "Evaluate them on the same task, language, split and metric.",
    )


def _compare_cells(
    cells: Mapping[Cell, Mapping[str, Score]], items: Items, notes: _Notes, progress: Progress
) -> list[Row]:
    rows: list[Row] = []
    compared = {cell: scores for cell, scores in cells.items() if len(scores) > 1}
    with progress.bar("comparing", sum(len(s) - 1 for s in compared.values()), "pair") as done:
        for cell, scores in compared.items():
            reference, *others = scores.values()
            rows.append(_row(cell, reference))
            for score in others:
                rows.append(_compared(cell, score, reference, items, notes))
                done(1)
    return rows


def _row(cell: Cell, score: Score) -> Row:
    return Row(cell.section, cell.label, score.model, score.value, score.interval, score.n, cell)


def _compared(cell: Cell, score: Score, reference: Score, items: Items, notes: _Notes) -> Row:
    found = pair(score, reference, items)
    if found.why:
        notes.add(f"{score.model} has no interval of the difference, because {found.why}", cell)
    if score.task_version != reference.task_version:
        notes.add(f"{score.model} and {reference.model} were measured with different versions of the task", cell)
    return replace(
        _row(cell, score),
        difference=found.difference,
        difference_interval=found.interval,
        p=found.p,
        retention_interval=found.retained,
        retention=retention(score.value, reference.value),
    )
