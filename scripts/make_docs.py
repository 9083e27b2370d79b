"""Writes docs/: a page for each command, from what `--help` says.

python scripts/make_docs.py
"""

from __future__ import annotations

from pathlib import Path

import click

from polydistill.cli import cli, commands

DOCS = Path(__file__).resolve().parents[1] / "docs"
WIDTH = 100
WRITTEN = {  # pages that are written by hand
    "architectures.md": "Every field of an architecture's file, and how another architecture is added.",
    "labelled-data.md": "Files of entities, parts of speech and pairs of texts.",
    "own-data.md": "Your own labels: which files are read, what is checked, and the commands.",
    "safety.md": "What is promised of files, and how it is tried.",
}
NOTE = "<!-- Written by scripts/make_docs.py. -->"


def pages() -> dict[str, str]:
    """File name -> content of every page."""
    found, rows = {}, []
    for name, summary in commands().items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        found[f"{name}.md"] = page(f"polydistill {name}", command, summary)
        rows.append(f"| [`{name}`]({name}.md) | {summary} |")
    table = "\n".join(["| command | |", "| --- | --- |", *rows])
    others = "\n".join(f"- [{name}]({name}): {summary}" for name, summary in WRITTEN.items())
    found["README.md"] = f"{NOTE}\n\n# Commands\n\n{table}\n\n# Other pages\n\n{others}\n"
    return found


def page(path: str, command: click.Command, summary: str) -> str:
    """A command's page; the commands of a group stand below it."""
    parts = [NOTE, f"# {path}", summary, f"```\n{helped(path, command)}\n```"]
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            inner = command.get_command(click.Context(command), name)
            assert inner is not None
            parts += [f"## {path} {name}", f"```\n{helped(f'{path} {name}', inner)}\n```"]
    return "\n\n".join(parts) + "\n"


def helped(path: str, command: click.Command) -> str:
    """What `--help` prints."""
    with click.Context(command, info_name=path, terminal_width=WIDTH, max_content_width=WIDTH) as context:
        return "\n".join(line.rstrip() for line in command.get_help(context).splitlines()).strip()


def main() -> None:
    """Writes the pages, and takes away those of commands that are gone."""
    DOCS.mkdir(exist_ok=True)
    made = pages()
    for old in DOCS.glob("*.md"):
        if old.name not in {*made, *WRITTEN}:
            old.unlink()
    for name, content in made.items():
        (DOCS / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
