"""README.md of a model folder, made from its record alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from polydistill.record import RunRecord

UNITS = ("B", "kB", "MB", "GB", "TB")


def human_bytes(n: float) -> str:
    """118_000_000 -> '118.0 MB' (decimal units)."""
    for unit in UNITS:
        if n < 1000 or unit == UNITS[-1]:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    raise AssertionError


def write_card(record: RunRecord, folder: Path) -> None:
    """Writes the folder's README.md."""
    (folder / "README.md").write_text(card(record), encoding="utf-8")


def card(record: RunRecord) -> str:
    """The model card of whatever made the record."""
    if record.command.startswith("sparse "):
        return _sparse_card(record)
    makers = {"finetune": _tuned_card, "bistil": _distilled_card, "prokd": _unlabelled_card}
    return makers.get(record.command, _trimmed_card)(record)


def _tuned_card(record: RunRecord) -> str:
    """Metadata, the dev score that chose the checkpoint, how it was made."""
    result, chosen = record.result, record.result["selection"]
    languages = ", ".join(result["languages"])
    parts = [
        _metadata(record, "fine-tuned"),
        f"# {_plain(Path(_shared(record.source['name'])).name)} tuned for {_plain(result['task'])}",
        f"`{_plain(_shared(record.source['source']))}` tuned for {_plain(result['task'])} on {languages} "
        "by [polydistill](https://pypi.org/project/polydistill/).",
        "## Quality",
        f"Dev {chosen['metric']} {100 * chosen['value']:.2f} ({', '.join(chosen['languages'])}, {chosen['split']}), "
        f"after {chosen['step']:,} of {result['steps']:,} steps. This score chose the checkpoint, so it is a little "
        "too good; `polydistill evaluate` gives test scores.",
        "## Limitations",
        f"Trained and chosen on {languages} alone; quality in other languages was not looked at while it was made.",
        "## How it was made",
        _made(record),
    ]
    return "\n\n".join(parts) + "\n"


def _distilled_card(record: RunRecord) -> str:
    """Sizes, scores beside the teacher's, the stages with their losses, how it was made."""
    result = record.result
    source, target = result["languages"]
    what = f"{source} and {target}" + (f", for {_plain(result['task'])}" if result["task"] else "")
    parts = [
        _metadata(record, "bilingual-distillation"),
        f"# {_plain(Path(_shared(record.source['name'])).name)} for {what}",
        f"A student of `{_plain(_shared(record.source['source']))}` for {what}, made by "
        "[polydistill](https://pypi.org/project/polydistill/) with the method of BiStil (Ansell et al. 2023, arXiv "
        f"2306.01709): its vocabulary is cut to both languages, and it began with the teacher's layers "
        f"{', '.join(map(str, result['layers']))} (counted from 0).",
        "## Size",
        _student_sizes(result),
    ]
    if result["scores"]:
        parts += ["## Quality", _score_table(result)]
    chosen = result["selection"]
    only = f"Labelled data were {source} alone; " if result["task"] else ""
    parts += [
        "## Limitations",
        f"It knows two languages; text of others was neither seen nor measured. {only}"
        + (f"{chosen['split']} of {source} chose the checkpoint." if chosen else "Held-out text chose the checkpoint."),
        "## Stages",
        _stage_table(result),
        "## How it was made",
        _made(record),
    ]
    return "\n\n".join(parts) + "\n"


def _unlabelled_card(record: RunRecord) -> str:
    """What was taught without labels, its scores, every choice of the method, the stages, how it was made."""
    result = record.result
    sources, target, told = ", ".join(result["sources"]), result["target"], result["pseudo_labels"]
    method = {
        "prokd": "a reconstruction of ProKD (Ge et al. 2023, arXiv 2301.08855; its code is not public)"
        + ("" if result["settings"]["aligned"] else ", from a teacher whose prototypes were not aligned"),
        "tsl": "TSL (Wu et al. 2020, arXiv 2004.12440)",
        "selftrain": "TSL (Wu et al. 2020, arXiv 2004.12440) and self-training",
        "transfer": "direct transfer: the teacher as it is",
    }[result["method"]]
    parts = [
        _metadata(record, "zero-resource-tagging"),
        f"# {_plain(Path(_shared(record.source['name'])).name)} for {_plain(result['task'])} in {target}",
        f"Made from `{_plain(_shared(record.source['source']))}` by "
        "[polydistill](https://pypi.org/project/polydistill/) "
        f"with labels of {sources} alone, by {method}.",
    ]
    if result["scores"]:
        parts += ["## Quality", _score_table(result)]
    if told:
        parts.append(
            f"Of the words of {target}, {100 * told['share_entity']:.1f} % were pseudo-labelled as part of an entity; "
            f"prototypes changed {100 * told['changed']:.2f} % of the labels."
        )
    chosen = result["selection"]
    parts += [
        "## Limitations",
        f"No tag of {target} was read in training, nor in choosing: "
        + (f"{chosen['split']} of {sources} chose the checkpoint." if chosen else "nothing was trained here.")
        + " Text of other languages was not looked at.",
        "## Method",
        "\n".join(f"- {_plain(name)}: {_plain(str(value))}" for name, value in result["settings"].items()),
    ]
    if result["stages"]:
        parts += ["## Stages", _stage_table(result)]
    return "\n\n".join([*parts, "## How it was made", _made(record)]) + "\n"


def _student_sizes(result: dict[str, Any]) -> str:
    rows = ["| | teacher | student | share |", "| --- | ---: | ---: | ---: |"]
    for key in ("parameters", "bytes"):
        teacher, student = result[key]["teacher"], result[key]["student"]
        shown = [human_bytes(n) if key == "bytes" else f"{n:,}" for n in (teacher, student)]
        rows.append(f"| {key} | {shown[0]} | {shown[1]} | {100 * student / teacher:.1f} % |")
    return "\n".join(rows)


def _score_table(result: dict[str, Any]) -> str:
    rows = ["| model | language | split | metric | value | 95 % interval |", "| --- | --- | --- | --- | ---: | --- |"]
    for score in result["scores"]:
        rule = f" ({score['normalisation']})" if score["normalisation"] else ""
        low, high = (100 * bound for bound in score["interval"])
        rows.append(
            f"| {_plain(Path(score['model']).name)} | {score['language']} | {_plain(score['split'])} | "
            f"{score['metric']}{rule} | {100 * score['value']:.2f} | {low:.1f} to {high:.1f} |"
        )
    return "\n".join(rows)


def _stage_table(result: dict[str, Any]) -> str:
    rows = ["| stage | steps | seconds | term | first | last |", "| --- | ---: | ---: | --- | ---: | ---: |"]
    for stage in result["stages"]:
        loss = stage["loss"]
        terms = [(t, f"{first:.4g}", f"{loss['last'][t]:.4g}") for t, first in loss["first"].items()] or [("", "", "")]
        for i, shown in enumerate(terms):
            head = (stage["name"], f"{stage['steps']:,}", f"{stage['seconds']:.0f}") if i == 0 else ("", "", "")
            rows.append(f"| {' | '.join((*head, *shown))} |")
    return "\n".join(rows)


def _sparse_card(record: RunRecord) -> str:
    """The differences that the model carries, how it was made."""
    result, name = record.result, _plain(Path(_shared(record.source["name"])).name)
    carried = [
        f"- `{part['file']}`: {_plain(' and '.join(part['tasks']) or part['kind'])}"
        + (f" in {', '.join(part['languages'])}" if part["languages"] else "")
        + f", {part['entries']:,} entries, sha256 `{part['sha256']}`"
        for part in result["applied"]
    ]
    off = "bit for bit" if result["exact"] else "by subtraction, so up to rounding"
    done = {
        "sparse train": f"tuned it to {', '.join(result['languages'])} with masked tokens, by LT-SFT (Ansell et al. "
        "2022, arXiv 2110.07560): first everything, then from the beginning again the weights that had moved furthest.",
        "sparse apply": "changed it: a difference was added.",
        "sparse remove": f"changed it: a difference was taken off {off}.",
    }  # fmt: skip
    parts = [
        _metadata(record, "sparse-fine-tuning"),
        f"# {name} " + ("with sparse differences" if carried else "without its sparse differences"),
        f"`{_plain(_shared(record.source['source']))}`, as [polydistill](https://pypi.org/project/polydistill/) has "
        + done[record.command],
        *(["## What it carries", "\n".join(carried)] if carried else []),
        f"{result['entries']:,} of the {result['parameters']:,} weights of the base model (without its head, hash "
        f"`{result['base']}`) differ from it."
        if carried
        else f"The base model's hash is `{result['base']}`.",
        *(["## Stages", _stage_table(result)] if "stages" in result else []),
        "Quality was not measured after this.",
        "## How it was made",
        _made(record),
    ]
    return "\n\n".join(parts) + "\n"


def _trimmed_card(record: RunRecord) -> str:
    """The metadata, sizes, what was kept, what was lost, how it was made."""
    result = record.result
    name, languages = _shared(record.source["name"]), ", ".join(result["languages"])
    parts = [
        _metadata(record, "vocabulary-trimming"),
        f"# {_plain(Path(name).name)} trimmed to {languages}",
        f"The vocabulary of `{_plain(_shared(record.source['source']))}` cut down to what {languages} needs, "
        "by [polydistill](https://pypi.org/project/polydistill/). The rows that stay are the original's, bit for bit"
        + ("." if record.config["dtype"] == "keep" else f", converted to {record.config['dtype']}."),
        "## Size",
        size_table(result),
        "## What was kept",
        _kept(result),
        "## What it can no longer do",
        "Tokens of other languages and scripts are gone. Such text still encodes, but to shorter pieces, bytes or the "
        "unknown token, and quality on it was not measured.",
        "## How it was made",
        _made(record),
    ]
    return "\n\n".join(parts) + "\n"


def _plain(text: Any) -> str:
    """One line without characters that mean something in Markdown or YAML."""
    return "".join(c for c in str(text) if c.isprintable() and c not in "`<>|[]")[:300]


def _shared(value: Any) -> Any:
    """A value without the folders of the machine on which it was given: of an absolute path the name is left."""
    if isinstance(value, list):
        return [_shared(v) for v in value]
    prefix, equals, path = value.rpartition("=") if isinstance(value, str) else ("", "", value)
    return prefix + equals + Path(path).name if isinstance(path, str) and Path(path).is_absolute() else value


def _metadata(record: RunRecord, tag: str) -> str:
    source = record.source
    lines = ["---"]
    hub = "/" in source["name"] and not Path(source["name"]).is_absolute()
    if hub:
        lines.append(f"base_model: {json.dumps(_plain(source['name']))}")
    if record.result["languages"]:
        lines += ["language:", *(f"- {json.dumps(code)}" for code in record.result["languages"])]
    if source.get("licence"):
        lines.append(f"license: {json.dumps(_plain(source['licence']))}")
    lines += ["library_name: transformers", "tags:", "- polydistill", f"- {tag}", "---"]
    return "\n".join(lines)


def size_table(result: dict[str, Any]) -> str:
    """Sizes before and after, as a Markdown table."""
    rows = ["| | before | after | share |", "| --- | ---: | ---: | ---: |"]
    names = {"vocabulary": "tokens", "rows": "embedding rows", "parameters": "parameters", "bytes": "bytes"}
    for key, label in names.items():
        before, after = result[key]["before"], result[key]["after"]
        shown = (human_bytes(before), human_bytes(after)) if key == "bytes" else (f"{before:,}", f"{after:,}")
        rows.append(f"| {label} | {shown[0]} | {shown[1]} | {100 * after / before:.1f} % |")
    return "\n".join(rows)


def _kept(result: dict[str, Any]) -> str:
    lines = [
        f"- {code}: {100 * share:.3f} % of the token occurrences in the counted text"
        for code, share in result["coverage"].items()
    ]
    lines += [
        f"- {code}: about {100 * share:.2f} % to be expected of new text of the same kind (Good-Turing)"
        for code, share in result["expected_coverage"].items()
        if share is not None
    ]
    lines.append("- tokens by reason: " + ", ".join(f"{name} {n:,}" for name, n in result["kept"].items()))
    check = result["verification"]
    if check:
        text = "text that was not counted" if check["held_out"] else "words that were counted"
        lines += [
            f"- verified on {check['sentences']} lines of {text}: {check['identical']} tokenize identically; fertility "
            f"{check['fertility']['before']:.3f} -> {check['fertility']['after']:.3f} tokens a word; unknown rate "
            f"{100 * check['unknown_rate']['before']:.3f} % -> {100 * check['unknown_rate']['after']:.3f} %",
        ]
        if check["max_abs_difference"] is not None:
            lines.append(f"- largest difference of outputs on identical lines: {check['max_abs_difference']:.3g}")
    else:
        lines.append("- not verified (`--no-verify`)")
    return "\n".join(lines)


def _amount(text: dict[str, Any]) -> str:
    if "examples" in text:
        return f"{text['examples']:,} examples"
    return f"{text['lines']:,} lines, {human_bytes(text['bytes'])}"


def _made(record: RunRecord) -> str:
    shown = {k: _shared(v) for k, v in record.config.items() if v not in (None, [], False)}
    texts = [
        f"- {t['language']}: {_plain(_shared(t['where']))}, {_amount(t)}, sha256 `{t['sha256']}`" for t in record.texts
    ]
    used = ", ".join(f"{k} {v}" for k, v in record.versions.items())
    licence = record.source.get("licence")
    return "\n".join(
        [
            f"Command `polydistill {record.command}` with",
            "",
            "```json",
            json.dumps(shown, ensure_ascii=False, indent=2),
            "```",
            "",
            f"Source weights sha256 `{record.source['weights_hash']}`, licence "
            + (f"{_plain(licence)} (as its source states it)." if licence else "not stated by the source."),
            "",
            *(["Text counted:" if record.command == "trim" else "Data:", "", *texts, ""] if texts else []),
            f"Versions: {used}.",
        ]
    )
