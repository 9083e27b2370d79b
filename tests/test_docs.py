"""docs/ says what the program says, every page is on the site, and every link leads somewhere."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from snippets import blocks

from polydistill import catalog, registry

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts/make_docs.py")
assert SPEC is not None and SPEC.loader is not None
make_docs = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make_docs)
PAGES = make_docs.pages()
ON_SITE = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
LINKING = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ON_SITE]
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


# ---- what the program writes


@pytest.mark.parametrize("name", list(PAGES))
def test_a_page_says_what_the_program_says(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == PAGES[name], "Run: python scripts/make_docs.py"


def test_a_command_without_a_page_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._KNOWN, "shrink", registry.Entry("shrinking", "Make it small."))
    with pytest.raises(ValueError, match="No page has the options of shrink"):
        make_docs.pages()


def test_help_becomes_markdown() -> None:
    @click.command(epilog="\b\nExamples:\n  shrink a --by 2\n  shrink b")
    @click.argument("what")
    @click.option("--by", metavar="N", default=3, show_default=True, help="How much, e.g. 'x*' or <y>.")
    def shrink(what: str, by: int) -> None:
        """Make `it` small, [or] not."""

    page = make_docs.Page()
    with click.Context(shrink, info_name="shrink") as context:
        shrink.format_help(context, page)
    assert str(page) == (
        "`shrink [OPTIONS] WHAT`\n\nMake `it` small, \\[or\\] not.\n\n**Options**\n\n"
        "- `--by N`: How much, e.g. 'x\\*' or &lt;y>. (default: 3)\n- `--help`: Show this message and exit.\n\n"
        "**Examples**\n\n```\nshrink a --by 2\nshrink b\n```"
    )


def test_docstrings_become_markdown() -> None:
    def area(width: float, *, height: float = 1.0) -> float:
        """The area of a box.

        In the unit
        of its sides.

        Args:
            width: In metres,
                not in feet.
            height: Likewise.

        Returns:
            Their product: a number.

        Raises:
            ValueError: One is negative.
        """
        return width * height

    assert make_docs._described("area", area) == [
        "```py\narea(width: float, *, height: float = 1.0) -> float\n```",
        "The area of a box.",
        "In the unit of its sides.",
        "**Args**",
        "- `width`: In metres, not in feet.\n- `height`: Likewise.",
        "**Returns**",
        "Their product: a number.",
        "**Raises**",
        "- `ValueError`: One is negative.",
    ]


@pytest.mark.parametrize(("value", "shown"), [(True, "yes"), (None, "–"), (["a", "b"], "a, b"), (["a"] * 13, "13")])
def test_cells_of_a_list(value: Any, shown: str) -> None:
    assert make_docs._cell(value) == shown


# ---- the site


def entries(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    values = nav.values() if isinstance(nav, dict) else nav
    return [entry for value in values for entry in entries(value)]


def test_every_page_is_in_the_menu_once() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = [str(path.relative_to(ROOT)).removeprefix("docs/") for path in ON_SITE]
    assert sorted(entries(config["nav"])) == sorted(pages)


def anchors(page: Path) -> set[str]:
    """What a link can point to on a page, as GitHub and mkdocs name headings."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.is_file(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_the_readme_is_short_and_names_the_two_commands_of_a_checkout() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "`make demo`" in text and "`make test`" in text
    assert len(text.split()) < 1400


def test_the_files_on_the_page_about_extensions_are_read(tmp_path: Path) -> None:
    page = blocks(ROOT / "docs/add-your-own.md")
    language, task, *_ = (block.text for block in page if block.kind == "toml")
    for folder, content in (("languages", language), ("tasks", task)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{tomllib.loads(content)['name'].lower()}.toml").write_text(content, encoding="utf-8")
    found = catalog.language("samogitian", (tmp_path,))
    assert found.code == "sgs" and "ž" in found.letters and found.corpora[0].column == "text"
    intents = catalog.task("intents", (tmp_path,))
    assert intents.fields == ("text", "label") and intents.any_language and len(intents.labels) == 5
