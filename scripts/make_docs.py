"""Fills in what docs/ takes from the program: options of commands, lists of `ls`, the functions of the API.

python scripts/make_docs.py

Pages are written by hand. What stands between a marker such as `<!-- options: trim -->` and the `<!-- end -->` that
follows is written here:

- `<!-- commands -->`: the table of all commands
- `<!-- options: COMMAND -->`: what `polydistill COMMAND --help` says
- `<!-- list: NAME -->`: what `polydistill ls NAME` prints
- `<!-- api -->`: every name in `polydistill.__all__`, with its signature and docstring
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

import polydistill
from polydistill.cli import cli
from polydistill.cli import commands as every_command
from polydistill.options.specs import written

DOCS = Path(__file__).resolve().parents[1] / "docs"
PART = re.compile(r"<!-- (commands|options|list|api)(?:: (\S+))? -->\n(?:.*?\n)??<!-- end -->", re.DOTALL)
MANY = 12  # of a list with more items only their number is shown
SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises):$")


def pages() -> dict[str, str]:
    """File name -> what each page with a part should hold.

    Raises:
        ValueError: A command has no page.
    """
    written = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
    places = {
        name: page if page == f"{name}.md" else f"{page}#options-of-{name}"
        for page, text in written.items()
        for kind, name in PART.findall(text)
        if kind == "options"
    }
    if missing := [name for name in every_command() if name not in places]:
        raise ValueError(f"No page has the options of {missing[0]}: write <!-- options: {missing[0]} --> on one.")
    return {page: filled(text, places) for page, text in written.items() if PART.search(text)}


def filled(text: str, places: dict[str, str]) -> str:
    """A page with its parts.

    Args:
        text: The page.
        places: Command -> the page with its options, as a link.
    """

    def part(match: re.Match[str]) -> str:
        kind, name = match.groups()
        makers = {"commands": lambda: commands(places), "options": lambda: options(name), "api": api}
        content = makers.get(kind, lambda: listed(name))()
        return f"{match[0].splitlines()[0]}\n\n{content.strip()}\n\n<!-- end -->"

    return PART.sub(part, text)


def escaped(text: str) -> str:
    """Text as Markdown that shows it as it is, but for code in backticks."""
    parts = " ".join(text.split()).split("`")
    parts[::2] = [re.sub(r"([*\[\]|])", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    lines = [list(header), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# ---- commands


class Page(click.HelpFormatter):
    """Collects what `--help` says as Markdown.

    Attributes:
        intro: Usage and description.
        sections: (heading, items) of the options.
        examples: The epilog.
    """

    def __init__(self) -> None:
        super().__init__()
        self.intro: list[str] = []
        self.sections: list[tuple[str, list[str]]] = []
        self.examples: list[str] = []

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        self.intro.append(f"`{prog} {args}`")

    def write_heading(self, heading: str) -> None:
        self.sections.append((heading, []))

    def write_dl(self, rows: Any, *args: Any, **kwargs: Any) -> None:
        self.sections[-1][1].extend(f"- `{name}`: {_option(text)}" for name, text in rows if text)

    def write_text(self, text: str) -> None:
        for paragraph in re.split(r"\n\s*\n", text):
            if not paragraph.startswith("\b"):
                self.intro.append(escaped(paragraph))
            else:
                title, _, lines = paragraph.strip("\b\n").partition("\n")
                self.examples += [f"**{title.rstrip(':')}**", f"```\n{textwrap.dedent(lines)}\n```"]

    def __str__(self) -> str:
        last = sorted(self.sections, key=lambda section: section[0] == "General")
        parts = [part for heading, items in last if items for part in (f"**{heading}**", "\n".join(items))]
        return "\n\n".join([*self.intro, *parts, *self.examples])


def _option(text: str) -> str:
    """An option's help, its default in round brackets."""
    text, _, default = text.partition("[default: ")
    text = re.sub(r"\[(required)\]$", r"(\1)", text.strip())
    return escaped(f"{text} (default: {default[:-1]})" if default else text)


def options(name: str) -> str:
    """A command's options; the commands of a group stand below it."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    parts = [_page(f"polydistill {name}", command)]
    if isinstance(command, click.Group):
        for inner in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), inner)
            assert found is not None
            parts += [f"### {name} {inner}", _page(f"polydistill {name} {inner}", found)]
    return "\n\n".join(parts)


def _page(path: str, command: click.Command) -> str:
    page = Page()
    with click.Context(command, info_name=path) as context:
        command.format_help(context, page)
    return str(page)


def commands(places: dict[str, str]) -> str:
    """The table of all commands."""
    rows = ([f"[`{name}`]({places[name]})", escaped(summary)] for name, summary in every_command().items())
    return table(("command", "what it does"), rows)


def listed(name: str) -> str:
    """What `polydistill ls` lists, as a table; below it the options of each entry that has some."""
    rows = json.loads(CliRunner().invoke(cli, ["ls", name, "--json"], catch_exceptions=False).stdout)[name]
    options = {row["name"]: row.pop("options", {}) for row in rows}
    cells = ([_cell(value) for value in row.values()] for row in rows)
    parts = [table((key.replace("_", " ") for key in rows[0]), cells)]
    for entry, known in options.items():
        if known:
            parts += [f"### Options of {entry}", "\n".join(_own_option(*item) for item in known.items())]
    return "\n\n".join(parts)


def _own_option(name: str, about: dict[str, Any]) -> str:
    """An option of an objective, a sampler or a teacher."""
    default = "" if about["default"] in (None, []) else f" (default: {written(about['default'])})"
    return f"- `{name}`: {escaped(about['help'])}{default}"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "–"
    if isinstance(value, list):
        return ", ".join(map(_cell, value)) if len(value) <= MANY else str(len(value))
    return "–" if value is None else escaped(str(value))


# ---- the Python API


def api() -> str:
    """Every public name, functions before errors."""
    found = {name: getattr(polydistill, name) for name in sorted(polydistill.__all__, key=str.casefold)}
    ordered = sorted(found.items(), key=lambda item: inspect.isclass(item[1]))
    return "\n\n".join(part for name, thing in ordered for part in (f"## {name}", *_described(name, thing)))


def _described(name: str, thing: Any) -> list[str]:
    parts = [f"```py\n{_signature(name, thing)}\n```", *_docstring(thing)]
    result = None if inspect.isclass(thing) else _result(thing)
    if result is not None and "Attributes:" in (result.__doc__ or ""):
        parts += [f"### {result.__name__}", *_docstring(result)]
    return parts


def _result(function: Any) -> type | None:
    """The class of polydistill that a function returns."""
    try:
        found = typing.get_type_hints(function).get("return")
    except NameError:  # imported for type checkers alone
        return None
    return found if inspect.isclass(found) and found.__module__.startswith("polydistill.") else None


def _signature(name: str, thing: Any) -> str:
    """As it is called, a parameter a line where they are many."""
    found = inspect.signature(thing)
    shown = [_parameter(parameter) for parameter in found.parameters.values()]
    kinds = [parameter.kind for parameter in found.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        shown.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    result = found.return_annotation
    after = "" if result is inspect.Signature.empty else f" -> {_annotation(result)}"
    line = f"{name}({', '.join(shown)}){after}"
    return line if len(line) <= 60 else "\n".join([f"{name}(", *(f"    {part}," for part in shown), f"){after}"])


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = stars + parameter.name
    if parameter.annotation is not inspect.Parameter.empty:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is not inspect.Parameter.empty:
        default = repr(parameter.default)
        text += f" = {'...' if default.startswith('<') or '(' in default[1:] else default}"
    return text


def _annotation(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text) if "polydistill." in text else text


def _docstring(thing: Any) -> list[str]:
    """A Google-style docstring as Markdown."""
    parts: list[str] = []
    paragraph: list[str] = []
    lines = iter([*(inspect.getdoc(thing) or "").splitlines(), ""])
    for line in lines:
        if heading := SECTION.match(line):
            block = []
            for inner in lines:
                if not inner.strip():
                    break
                block.append(inner)
            text = textwrap.dedent("\n".join(block))
            parts += [f"**{heading[1]}**", escaped(text) if heading[1] in ("Returns", "Yields") else _items(text)]
        elif line.strip():
            paragraph.append(line)
        elif paragraph:
            parts.append(escaped(" ".join(paragraph)))
            paragraph = []
    return parts


def _items(text: str) -> str:
    """The entries of a section as a list."""
    entries = (entry.partition(": ") for entry in re.split(r"\n(?=\S)", text))
    return "\n".join(f"- `{name.strip('`')}`: {escaped(rest)}" for name, _, rest in entries)


def main() -> None:
    """Writes the parts of all pages."""
    for name, content in pages().items():
        (DOCS / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
