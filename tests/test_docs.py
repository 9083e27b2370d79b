"""docs/ says what --help says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts/make_docs.py")
assert SPEC is not None and SPEC.loader is not None
make_docs = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make_docs)
PAGES = make_docs.pages()


@pytest.mark.parametrize("name", list(PAGES))
def test_a_page_is_what_the_command_says(name: str) -> None:
    path = ROOT / "docs" / name
    assert path.is_file() and path.read_text(encoding="utf-8") == PAGES[name], "Run: python scripts/make_docs.py"


def test_there_are_no_pages_of_commands_that_are_gone() -> None:
    assert {path.name for path in (ROOT / "docs").glob("*.md")} == {*PAGES, *make_docs.WRITTEN}
