"""No message below the command line names a flag; it names the setting."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import polydistill

PACKAGE = Path(polydistill.__file__).parent
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
ALLOWED = {"models/offline/__init__.py": "pip's own options", "reports/figures.py": "variables of a style sheet"}


def test_no_text_outside_the_command_line_names_a_flag() -> None:
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        place = file.relative_to(PACKAGE).as_posix()
        if place.startswith(("cli/", "options/")) or place in ALLOWED:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and FLAG.search(node.value):
                found.append(f"{place}:{node.lineno} {FLAG.search(node.value)[0]}")
    assert found == []
