"""The snippet of a card, run as it is printed."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path


def run_snippet(folder: Path) -> str:
    """What the snippet in a folder's card prints, with the folder in the place of the name."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    code = re.search(r"## Use\n\n```python\n(.*?)\n```", card, re.DOTALL)
    assert code is not None and f'"{folder.name}"' in code[1]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code[1].replace(f'"{folder.name}"', repr(str(folder))), {})
    return out.getvalue()
