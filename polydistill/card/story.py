"""What a card says of the model itself: what it is, how large, what it can no longer do, what it was made by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polydistill.card.facts import BESIDE, CUTTING, Facts, Step
from polydistill.card.text import (
    at,
    bounds,
    code,
    first,
    human_bytes,
    items,
    joined,
    mapping,
    number,
    objects,
    plain,
    shared,
    table,
)
from polydistill.card.told import BY

MOST_LABELS = 50  # of a model, in its card
_SIZES = {"vocabulary": "tokens", "rows": "embedding rows", "parameters": "parameters", "bytes": "size on disk"}
_PROKD = {
    "prokd": "a reconstruction of ProKD (Ge et al. 2023, arXiv 2301.08855; its code is not public)",
    "tsl": "learning a teacher's probabilities, after TSL (Wu et al. 2020, arXiv 2004.12440)",
    "selftrain": "learning a teacher's probabilities, after TSL (Wu et al. 2020, arXiv 2004.12440), and its labels",
    "transfer": "direct transfer: the teacher as it is",
}


def title(facts: Facts) -> str:
    """The heading."""
    step, languages = facts.newest, joined(facts.newest.languages)
    if step.command == "trim":
        return f"{step.base} trimmed to {languages}"
    if step.command == "finetune":
        return f"{step.base} tuned for {_task(step)}"
    if step.command.startswith("sparse "):
        carries = objects(step.result.get("applied"))
        return f"{step.base} {'with sparse differences' if carries else 'without its sparse differences'}"
    if step.command == "bistil":
        return f"{step.base} for {languages}" + (f", for {_task(step)}" if step.result.get("task") else "")
    if step.command == "prokd":
        return f"{step.base} for {_task(step)} in {plain(step.result.get('target'), 20)}"
    if step.command == "export":
        return f"{step.base} as ONNX"
    if step.command == "stack":
        return f"{step.base} in front of an LLM" + (f", for {_task(step)}" if _task(step) else "")
    return f"{step.base} after {step.command or 'an unknown step'}"


def introduction(facts: Facts) -> str:
    """What it is and what it was made from."""
    said = _INTRODUCTIONS.get(facts.newest.command.partition(" ")[0], _made_somehow)(facts.newest)
    if labels := facts.labels:
        more = f" and {len(labels) - MOST_LABELS:,} more" if len(labels) > MOST_LABELS else ""
        said += f"\n\nIts labels: {', '.join(map(code, labels[:MOST_LABELS]))}{more}."
    roots = [step for step in facts.lineage if step.package]
    if onnx := mapping(facts.newest.result.get(BESIDE)):
        said += f"\n\nThe same as ONNX: {_onnx(onnx)}"
    for step in roots[-1:]:
        name, package = step.hub_name, str(step.package)
        hub = f" of {code(name)}" if name and name != package else ""
        changed = "they are not the Hub's, bit for bit" if "dequantised" in package else "they were not fetched there"
        said += f"\n\nThe first weights{hub} came as a package, {code(package)}: {changed}."
    return said


def _trimmed(step: Step) -> str:
    dtype = step.config.get("dtype")
    rows = "are the original's, bit for bit" + ("." if dtype == "keep" else f", converted to {plain(dtype, 20)}.")
    needed = joined(step.languages)
    return (
        f"The vocabulary of {code(step.came_from)} cut down to what {needed} needs, by {BY}. The rows that stay {rows}"
    )


def _tuned(step: Step) -> str:
    total, trained = (number(at(step.result, "parameters", key)) for key in ("total", "trained"))
    said = f"{code(step.came_from)} tuned for {_task(step)} on {joined(step.languages)} by {BY}."
    if total is not None and trained is not None:
        said += f" {trained:,.0f} of its {total:,.0f} parameters were trained."
    return said


def _distilled(step: Step) -> str:
    layers = ", ".join(plain(layer, 8) for layer in items(step.result.get("layers")))
    began = f"with the vocabulary of both languages and the teacher's layers {layers} (counted from 0)"
    paper = "BiStil (Ansell et al. 2023, arXiv 2306.01709)"
    if not any(stage.get("name") == "general" for stage in objects(step.result.get("stages"))) and _task(step):
        return (
            f"{code(step.came_from)} taught {_task(step)} by a teacher, by {BY} with phase 2 of {paper}, for "
            f"{joined(step.languages)}. As a student it began {began}."
        )
    return (
        f"A student of {code(step.came_from)} for {joined(step.languages)}, made by {BY} with the method of {paper}. "
        f"It began {began}."
    )


def _unlabelled(step: Step) -> str:
    sources = joined([plain(name, 20) for name in items(step.result.get("sources"))])
    named = str(step.result.get("method"))
    method = _PROKD.get(named, plain(named, 60))
    if named == "prokd" and not at(step.result, "settings", "aligned"):
        method += ", from a teacher whose prototypes were not aligned"
    if named in ("tsl", "selftrain") and not (step.config.get("teacher") and step.config.get("model")):
        method += " (TSL's student begins with the pretrained encoder, this one began as a copy of the teacher)"
    return f"Made from {code(step.came_from)} by {BY} with labels of {sources} alone, by {method}."


def _sparse(step: Step) -> str:
    off = "bit for bit" if step.result.get("exact") else "by subtraction, so up to rounding"
    done = {
        "sparse train": f"tuned it to {joined(step.languages)} with masked tokens, by LT-SFT (Ansell et al. 2022, "
        "arXiv 2110.07560): first everything, then from the beginning again the weights that had moved furthest.",
        "sparse apply": "changed it: a difference was added.",
        "sparse remove": f"changed it: a difference was taken off {off}.",
    }.get(step.command, f"changed it ({step.command}).")
    carried = objects(step.result.get("applied"))
    base, changed = code(step.result.get("base")), number(step.result.get("entries"))
    total = number(step.result.get("parameters"))
    said = f"{code(step.came_from)}, as {BY} has {done}"
    if carried and changed is not None and total is not None:
        said += (
            f"\n\n{changed:,.0f} of the {total:,.0f} weights of the base model (without its head, hash {base}) differ "
            "from it."
        )
    else:
        said += f"\n\nThe base model's hash is {base}."
    return said + "".join(
        f"\n- {_carried(part)}" if i else f"\n\nIt carries:\n\n- {_carried(part)}" for i, part in enumerate(carried)
    )


def _carried(part: Mapping[str, Any]) -> str:
    of = joined([plain(name, 60) for name in items(part.get("tasks"))]) or plain(part.get("kind"), 60)
    languages = joined([plain(name, 20) for name in items(part.get("languages"))])
    entries = number(part.get("entries")) or 0
    return (
        f"{code(part.get('file'))}: {of}{f' in {languages}' if languages else ''}, {entries:,.0f} entries, sha256 "
        f"{code(part.get('sha256'))}"
    )


def _exported(step: Step) -> str:
    said = f"{code(step.came_from)} as ONNX by {BY}: {_onnx(step.result)}"
    pooling = joined([plain(name, 60) for name in items(step.result.get("pooling"))])
    return said + (f" What follows the graph: {pooling}." if pooling else "")


def _onnx(result: Any) -> str:
    """ONNX files, and how far they are from torch."""
    files = joined([code(at(part, "path")) for part in objects(at(result, "files"))])
    said = f"{files or 'no file'}, beside its tokenizer."
    largest, rounded, inputs = (number(at(result, "difference", key)) for key in ("onnx", "int8", "inputs"))
    if largest is not None and inputs is not None:
        eight = "" if rounded is None else f", those of the 8-bit file by {rounded:.2g}"
        said += f" Outputs differ from torch's by {largest:.2g} at most{eight}, on {inputs:,.0f} inputs."
    return said


def _stacked(step: Step) -> str:
    llm = code(shared(str(step.result.get("llm"))))
    said = (
        f"{code(step.came_from)} in front of {llm}, by {BY}, after Schmidt et al. "
        "2024 (arXiv 2406.12739): what stands between them was learnt from English alone"
    )
    left = number(at(step.result, "unexplained_variance", "last"))
    return said + ("." if left is None else f"; {100 * left:.1f} % of the LLM's variance stays unexplained.")


def _made_somehow(step: Step) -> str:
    return f"Made from {code(step.came_from)} with the command {code(f'polydistill {step.command}')} of {BY}."


_INTRODUCTIONS = {
    "trim": _trimmed,
    "finetune": _tuned,
    "bistil": _distilled,
    "prokd": _unlabelled,
    "sparse": _sparse,
    "export": _exported,
    "stack": _stacked,
}


def _task(step: Step) -> str:
    return plain(step.result.get("task") or "", 60)


# --- sizes


def size_table(facts: Facts) -> str | None:
    """Sizes before and after the newest step that tells both, None where none does."""
    for step in facts.lineage:
        rows, sides = [], ("before", "after")
        rows += _files(step) if step.command == "export" else []
        for key, label in _SIZES.items():
            pair = (
                _vocabulary(facts)
                if key == "vocabulary" and step.command == "bistil"
                else mapping(step.result.get(key))
            )
            sides = ("teacher", "student") if "teacher" in pair else sides
            _, after = _sizes(pair)
            before = next(
                (n for earlier in reversed(facts.lineage) for n in _sizes(earlier.result.get(key)) if n), None
            )
            if before is None or after is None:
                continue
            shown = [human_bytes(n) if key == "bytes" else f"{n:,.0f}" for n in (before, after)]
            rows.append([label, *shown, f"{100 * after / before:.1f} %" if before else ""])
        if rows:
            shown_table = table(["", *sides, "share"], rows, right=(1, 2, 3))
            earlier = f"\n\nThis is what {code(step.command)} made of it, in an earlier step."
            return shown_table + ("" if step is facts.newest else earlier)
    return None


def _sizes(pair: Any) -> tuple[float | None, float | None]:
    """Before and after, where there are both."""
    before, after = (number(at(pair, a) or at(pair, b)) for a, b in (("before", "teacher"), ("after", "student")))
    return (before, after) if before is not None and after is not None else (None, None)


def _files(step: Step) -> list[list[str]]:
    """Rows for the files of an export, beside the weights that they were made from."""
    sizes = mapping(step.result.get("bytes"))
    before = number(sizes.get("safetensors"))
    if not before:
        return []
    return [
        [plain(name, 60), human_bytes(before), human_bytes(n), f"{100 * n / before:.1f} %"]
        for name, size in sizes.items()
        if name != "safetensors" and (n := number(size)) is not None
    ]


def _vocabulary(facts: Facts) -> Mapping[str, Any]:
    """The newest change of the vocabulary: a student that is taught a task later keeps the one that it has."""
    known = [mapping(step.result.get("vocabulary")) for step in facts.lineage]
    return next((sizes for sizes in known if sizes.get("before") != sizes.get("after")), known[0])


# --- what stays and what is gone


def kept(facts: Facts) -> list[str]:
    """What a trim kept, as it was measured."""
    step = next((step for step in facts.lineage if step.command == "trim"), None)
    if step is None:
        return []
    lines = [
        f"- {first(name, 20)}: {100 * share:.3f} % of the token occurrences in the counted text"
        for name, share in _shares(step.result.get("coverage"))
    ]
    lines += [
        f"- {first(name, 20)}: about {100 * share:.2f} % to be expected of new text of that kind (Good-Turing)"
        for name, share in _shares(step.result.get("expected_coverage"))
    ]
    reasons = [f"{plain(name, 40)} {n:,.0f}" for name, n in _shares(step.result.get("kept"))]
    lines += [f"- tokens by reason: {', '.join(reasons)}"] if reasons else []
    lines.append(_verified(step))
    return ["## What was kept", "\n".join(lines)]


def _shares(value: Any) -> list[tuple[str, float]]:
    return [(str(name), n) for name, share in mapping(value).items() if (n := number(share)) is not None]


def _verified(step: Step) -> str:
    check = mapping(step.result.get("verification"))
    lines, same = number(check.get("sentences")), number(check.get("identical"))
    if lines is None or same is None:
        return "- not verified against the original"
    new_text = mapping(check.get("new_text"))
    text = "other text" if check.get("held_out") else "the text" if new_text else "words that were counted"
    said = f"- verified on {lines:,.0f} lines of {text}: {same:,.0f} tokenize identically"
    apart = number(check.get("max_abs_difference"))
    said += f"; largest difference of outputs on those: {apart:.3g}" if apart is not None else ""
    vectors = number(at(check, "vectors", "max_abs_difference"))
    said += f"; of sentence vectors, prompts included: {vectors:.3g}" if vectors is not None else ""
    tried, right = number(new_text.get("sentences")), number(new_text.get("identical"))
    if tried is None or right is None:
        return said
    return f"{said}\n- estimate for new text: {right:,.0f} of {tried:,.0f} lines that the vocabulary was chosen without"


def lost(facts: Facts) -> list[str]:
    """What the model can no longer do, measured where the record has it; nothing for a model that was not cut."""
    cut = [step for step in facts.lineage if step.command in CUTTING and _is_cut(step)]
    if not cut:
        return []
    said = [
        f"Its vocabulary was cut to {joined(facts.languages) or 'some languages'}. Text of other languages and scripts "
        "still encodes, but to shorter pieces, bytes or the unknown token."
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
        "How much of other languages becomes unknown was not measured."
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
        return [f"Of {tried:,.0f} languages that were tried it writes every letter that the original could."]
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
    return step.command == "trim" or (before is not None and after is not None and after < before)


def _change(name: str, found: Any, key: str, label: str, scale: float) -> list[str] | None:
    before, after = (number(at(found, key, side)) for side in ("before", "after"))
    if before is None or after is None:
        return None
    verdict = "rose" if after > before else "fell" if after < before else "the same"
    return [plain(name, 60), label, f"{scale * before:.3f}", f"{scale * after:.3f}", verdict]


# --- the method's own


def limitations(facts: Facts) -> list[str]:
    """What was neither seen nor measured, as far as the newest step tells."""
    step, said = facts.newest, []
    names = joined(step.languages)
    if step.command == "finetune":
        said.append(f"It was trained and chosen on {names} alone; no other language was looked at while it was made.")
    elif step.command == "bistil":
        said.append("It knows two languages; text of others was neither seen nor measured.")
        source = plain(next(iter(step.languages), ""), 20)
        if step.result.get("task"):
            said.append(f"Labelled data were {source} alone.")
        else:
            said.append("It has no head for a task; held-out text chose the checkpoint.")
    elif step.command == "prokd":
        target = plain(step.result.get("target"), 20)
        said.append(f"No tag of {target} was read in training, nor in choosing. Text of other languages was not seen.")
    elif step.command == "trim":
        said.append("Biases and mistakes of the original are still there; a trim takes away and teaches nothing.")
    measured = {plain(score.get("language"), 20) for score in step.scores}
    missing = [name for name in facts.languages if name not in measured]
    if measured and missing:
        said.append(f"It was not scored in {joined(missing)}.")
    if measured:
        said.append("Scores hold for the data that they name; other text can be harder.")
    return ["## Limitations", " ".join(said)] if said else []


def method(facts: Facts) -> list[str]:
    """Settings of a method with open choices, what became of pseudo-labels, stages with their losses."""
    step, parts = facts.newest, []
    settings = mapping(step.result.get("settings"))
    if step.command == "prokd" and settings:
        parts += ["## Method", "\n".join(f"- {first(name, 60)}: {plain(value)}" for name, value in settings.items())]
        told = step.result.get("pseudo_labels")
        share, changed = number(at(told, "share_entity")), number(at(told, "changed"))
        if share is not None:
            rectified = "" if changed is None else f"; prototypes changed {100 * changed:.2f} % of its tags"
            words = f"Of the words of {plain(step.result.get('target'), 20)}"
            parts.append(f"{words}, the teacher tags {100 * share:.1f} % as part of an entity{rectified}.")
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
