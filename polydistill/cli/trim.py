"""`polydistill trim`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from polydistill.card import human_bytes
from polydistill.cli.options import SectionedCommand, build_config, common_options, config_file_option, config_options
from polydistill.cli.output import Console
from polydistill.methods.trim.method import TrimResult, trim
from polydistill.methods.trim.options import TrimOptions
from polydistill.runs.tables import columns
from polydistill.wording import counted

EPILOG = """\b
Examples:
  polydistill trim --lang ro
  polydistill trim --lang en --lang sw --text en=en.txt --text sw=sw.txt -o e5-en-sw
  polydistill trim --model google/gemma-3-270m --lang ro --vocab-size 32000 --dtype bfloat16
  polydistill trim --model facebook/nllb-200-distilled-600M --lang en --lang ro --drop-added 'lang:*'
  polydistill trim --lang ro --dry-run --json
"""
EXCLUSIVE = (("coverage", "vocab_size", "min_count", "min_share"), ("text", "counts"))


@click.command("trim", cls=SectionedCommand, epilog=EPILOG)
@config_options(TrimOptions)
@config_file_option
@common_options
@click.pass_context
def command(
    ctx: click.Context, config_file: Path | None, as_json: bool, quiet: bool, verbose: bool, **values: Any
) -> None:
    """Cut a model's vocabulary down to some languages, verified against the original.

    The rows that stay are the original's, bit for bit, and text whose tokens all stay gives the same outputs.
    """
    console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
    result = trim(build_config(TrimOptions, ctx, values, config_file, EXCLUSIVE), console)
    for note in result.notes:
        console.note(note)
    console.result(result.to_json(), lambda: table(result))


def table(result: TrimResult) -> str:
    """The readable form of the result."""
    rows = [[result.model, "before", "after", ""]]
    labels = {"vocabulary": "tokens", "rows": "embedding rows", "parameters": "parameters", "bytes": "size on disk"}
    for key, label in labels.items():
        before, after = getattr(result, key)["before"], getattr(result, key)["after"]
        shown = [human_bytes(n) if key == "bytes" else f"{n:,}" for n in (before, after)]
        rows.append([label, *shown, f"{100 * after / before:.1f} %"])
    check = result.verification
    if check:
        measured = check.get("new_text") or check
        for key, label, scale in (("fertility", "tokens per word", 1), ("unknown_rate", "unknown, %", 100)):
            rows.append([label, *(f"{scale * measured[key][when]:.3f}" for when in ("before", "after")), ""])
    lines = [columns(rows, right=(1, 2, 3)), ""]
    kept = ", ".join(f"{share:.4%} of {code}" for code, share in result.coverage.items())
    new = ", ".join(f"{share:.2%} of {code}" for code, share in result.expected_coverage.items() if share is not None)
    lines.append(
        f"Kept {kept} (share of the counted token occurrences)" + (f"; of new text about {new}." if new else ".")
    )
    lines.append("Tokens kept as " + ", ".join(f"{reason} {n:,}" for reason, n in result.kept.items()) + ".")
    if check:
        new_text = check.get("new_text")
        text = "lines of other text" if check["held_out"] else "lines" if new_text else "lines of counted words"
        lines.append(
            f"Verified: {check['identical']} of {check['sentences']} {text} tokenize identically"
            + _difference(check["max_abs_difference"])
            + _vectors(check["vectors"])
        )
        if new_text:
            lines.append(
                f"Chosen without those lines, the vocabulary would be right for {new_text['identical']} of "
                f"{new_text['sentences']}: an estimate for new text, as are tokens per word and unknown above."
            )
    place = f"Written to {result.output}" if result.output else "Nothing was written (--dry-run)"
    lines.append(f"{place} in {result.seconds:.1f} s, peak memory {human_bytes(result.peak_memory_bytes)}.")
    return "\n".join(lines)


def _vectors(check: dict[str, Any] | None) -> str:
    """What was compared of sentence-transformers' whole model, where there is one."""
    if check is None or check["max_abs_difference"] is None:
        return ""
    with_prompts = f", {counted(len(check['prompts']), 'prompt')}" if check["prompts"] else ""
    largest = check["max_abs_difference"]
    said = f"differ by at most {largest:.1e}" if largest else "are equal, bit for bit"
    return f" Vectors of sentence-transformers ({counted(check['vectors'], 'text')}{with_prompts}) {said}."


def _difference(largest: float | None) -> str:
    if largest is None:
        return "; outputs were not compared, for want of such lines."
    return f"; their outputs differ by at most {largest:.1e}." if largest else "; their outputs are equal, bit for bit."
