"""Commands of polydistill that benchmarks run: once, shown without the places of this machine."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any


def shown(args: argparse.Namespace, command: list[str]) -> str:
    """A command line without the places of this machine."""
    names = {str(args.data): "DATA", str(args.models): "MODELS"}
    parts = []
    for part in command:
        head, equals, path = part.rpartition("=")
        place = next((p for p in names if path == p or path.startswith(f"{p}/")), None)
        parts.append(f"{head}{equals}{names[place]}{path.removeprefix(place)}" if place else part)
    return shlex.join(["polydistill", *parts])


def polydistill(args: argparse.Namespace, *given: object) -> dict[str, Any]:
    """What a command prints with --json; it stops the benchmark where it fails."""
    command = [str(part) for part in given]
    print("$", shown(args, command), file=sys.stderr)
    ended = subprocess.run([sys.executable, "-m", "polydistill", *command, "--json"], stdout=subprocess.PIPE)
    if ended.returncode:
        sys.exit(f"The command above ended with {ended.returncode}; what was done stays, see --only.")
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def made(args: argparse.Namespace, command: list[str]) -> tuple[Path, dict[str, Any]]:
    """(the folder that a command writes, its record); the command runs, or goes on, unless the folder is there."""
    output = Path(command[command.index("-o") + 1])
    if not (output / "polydistill.json").is_file():
        resume = ["--resume"] if output.with_name(f".{output.name}.training").is_dir() else []
        polydistill(args, *command, *resume)
        command_file(output).write_text(shown(args, command) + "\n", encoding="utf-8")
    return output, json.loads((output / "polydistill.json").read_text(encoding="utf-8"))


def command_file(output: Path) -> Path:
    """Where the command that made a folder is kept: this script's settings may be others by the time of a table."""
    return output.with_name(f"{output.name}.command")


def command_was(output: Path) -> str:
    file = command_file(output)
    return f"`{file.read_text(encoding='utf-8').strip()}`" if file.is_file() else "(not made by this script)"
