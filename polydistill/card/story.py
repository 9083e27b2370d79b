"""What a card says of the model itself: what it is, how large, what it can no longer do, what it was made by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polydistill.card.facts import BESIDE, Facts, exported, told_of
from polydistill.card.step import Step
from polydistill.card.text import at, bounds, code, human_bytes, joined, mapping, number, objects, plain, shared, table

MOST_LABELS = 50  # of a model, in its card
_SIZES = {"vocabulary": "tokens", "rows": "embedding rows", "parameters": "parameters", "bytes": "size on disk"}


def title(facts: Facts) -> str:
    """The heading."""
    return told_of(facts.newest).title(facts.newest)


def introduction(facts: Facts) -> str:
    """What it is and what it was made from."""
    said = told_of(facts.newest).introduction(facts.newest)
    if labels := facts.labels:
        more = f" and {len(labels) - MOST_LABELS:,} more" if len(labels) > MOST_LABELS else ""
        said += f"\n\nIts labels: {', '.join(map(code, labels[:MOST_LABELS]))}{more}."
    roots = [step for step in facts.lineage if step.package]
    if onnx := mapping(facts.newest.result.get(BESIDE)):
        said += f"\n\nThe same as ONNX: {exported(onnx)}"
    for step in roots[-1:]:
        name, package = step.hub_name, str(step.package)
        hub = f" of {code(name)}" if name and name != package else ""
        other = "they are not bit for bit those on the Hub" if "dequantised" in package else "not from the Hub"
        said += f"\n\nThe original weights{hub} came from the package {code(package)}; {other}."
    return said


# --- sizes


def size_table(facts: Facts) -> str | None:
    """Sizes before and after the newest step that tells both, None where none does."""
    for step in facts.lineage:
        rows, sides = [], ("before", "after")
        rows += [_row(name, before, size, is_bytes=True) for name, before, size in told_of(step).sizes(step)]
        for key, label in _SIZES.items():
            pair = mapping(step.result.get(key))
            pair = _vocabulary(facts) if key == "vocabulary" and pair else pair
            sides = ("teacher", "student") if "teacher" in pair else sides
            _, after = _sizes(pair)
            before = next(
                (n for earlier in reversed(facts.lineage) for n in _sizes(earlier.result.get(key)) if n), None
            )
            if before is None or after is None:
                continue
            rows.append(_row(label, before, after, is_bytes=key == "bytes"))
        if rows:
            shown_table = table(["", *sides, "share"], rows, right=(1, 2, 3))
            earlier = f"\n\nThese are the sizes of an earlier step, {code(step.command)}."
            return shown_table + ("" if step is facts.newest else earlier)
    return None


def _sizes(pair: Any) -> tuple[float | None, float | None]:
    """Before and after, where there are both."""
    before, after = (number(at(pair, a) or at(pair, b)) for a, b in (("before", "teacher"), ("after", "student")))
    return (before, after) if before is not None and after is not None else (None, None)


def _row(label: str, before: float, after: float, *, is_bytes: bool) -> list[str]:
    shown = [human_bytes(n) if is_bytes else f"{n:,.0f}" for n in (before, after)]
    return [label, *shown, f"{100 * after / before:.1f} %" if before else ""]


def _vocabulary(facts: Facts) -> Mapping[str, Any]:
    """The newest change of the vocabulary: a student that is taught a task later keeps the one that it has."""
    known = [mapping(step.result.get("vocabulary")) for step in facts.lineage]
    return next((sizes for sizes in known if sizes.get("before") != sizes.get("after")), known[0])


# --- what stays and what is gone


def kept(facts: Facts) -> list[str]:
    """What the newest step that cut the vocabulary kept, as it was measured."""
    lines = next((lines for step in facts.lineage if (lines := told_of(step).kept(step))), [])
    return ["## What was kept", "\n".join(f"- {line}" for line in lines)] if lines else []


def lost(facts: Facts) -> list[str]:
    """What the model can no longer do, measured where the record has it; nothing for a model that was not cut."""
    cut = [step for step in facts.lineage if told_of(step).cuts and _is_cut(step)]
    if not cut:
        return []
    said = [
        f"Its vocabulary was cut to {joined(facts.languages) or 'some languages'}. Text in other languages and scripts "
        "can still be encoded, but as shorter pieces, bytes or unknown tokens."
    ]
    rows = []
    for step in reversed(cut):
        check, name = mapping(step.result.get("verification")), joined(step.languages)
        check = mapping(check.get("new_text")) or check
        rows += [
            row
            for row in (
                _change(name, check, "unknown_rate", "unknown tokens, %", 100.0),
                _change(name, check, "fertility", "tokens a word", 1.0),
            )
            if row
        ]
    said += [table(["text", "measured", "before", "after", ""], rows, right=(2, 3))] if rows else []
    said += next(filter(None, map(_letters, cut)), []) or [
        "How much text in other languages becomes unknown was not measured."
    ]
    return ["## What it can no longer do", "\n\n".join(said)]


def _letters(step: Step) -> list[str]:
    """Languages by script whose letters it writes worse than the original did."""
    tried = number(at(step.result, "verification", "letters", "languages"))
    if tried is None:
        return []
    scripts: dict[str, list[str]] = {}
    for name, shares in mapping(at(step.result, "verification", "letters", "lost")).items():
        before, after = (number(at(shares, side)) for side in ("before", "after"))
        if before is not None and after is not None:
            cell = f"{plain(name, 20)} {100 * before:.0f} to {100 * after:.0f}"
            scripts.setdefault(plain(at(shares, "script"), 20), []).append(cell)
    if not scripts:
        return [f"In each of {tried:,.0f} languages tried, it writes every letter that the original could."]
    rows = [[script, ", ".join(cells)] for script, cells in sorted(scripts.items())]
    lost = sum(map(len, scripts.values()))
    return [
        f"Of {tried:,.0f} languages that were tried, the share of letters that can only be written as the unknown "
        f"token or as bytes rose in {lost}:",
        table(["script", "languages, % of their letters before and after"], rows),
    ]


def _is_cut(step: Step) -> bool:
    sizes = mapping(step.result.get("vocabulary"))
    before, after = number(sizes.get("before")), number(sizes.get("after"))
    return before is not None and after is not None and after < before


def _change(name: str, found: Any, key: str, label: str, scale: float) -> list[str] | None:
    before, after = (number(at(found, key, side)) for side in ("before", "after"))
    if before is None or after is None:
        return None
    verdict = "rose" if after > before else "fell" if after < before else "the same"
    return [plain(name, 60), label, f"{scale * before:.3f}", f"{scale * after:.3f}", verdict]


# --- the method's own


def limitations(facts: Facts) -> list[str]:
    """What was neither seen nor measured, as far as the newest step tells."""
    step = facts.newest
    said = list(told_of(step).limitations(step))
    measured = {plain(score.get("language"), 20) for score in step.scores}
    missing = [name for name in facts.languages if name not in measured]
    if measured and missing:
        said.append(f"It was not scored in {joined(missing)}.")
    if measured:
        said.append("The scores are for the data they name; other text can be harder.")
    return ["## Limitations", " ".join(said)] if said else []


def method(facts: Facts) -> list[str]:
    """What the method says of how it was done, and stages with their losses."""
    step, parts = facts.newest, list[str]()
    if paragraphs := told_of(step).method(step):
        parts += ["## Method", *paragraphs]
    rows = [row for stage in objects(step.result.get("stages")) for row in _stage(stage)]
    if rows:
        header = ["stage", "steps", "seconds", "term", "first", "last"]
        parts += ["## Stages", table(header, rows, right=(1, 2, 4, 5))]
    return parts


def _stage(stage: Mapping[str, Any]) -> list[list[str]]:
    begun, ended = (mapping(at(stage, "loss", end)) for end in ("first", "last"))
    terms = [[plain(name, 40), _short(begun[name]), _short(ended.get(name))] for name in begun] or [["", "", ""]]
    steps, seconds = number(stage.get("steps")), number(stage.get("seconds"))
    head = [
        plain(stage.get("name"), 40),
        "" if steps is None else f"{steps:,.0f}",
        "" if seconds is None else f"{seconds:,.0f}",
    ]
    return [[*(head if i == 0 else ["", "", ""]), *shown] for i, shown in enumerate(terms)]


def _short(value: Any) -> str:
    n = number(value)
    return "" if n is None else f"{n:.4g}"


def costs(facts: Facts) -> list[str]:
    """Time and memory beside another model, where the record has them."""
    rows = []
    for row in [*objects(at(facts.newest.result, "latency", "models")), *facts.newest.costs]:
        shown = []
        for key in ("latency_ratio", "throughput_ratio", "memory_ratio"):
            value, interval = number(at(row, key, "value")), bounds(at(row, key, "interval"))
            between = f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
            shown.append("" if value is None else f"{value:.2f}{between}")
        if any(shown):
            rows.append([_beside(row) if "beside" in row else code(shared(str(row.get("model")))), *shown])
    if not rows:
        return []
    head = ["model", "time at batch 1, ratio", "inputs a second, ratio", "memory, ratio"]
    width = len(head) - (not any(row[-1] for row in rows))
    return ["## Cost", table(head[:width], [row[:width] for row in rows], right=(1, 2, 3))]


def _beside(row: Mapping[str, Any]) -> str:
    """What the times of a row were measured on, and beside which model."""
    on = [plain(row.get("task") or "", 40), plain(row.get("language") or "", 20)]
    counted = ((key, number(row.get(f"{key}s"))) for key in ("input", "thread"))
    on += [f"{n:.0f} {key}{'' if n == 1 else 's'}" for key, n in counted if n is not None]
    where = ", ".join(filter(None, on))
    return f"this model, beside {code(shared(str(row['beside'])))}" + (f" ({where})" if where else "")
