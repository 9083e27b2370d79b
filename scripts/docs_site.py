"""What mkdocs does beside building docs/: benchmarks/ is part of the site, and nothing is loaded from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
SHORT = re.compile(r"<code>([^<\n]{1,30})</code>")
LOADED = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)")
IN_STYLES = re.compile(r"(?:url\(|@import )[\"']?((?:https?:)?//[^\"')]+)")


def on_files(files: Any, config: Any) -> Any:
    """Adds benchmarks/, its scripts and plots too."""
    for pattern in ("*.md", "*.py", "*.svg"):
        for path in sorted((ROOT / "benchmarks").glob(pattern)):
            files.append(File.generated(config, f"benchmarks/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links between docs/ and benchmarks/ as the site has them: there docs/ is the root."""
    inside = page.file.src_uri.startswith("benchmarks/")
    return markdown.replace("](../docs/", "](../") if inside else markdown.replace("](../benchmarks/", "](benchmarks/")


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Marks code that fits on a line of a phone."""
    return SHORT.sub(r'<code class="short">\1</code>', html)


def on_post_build(config: Any) -> None:
    """Looks for what a browser would fetch from another server.

    Raises:
        PluginError: There is some.
    """
    for pattern, wanted in (("*.html", LOADED), ("*.css", IN_STYLES)):
        for path in Path(config.site_dir).rglob(pattern):
            if found := wanted.search(path.read_text(encoding="utf-8")):
                raise PluginError(f"{path.relative_to(config.site_dir)} loads {found[1]}.")
