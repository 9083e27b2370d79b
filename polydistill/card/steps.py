"""How a model was made: every step of its lineage, with the command as it can be typed again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from polydistill.card.facts import Facts, Step, dataset, known_task
from polydistill.card.text import code, first, human_bytes, items, number, plain, printable, shared

WIDTH = 100
MOST_VALUES = 20  # of one option; the record has them all
# What a run is not made of: how it went on, and what it may replace.
_NOT_SHOWN = {"output", "overwrite", "resume", "dry_run"}
# Options that are on unless they are switched off.
_SWITCHED_OFF = {"verify": "no-verify", "rectify": "no-rectify", "squared_temperature": "plain-temperature"}
_ARGUMENTS = {
    "bistil": ("source", "target"),
    "prokd": ("source", "target"),
    "stack": ("encoder", "llm"),
    "export": ("model",),
    "sparse apply": ("model", "differences"),
    "sparse remove": ("model", "difference"),
}


def command_line(step: Step, outputs: Mapping[str, str] | None = None) -> list[str]:
    """A command and its arguments: every value of its configuration that is not empty, also those that are defaults.

    Args:
        step: The run.
        outputs: Name of a folder -> what an earlier step called it, so that steps fit each other.
    """
    words, arguments = ["polydistill", *step.command.split()], _ARGUMENTS.get(step.command, ())
    for name in arguments:
        words += _values(step.config.get(name), outputs or {})
    for name, value in step.config.items():
        if name in arguments or name in _NOT_SHOWN or not isinstance(name, str):
            continue
        words += _option(name, value, outputs or {})
    return [*words, *(["-o", step.output] if step.output else [])]


def _option(name: str, value: Any, outputs: Mapping[str, str]) -> Iterator[str]:
    flag = f"--{printable(name, 60).replace('_', '-')}"
    if isinstance(value, bool):
        off = _SWITCHED_OFF.get(name)
        yield from [flag] if value and not off else [f"--{off}"] if off and not value else []
        return
    for text in _values(value, outputs):
        yield from (flag, text)


def _values(value: Any, outputs: Mapping[str, str]) -> list[str]:
    """A value as words of a command line, at most so many."""
    given = items(value) if isinstance(value, (list, tuple)) else [value]
    known = [v for v in given if isinstance(v, (str, int, float)) and v != ""]
    words = []
    for v in known[:MOST_VALUES]:
        cleaned = printable(shared(v) if isinstance(v, str) else v)
        words.append(outputs.get(cleaned, cleaned) if cleaned != v else cleaned)
    return words + ["…"] * (len(known) > MOST_VALUES)


def shell(words: list[str]) -> str:
    """A command line for a POSIX shell; lines that go on end with a backslash, an option stays with its value."""
    lines, line = [], ""
    for i, word in enumerate(words):
        quoted = shlex.quote(word)
        room = len(line) + 1 + len(quoted) <= WIDTH
        value = word[:1] != "-" and i > 0 and words[i - 1][:1] == "-"
        if line and not room and not value:
            lines.append(line)
            line = f"    {quoted}"
        else:
            line = f"{line} {quoted}" if line else quoted
    return " \\\n".join([*lines, line])


def made(facts: Facts) -> str:
    """Every step, the oldest first: what it began with, its command, its data and its versions."""
    parts = _told(facts.lineage)
    for other in facts.others:
        role = "LLM" if other.role == "llm" else plain(other.role, 20).capitalize() or "Model"
        parts.append(f"**{role}**: {_source(other.source)}" + (" How it was made:" if other.lineage else ""))
        parts += _told(other.lineage)
    return "\n\n".join(parts)


def _told(lineage: Sequence[Step]) -> list[str]:
    """The steps that made a model."""
    parts: list[str] = []
    outputs: dict[str, str] = {}
    steps = list(reversed(lineage))
    for i, step in enumerate(steps):
        heading = f"{i + 1}. " if len(steps) > 1 else ""
        parts.append(f"**{heading}{plain(step.command).capitalize() or 'Unknown'}** of {_source(step)}")
        parts.append(f"```sh\n{shell(command_line(step, outputs))}\n```")
        if data := _data(step):
            parts.append(data)
        if step.versions:
            parts.append(f"Versions: {', '.join(f'{plain(k, 60)} {plain(v, 60)}' for k, v in step.versions.items())}.")
        if step.output:
            outputs[Path(step.output).name] = step.output
    return parts


def _source(step: Step) -> str:
    name = step.hub_name
    called = f"{code(name)}, here {code(step.came_from)}" if name and name != step.came_from else code(step.came_from)
    licence = step.source.get("licence")
    stated = f"licence {plain(licence, 60)} (as its source states it)" if licence else "licence not stated there"
    return f"{called}: weights sha256 {code(step.source.get('weights_hash'))}, {stated}."


def _data(step: Step) -> str:
    """The texts of a step with what was read of them, and the licence of a task's data from the Hub."""
    lines = []
    for text in step.texts:
        split = f" {code(text['split'])}" if text.get("split") else ""
        where = code(shared(str(text.get("where"))))
        lines.append(
            f"- {first(text.get('language'), 20)}{split}: {where}, {_amount(text)}, sha256 {code(text.get('sha256'))}"
        )
    if not lines:
        return ""
    task = known_task(plain(step.result.get("task")) if step.result.get("task") else None)
    licence = "Licences of the data are not in the record."
    if task and task.licence and any(map(_from_hub, step.texts)):
        licence = f"Licence of the labelled data: {plain(task.licence)}."
    return "\n".join(["Data:", "", *lines, "", licence])


def _amount(text: Mapping[str, Any]) -> str:
    examples, lines, size = (number(text.get(key)) for key in ("examples", "lines", "bytes"))
    if examples is not None:
        return f"{examples:,.0f} examples"
    counted = f"{lines:,.0f} lines" if lines is not None else "lines not counted"
    return counted + (f", {human_bytes(size)}" if size is not None else "")


def data_citations(facts: Facts) -> list[str]:
    """Papers of the tasks whose data came from the Hub; of other files nobody knows here whose they are."""
    named = [plain(step.result.get("task") or "") for step in facts.lineage if any(map(_from_hub, step.texts))]
    tasks = [task for name in dict.fromkeys(named) if (task := known_task(name))]
    return [f"- {plain(task.name)}: {plain(task.citation.strip())}" for task in tasks if task.citation]


def _from_hub(text: Mapping[str, Any]) -> bool:
    return "examples" in text and dataset(text) is not None
