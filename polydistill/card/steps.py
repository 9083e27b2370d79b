"""How a model was made: every step of its lineage, with the command as it can be typed again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polydistill import registry
from polydistill.card.facts import Facts, dataset, known_task
from polydistill.card.step import Step
from polydistill.card.text import code, first, human_bytes, number, plain, printable, shared
from polydistill.options import commandline
from polydistill.wording import counted

WIDTH = 100
MOST_VALUES = 20  # of one option; the record has them all


def command_line(step: Step, outputs: Mapping[str, str] | None = None) -> list[str]:
    """A step's command and its arguments, without the folders of the machine on which it ran.

    Args:
        step: The run.
        outputs: Name of a folder -> what an earlier step called it, so that steps fit each other.
    """
    return commandline.command_line(
        step.command,
        step.config,
        registry.options(step.command),
        output=step.output,
        words=lambda value: _words(value, outputs or {}),
    )


def _words(value: Any, outputs: Mapping[str, str]) -> list[str]:
    """A value as words of a command line, at most so many."""
    given, shown = commandline.words(shared(value)), []
    for word, before in zip(given[:MOST_VALUES], commandline.words(value), strict=False):
        cleaned = printable(word)
        shown.append(outputs.get(cleaned, cleaned) if cleaned != before else cleaned)
    return shown + ["…"] * (len(given) > MOST_VALUES)


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
    licence = "The record does not state the licences of the data."
    if task and task.licence and any(map(_from_hub, step.texts)):
        licence = f"Licence of the labelled data: {plain(task.licence)}."
    return "\n".join(["Data:", "", *lines, "", licence])


def _amount(text: Mapping[str, Any]) -> str:
    examples, lines, size = (number(text.get(key)) for key in ("examples", "lines", "bytes"))
    if examples is not None:
        return counted(examples, "example")
    amount = counted(lines, "line") if lines is not None else "lines not counted"
    return amount + (f", {human_bytes(size)}" if size is not None else "")


def data_citations(facts: Facts) -> list[str]:
    """Papers of the tasks whose data came from the Hub; of other files nobody knows here whose they are."""
    named = [plain(step.result.get("task") or "") for step in facts.lineage if any(map(_from_hub, step.texts))]
    tasks = [task for name in dict.fromkeys(named) if (task := known_task(name))]
    return [f"- {plain(task.name)}: {plain(task.citation.strip())}" for task in tasks if task.citation]


def _from_hub(text: Mapping[str, Any]) -> bool:
    return "examples" in text and dataset(text) is not None
